"""Questions about what hosts measured, and answers that say what share of the fleet is in them and how old they are.

A question is a name, perhaps with what is asked of it (`latency_p95`, `requests_rate`), and matchers of labels:
`latency_p95{app="label-reader"}`. Rules: percentiles come from merged sketches, means from sums and counts, never from
other percentiles or means. No figure is without the number of sites in it and the instant up to which they told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from skerry.kit.errors import Rejected
from skerry.spec.series import SeriesSelector, parse_series
from skerry.telemetry.sketch import mean, quantile
from skerry.telemetry.windows import (
    Counter,
    Distribution,
    Gauge,
    Kind,
    SeriesKey,
    WindowValue,
    merge_all,
)

MAX_QUERY = 512
STALE_AFTER_S = 3600

_stat_re = re.compile(r"(.+)_(p[0-9]{1,3}|min|max|mean|last|count|rate|total)")
_STATS: Mapping[Kind, frozenset[str]] = {
    "gauge": frozenset({"min", "max", "mean", "last", "count"}),
    "counter": frozenset({"rate", "total", "count"}),
    "distribution": frozenset({"mean", "count"}),
}
_DEFAULTS: Mapping[Kind, str] = {"gauge": "mean", "counter": "rate", "distribution": "p50"}


class Question(msgspec.Struct, frozen=True):
    """The series that are asked for, and what of them; an empty `stat` is what suits their kind."""

    selector: SeriesSelector
    stat: str = ""

    def selects(self, key: SeriesKey, labels: Mapping[str, str]) -> bool:
        """Tell whether a series, with labels of where it comes from, is asked for."""
        return key.name == self.selector.name and self.selector.selects(labels)


class Piece(msgspec.Struct, frozen=True):
    """What was measured of a series in the time that is asked about.

    `covered_s` is how much of the time the windows cover; `end` is where the newest of them ends, and `last` that one.
    """

    site: str
    host: str
    key: SeriesKey
    value: WindowValue
    last: WindowValue
    covered_s: int
    end: int


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a group. `as_of` is up to when the newest of its sites told, `oldest` the oldest."""

    group: tuple[str, ...]
    value: float | None
    samples: int
    sites: int
    hosts: int
    as_of: int
    oldest: int


class Coverage(NamedTuple):
    """How many of the sites that could be in an answer are, and how many told nothing newer than an hour ago."""

    sites: int
    of: int
    stale: int


def parse_question(text: str, names: Iterable[str]) -> Question:
    """Return what a text asks, among series of these names.

    Raises:
        Rejected: it is not understood (`query.malformed`), or there is no such series (`query.unknown`).
    """
    if len(text) > MAX_QUERY:
        raise Rejected("query.malformed", f"a question has {MAX_QUERY} characters at most")
    try:
        selector = parse_series(text.strip())
    except ValueError as error:
        raise Rejected("query.malformed", str(error), hint="""such as latency_p95{app="reader"}""") from error
    known = set(names)
    if selector.name in known:
        return Question(selector)
    found = _stat_re.fullmatch(selector.name)
    if found is not None and found[1] in known:
        return Question(msgspec.structs.replace(selector, name=found[1]), found[2])
    raise Rejected(
        "query.unknown", f"no series is called {selector.name}", hint="skerry metrics list shows the names"
    )


def check_stat(question: Question, kind: Kind) -> str:
    """Return what is asked of series of a kind.

    Raises:
        Rejected: that cannot be told of them (`query.no_such_stat`).
    """
    stat = question.stat or _DEFAULTS[kind]
    if stat in _STATS[kind] or (kind == "distribution" and _share(stat) is not None):
        return stat
    known = sorted(_STATS[kind]) + (["p50", "p95", "p999"] if kind == "distribution" else [])
    raise Rejected(
        "query.no_such_stat",
        f"{question.selector.name} is a {kind}: it has no {stat}",
        hint=f"one of {', '.join(known)}",
    )


def answer_question(question: Question, grouped: Mapping[tuple[str, ...], Sequence[Piece]]) -> list[Figure]:
    """Return a figure for each group of pieces, by group.

    Raises:
        Rejected: what is asked cannot be told of these series (`query.no_such_stat`).
    """
    return [_figure(question, group, pieces) for group, pieces in sorted(grouped.items()) if pieces]


def cover(newest: Mapping[str, int], inside: Iterable[str], *, now: int) -> Coverage:
    """Return the coverage of an answer.

    `newest` says, for each site that could be in it, when the newest it told of these series ends (0: nothing yet), and
    `inside` which sites are.
    """
    stale = sum(end < now - STALE_AFTER_S for end in newest.values())
    return Coverage(len(set(inside)), len(newest), stale)


def _figure(question: Question, group: tuple[str, ...], pieces: Sequence[Piece]) -> Figure:
    kinds = {piece.key.kind for piece in pieces}
    if len(kinds) > 1:
        raise Rejected(
            "query.mixed_kinds",
            f"{question.selector.name} is {' and '.join(sorted(kinds))} at different sites",
            hint="ask for some of them by their labels",
        )
    return figure_of(group, pieces, _value(check_stat(question, pieces[0].key.kind), pieces))


def figure_of(group: tuple[str, ...], pieces: Sequence[Piece], value: float | None) -> Figure:
    """Return a value of a group of at least one piece, with its samples, sites, hosts and ages."""
    ends: dict[str, int] = {}
    for piece in pieces:
        ends[piece.site] = max(ends.get(piece.site, 0), piece.end)
    return Figure(
        group=group,
        value=value,
        samples=sum(piece.value.count for piece in pieces),
        sites=len(ends),
        hosts=len({piece.host for piece in pieces}),
        as_of=max(ends.values()),
        oldest=min(ends.values()),
    )


def _value(stat: str, pieces: Sequence[Piece]) -> float | None:
    if stat == "count":
        return float(sum(piece.value.count for piece in pieces))
    if stat == "last":
        lasts = [piece.last.last for piece in pieces if isinstance(piece.last, Gauge)]
        return sum(lasts) / len(lasts)
    if stat == "rate":
        # Of each series over the time that it told of: a site that was silent did not stand still.
        rates = (_added(piece.value) / piece.covered_s for piece in pieces if piece.covered_s)
        return float(sum(rates))
    match merge_all(piece.value for piece in pieces):
        case Gauge() as gauge:
            return {"min": gauge.low, "max": gauge.high, "mean": gauge.mean}[stat]
        case Counter() as counter:
            return counter.increase
        case Distribution() as distribution:
            share = _share(stat)
            return mean(distribution.sketch) if share is None else quantile(distribution.sketch, share)
        case None:
            return None


def _added(value: WindowValue) -> float:
    return value.increase if isinstance(value, Counter) else 0.0


def _share(stat: str) -> float | None:
    """Return the share of samples of a percentile: p5 and p50 are percents, p999 is 99.9 %."""
    digits = stat[1:]
    if not stat.startswith("p") or not digits.isdigit():
        return None
    return int(digits) / 10.0 ** max(len(digits), 2)
