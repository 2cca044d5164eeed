"""Variables, sizes and durations of Compose files mean what they mean to Compose."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.client.compose.measures import convert_size, format_span, parse_span
from skerry.client.compose.variables import parse_env_file
from skerry.kit.quantities import parse_duration, parse_size
from tests.unit.compose_files import one, problems


@pytest.mark.parametrize(
    ("text", "filled"),
    (
        ("$A-${A}", "1-1"),
        ("${E:-d}${E-d}${U-d}${U:-d}", "ddd"),
        ("${A:+y}${E:+y}${E+y}${U+y}", "yy"),
        ("${U:-${V:-${A}}}", "1"),
        ("$$A", "$A"),
        ("${A:?x}", "1"),
        ("${U:-a}b}", "ab}"),
    ),
)
def test_variables_are_filled_as_compose_does(text: str, filled: str) -> None:
    made = one(f"user: {json.dumps('u' + text)}", variables={"A": "1", "E": ""})
    assert made["container"]["user"] == "u" + filled


def test_an_environment_file_is_read_with_quotes_comments_and_variables() -> None:
    text = "# c\nexport A=1 # one\nB='$A'\nC=\"a\\n$A \\$A\"\nD=${A}x\n\nE=\nF\nG: 7\n"
    assert parse_env_file(text) == {"A": "1", "B": "$A", "C": "a\n1 $A", "D": "1x", "E": "", "G": "7"}
    with pytest.raises(ValueError, match="line 2") as caught:
        parse_env_file("A=1\nhunter2 is no variable")
    assert "hunter2" not in str(caught.value)


def test_variables_cannot_grow_without_end() -> None:
    lines = ["A0=0123456789"] + [f"A{n}=" + f"$A{n - 1}" * 10 for n in range(1, 12)]
    with pytest.raises(ValueError, match="characters"):
        parse_env_file("\n".join(lines))
    body = "environment:\n" + "".join(f"  V{n}: $BIG\n" for n in range(80))
    assert "too much text" in problems(body, variables={"BIG": "x" * 60_000})[0]


@pytest.mark.parametrize(
    ("text", "size"),
    (
        ("512m", "512MiB"),
        ("1gb", "1GiB"),
        ("1.5GB", "1536MiB"),
        ("100", "100B"),
        ("2048k", "2MiB"),
        ("64MiB", "64MiB"),
    ),
)
def test_sizes_are_powers_of_1024(text: str, size: str) -> None:
    assert convert_size(text) == size


@given(st.floats(min_value=0.001, max_value=1e7))
def test_durations_survive_to_the_millisecond(seconds: float) -> None:
    assert parse_duration(format_span(seconds)) == pytest.approx(seconds, abs=0.00051)
    assert parse_span("1h2m3s") == 3723


@given(st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,3})? ?[kmgtKMGT]?[iI]?[bB]?", fullmatch=True))
def test_every_size_that_is_read_is_one_of_ours(text: str) -> None:
    try:
        size = convert_size(text)
    except ValueError:
        assert float(re.sub("[^0-9.]", "", text)) < 1
    else:
        assert parse_size(size) > 0
