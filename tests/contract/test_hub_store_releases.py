"""What every HubStore keeps: releases never change, rollouts move by version, assignments follow them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Conflict, Missing
from skerry.ports.hub_store import AssignmentRecord, HubStore, ReleaseRecord
from skerry.spec.api_rollout import SiteProgress
from tests.contract.hub_records import HOUR, NOW, audit, populate, release, rollout


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened, sites=("berlin", "paris"), hosts=())
    yield opened
    opened.close()


def assign(site: str = "berlin", version: str = "1", application: str = "meter") -> AssignmentRecord:
    return AssignmentRecord(
        site=site, application=application, release=f"{application}@{version}", rollout="r1"
    )


def start(store: HubStore, *names: str) -> None:
    store.apply_documents(sites={}, rollouts=[rollout(name) for name in names], audits=())


@pytest.mark.rule("RELEASE-1")
def test_a_release_that_was_accepted_is_immutable(store: HubStore) -> None:
    first = release("1", content=b"first")
    assert store.add_release(first, audit("added"))
    other: list[ReleaseRecord] = [
        release("1", content=b"second"),
        msgspec.structs.replace(first, document=b"second"),
        msgspec.structs.replace(first, digest=release(content=b"second").digest),
    ]
    for changed in other:
        with pytest.raises(Conflict) as caught:
            store.add_release(changed, audit("changed"))
        assert caught.value.code == "release.immutable"
    again = msgspec.structs.replace(first, created_by="bob", created_at=NOW + HOUR)
    assert not store.add_release(again, audit("again"))
    assert store.release("meter@1") == first
    assert [entry.action for entry in store.audits(9)] == ["added"]


@pytest.mark.rule("RELEASE-1")
def test_of_many_who_push_one_name_at_a_time_one_is_accepted(store: HubStore) -> None:
    def push(number: int) -> bool:
        try:
            return store.add_release(release("1", content=b"%d" % number), audit())
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(push, range(8)))
    stored = store.release("meter@1")
    assert stored is not None
    assert [b"%d" % number for number, mine in enumerate(won) if mine] == [stored.document]


def test_releases_come_by_application_oldest_first(store: HubStore) -> None:
    newer = msgspec.structs.replace(release("0"), created_at=NOW + HOUR)
    for one in (newer, release("1"), release("7", application="alarm")):
        store.add_release(one, audit())
    assert [stored.name for stored in store.releases()] == ["alarm@7", "meter@1", "meter@0"]
    assert store.release("meter@9") is None


def test_a_release_in_use_stays(store: HubStore) -> None:
    for version in "1234":
        store.add_release(release(version), audit())
    store.apply_documents(
        sites={}, rollouts=[rollout("r1", release="meter@1", previous="meter@2")], audits=()
    )
    store.advance_rollout(rollout("r1"), assign=[assign("paris", "3")])
    store.apply_documents(
        sites={}, rollouts=[rollout("r2", release="meter@2", previous="meter@2")], audits=()
    )
    for version in "123":
        with pytest.raises(Conflict) as caught:
            store.remove_release(f"meter@{version}", audit("early"))
        assert caught.value.code == "release.in_use"
    store.remove_release("meter@4", audit("removed"))
    with pytest.raises(Missing):
        store.remove_release("meter@4", audit("again"))
    assert [stored.version for stored in store.releases()] == ["1", "2", "3"]


def test_rollouts_come_oldest_first_and_the_running_ones_apart(store: HubStore) -> None:
    later = rollout("a", at=NOW + HOUR)
    store.apply_documents(sites={}, rollouts=[later, rollout("b"), rollout("c")], audits=())
    ended = msgspec.structs.replace(
        rollout("b"), state="succeeded", why="all sites run it", ended_at=NOW + HOUR
    )
    store.advance_rollout(ended)
    assert [one.name for one in store.rollouts()] == ["b", "c", "a"]
    assert [one.name for one in store.rollouts(running_only=True)] == ["c", "a"]
    assert store.rollout("a") == later
    assert store.rollout("b") == msgspec.structs.replace(ended, version=1)
    assert store.rollout("nobody") is None


def test_a_decision_is_stored_whole(store: HubStore) -> None:
    start(store, "r1")
    store.advance_rollout(rollout("r1"), assign=[assign("berlin"), assign("berlin", application="alarm")])
    sites = {"berlin": SiteProgress(state="offered", why="its turn", as_of=NOW, previous="meter@0")}
    moved = msgspec.structs.replace(rollout("r1"), version=1, why="wave 1", attempt=2, sites=sites)
    store.advance_rollout(
        moved,
        assign=[assign("paris"), msgspec.structs.replace(assign("berlin", "2"), attempt=2)],
        unassign=[("berlin", "alarm"), ("nowhere", "nothing")],
        audit=audit("decided"),
    )
    assert store.rollout("r1") == msgspec.structs.replace(moved, version=2)
    assert store.assignments() == [msgspec.structs.replace(assign("berlin", "2"), attempt=2), assign("paris")]
    assert store.assignments("paris") == [assign("paris")]
    assert [entry.action for entry in store.audits(9)] == ["decided"]


def test_what_a_rollout_was_started_with_does_not_change(store: HubStore) -> None:
    start(store, "r1")
    store.advance_rollout(
        msgspec.structs.replace(rollout("r1"), document=b"other", release="meter@9", why="x")
    )
    assert store.rollout("r1") == msgspec.structs.replace(rollout("r1"), why="x", version=1)


def test_a_decision_on_an_old_version_is_refused_and_leaves_nothing(store: HubStore) -> None:
    start(store, "r1")
    store.advance_rollout(rollout("r1"))
    for version in (0, 2):
        stale = msgspec.structs.replace(rollout("r1"), version=version, state="failed")
        with pytest.raises(Conflict) as caught:
            store.advance_rollout(stale, assign=[assign()], audit=audit("stale"))
        assert caught.value.code == "rollout.moved"
    with pytest.raises(Missing):
        store.advance_rollout(rollout("nobody"))
    assert store.assignments() == []
    assert store.audits(9) == []


def test_of_many_who_decide_at_a_time_one_succeeds(store: HubStore) -> None:
    start(store, "r1")

    def decide(number: int) -> bool:
        try:
            store.advance_rollout(msgspec.structs.replace(rollout("r1"), why=str(number)))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(decide, range(8))) == 1


def test_an_assignment_to_a_site_that_has_gone_is_refused_with_the_whole_decision(store: HubStore) -> None:
    start(store, "r1")
    with pytest.raises(Conflict) as caught:
        store.advance_rollout(rollout("r1"), assign=[assign("berlin"), assign("atlantis")])
    assert caught.value.code == "assignment.site_unknown"
    assert store.rollout("r1") == rollout("r1")
    assert store.assignments() == []


def test_assignments_go_with_their_site(store: HubStore) -> None:
    start(store, "r1")
    store.advance_rollout(rollout("r1"), assign=[assign("berlin"), assign("paris")])
    store.remove_site("paris", audit())
    assert store.assignments() == [assign("berlin")]


def test_a_rollout_is_forgotten_only_after_its_end(store: HubStore) -> None:
    start(store, "r1")
    with pytest.raises(Conflict) as caught:
        store.remove_rollout("r1", audit("early"))
    assert caught.value.code == "rollout.running"
    store.advance_rollout(msgspec.structs.replace(rollout("r1"), state="failed", ended_at=NOW))
    store.remove_rollout("r1", audit("removed"))
    with pytest.raises(Missing):
        store.remove_rollout("r1", audit("again"))
    assert [entry.action for entry in store.audits(9)] == ["removed"]
