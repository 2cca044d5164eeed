"""A rollout at one glance: its waves with how far each is, and the sites in trouble. Pure; instants come in.

Rules: a silent site is away and nothing else; every figure has its age; what does not fit is counted, not dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.cli.text import age, plural
from skerry.kit.quantities import format_duration
from skerry.rollout.facts import WavePlan
from skerry.rollout.reading import read_waves, waves_of
from skerry.rollout.states import AT_WORK
from skerry.spec.api import JsonDocument, RolloutView
from skerry.spec.api_rollout import SiteProgress, WaveProgress
from skerry.spec.rollout import Rollout, RolloutSpec

STALE_S = 5.0
_TROUBLE: Sequence[str] = ("failed", "rolled_back", "held", "waiting_window", "unreachable")
"""States of which people want to know the reason, the worst first."""


class Counts(msgspec.Struct, frozen=True):
    """How the sites of a wave stand; `gone` are those that a newer rollout has."""

    members: int = 0
    succeeded: int = 0
    failed: int = 0
    at_work: int = 0
    away: int = 0
    waiting: int = 0
    gone: int = 0


class WaveRow(msgspec.Struct, frozen=True):
    """One wave; `size` says how large it will be while nobody is drawn for it; `note` what it waits for, or why."""

    name: str
    state: str
    counts: Counts
    size: str
    note: str


class SiteRow(msgspec.Struct, frozen=True):
    """One site in trouble."""

    name: str
    wave: str
    state: str
    age: str
    why: str


class Picture(msgspec.Struct, frozen=True):
    """What is shown of a rollout: `facts` are lines about all of it, `more` counts troubled sites left out."""

    name: str
    release: str
    state: str
    why: str
    facts: tuple[str, ...]
    waves: tuple[WaveRow, ...]
    sites: tuple[SiteRow, ...]
    more: int = 0
    away: str = ""


def draw_picture(
    view: RolloutView, *, at: datetime, seen_at: datetime, away: str = "", room: int = 10
) -> Picture:
    """Return the picture of a rollout that the hub told at `seen_at`, with at most `room` troubled sites.

    `away` says why the hub does not answer now.
    """
    spec = spec_of_view(view.document)
    troubled = sorted(
        ((name, one) for name, one in view.sites.items() if _rank(one) is not None),
        key=lambda item: (_rank(item[1]) or 0, item[0]),
    )
    names = [wave.name for wave in view.waves]
    return Picture(
        name=view.name,
        release=view.release,
        state=view.state,
        why=view.why,
        facts=tuple(_facts(view, at)),
        waves=tuple(_wave_rows(view, spec, at)),
        sites=tuple(_site_row(name, one, names, at) for name, one in troubled[:room]),
        more=max(0, len(troubled) - room),
        away=_away(away, seen_at, at),
    )


def spec_of_view(document: JsonDocument) -> RolloutSpec | None:
    """Return what a rollout says; None where a newer hub says it in fields that this client does not know."""
    try:
        return msgspec.convert(document, type=Rollout).spec
    except msgspec.ValidationError:
        return None


def count_sites(sites: Mapping[str, SiteProgress], wave: int) -> Counts:
    """Return how the members of a wave stand."""
    members = [one.state for one in sites.values() if one.wave == wave]
    return Counts(
        members=len(members),
        succeeded=members.count("succeeded"),
        failed=members.count("failed") + members.count("rolled_back"),
        at_work=sum(state in AT_WORK for state in members),
        away=members.count("unreachable"),
        waiting=members.count("pending"),
        gone=members.count("superseded"),
    )


def bar_of(counts: Counts, width: int) -> list[tuple[str, int]]:
    """Return what fills a bar of `width` cells, 5 or more: `succeeded`, `failed`, `at_work`, `away` and `waiting`.

    The cells add up to `width`, and whatever there is of at all has one.
    """
    names = ("succeeded", "failed", "at_work", "away", "waiting")
    there = {name: int(getattr(counts, name)) for name in names if getattr(counts, name)}
    total = sum(there.values())
    if not total:
        return [("waiting", width)]
    cells = {name: max(1, count * width // total) for name, count in there.items()}
    while (wrong := width - sum(cells.values())) != 0:
        # Where a cell is missing or too much, the one who is furthest from its share gives or takes it.
        step = 1 if wrong > 0 else -1
        able = [name for name in cells if wrong > 0 or cells[name] > 1]
        name = max(able, key=lambda name: step * (there[name] * width / total - cells[name]))
        cells[name] += step
    return list(cells.items())


def _facts(view: RolloutView, at: datetime) -> Iterator[str]:
    parts = [plural(len(view.sites), "site"), f"started {age(view.created_at, at)} by {view.created_by}"]
    if view.attempt > 1:
        parts.append(f"attempt {view.attempt}")
    if view.ended_at:
        parts.append(f"ended {age(view.ended_at, at)}")
    newest = max((one.as_of for one in view.sites.values() if one.as_of), default=None)
    if newest:
        parts.append(f"newest word of a site {age(newest, at)}")
    yield ", ".join(parts)
    if view.halt:
        yield f"halted {age(view.halt.at, at)}: {view.halt.why}; then: {view.halt.then}"
    undrawn = sum(one.wave < 0 and one.state != "superseded" for one in view.sites.values())
    if undrawn and view.waves:
        yield f"{plural(undrawn, 'site')} in no wave yet"


def _wave_rows(view: RolloutView, spec: RolloutSpec | None, at: datetime) -> Iterator[WaveRow]:
    plans = read_waves(spec) if spec else ()
    written = waves_of(spec) if spec else ()
    for number, wave in enumerate(view.waves):
        counts = count_sites(view.sites, number)
        size = written[number].size if number < len(written) else ""
        plan = plans[number] if number < len(plans) else None
        yield WaveRow(
            name=wave.name,
            state=wave.state,
            counts=counts,
            size=size if wave.state == "waiting" else "",
            note=wave_note(view, number, plan, at),
        )


def wave_note(view: RolloutView, number: int, plan: WavePlan | None, at: datetime) -> str:
    """Return what a wave waits for, or how it stands."""
    wave = view.waves[number]
    if wave.state == "waiting":
        return _waiting_note(view, number, plan)
    if wave.state == "passed":
        tail = count_sites(view.sites, number).away
        return f"passed {age(wave.passed_at, at)}" + (f"; {tail} away follow later" if tail else "")
    if wave.state == "soaking" and plan and (left := _soak_left(wave, plan, at)) > 0:
        return f"soaks, {format_duration(left)} to go: {wave.why.partition(': ')[2] or wave.why}"
    return wave.why


def _waiting_note(view: RolloutView, number: int, plan: WavePlan | None) -> str:
    name = view.waves[number].name
    approved = view.control.approved if view.control else ()
    first = all(wave.state == "passed" for wave in view.waves[:number])
    if plan and plan.manual and number not in approved:
        how = f"skerry rollout approve {view.name} --wave {name}"
        return f"waits for approval: {how}" if first else "to be approved when it is its turn"
    if number and not first:
        return f"follows when {view.waves[number - 1].name} has passed"
    return view.why


def _soak_left(wave: WaveProgress, plan: WavePlan, at: datetime) -> float:
    if wave.settled_at is None:
        return 0.0
    return (wave.settled_at + timedelta(seconds=plan.soak_s) - at).total_seconds()


def _rank(progress: SiteProgress) -> int | None:
    if progress.state in _TROUBLE:
        return _TROUBLE.index(progress.state)
    return 1 if progress.going_back else None


def _site_row(name: str, progress: SiteProgress, waves: Sequence[str], at: datetime) -> SiteRow:
    wave = waves[progress.wave] if 0 <= progress.wave < len(waves) else ""
    state = "going back" if progress.going_back and progress.state == "applying" else progress.state
    return SiteRow(name, wave, state, age(progress.as_of, at), progress.why)


def _away(why: str, seen_at: datetime, at: datetime) -> str:
    """Return that what is shown is old, and why; empty while it is not."""
    if why:
        return f"{why}; waiting for the hub. This is as of {age(seen_at, at)}."
    if (at - seen_at).total_seconds() > STALE_S:
        return f"waiting for the hub's answer. This is as of {age(seen_at, at)}."
    return ""
