"""Sinks of a hub: what goes there and when, what a failure changes, and who may say so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.carrier.notifier import Notifier
from skerry.hub.api.app import API_PATH
from skerry.hub.loops.sinks import LONGEST_WAIT_S, SinkLoop, wait_s
from skerry.hub.sinking import HOLD_FOR, MAX_BATCH_BYTES, Batch, next_batch, view_sink
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Unavailable
from skerry.ports.sink_store import SinkRecord, SinkStep
from skerry.spec.api_sink import SinkView
from skerry.spec.metadata import Metadata
from skerry.spec.sink import MAX_SINKS, Sink, SinkSpec, WebhookSpec
from skerry.spec.site import Site, SiteSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_sink import MemorySinks
from skerry.testing.waiting import eventually
from tests.unit.test_hub_door import World
from tests.unit.test_hub_topics import batch, message

URL = "https://erp.example.com/in"
DOWN = Unavailable("sink.unreachable", "erp.example.com: refused")


class Dying(SqlHubStore):
    """A store to which nothing about how far a sink is gets any more: the hub is killed before."""

    dead = False

    def advance_sink(self, name: str, holder: str, step: SinkStep) -> bool:
        if self.dead:
            raise Unavailable("test.killed", "killed")
        return super().advance_sink(name, holder, step)


class Sinks:
    """A store with messages, and loops over it."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        store = Dying.open(None)
        assert isinstance(store, Dying)
        self.store = store
        self.notifier = Notifier()
        self.places = MemorySinks()
        self._batches = 0

    def apply(self, name: str = "erp", *topics: str, sites: str = "*", most: int = 100) -> Sink:
        place = WebhookSpec(url=URL, batch=most)
        spec = SinkSpec(topics=topics or ("#",), sites=sites, webhook=place)
        sink = Sink(metadata=Metadata(name), spec=spec)
        record = SinkRecord(
            name=name, document=encode_canonical(sink), changed_at=self.clock.now(), changed_by="ann"
        )
        self.store.apply_documents(sites={}, rollouts=(), audits=(), fleetwide=[record])
        return sink

    def come(self, *topics: str, site: str = "harbour", payload: bytes = b"1") -> None:
        """Let a batch of messages come; they are numbered on."""
        self._batches += 1
        first = self._batches * 100
        messages = [message(first + index, topic, payload) for index, topic in enumerate(topics)]
        self.store.put_topic_batch(batch(self._batches, *messages, site=site), self.clock.now())
        self.notifier.notify("topics")

    def record(self, name: str = "erp") -> SinkRecord:
        return next(one for one in self.store.sinks() if one.name == name)

    def view(self, name: str = "erp") -> SinkView:
        return view_sink(self.store, self.record(name))

    def next(self, name: str = "erp") -> Batch:
        record = self.record(name)
        return next_batch(self.store, record, msgspec.json.decode(record.document, type=Sink).spec)

    @contextlib.asynccontextmanager
    async def served(
        self, holder: str = "hub", places: MemorySinks | None = None
    ) -> AsyncGenerator[SinkLoop]:
        loop = SinkLoop(
            self.store,
            self.clock,
            holder,
            make=(places or self.places).make,
            news=lambda seconds: self.notifier.wait("topics", seconds),
        )
        task = asyncio.create_task(loop.run_forever())
        try:
            yield loop
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, ids: list[str], name: str = "erp", places: MemorySinks | None = None) -> None:
        """Let time pass until exactly these have come, and until that is stored."""
        chosen = places or self.places

        async def here() -> bool:
            await self.clock.elapse(LONGEST_WAIT_S)
            place = chosen.by_name.get(name)
            return place is not None and place.ids == ids and self.view(name).waiting == 0

        await eventually(here, what=f"{ids} at {name}")


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    made = Sinks()
    yield made
    made.store.close()


def ids(*numbers: int) -> list[str]:
    return [f"s-edge.{number}" for number in numbers]


async def test_a_sink_gets_what_it_asks_for_in_order_from_when_it_was_made(sinks: Sinks) -> None:
    documents = {
        name: encode_canonical(Site(metadata=Metadata(name, {"region": region}), spec=SiteSpec()))
        for name, region in (("harbour", "north"), ("pier", "south"))
    }
    sinks.store.apply_documents(sites=documents, rollouts=(), audits=())
    sinks.come("plant/a", "plant/b")
    sinks.apply("erp", "plant/a", "plant/c/#", sites="region=north", most=2)
    assert sinks.view().waiting == 0
    sinks.come("plant/a", "plant/b", "plant/c/d", "plant/a")
    sinks.come("plant/a", site="pier")
    assert sinks.view().waiting == 3
    async with sinks.served():
        await sinks.until(ids(200, 202, 203))
        sinks.come("plant/b", "plant/a")
        await sinks.until(ids(200, 202, 203, 401))
    assert [len(one) for one in sinks.places.by_name["erp"].batches] == [2, 1, 1]
    view = sinks.view()
    assert (view.position, view.waiting, view.lost, view.trouble) == (sinks.store.newest_topic_id(), 0, 0, "")
    assert view.delivered_at is not None


def test_a_batch_is_bounded_in_bytes_and_one_large_message_goes_alone(sinks: Sinks) -> None:
    sinks.apply()
    sinks.come(*["a"] * 6, payload=b"x" * (MAX_BATCH_BYTES // 4))
    found = sinks.next()
    assert [one.id for one in found.messages] == ids(100, 101, 102, 103)
    assert found.more
    assert found.position == 4


@pytest.mark.rule("UPLINK-6")
async def test_a_hub_killed_after_a_delivery_delivers_the_same_again(sinks: Sinks) -> None:
    sinks.apply()
    sinks.come("a", "b")
    sinks.store.dead = True
    async with sinks.served():

        async def delivered() -> bool:
            return "erp" in sinks.places.by_name and bool(sinks.places.by_name["erp"].batches)

        await eventually(delivered, what="a delivery")
    assert sinks.record().position == 0
    before = len(sinks.places.by_name["erp"].batches)
    sinks.store.dead = False
    async with sinks.served():
        await sinks.until(ids(100, 101) * (before + 1))
    async with sinks.served():
        sinks.come("c")
        await sinks.until([*ids(100, 101) * (before + 1), *ids(200)])


@pytest.mark.rule("UPLINK-6")
async def test_what_a_place_does_not_take_stays_and_hinders_no_other(sinks: Sinks) -> None:
    sinks.apply("erp")
    sinks.apply("log")
    sinks.places.make(sinks.apply("erp")).error = DOWN
    sinks.come("a")
    async with sinks.served():
        await sinks.until(ids(100), "log")

        async def told() -> bool:
            return sinks.view("erp").trouble == str(DOWN)

        await eventually(told, what="the trouble")
        assert (sinks.record("erp").position, sinks.view("erp").waiting) == (0, 1)
        sinks.places.by_name["erp"].error = None
        await sinks.until(ids(100), "erp")
    assert sinks.view("erp").trouble == ""


async def test_a_sink_that_is_written_again_is_tried_at_once_and_stays_where_it_is(sinks: Sinks) -> None:
    sinks.places.make(sinks.apply()).error = DOWN
    sinks.come("a")
    async with sinks.served() as loop:

        async def told() -> bool:
            return bool(sinks.view().trouble)

        await eventually(told, what="the trouble")
        sinks.places.by_name["erp"].error = None
        sinks.apply("erp", "a")
        loop.wake()

        async def delivered() -> bool:  # without any time that passes
            return sinks.places.by_name["erp"].ids == ids(100)

        await eventually(delivered, what="the delivery")


async def test_what_the_hub_forgot_before_is_counted_as_lost(sinks: Sinks) -> None:
    sinks.apply()
    sinks.come("a", "b", "c")
    later = sinks.clock.now() + timedelta(days=1)
    assert sinks.store.trim_topics(before=later, most_bytes=1 << 30) == 3
    found = sinks.next()
    assert (found.messages, found.lost, found.position) == ((), 3, 3)
    sinks.come("d")
    async with sinks.served():
        await sinks.until(ids(200))
    assert sinks.view().lost == 3


def test_a_sink_made_when_all_was_forgotten_has_lost_nothing(sinks: Sinks) -> None:
    sinks.come("a", "b")
    sinks.store.trim_topics(before=sinks.clock.now() + timedelta(days=1), most_bytes=1 << 30)
    sinks.apply()
    sinks.come("c")
    found = sinks.next()
    assert ([one.id for one in found.messages], found.lost) == (ids(200), 0)


async def test_one_replica_serves_a_sink_and_another_one_takes_over(sinks: Sinks) -> None:
    sinks.apply()
    other = MemorySinks()
    async with sinks.served("first"):
        sinks.come("a")
        await sinks.until(ids(100))
        async with sinks.served("second", other):
            sinks.come("b")
            await sinks.until(ids(100, 200))
            assert "erp" not in other.by_name
    async with sinks.served("second", other):
        sinks.come("c")
        await sinks.until(ids(300), places=other)


def test_a_position_is_moved_by_who_holds_the_sink_and_from_where_it_is(sinks: Sinks) -> None:
    sinks.apply()
    now = sinks.clock.now()
    store, step = sinks.store, SinkStep(before=0, position=5)
    assert store.hold_sink("erp", "a", now=now, until=now + HOLD_FOR) is not None
    assert store.hold_sink("erp", "b", now=now, until=now + HOLD_FOR) is None
    assert not store.advance_sink("erp", "b", step)
    assert store.advance_sink("erp", "a", step)
    assert not store.advance_sink("erp", "a", step)
    later = now + HOLD_FOR
    assert store.hold_sink("erp", "b", now=later, until=later + HOLD_FOR) is not None
    assert not store.advance_sink("erp", "a", SinkStep(before=5, position=6))
    wrong = now - timedelta(days=9)  # a clock that was set back
    assert store.hold_sink("erp", "c", now=wrong, until=wrong + HOLD_FOR) is not None
    assert store.hold_sink("none", "a", now=now, until=later) is None


def test_waits_grow_and_differ_and_have_an_end() -> None:
    assert 1 <= wait_s(1) <= 2
    assert all(LONGEST_WAIT_S / 2 <= wait_s(number) <= LONGEST_WAIT_S for number in (9, 50, 5000))
    assert len({wait_s(9) for _ in range(20)}) > 1


# ── the operator API ─────────────────────────────────────────────────────────────────────────────────


def document(name: str = "erp", **spec: Any) -> dict[str, Any]:
    given = {"topics": ["plant/#"], "webhook": {"url": URL, "secret_file": "erp.key"}} | spec
    return {"apiVersion": "skerry/v1", "kind": "Sink", "metadata": {"name": name}, "spec": given}


async def test_admins_apply_and_delete_sinks_and_viewers_see_how_far_they_are(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def apply(role: str, *documents: dict[str, Any], dry_run: bool = False) -> Any:
        body = {"documents": documents, "dry_run": dry_run}
        return await world.ask(role, f"{API_PATH}/apply", "POST", json=body)

    assert (await apply("operator", document())).status_code == 403
    assert (await apply("admin", document(), dry_run=True)).json()["changes"][0]["action"] == "create"
    assert (await world.ask("viewer", f"{API_PATH}/sinks")).json() == []
    assert (await apply("admin", document())).status_code == 200
    assert (await apply("admin", document())).json()["changes"][0]["action"] == "unchanged"
    assert (await apply("admin", document(topics=["#"]))).json()["changes"][0]["action"] == "update"
    (shown,) = (await world.ask("viewer", f"{API_PATH}/sinks")).json()
    assert (shown["name"], shown["place"], shown["position"], shown["waiting"]) == ("erp", URL, 0, 0)
    assert (await world.ask("viewer", f"{API_PATH}/sinks/erp")).json() == shown
    assert (await world.ask("operator", f"{API_PATH}/sinks/erp", "DELETE")).status_code == 403
    assert (await world.ask("admin", f"{API_PATH}/sinks/erp", "DELETE")).status_code == 204
    assert (await world.ask("viewer", f"{API_PATH}/sinks/erp")).status_code == 404
    actions = [one.action for one in reversed(world.audits()) if one.action.startswith("sink.")]
    assert actions == ["sink.create", "sink.update", "sink.remove"]
    world.hub.store.close()


async def test_a_hub_has_so_many_sinks_and_selectors_that_can_be_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    many = [document(f"s{number}") for number in range(MAX_SINKS + 1)]
    body = {"documents": [*many, document("odd", sites="a=(")]}
    answer = await world.ask("admin", f"{API_PATH}/apply", "POST", json=body)
    assert answer.status_code == 400
    assert "32 sinks at most" in answer.text
    assert "Sink odd: spec.sites" in answer.text
    world.hub.store.close()
