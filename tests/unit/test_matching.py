"""Selectors and variant choice."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.errors import Rejected
from skerry.matching.selector import parse_selector
from skerry.matching.variants import Choice, NoMatch, match_variant
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.hardware import Requirements
from skerry.spec.model import FileSpec, ModelSpec, Variant

LABELS = {"region": "north", "tier": "prod"}


@pytest.mark.parametrize(
    ("text", "selected"),
    (
        ("*", True),
        ("region=north", True),
        ("region==north", True),
        ("region = north , tier=prod", True),
        ("region=south", False),
        ("region!=south", True),
        ("line!=a", True),
        ("region in (north, south)", True),
        ("region notin (north,south)", False),
        ("line notin (a)", True),
        ("tier", True),
        ("!tier", False),
        ("!line", True),
        ("name=harbour", True),
        ("name in (harbour,airport),tier=prod", True),
        ("name!=harbour", False),
    ),
)
def test_selectors(text: str, *, selected: bool) -> None:
    assert parse_selector(text).matches("harbour", LABELS) is selected


@pytest.mark.parametrize(
    "text", ("", " ", ",", "a=b,", "=x", "a=b=c", "a in b", "a in (b", "a b", "(a)", "a=b;c=d")
)
def test_what_is_no_selector_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_selector(text)
    assert "region=north" in caught.value.hint


@given(st.text(max_size=80))
def test_any_text_is_a_selector_or_rejected(text: str) -> None:
    with contextlib.suppress(Rejected):
        assert parse_selector(text).matches("harbour", LABELS) in (True, False)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz")),
    st.sampled_from("abcd"),
    st.sampled_from("xyz"),
)
def test_a_term_and_its_negation_never_agree(labels: dict[str, str], key: str, value: str) -> None:
    pairs = [
        (f"{key}={value}", f"{key}!={value}"),
        (f"{key} in ({value})", f"{key} notin ({value})"),
        (key, f"!{key}"),
    ]
    for term, negation in pairs:
        assert parse_selector(term).matches("n", labels) is not parse_selector(negation).matches("n", labels)


def facts(**values: str | int | tuple[str, ...]) -> HostFacts:
    return {name: Fact(value=value, source="test") for name, value in values.items()}


def variant(name: str, **requires: Any) -> Variant:
    return Variant(
        name=name,
        format="onnx",
        requires=Requirements(**requires),
        files=(FileSpec(path="m.onnx", source="m"),),
    )


MODEL = ModelSpec(
    version="1",
    variants=(
        variant("big", arch=("x86_64",), cpu_flags=("avx2", "avx512f"), memory="8GiB"),
        variant("mid", arch=("x86_64", "aarch64"), memory="1GiB"),
        variant("small"),
    ),
)


def test_the_first_variant_that_fits_is_chosen_and_every_one_is_explained() -> None:
    choice = match_variant(MODEL, facts(arch="x86_64", cpu_flags=("avx2",), memory_bytes=16 << 30))
    assert isinstance(choice, Choice)
    assert choice.variant.name == "mid"
    assert choice.why == (
        "big: needs CPU flags avx512f, which this CPU does not have",
        "mid: fits (arch x86_64, memory 16 GiB >= 1 GiB)",
        "small: less preferred, it comes later in its author's order",
    )


def test_a_host_that_nothing_fits_gets_a_reason_for_each_variant() -> None:
    model = ModelSpec(version="1", variants=MODEL.variants[:2])
    match = match_variant(model, facts(arch="riscv64", memory_bytes=512 << 20))
    assert isinstance(match, NoMatch)
    assert match.reasons[1] == "mid: needs arch x86_64 or aarch64, has riscv64; memory >= 1 GiB, has 512 MiB"
    assert len(match.reasons) == 2


def test_an_unknown_fact_meets_no_requirement() -> None:
    match = match_variant(ModelSpec(version="1", variants=MODEL.variants[:2]), {})
    assert isinstance(match, NoMatch)
    assert "unknown" in match.reasons[0]


@given(
    memory=st.integers(0, 1 << 36),
    arch=st.sampled_from(["x86_64", "aarch64", "riscv64"]),
    flags=st.lists(st.sampled_from(["avx2", "avx512f", "sse2"])),
)
def test_the_choice_never_breaks_a_requirement_and_is_always_the_same(
    memory: int, arch: str, flags: list[str]
) -> None:
    host = facts(arch=arch, cpu_flags=tuple(flags), memory_bytes=memory)
    choice = match_variant(MODEL, host)
    assert isinstance(choice, Choice)
    assert choice == match_variant(MODEL, host)
    assert len(choice.why) == len(MODEL.variants)
    if choice.variant.name == "big":
        assert arch == "x86_64"
        assert {"avx2", "avx512f"} <= set(flags)
        assert memory >= 8 << 30
    if choice.variant.name == "mid":
        assert arch != "riscv64"
        assert memory >= 1 << 30
