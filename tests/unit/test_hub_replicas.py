"""Two replicas of a hub on one database: one of them decides, and one that was asleep changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import sqlalchemy as sa

from skerry.adapters.sql.database import Database, open_file, open_memory
from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.leasing import LEASE_FOR, Leases, replica_name
from skerry.hub.loops.rollouts import LOOK_BESIDE_OTHERS_S
from skerry.hub.services import Hub
from skerry.ports.deciding import Turn
from skerry.ports.hub_store import AssignmentRecord
from skerry.spec.api_rollout import SiteProgress, Steering
from skerry.testing.clock import SimulatedClock
from skerry.testing.hub_parts import memory_hub
from tests.contract.hub_records import rollout as record_of_rollout
from tests.unit.test_hub_policies import Guarded
from tests.unit.test_hub_steering import rollout

pytestmark = pytest.mark.rollout

T = TypeVar("T")
LEASE_S = LEASE_FOR.total_seconds()


class SleepyDatabase(Database):
    """A database before whose n-th use something else happens, as if whoever uses it had been asleep that long."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.uses: list[str] = []
        self._sleep_before = 0
        self._meanwhile: Callable[[], None] = lambda: None

    def sleep(self, before: int, meanwhile: Callable[[], None]) -> None:
        """Count uses from now on, and do something before one of them."""
        self.uses.clear()
        self._sleep_before, self._meanwhile = before, meanwhile

    def read(self, call: Callable[[sa.Connection], T]) -> T:
        self._use("read")
        return self._inner.read(call)

    def write(self, call: Callable[[sa.Connection], T]) -> T:
        self._use("write")
        return self._inner.write(call)

    def close(self) -> None:
        self._inner.close()

    def _use(self, how: str) -> None:
        self.uses.append(how)
        if len(self.uses) == self._sleep_before:
            self._meanwhile()


class Replicas(Guarded):
    """Replica `hub` with a clock and a database of its own, and replica `other` beside it."""

    def __init__(self, folder: Path, path: Path | None) -> None:
        inner = open_memory() if path is None else open_file(path)
        self.database = SleepyDatabase(inner)
        super().__init__(folder, SqlHubStore(self.database))
        store = SqlHubStore(inner) if path is None else SqlHubStore.open(path)
        self.other_clock = SimulatedClock()
        self.other: Hub = memory_hub(
            folder / "other", self.other_clock, keys=self.hub.keys, store=store, replica="other"
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.other_clock.advance(seconds)

    def assigned(self) -> dict[str, str]:
        return {one.site: one.release for one in self.other.store.assignments()}

    def offers(self, name: str = "spring") -> list[int]:
        """Return how many sites each decision offered the release to."""
        return [sum(e.sites for e in one.effects) for one in self.other.store.decisions(name, limit=99)]

    def begin_anew(self, name: str) -> None:
        """Put a rollout that has just been made in the place of the one that there is."""
        (running,) = self.other.store.rollouts(running_only=True)
        gone = [(site, running.application) for site in self.assigned()]
        ended = msgspec.structs.replace(running, state="aborted", ended_at=self.clock.now())
        self.other.store.advance_rollout(ended, unassign=gone)
        self.other.store.remove_rollout(running.name, self.audit())
        self.other.store.note_seen({host.name: self.other_clock.now() for host in self.other.store.hosts()})
        made = msgspec.structs.replace(
            running, name=name, state="running", why="", version=0, sites={}, steering=Steering()
        )
        self.other.store.apply_documents(sites={}, rollouts=[made], audits=())

    async def sleep_through(self, meanwhile: Callable[[str], None]) -> AsyncGenerator[tuple[str, int, int]]:
        """Let `hub` decide a rollout and fall asleep before one use of the store after the other.

        Yields, each time, the rollout, before which use it slept, and how many writes there were until then: that
        of the lease, that of the decision, that of what is issued.
        """
        for number in itertools.count(1):
            name = f"asleep-{number}"
            self.begin_anew(name)
            self.database.sleep(number, lambda name=name: meanwhile(name))  # type: ignore[misc]
            await self.hub.rollouts.step()
            if len(self.database.uses) < number:
                assert number > 10
                return
            yield name, number, self.database.uses[: number - 1].count("write")


def in_a_process_of_its_own(hub: Hub) -> None:
    """Let a replica decide while another one stands still."""
    thread = threading.Thread(target=lambda: asyncio.run(hub.rollouts.step()))
    thread.start()
    thread.join()


@asynccontextmanager
async def replicas(folder: Path, path: Path | None = None) -> AsyncGenerator[Replicas]:
    made = Replicas(folder, path)
    await made.attach()
    await made.applied("operator", rollout("spring", "1", {"size": "100%", "max_in_flight": "1"}))
    try:
        yield made
    finally:
        made.other.store.close()
        if path is not None:
            made.hub.store.close()


async def test_one_of_two_replicas_decides_and_the_other_takes_over_when_it_is_gone(tmp_path: Path) -> None:
    async with replicas(tmp_path, tmp_path / "hub.db") as world:
        await world.hub.rollouts.step()
        await world.other.rollouts.step()
        first = world.other.store.lease("spring")
        assert first is not None
        assert (first.holder, first.token, world.offers()) == ("hub", 1, [1])
        for _ in range(4):  # it is prolonged for as long as its holder looks
            world.pass_time(LEASE_S / 2)
            await world.hub.rollouts.step()
            await world.other.rollouts.step()
        still = world.other.store.lease("spring")
        assert still is not None
        assert (still.holder, still.token) == ("hub", 1)
        world.pass_time(LEASE_S)
        await world.other.rollouts.step()
        taken = world.other.store.lease("spring")
        assert taken is not None
        assert (taken.holder, taken.token) == ("other", 2)
        await world.hub.rollouts.step()
        assert world.other.store.lease("spring") == taken


async def test_a_replica_that_stops_leaves_its_rollouts_to_the_others_at_once(tmp_path: Path) -> None:
    async with replicas(tmp_path, tmp_path / "hub.db") as world:
        await world.hub.rollouts.step()
        await world.hub.rollouts.close()
        await world.other.rollouts.step()
        taken = world.other.store.lease("spring")
        assert taken is not None
        assert (taken.holder, taken.token) == ("other", 3)


@pytest.mark.rule("ROLLOUT-7")
async def test_a_replica_that_slept_while_another_took_its_lease_changes_nothing(tmp_path: Path) -> None:
    """The clock of the other is ahead: to the one that slept its lease has not ended."""
    async with replicas(tmp_path) as world:
        store, now = world.other.store, world.other_clock.now() + LEASE_FOR

        def take(name: str) -> None:
            store.take_lease(name, "other", token=0, now=now, until=now + LEASE_FOR)

        async for name, number, writes in world.sleep_through(take):
            held = store.lease(name)
            assert held is not None
            decided = writes >= 2
            assert (held.holder, world.offers(name)) == ("other", [1] if decided else []), number
            assert len(world.assigned()) == decided
            in_a_process_of_its_own(world.other)  # it has the lease and has decided nothing yet
            assert world.offers(name) == [1], number
            assert len(world.assigned()) == 1


@pytest.mark.rule("ROLLOUT-7")
async def test_a_replica_that_slept_through_the_end_of_its_lease_decides_anew(tmp_path: Path) -> None:
    async with replicas(tmp_path) as world:
        dropped = 0
        async for name, number, writes in world.sleep_through(lambda _: world.pass_time(LEASE_S + 1)):
            # Once it is being written it is too late to look at the clock; nobody else has decided anything.
            begins_to_write = writes == 1 and world.database.uses[number - 1] == "write"
            late = number > 1 and writes < 2 and not begins_to_write
            dropped += late
            assert world.offers(name) == ([] if late else [1]), number
            await world.hub.rollouts.step()
            assert world.offers(name) == [1]
        assert dropped > 5


@pytest.mark.rule("ROLLOUT-7")
async def test_whenever_one_of_two_replicas_sleeps_the_other_goes_on_and_each_site_is_offered_once(
    tmp_path: Path,
) -> None:
    async with replicas(tmp_path) as world:

        def go_on(_: str) -> None:
            world.pass_time(LEASE_S + 1)
            in_a_process_of_its_own(world.other)

        async for name, number, _ in world.sleep_through(go_on):
            world.pass_time(LOOK_BESIDE_OTHERS_S)
            await world.hub.rollouts.step()
            assert world.offers(name) == [1], number
            (site,) = world.assigned()
            issued = world.other.store.site(site)
            assert issued is not None and issued.desired is not None
            assert (await world.hub.issuer.issued(site)).generation == issued.generation


async def test_what_a_replica_assigned_and_did_not_issue_is_issued_by_who_takes_over(tmp_path: Path) -> None:
    async with replicas(tmp_path) as world:
        (record,) = world.hub.store.rollouts()
        leases = Leases(world.hub.store, world.clock, "hub")
        held = leases.hold("spring")
        assert held is not None and not held.inherited
        progress = SiteProgress(state="offered", why="queued", wave=0)
        given = AssignmentRecord(site="pier", application="camera", release="camera@1", rollout="spring")
        decided = msgspec.structs.replace(record, sites={"pier": progress})
        world.hub.store.advance_rollout(decided, assign=[given], turn=Turn(lease=held.lease))
        world.pass_time(LEASE_S)
        await world.other.rollouts.step()
        pier = world.other.store.site("pier")
        assert pier is not None and pier.desired is not None


def test_a_replica_has_the_same_name_after_a_restart_and_a_copy_of_nothing_has_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    name = replica_name(tmp_path)
    assert replica_name(tmp_path) == name
    assert replica_name(tmp_path / "other") != name


def test_a_lease_that_a_wrong_clock_took_is_shortened_when_the_clock_is_right(tmp_path: Path) -> None:
    store, clock = SqlHubStore.open(None), SimulatedClock()
    store.apply_documents(sites={}, rollouts=[record_of_rollout("r1")], audits=())
    leases = Leases(store, clock, "hub")
    clock.jump(timedelta(days=3650))
    assert leases.hold("r1") is not None
    clock.jump(-timedelta(days=3650))
    held = leases.hold("r1")
    assert held is not None
    assert held.lease.expires_at == clock.now() + LEASE_FOR
    assert held.lease.token == 1
    store.close()
