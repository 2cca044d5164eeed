"""What every HubStore keeps of who decides a rollout, and of what was decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.deciding import KEEP_FIRST, KEEP_NEWEST
from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Conflict
from skerry.ports.deciding import DecisionRecord, Lease, Turn
from skerry.ports.hub_store import AssignmentRecord, HubStore
from skerry.spec.api_rollout import EffectView
from tests.contract.hub_records import NOW, audit, populate, rollout

pytestmark = pytest.mark.rollout

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=("memory", "file", "two processes"))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[HubStore, HubStore]]:
    """Two ways to one store: the same, or two that have a file in common as two processes would."""
    path = None if request.param == "memory" else tmp_path / "hub.db"
    one = SqlHubStore.open(path)
    other = SqlHubStore.open(path) if request.param == "two processes" else one
    populate(one)
    one.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    yield one, other
    other.close()
    if other is not one:
        one.close()


def take(
    store: HubStore, holder: str, *, token: int = 0, after: timedelta = timedelta(), of: str = "r1"
) -> Lease | None:
    now = NOW + after
    return store.take_lease(of, holder, token=token, now=now, until=now + MINUTE)


def lease(holder: str, token: int, expires_at: datetime) -> Lease:
    return Lease(rollout="r1", holder=holder, token=token, expires_at=expires_at)


def decision(why: str = "because", effects: tuple[EffectView, ...] = ()) -> DecisionRecord:
    return DecisionRecord(rollout="r1", at=NOW, state="running", why=why, inputs="sha256:1", effects=effects)


def test_one_holder_has_a_lease_until_it_ends_and_its_token_rises_with_each_holder(
    stores: tuple[HubStore, HubStore],
) -> None:
    one, other = stores
    assert one.lease("r1") is None
    assert take(one, "a") == lease("a", 1, NOW + MINUTE)
    assert take(other, "b") is None
    assert take(other, "b", after=MINUTE - timedelta(microseconds=1)) is None
    assert take(one, "a", token=1, after=MINUTE / 2) == lease("a", 1, NOW + 1.5 * MINUTE)
    assert take(other, "b", after=2 * MINUTE) == lease("b", 2, NOW + 3 * MINUTE)
    assert take(one, "a", token=1, after=2 * MINUTE) is None
    assert take(one, "a", token=1, after=5 * MINUTE) == lease("a", 3, NOW + 6 * MINUTE)
    assert one.lease("r1") == other.lease("r1") == lease("a", 3, NOW + 6 * MINUTE)


def test_a_holder_that_has_forgotten_its_token_gets_the_lease_at_once_under_a_new_one(
    stores: tuple[HubStore, HubStore],
) -> None:
    one, _ = stores
    take(one, "a")
    assert take(one, "a") == lease("a", 2, NOW + MINUTE)


def test_a_lease_from_a_clock_that_was_years_ahead_is_taken(stores: tuple[HubStore, HubStore]) -> None:
    one, other = stores
    take(one, "a", after=timedelta(days=3650))
    assert take(other, "b") == lease("b", 2, NOW + MINUTE)


def test_leases_that_are_ended_are_free_at_once(stores: tuple[HubStore, HubStore]) -> None:
    one, other = stores
    one.apply_documents(sites={}, rollouts=[rollout("r2")], audits=())
    take(one, "a")
    take(other, "b", of="r2")
    one.end_leases("a", NOW)
    assert one.lease("r1") == lease("a", 2, NOW)
    assert take(other, "b") == lease("b", 3, NOW + MINUTE)
    assert take(one, "a", of="r2") is None, "the other one's is untouched"


def test_tokens_rise_also_when_a_rollout_is_made_again_under_its_name(
    stores: tuple[HubStore, HubStore],
) -> None:
    one, other = stores
    take(one, "a")
    one.advance_rollout(msgspec.structs.replace(rollout("r1"), state="aborted", ended_at=NOW))
    one.remove_rollout("r1", audit())
    assert take(other, "b", after=2 * MINUTE) is None, "there is nothing to decide"
    one.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    assert take(other, "b", after=2 * MINUTE) == lease("b", 2, NOW + 3 * MINUTE)


@pytest.mark.rule("ROLLOUT-7")
def test_nothing_is_stored_in_a_turn_that_is_over(stores: tuple[HubStore, HubStore]) -> None:
    one, other = stores
    before = take(one, "a")
    assert before is not None
    after = take(other, "b", after=2 * MINUTE)
    assert after is not None
    changed = msgspec.structs.replace(rollout("r1"), why="changed")
    given = AssignmentRecord(site="berlin", application="meter", release="meter@1", rollout="r1")
    for turn in (Turn(lease=before, decision=decision()), Turn(lease=lease("b", 1, NOW + MINUTE))):
        with pytest.raises(Conflict) as caught:
            one.advance_rollout(changed, assign=[given], turn=turn)
        assert caught.value.code == "rollout.lease_lost"
    assert one.rollout("r1") == rollout("r1")
    assert (one.assignments(), one.decisions("r1", limit=9)) == ([], [])
    other.advance_rollout(changed, assign=[given], turn=Turn(lease=after, decision=decision()))
    assert other.assignments() == [given]
    other.end_leases("b", NOW + 2 * MINUTE)
    with pytest.raises(Conflict):
        other.advance_rollout(msgspec.structs.replace(changed, version=1), turn=Turn(lease=after))


def test_decisions_are_numbered_and_go_with_their_rollout(stores: tuple[HubStore, HubStore]) -> None:
    one, _ = stores
    held = take(one, "a")
    assert held is not None
    effects = (EffectView(release="meter@1", sites=2, named=("berlin", "paris")),)
    one.advance_rollout(rollout("r1"), turn=Turn(lease=held, decision=decision("one", effects)))
    one.advance_rollout(msgspec.structs.replace(rollout("r1"), version=1), turn=Turn(lease=held))
    second = msgspec.structs.replace(rollout("r1"), version=2, state="aborted")
    one.advance_rollout(second, turn=Turn(lease=held, decision=decision("two")))
    found = one.decisions("r1", limit=9)
    assert [(entry.number, entry.why, entry.effects) for entry in found] == [
        (2, "two", ()),
        (1, "one", effects),
    ]
    assert one.decisions("r1", limit=1) == found[:1]
    one.remove_rollout("r1", audit())
    assert one.decisions("r1", limit=9) == []


def test_the_first_decisions_and_the_newest_are_kept() -> None:
    store = SqlHubStore.open(None)
    populate(store)
    store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    held = take(store, "a")
    assert held is not None
    turn = Turn(lease=held, decision=decision())
    made = KEEP_FIRST + KEEP_NEWEST + 30
    for version in range(made):
        store.advance_rollout(msgspec.structs.replace(rollout("r1"), version=version), turn=turn)
    numbers = [entry.number for entry in store.decisions("r1", limit=made)]
    assert numbers == [*range(made, made - KEEP_NEWEST, -1), *range(KEEP_FIRST, 0, -1)]
    store.close()


def test_when_a_host_was_last_there_never_goes_back(stores: tuple[HubStore, HubStore]) -> None:
    one, _ = stores
    one.note_seen({})
    one.note_seen({"cam-1": NOW, "nobody": NOW})
    one.note_seen({"cam-1": NOW - MINUTE})
    assert [(host.name, host.last_seen_at) for host in one.hosts()] == [("cam-1", NOW)]
    one.note_seen({"cam-1": NOW + MINUTE})
    assert [(host.last_seen_at, host.sequence) for host in one.hosts()] == [(NOW + MINUTE, 1)]
