"""Holds: what a person at a site has said holds against everything that comes from a hub, and is told to it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.agent.holding import MAX_HOLDS, Holds, read_holds, release_hold, set_hold, who_am_i
from skerry.agent.seeing import statuses_of
from skerry.kit.errors import Missing, Rejected
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.rollout.facts import Stage
from skerry.rollout.stages import stage_of
from skerry.spec.desired import DesiredState, OpenWindow, SitePlacement, SitePolicy
from skerry.spec.hold import Hold, hold_text
from skerry.spec.report import ApplicationView, Phase
from tests.unit.agent_world import APP, Agent, Upstream, agent
from tests.unit.host_world import APPLICATION, PowerCut, World

pytestmark = pytest.mark.rollout

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HELD = "held by ann since 2026-05-04 12:00Z: stocktaking"


def settle(world: World, steps: int = 60) -> None:
    for _ in range(steps):
        world.step()


def on_a(**families: str) -> World:
    world = World({"a": "healthy", "b": "healthy", "c": "healthy"}, families=families)
    world.want("a")
    settle(world)
    return world


def a_hold(application: str = "", *, until: datetime | None = None, why: str = "stocktaking") -> Hold:
    return Hold(since=NOW, by="ann", why=why, application=application, until=until)


# ── the planner ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("HOST-7")
@pytest.mark.parametrize("families", ({}, {"a": "kin", "b": "kin"}))
def test_a_held_update_is_made_ready_and_is_switched_only_when_released(families: dict[str, str]) -> None:
    world = on_a(**families)
    world.want("b")
    world.hold, world.urgent = HELD, True
    settle(world)
    record = world.records[APPLICATION]
    assert (record.good, record.candidate, record.phase, record.trials) == ("a", "b", "held", 0)
    assert {"b"} <= world.laid_out & world.tested, "all of it is ready"
    assert world.serving() == {("a", "front"), ("a", "back")}

    world.crash(next(iter(world.alive())))
    settle(world)
    assert world.serving() == {("a", "front"), ("a", "back")}, "what ends is started again"
    world.reboot()
    settle(world)
    assert world.serving() == {("a", "front"), ("a", "back")}, "and so it is after a reboot"

    world.hold = ""
    settle(world)
    assert world.serving() == {("b", "front"), ("b", "back")}


@pytest.mark.rule("HOST-7")
def test_a_trial_that_has_begun_is_finished_under_a_hold_and_so_is_its_going_back() -> None:
    for behaviour, kept in (("healthy", "b"), ("crashes", "a")):
        world = World({"a": "healthy", "b": behaviour})  # type: ignore[dict-item]
        world.want("a")
        settle(world)
        world.want("b")
        while world.records[APPLICATION].phase != "starting":
            world.step()
        world.hold = HELD
        settle(world)
        assert world.records[APPLICATION].good == kept
        assert world.serving() == {(kept, "front"), (kept, "back")}


@pytest.mark.rule("HOST-7")
def test_a_hub_that_takes_an_application_away_and_gives_another_release_gets_no_further() -> None:
    world = on_a()
    world.hold = HELD
    world.targets = {}
    settle(world)
    world.want("b")
    settle(world)
    assert world.records[APPLICATION].phase == "held"
    assert world.alive() == {}


steps = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("hold", "hold", "end", "urgent", "window", "open", "want-a", "want-b", "want-c", "retry"),
                *("gone", "cut", "reboot", "restart", "crash", "turn", "other-turn"),
            )
        ),
        st.integers(0, 5),
        st.integers(0, 12),
    ),
    max_size=25,
)


class Script:
    """Does to a host what a script says, and looks after each step whether a hold or a window was kept to."""

    def __init__(self, world: World) -> None:
        self.world, self.attempt, self.wanted = world, 1, "a"

    def step(self, cut_after: int = -1) -> None:
        world, left = self.world, [cut_after]

        def cut(_: object) -> None:
            left[0] -= 1
            if left[0] == -1 and cut_after >= 0:
                raise PowerCut

        before = world.records.get(APPLICATION) or ApplicationRecord(APPLICATION)
        try:
            world.step(cut)
        except PowerCut:
            world.restart_agent()
        after = world.records.get(APPLICATION) or ApplicationRecord(APPLICATION)
        had_begun = before.phase in ("starting", "soaking") and before.candidate == after.candidate
        begins = after.phase in ("starting", "soaking") and not had_begun
        assert not (world.hold and begins), "a trial began against a hold"
        closed = world.window and not world.urgent and before.good
        assert not (closed and begins), "a trial began outside the window"
        proven = after.good and after.good != before.good
        assert not proven or before.phase in ("starting", "soaking"), "what is good was on trial"

    def do(self, what: str, number: int) -> None:
        world = self.world
        if what in ("hold", "end"):
            world.hold = HELD if what == "hold" else ""
        elif what in ("window", "open"):
            world.window, world.urgent = ("ready; waits" if what == "window" else ""), False
        elif what == "urgent":
            world.urgent = True
        elif what == "gone":
            world.targets = {}
        elif what in ("reboot", "restart"):
            (world.reboot if what == "reboot" else world.restart_agent)()
        elif what == "crash" and world.alive():
            world.crash(sorted(world.alive())[number % len(world.alive())])
        elif what.startswith("want-") or what in ("retry", "turn", "other-turn"):
            self.wanted = what[-1] if what.startswith("want-") else self.wanted
            self.attempt += what in ("retry", "want-b")
            world.want(self.wanted, self.attempt, active=what != "other-turn")


@pytest.mark.rule("HOST-7")
@pytest.mark.rule("LINK-4")
@settings(max_examples=150, deadline=None)
@given(
    behaviour=st.sampled_from(["healthy", "crashes", "never-ready", "fails-self-test", "falls-in-soak"]),
    families=st.sampled_from([{}, {"a": "kin", "b": "kin", "c": "kin"}]),
    beside=st.sampled_from([frozenset[str](), frozenset("abc")]),
    script=steps,
)
def test_no_fault_and_no_hub_begins_a_trial_against_a_hold(
    behaviour: str, families: dict[str, str], beside: frozenset[str], script: list[tuple[str, int, int]]
) -> None:
    behaviours = {"a": "healthy", "b": behaviour, "c": "healthy"}
    world = World(behaviours, families=families, beside=beside)  # type: ignore[arg-type]
    world.want("a")
    run = Script(world)
    for what, number, calm in script:
        run.do(what, number)
        run.step(number if what == "cut" else -1)
        for _ in range(calm):
            run.step()
    world.hold, world.window = "", ""
    for _ in range(2):
        run.attempt += 1
        world.want("c", run.attempt)
        settle(world, 100)
    assert world.serving() == {("c", "front"), ("c", "back")}, "released, it goes on"


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("HOST-7")
def test_holds_of_one_application_and_of_the_host_are_set_and_released_each_by_itself(tmp_path: Path) -> None:
    set_hold(tmp_path, a_hold())
    set_hold(tmp_path, a_hold("reader", why="inspector on site"))
    assert [hold.application for hold in read_holds(tmp_path, NOW)] == ["reader", ""]
    release_hold(tmp_path)
    assert [hold.application for hold in read_holds(tmp_path, NOW)] == ["reader"]
    with pytest.raises(Missing) as caught:
        release_hold(tmp_path)
    assert caught.value.hint == "held here: reader"
    set_hold(tmp_path, a_hold("reader", why="another reason"))
    assert [hold.why for hold in read_holds(tmp_path, NOW)] == ["another reason"]
    release_hold(tmp_path, "reader")
    assert read_holds(tmp_path, NOW) == ()


@pytest.mark.rule("HOST-7")
@pytest.mark.parametrize("content", (b"", b"{", b"[]", b'{"by": "ann"}', b"\xff", b"x" * (1 << 20)))
def test_a_hold_that_cannot_be_read_holds_until_it_is_released(tmp_path: Path, content: bytes) -> None:
    set_hold(tmp_path, a_hold("reader"))
    (tmp_path / "holds" / "reader.json").write_bytes(content)
    (hold,) = read_holds(tmp_path, NOW)
    assert hold.application == "reader"
    assert "reader.json cannot be read" in hold.why
    release_hold(tmp_path, "reader")
    assert read_holds(tmp_path, NOW) == ()


@pytest.mark.rule("HOST-7")
def test_a_kill_while_a_hold_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    set_hold(tmp_path, a_hold("reader"))
    # What a kill between writing and renaming leaves.
    (tmp_path / "holds" / "reader.json.new").write_bytes(b'{"since": ')
    (tmp_path / "holds" / ".all.json.new").write_bytes(b"")
    assert read_holds(tmp_path, NOW) == (a_hold("reader"),)


@pytest.mark.rule("HOST-7")
def test_holds_that_cannot_be_told_one_by_one_hold_everything(tmp_path: Path) -> None:
    set_hold(tmp_path, a_hold("reader"))
    for number in range(MAX_HOLDS):
        (tmp_path / "holds" / f"a{number}.json").write_bytes(msgspec.json.encode(a_hold()))
    found = read_holds(tmp_path, NOW)
    assert len(found) <= MAX_HOLDS
    assert found[-1].application == ""
    for path in (tmp_path / "holds").iterdir():
        path.unlink()
    (tmp_path / "holds").rmdir()
    (tmp_path / "holds").write_text("no directory")
    assert [hold.application for hold in read_holds(tmp_path, NOW)] == [""]


def test_a_hold_ends_at_its_time_and_not_before(tmp_path: Path) -> None:
    until = NOW + timedelta(hours=8)
    set_hold(tmp_path, a_hold("reader", until=until))
    noted: list[str] = []
    now = [NOW]

    def note(kind: str, message: str = "", *, application: str = "") -> None:
        noted.append(f"{kind} of {application}: {message}")

    holds = Holds(tmp_path, lambda: now[0], note)
    holds.look()
    text = "held by ann since 2026-05-04 12:00Z: stocktaking, until 2026-05-04 20:00Z"
    assert (holds.why("reader"), holds.why("other")) == (text, "")
    now[0] = until - timedelta(seconds=1)
    holds.look()
    assert holds.why("reader")
    now[0] = until
    holds.look()
    assert holds.in_force == ()
    assert noted == [f"hold.set of reader: {text}", f"hold.ended of reader: {text}"]


@pytest.mark.parametrize(
    "hold",
    (
        a_hold("../agent"),
        a_hold("Reader"),
        a_hold(why=" "),
        a_hold(why="x" * 1025),
        a_hold(until=NOW - timedelta(seconds=1)),
    ),
)
def test_a_hold_that_makes_no_sense_is_refused_and_leaves_nothing(tmp_path: Path, hold: Hold) -> None:
    with pytest.raises(Rejected):
        set_hold(tmp_path, hold)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Missing):
        release_hold(tmp_path, hold.application)


def test_a_hold_that_a_host_made_up_is_told_whatever_its_times() -> None:
    odd = timezone(-timedelta(hours=11))
    hold = Hold(since=datetime.max.replace(tzinfo=odd), by="", why="", until=datetime.min.replace(tzinfo=odd))
    assert hold_text(hold).startswith("held by  since 9999-12-31 23:59-1100")


def test_who_holds_is_who_became_root_or_who_is_logged_in() -> None:
    assert who_am_i({"SUDO_USER": "ann"}) == "ann"
    assert who_am_i({})


# ── the agent ────────────────────────────────────────────────────────────────────────────────────────────


def phase(made: Agent) -> str:
    view = made.observed.applications.get(APP)
    return view.phase if view else ""


@pytest.mark.rule("HOST-7")
async def test_an_agent_keeps_to_a_hold_over_restarts_and_tells_its_hub(tmp_path: Path) -> None:
    link = Upstream()
    first, second = link.release("1", b"one"), link.release("2", b"two")
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"))
        set_hold(tmp_path, a_hold())
        store = made.store
        await made.desire(2, {"2": second}, urgent=True)
        await made.until(lambda: phase(made) == "held")
    async with agent(tmp_path, link, store=store) as again:
        await again.desire(3, {"2": second}, urgent=True)
        await again.steps(10)
        view = again.observed.applications[APP]
        assert (view.phase, view.release, view.candidate) == ("held", f"{APP}@1", f"{APP}@2")
        assert view.why == f"ready; {hold_text(a_hold())}"
        assert again.observed.holds == (a_hold(),)
        release_hold(tmp_path)
        await again.until(lambda: again.runs("2"))
        assert not again.observed.holds


@pytest.mark.rule("LINK-4")
async def test_an_agent_switches_to_an_urgent_release_outside_its_window(tmp_path: Path) -> None:
    link = Upstream()
    first, second = link.release("1", b"one"), link.release("2", b"two")
    # A minute a year, half a year from now.
    closed = SitePolicy(switch_windows=(OpenWindow(cron="0 0 1 11 *", duration_s=60.0),))
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first}, policy=closed)
        await made.until(lambda: made.runs("1"))
        await made.desire(2, {"2": second}, policy=closed)
        await made.until(lambda: phase(made) == "waiting-window")
        await made.steps(5)
        assert phase(made) == "waiting-window"
        await made.desire(3, {"2": second}, policy=closed, urgent=True)
        await made.until(lambda: made.runs("2"))


def test_a_host_that_has_only_a_held_release_is_not_able_to_take_an_application_over() -> None:
    desired = DesiredState(
        site="harbour",
        generation=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=60),
        placements={APP: SitePlacement(count=1, hosts=("edge",))},
    )
    new = ReleaseFact(name=f"{APP}@1", digest="new", components=(), prepared=True)

    def able(record: ApplicationRecord, why: str) -> bool:
        told = statuses_of(desired, {APP: record}, lambda _: new, frozenset(), held=lambda _: why)
        return told[APP].able

    candidate = ApplicationRecord(APP, candidate="new", phase="standing-by")
    assert able(candidate, "")
    assert not able(candidate, HELD)
    assert able(msgspec.structs.replace(candidate, phase="soaking"), HELD), "what has begun is finished"
    assert able(msgspec.structs.replace(candidate, good="old"), HELD), "what was good there may run"


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "stage"),
    (
        ("pending", "downloading"),
        ("fetching", "downloading"),
        ("preparing", "downloading"),
        ("testing", "downloading"),
        ("standing-by", "ready"),
        ("waiting-window", "waiting_window"),
        ("held", "held"),
        ("starting", "applying"),
        ("soaking", "soaking"),
        ("running", ""),
        ("stopping", ""),
    ),
)
def test_the_stage_of_a_release_follows_from_the_phase_of_its_candidate(said: Phase, stage: Stage) -> None:
    view = ApplicationView(phase=said, release="reader@1", candidate="reader@2")
    assert stage_of(view, "reader@2") == stage
    assert stage_of(view, "reader@1") == "", "what is good is not worked on"
    assert stage_of(ApplicationView(phase=said, release="reader@2"), "reader@2") == ""


def test_every_phase_that_a_host_may_tell_has_a_stage_or_none() -> None:
    told = {phase: stage_of(ApplicationView(phase=phase, candidate="r@1"), "r@1") for phase in Phase.__args__}  # type: ignore[attr-defined]
    assert {phase for phase, stage in told.items() if not stage} == {
        "running",
        "returning",
        "stopping",
        "stopped",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_what_root_writes_the_agents_user_can_read(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    set_hold(tmp_path, a_hold("reader"))
    owners = {path.stat().st_uid for path in (tmp_path / "holds", tmp_path / "holds" / "reader.json")}
    assert owners == {12345}
