"""The planner, under every fault the tests can think of, at virtual time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skerry.reconcile.plan import LEAVE_AFTER_S, backoff_s
from skerry.reconcile.records import Action, Discard, Happened, Start, Wipe
from skerry.spec.ingress import Route
from tests.unit.host_world import APPLICATION, Behaviour, PowerCut, World

BAD: tuple[Behaviour, ...] = (
    "crashes",
    "never-ready",
    "startup-fails",
    "no-variant",
    "cannot-start",
    "fails-self-test",
    "falls-in-soak",
)
FAMILY = {"a": "kin", "b": "kin", "c": "kin"}


def settle(world: World, steps: int = 60) -> None:
    """Let the host work in peace."""
    for _ in range(steps):
        world.step()


def settled_on(release: str, *others: tuple[str, Behaviour]) -> World:
    """Return a host on which `release` is good."""
    world = World({release: "healthy", **dict(others)})
    world.want(release)
    settle(world)
    assert world.records[APPLICATION].good == release
    return world


def test_a_first_release_is_fetched_laid_out_tried_and_kept() -> None:
    world = settled_on("a")
    assert world.serving() == {("a", "front"), ("a", "back")}
    assert world.records[APPLICATION].candidate == ""


def test_a_better_release_replaces_the_good_one() -> None:
    world = settled_on("a", ("b", "healthy"))
    world.want("b")
    settle(world)
    assert world.serving() == {("b", "front"), ("b", "back")}
    assert world.records[APPLICATION].previous == "a"


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_release_is_refused_and_the_good_one_runs_again(behaviour: Behaviour) -> None:
    world = settled_on("a", ("b", behaviour))
    world.want("b")
    settle(world)
    record = world.records[APPLICATION]
    assert record.good == "a"
    assert "b" in record.refused
    assert record.refused["b"].reason
    assert world.serving() == {("a", "front"), ("a", "back")}


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_first_release_leaves_nothing_running(behaviour: Behaviour) -> None:
    world = World({"b": behaviour})
    world.want("b")
    settle(world)
    assert world.alive() == {}
    assert "b" in world.records[APPLICATION].refused


@pytest.mark.rule("HOST-1")
def test_a_release_that_falls_again_and_again_during_its_soak_has_failed() -> None:
    world = settled_on("a", ("b", "falls-in-soak"))
    world.want("b")
    phases: list[str] = []
    for _ in range(60):
        world.step()
        phases.append(world.records[APPLICATION].phase)
    assert "soaking" in phases, "it was ready each time"
    assert world.records[APPLICATION].refused["b"].reason.endswith("ended 3 times, exit code 9")
    assert world.serving() == {("a", "front"), ("a", "back")}


@pytest.mark.rule("HOST-3")
def test_a_refused_release_is_tried_again_only_at_a_higher_attempt() -> None:
    world = settled_on("a", ("b", "crashes"))
    world.want("b")
    settle(world)
    before = len(world.started)
    settle(world, 200)
    assert len(world.started) == before
    world.behaviours["b"] = "healthy"
    world.want("b", attempt=2)
    settle(world)
    assert world.records[APPLICATION].good == "b"


@pytest.mark.rule("HOST-4")
def test_everything_comes_up_again_after_a_reboot_with_nothing_but_the_disk() -> None:
    world = settled_on("a")
    world.reboot()
    settle(world, 5)
    assert world.serving() == {("a", "front"), ("a", "back")}


def test_a_release_that_takes_the_host_down_again_and_again_is_refused() -> None:
    world = settled_on("a", ("b", "never-ready"))
    world.want("b")
    for _ in range(8):
        for _ in range(6):
            world.step()
        world.reboot()
    settle(world)
    assert "restarted" in world.records[APPLICATION].refused["b"].reason
    assert world.serving() == {("a", "front"), ("a", "back")}


def test_a_crashed_component_is_restarted_with_growing_patience() -> None:
    world = settled_on("a")
    key = next(iter(world.alive()))
    starts: list[float] = []
    for _ in range(40):
        before = len(world.started)
        world.step()
        if len(world.started) > before:
            starts.append(world.now)
            world.crash(key)
        elif not starts:
            world.crash(key)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 4


def test_back_off_grows_to_a_bound() -> None:
    assert [backoff_s(n) for n in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert backoff_s(10_000) == 60.0


def test_an_application_that_is_not_wanted_any_more_goes_without_a_trace() -> None:
    world = settled_on("a")
    world.targets = {}
    settle(world, 10)
    assert world.instances == {}
    assert world.records == {}
    assert world.laid_out == set()


def test_every_step_of_an_update_is_told() -> None:
    world = settled_on("a", ("b", "crashes"))
    world.want("b")
    settle(world)
    kinds = [action.kind for action in world.actions if isinstance(action, Happened)]
    assert kinds[:3] == ["release.offered", "release.trial", "release.proven"]
    assert kinds[-1] == "release.refused"


# ── beside each other ────────────────────────────────────────────────────────────────────────────────


def test_a_blue_green_trial_leaves_the_good_release_serving_until_the_new_one_is_proven() -> None:
    world = World({"a": "healthy", "b": "healthy"}, beside=frozenset("b"))
    world.want("a")
    settle(world)
    world.want("b")
    both = False
    while world.records[APPLICATION].good == "a":
        world.step()
        serving = world.serving()
        assert {("a", "front"), ("a", "back")} <= serving
        both = both or len(serving) == 4
    assert both
    settle(world, 10)
    assert world.serving() == {("b", "front"), ("b", "back")}


@pytest.mark.rule("HOST-8")
def test_after_a_blue_green_trial_the_old_release_goes_on_for_those_who_were_told_of_it() -> None:
    world = World({"a": "healthy", "b": "healthy", "c": "healthy"}, beside=frozenset("b"))
    world.want("a")
    settle(world)
    world.want("b")
    while world.records[APPLICATION].good == "a":
        world.step()
    proven_at = world.now
    while len(world.serving()) == 4:
        world.step()
    assert world.now - proven_at >= LEAVE_AFTER_S
    assert world.serving() == {("b", "front"), ("b", "back")}


@pytest.mark.rule("INGRESS-6")
def test_an_old_release_with_routes_goes_on_for_as_long_as_they_say() -> None:
    world = World({"a": "healthy", "b": "healthy"}, beside=frozenset("b"))
    world.routes["a"] = tuple(
        Route(name=drain, component="front", port="http", drain=drain) for drain in ("20s", "90s")
    )
    world.want("a")
    settle(world)
    world.want("b")
    while world.records[APPLICATION].good == "a":
        world.step()
    proven_at = world.now
    while len(world.serving()) == 4:
        world.step()
    assert 90 <= world.now - proven_at < 100


@pytest.mark.rule("HOST-2")
def test_a_release_that_goes_on_ends_before_another_begins() -> None:
    world = World({"a": "healthy", "b": "healthy", "c": "healthy"}, beside=frozenset("b"))
    world.want("a")
    settle(world)
    world.want("b")
    while world.records[APPLICATION].good == "a":
        world.step()
    world.tested.add("c")
    world.documents.add("c")
    world.laid_out.add("c")
    world.want("c")
    for _ in range(30):
        world.step()
        kinds = {fact.release for fact in world.alive().values()}
        assert "c" not in kinds or kinds == {"c"}
    assert world.records[APPLICATION].good == "c"


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_blue_green_release_never_interrupts_the_good_one(behaviour: Behaviour) -> None:
    world = World({"a": "healthy", "b": behaviour}, beside=frozenset("b"))
    world.want("a")
    settle(world)
    runs = {key: fact.run for key, fact in world.alive().items()}
    world.want("b")
    for _ in range(60):
        world.step()
        assert {("a", "front"), ("a", "back")} <= world.serving()
    assert "b" in world.records[APPLICATION].refused
    assert {key: fact.run for key, fact in world.alive().items()} == runs


# ── models that are taken hot ────────────────────────────────────────────────────────────────────────


def hot_world(behaviour: Behaviour) -> World:
    world = World({"a": "healthy", "b": behaviour, "c": "healthy"}, families=FAMILY)
    world.want("a")
    settle(world)
    assert world.serving() == {("a", "front"), ("a", "back")}
    return world


def test_a_hot_release_changes_the_models_and_keeps_the_processes() -> None:
    world = hot_world("healthy")
    runs = {key: fact.run for key, fact in world.alive().items()}
    world.want("b")
    settle(world)
    assert world.records[APPLICATION].good == "b"
    assert world.serving() == {("b", "front"), ("b", "back")}
    assert {key: fact.run for key, fact in world.alive().items()} == runs


@pytest.mark.rule("HOST-6")
@pytest.mark.parametrize("behaviour", ("startup-fails", "never-ready", "deaf", "fails-self-test"))
def test_models_that_do_no_good_are_taken_back(behaviour: Behaviour) -> None:
    world = hot_world(behaviour)
    world.want("b")
    settle(world)
    assert "b" in world.records[APPLICATION].refused
    assert world.taken == {"kin": "a"}
    assert world.serving() == {("a", "front"), ("a", "back")}


@pytest.mark.rule("HOST-6")
def test_a_component_that_does_not_take_its_old_models_back_is_started_anew_with_them() -> None:
    world = hot_world("startup-fails")
    world.want("b")
    settle(world, 8)
    world.behaviours["a"] = "deaf"
    settle(world)
    assert world.taken == {"kin": "a"}
    assert world.serving() == {("a", "front"), ("a", "back")}
    assert all(not fact.stale for fact in world.alive().values())


def test_after_a_reboot_in_the_middle_of_a_hot_trial_the_trial_goes_on() -> None:
    world = hot_world("healthy")
    world.want("b")
    settle(world, 4)
    world.reboot()
    settle(world)
    assert world.records[APPLICATION].good == "b"
    assert world.serving() == {("b", "front"), ("b", "back")}


# ── turns, volumes ───────────────────────────────────────────────────────────────────────────────────


def test_a_host_whose_turn_it_is_not_prepares_everything_and_runs_nothing() -> None:
    world = World({"a": "healthy"})
    world.want("a", active=False)
    settle(world)
    assert world.alive() == {}
    assert world.laid_out == {"a"}
    assert world.records[APPLICATION].phase == "standing-by"
    world.want("a")
    settle(world)
    assert world.serving() == {("a", "front"), ("a", "back")}
    world.want("a", active=False)
    settle(world)
    assert world.alive() == {}
    assert world.records[APPLICATION].good == "a"


def test_volumes_are_emptied_once_and_with_nothing_running() -> None:
    world = settled_on("a")
    before = len(world.started)
    world.want("a", wipe=1)
    settle(world)
    assert world.wiped == {APPLICATION: 1}
    assert world.serving() == {("a", "front"), ("a", "back")}
    assert len(world.started) == before + 2
    assert sum(isinstance(action, Wipe) for action in world.actions) == 1


def test_a_component_whose_volume_is_full_is_ended_until_there_is_room() -> None:
    world = settled_on("a")
    world.full = {f"{APPLICATION}.back": "volume data holds 11 MiB and may hold 10 MiB"}
    settle(world, 10)
    assert world.serving() == {("a", "front")}
    world.full = {}
    settle(world)
    assert world.serving() == {("a", "front"), ("a", "back")}


faults = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "none",
                "none",
                "cut",
                "reboot",
                "restart",
                "crash",
                "want-a",
                "want-b",
                "want-c",
                "retry",
                "stand-by",
            ]
        ),
        st.integers(0, 6),
        st.integers(0, 15),
    ),
    max_size=25,
)


@pytest.mark.rule("HOST-1")
@pytest.mark.rule("HOST-2")
@pytest.mark.rule("HOST-3")
@settings(max_examples=150, deadline=None)
@given(
    behaviour=st.sampled_from(["healthy", "deaf", *BAD]),
    families=st.sampled_from([{}, FAMILY, {"b": "kin", "c": "kin"}]),
    beside=st.sampled_from([frozenset[str](), frozenset("b"), frozenset("abc")]),
    script=faults,
)
@example(  # a component of it crashes just before the deadline of its trial
    behaviour="never-ready",
    families={},
    beside=frozenset(),
    script=[
        ("want-b", 0, 0),
        ("none", 0, 0),
        ("none", 0, 5),
        ("crash", 0, 15),
        ("none", 0, 0),
        ("none", 0, 0),
    ],
)
def test_no_fault_breaks_a_promise(
    behaviour: Behaviour, families: dict[str, str], beside: frozenset[str], script: list[tuple[str, int, int]]
) -> None:
    world = World({"a": "healthy", "b": behaviour, "c": "healthy"}, families=families, beside=beside)
    world.want("a")
    attempt = 1

    def guard(action: Action | None, cut_after: list[int]) -> None:
        record = world.records.get(APPLICATION)
        if isinstance(action, Discard) and record is not None:
            assert action.digest != record.good, "the last good release was discarded"
        if isinstance(action, Start):
            assert action.instance not in world.alive(), "an instance would run twice"
            doubles = [f for f in world.alive().values() if f.component == action.component]
            overlaps = action.digest in beside or (record is not None and record.candidate in beside)
            assert not doubles or (overlaps and len(doubles) == 1), "a component would run twice"
            assert world.targets[APPLICATION].active, "a host runs what is another's turn"
            assert record is not None
            refusal = record.refused.get(action.digest)
            assert refusal is None or refusal.attempt < world.targets[APPLICATION].attempt
        cut_after[0] -= 1
        if cut_after[0] == 0:
            raise PowerCut

    for fault, number, calm in script:
        for _ in range(calm):
            world.step(lambda action: guard(action, [-1]))
        cut_after = [number + 1 if fault in ("cut", "reboot") else -1]
        try:
            world.step(lambda action, left=cut_after: guard(action, left))  # type: ignore[misc]
        except PowerCut:
            world.restart_agent()
        if fault == "reboot":
            world.reboot()
        elif fault == "restart":
            world.restart_agent()
        elif fault == "crash" and world.alive():
            world.crash(sorted(world.alive())[number % len(world.alive())])
        elif fault == "retry":
            attempt += 1
            world.want("b", attempt)
        elif fault == "stand-by":
            world.want("a", attempt, active=False)
        elif fault.startswith("want-"):
            attempt += 1
            world.want(fault[-1], attempt)
        good = world.records[APPLICATION].good if APPLICATION in world.records else ""
        assert not good or good in world.laid_out

    # In peace, the host ends where it should; a trial that was cut three times was refused, and may be tried again.
    for _ in range(2):
        attempt += 1
        world.want("c", attempt)
        settle(world, 100)
    assert world.records[APPLICATION].good == "c"
    assert world.serving() == {("c", "front"), ("c", "back")}
    assert {fact.kin for fact in world.alive().values()} == {families.get("c", "c")}
