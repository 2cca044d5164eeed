"""A Site's link and windows as people write them: what is wrong is said with its place and what to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.quantities import RATE_PATTERN, parse_rate
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected
from skerry.spec.site import LinkWindow, Site, SiteSpec

pytestmark = pytest.mark.delivery


def site(spec: str) -> SiteSpec:
    text = f"apiVersion: skerry/v1\nkind: Site\nmetadata: {{name: harbour}}\nspec: {spec}"
    (parsed,) = parse_documents(text)
    assert isinstance(parsed.document, Site)
    return parsed.document.spec


def problems(spec: str) -> list[str]:
    with pytest.raises(DocumentRejected) as caught:
        site(spec)
    return [f"{problem.path}: {problem.message} ({problem.hint})" for problem in caught.value.problems]


def test_a_whole_link_is_read() -> None:
    link = site(
        "{link: {rate: 64KiB/s, windows: [{cron: 0 22 * * *, duration: 8h, rate: 0}, {cron: 0 1 * * *, duration: 1h}],"
        " per_day: 50MiB, per_month: 1GiB, carry_over: 50%, metered: true, metered_rate: 512kbit/s,"
        " metered_per_day: 5MiB}}"
    ).link
    assert link.windows == (
        LinkWindow(cron="0 22 * * *", duration="8h", rate=0),
        LinkWindow(cron="0 1 * * *", duration="1h", rate="unlimited"),
    )
    assert parse_rate(str(link.windows[0].rate)) == 0
    assert parse_rate(str(link.metered_rate)) == 64_000


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    (
        ("unlimited", None),
        ("0", 0),
        ("64KiB/s", 65536),
        ("1.5MB/s", 1_500_000),
        ("128kbit/s", 16_000),
        ("2Mbit/s", 250_000),
        ("700B/s", 700),
    ),
)
def test_rates_are_bytes_or_bits_per_second(text: str, bytes_per_s: int | None) -> None:
    assert parse_rate(text) == bytes_per_s


@given(st.from_regex(RATE_PATTERN, fullmatch=True).filter(lambda text: len(text) < 32))
def test_every_rate_that_may_be_written_can_be_read(text: str) -> None:
    rate = parse_rate(text)
    assert rate is None or rate >= 0


@pytest.mark.parametrize(
    ("link", "expected"),
    (
        ("{rate: 64KiB}", "spec.link.rate: expected a rate such as 64KiB/s"),
        ("{rate: 7}", "spec.link.rate: expected 0, got the number 7"),
        ("{rate: 1B/s}", "spec.link.rate: expected 128 B/s to"),
        ("{per_day: 1KiB}", "spec.link.per_day: expected 1.0 MiB to"),
        ("{carry_over: 50%}", "spec.link.carry_over: means nothing without a budget"),
        ("{carry_over: half, per_day: 1MiB}", "spec.link.carry_over: expected a share of the budget"),
        ("{metered_rate: 0}", "spec.link.metered_rate: means nothing without metered: true"),
        (
            "{windows: [{cron: 0 22 * *, duration: 8h}]}",
            "spec.link.windows[0].cron: expected five fields, got 4",
        ),
        (
            "{windows: [{cron: 0 25 * * *, duration: 8h}]}",
            "spec.link.windows[0].cron: not a time of cron: Bad hour",
        ),
        ("{windows: [{cron: 0 0 30 2 *, duration: 8h}]}", "spec.link.windows[0].cron: not a time of cron"),
        ("{windows: [{cron: 0 22 * * *, duration: 8s}]}", "spec.link.windows[0].duration: expected 1m to 7d"),
        (
            "{windows: [{cron: 0 22 * * *, duration: 8h, rate: fast}]}",
            "spec.link.windows[0].rate: expected a rate",
        ),
        ("{window: []}", "spec.link.window: unknown field window (did you mean windows?)"),
    ),
)
def test_what_cannot_hold_is_refused_with_its_place(link: str, expected: str) -> None:
    (found,) = problems(f"{{link: {link}}}")
    assert found.startswith(expected)


def test_windows_of_switches_are_checked_alike() -> None:
    (found,) = problems("{switch_windows: [{cron: never, duration: 1h}]}")
    assert found.startswith("spec.switch_windows[0].cron: expected five fields, got 1")
