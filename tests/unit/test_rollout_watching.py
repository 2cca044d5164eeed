"""What is shown of a rollout that is watched: its picture, on a terminal and as lines of JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from skerry.cli.main import run
from skerry.cli.rollout_live import LiveView, render_picture
from skerry.cli.rollout_picture import Counts, bar_of, draw_picture
from skerry.cli.rollout_watching import Changes, RolloutChange
from skerry.spec.api import RolloutView
from skerry.spec.api_rollout import Control, Halt, SiteProgress, SiteRolloutState, WaveProgress
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

pytestmark = pytest.mark.rollout

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WAVES: list[dict[str, Any]] = [
    {"name": "canary", "size": "1", "soak": "10m"},
    {"name": "early", "size": "2", "soak": "1h"},
    {"name": "rest", "size": "100%", "approval": "manual"},
]
DOCUMENT = {
    "apiVersion": "skerry/v1",
    "kind": "Rollout",
    "metadata": {"name": "spring"},
    "spec": {"release": "reader@1.1.0", "sites": "*", "waves": WAVES},
}


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def site(state: SiteRolloutState, why: str = "as it is", *, wave: int = -1, **more: Any) -> SiteProgress:
    given: dict[str, Any] = {"as_of": ago(minutes=1), **more}
    return SiteProgress(state=state, why=why, wave=wave, **given)


def view(*waves: WaveProgress, sites: dict[str, SiteProgress] | None = None, **more: Any) -> RolloutView:
    given: dict[str, Any] = {"state": "running", "why": "as it is", "document": DOCUMENT, **more}
    return RolloutView(
        name="spring",
        release="reader@1.1.0",
        created_at=ago(hours=3),
        created_by="eva",
        sites=sites or {},
        waves=waves,
        **given,
    )


PASSED = WaveProgress(name="canary", state="passed", passed_at=ago(hours=2))
SOAKING = WaveProgress(
    name="early",
    state="soaking",
    settled_at=ago(minutes=18),
    why="soaking until 2026-06-01 12:42:00Z: 1 of 1 reachable sites succeeded, 1 not reachable follow later",
)
WAITING = WaveProgress(name="rest")
SITES = {
    "basel": site("succeeded", wave=0),
    "bern": site("succeeded", wave=1, as_of=ago(seconds=4)),
    "chur": site("unreachable", "not heard of", wave=1, as_of=ago(hours=5)),
    "genf": site("pending"),
    "zug": site("held", "press-3: held by people", wave=1),
    "olten": site("failed", "press-9: probes failed", wave=1),
    "visp": site("applying", "going back to reader@1.0.0", wave=0, going_back=True),
}


def test_a_picture_has_a_row_for_each_wave_and_says_what_it_waits_for() -> None:
    picture = draw_picture(view(PASSED, SOAKING, WAITING, sites=SITES), at=NOW, seen_at=NOW)
    canary, early, rest = picture.waves
    assert canary.counts == Counts(members=2, succeeded=1, at_work=1)
    assert canary.note == "passed 2h ago"
    assert early.counts == Counts(members=4, succeeded=1, failed=1, at_work=1, away=1)
    assert early.note.startswith("soaks, 42m to go: 1 of 1 reachable")
    assert (rest.size, rest.note) == ("100%", "to be approved when it is its turn")
    assert picture.facts == (
        "7 sites, started 3h ago by eva, newest word of a site 4s ago",
        "1 site in no wave yet",
    )
    assert picture.away == ""


def test_a_picture_names_the_sites_in_trouble_the_worst_first_and_counts_the_others() -> None:
    waves = (PASSED, SOAKING, WAITING)
    picture = draw_picture(view(*waves, sites=SITES), at=NOW, seen_at=NOW)
    told = [(row.name, row.wave, row.state, row.age, row.why) for row in picture.sites]
    assert told == [
        ("olten", "early", "failed", "1m ago", "press-9: probes failed"),
        ("visp", "canary", "going back", "1m ago", "going back to reader@1.0.0"),
        ("zug", "early", "held", "1m ago", "press-3: held by people"),
        ("chur", "early", "unreachable", "5h ago", "not heard of"),
    ]
    short = draw_picture(view(*waves, sites=SITES), at=NOW, seen_at=NOW, room=1)
    assert ([row.name for row in short.sites], short.more) == (["olten"], 3)


def test_a_wave_whose_turn_it_is_says_how_it_is_approved() -> None:
    passed = msgspec.structs.replace(PASSED, name="early")
    notes = [row.note for row in draw_picture(view(PASSED, passed, WAITING), at=NOW, seen_at=NOW).waves]
    assert notes[2] == "waits for approval: skerry rollout approve spring --wave rest"
    approved = view(PASSED, passed, WAITING, control=Control(approved=(2,)), why="begins soon")
    assert draw_picture(approved, at=NOW, seen_at=NOW).waves[2].note == "begins soon"
    early = draw_picture(view(PASSED, WaveProgress(name="early"), WAITING), at=NOW, seen_at=NOW)
    assert early.waves[1].note == "as it is"
    late = draw_picture(view(WaveProgress(name="canary"), WaveProgress(name="early")), at=NOW, seen_at=NOW)
    assert late.waves[1].note == "follows when canary has passed"


def test_a_soak_that_is_over_waits_for_what_the_hub_says_and_a_tail_follows() -> None:
    gates = msgspec.structs.replace(SOAKING, settled_at=ago(hours=2), why="waiting for the gates: errors")
    tail = msgspec.structs.replace(PASSED, name="early")
    assert draw_picture(view(PASSED, gates), at=NOW, seen_at=NOW).waves[1].note == gates.why
    followed = draw_picture(view(PASSED, tail, sites=SITES), at=NOW, seen_at=NOW)
    assert followed.waves[1].note == "passed 2h ago; 1 away follow later"


def test_a_picture_is_drawn_of_what_a_newer_hub_says() -> None:
    newer = view(PASSED, SOAKING, document={"kind": "Rollout", "spec": {"what": "ever"}})
    assert draw_picture(newer, at=NOW, seen_at=NOW).waves[1].note == SOAKING.why


def test_a_hub_that_is_away_is_said_with_the_age_of_what_is_shown() -> None:
    seen = ago(seconds=90)
    away = draw_picture(view(), at=NOW, seen_at=seen, away="cannot reach it").away
    assert away == "cannot reach it; waiting for the hub. This is as of 1m ago."
    silent = draw_picture(view(), at=NOW, seen_at=seen).away
    assert silent == "waiting for the hub's answer. This is as of 1m ago."
    assert draw_picture(view(), at=NOW, seen_at=ago(seconds=2)).away == ""


def test_a_halt_and_a_second_attempt_are_said() -> None:
    halt = Halt(why="2 of 7 sites failed", at=ago(minutes=3), then="rollback")
    picture = draw_picture(view(halt=halt, attempt=2, ended_at=ago(minutes=1)), at=NOW, seen_at=NOW)
    assert "attempt 2, ended 1m ago" in picture.facts[0]
    assert picture.facts[1] == "halted 3m ago: 2 of 7 sites failed; then: rollback"


@given(
    st.builds(
        Counts,
        succeeded=st.integers(0, 5000),
        failed=st.integers(0, 50),
        at_work=st.integers(0, 500),
        away=st.integers(0, 500),
        waiting=st.integers(0, 5000),
    ),
    st.integers(5, 60),
)
def test_a_bar_fills_its_width_and_shows_all_there_is(counts: Counts, width: int) -> None:
    bar = dict(bar_of(counts, width))
    assert sum(bar.values()) == width
    there = {name for name, count in msgspec.structs.asdict(counts).items() if count}
    assert set(bar) == (there or {"waiting"})
    assert all(cells > 0 for cells in bar.values())


def drawn(shown: RolloutView, **how: Any) -> str:
    console = Console(file=io.StringIO(), width=100, height=30, **how)
    picture = draw_picture(shown, at=NOW, seen_at=NOW)
    with console.capture() as captured:
        console.print(render_picture(picture, console))
    return captured.get()


def test_what_is_drawn_fits_and_cannot_steer_the_terminal() -> None:
    sly = {**SITES, "sly": site("failed", "[red]\x1b[2J\x1b]0;owned\x07" + "long " * 40, wave=1)}
    text = drawn(view(PASSED, SOAKING, WAITING, sites=sly))
    assert "\x1b" not in text and "\x07" not in text and "[red]" in text
    lines = text.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert lines[0] == "rollout spring (reader@1.1.0): running"
    canary, _, rest = lines[5:8]
    assert canary.split()[:7] == ["canary", "passed", "█" * 10 + "▒" * 10, "1/2", "-", "1", "-"]
    assert "of 100%" in rest


class _Latin(io.StringIO):
    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "ascii"


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    console = Console(file=_Latin(), width=100)
    picture = draw_picture(view(PASSED, sites=SITES), at=NOW, seen_at=NOW)
    with console.capture() as captured:
        console.print(render_picture(picture, console))
    assert "#" * 10 + ">" * 10 in captured.get()


def test_the_live_view_keeps_what_it_knew_while_the_hub_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveView() as live:
        live.away("cannot reach it", NOW)
        live.seen(view(PASSED, SOAKING, WAITING, sites=SITES), NOW)
        live.away("cannot reach it", NOW)
    shown = capsys.readouterr().out
    assert "cannot reach it; waiting for the hub" in shown
    assert "olten" in shown


def test_a_hub_that_stays_away_is_told_once() -> None:
    told: list[RolloutChange] = []
    changes = Changes("spring", told.append)
    changes.away("no answer", NOW)
    changes.away("no answer", NOW)
    changes.seen(view(), NOW + timedelta(seconds=75))
    assert [(change.kind, change.state, change.why) for change in told][:2] == [
        ("hub", "away", "no answer; still trying"),
        ("hub", "there", "the hub answers again, after 1m"),
    ]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield hub


def test_a_watched_rollout_is_told_to_programs_line_by_line(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/rollouts/spring"] = view(PASSED, sites={"bern": SITES["bern"]}, state="failed")
    assert run(["rollout", "watch", "spring", "-o", "json"]) == 1
    changes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["kind"], one["name"], one["state"]) for one in changes] == [
        ("wave", "canary", "passed"),
        ("site", "bern", "succeeded"),
        ("rollout", "spring", "failed"),
    ]
    keys = {"kind", "rollout", "name", "state", "why", "at", "before", "as_of"}
    assert all(set(one) == keys for one in changes)
    assert datetime.fromisoformat(changes[1]["as_of"]) == ago(seconds=4)


def test_a_rollout_that_is_not_there_ends_the_watching(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["rollout", "watch", "none", "-o", "json"]) == 4
    shown = capsys.readouterr()
    assert (shown.out, json.loads(shown.err)["error"]) == ("", "missing")
