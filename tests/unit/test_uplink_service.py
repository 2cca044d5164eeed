"""Messages go from the host's bus to the disk, and from there up: once, in time, and without delaying anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skerry.adapters.sqlite_topic_queue import SqliteTopicQueue
from skerry.agent.bus_line import BusLine
from skerry.agent.services.bus import OWN, own_topics
from skerry.agent.services.uplink import HostUplink, UplinkParts
from skerry.kit.errors import Unavailable
from skerry.ports.broker import BrokerSettings, BusAccount, BusPlace
from skerry.spec.topics import TopicsSpec, UplinkSpec
from skerry.spec.uplink import TopicBatch, TopicMessage
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_bus import MemoryBus

PORT = 1883


def _place(user: str, password: str, client: str) -> BusPlace:
    return BusPlace(address="127.0.0.1", port=PORT, user=user, password=password, client=client)


class World:
    """A host with a bus in memory at simulated time; `told` is what its upstream took."""

    def __init__(self, root: Path) -> None:
        self.clock = SimulatedClock()
        self.bus = MemoryBus()
        self.path = root / "uplink.db"
        self.rights: dict[str, TopicsSpec] = {}
        self.told: list[TopicBatch] = []
        self.failing, self.budget, self.takes = "", 10**9, True
        self.up = True
        self.begin()

    def begin(self) -> None:
        """Begin as a new agent does; the broker and the disk are as they were."""
        line = BusLine(
            self.bus.client, self._place, self.now, lambda: own_topics(self.rights.values()).subscribe
        )
        parts = UplinkParts(
            open=lambda: SqliteTopicQueue.open(self.path),
            exists=self.path.exists,
            line=line,
            rights=lambda: self.rights,
            clock=self.clock,
            now=self.now,
            tell=self._tell,
            failing=lambda: self.failing,
            held=lambda size: "" if size <= self.budget else "used up",
        )
        self.line = line
        self.service = HostUplink(parts)

    def now(self) -> float:
        return self.clock.now().timestamp()

    def declare(self, *rules: UplinkSpec, application: str = "line") -> None:
        self.rights[application] = TopicsSpec(publish=("plant/#",), uplink=rules)
        own = own_topics(self.rights.values())
        accounts = (
            BusAccount(user="line", password="p", publish=("plant/#",)),
            BusAccount(user=OWN, password="own", publish=own.publish, subscribe=own.subscribe),
        )
        self.bus.settings[PORT] = BrokerSettings(accounts=accounts, port=PORT)

    def publish(self, topic: str, *payloads: str) -> None:
        client = self.bus.client()
        client.open(_place("line", "p", "publisher"), take=lambda _: None)
        for payload in payloads:
            client.publish(topic, payload.encode())
        client.close()

    async def die(self) -> None:
        """End as by kill -9: nothing is kept that is not on the disk, and the broker notices."""
        for session in self.bus.sessions.get(PORT, {}).values():
            if session.client is not None:
                session.client.cut()
        self.begin()

    @property
    def messages(self) -> list[TopicMessage]:
        return [one for batch in self.told for one in batch.messages]

    @property
    def texts(self) -> list[str]:
        return [one.payload.decode() for one in self.messages]

    async def tell_all(self) -> None:
        while await self.service.tell():
            pass

    def _place(self) -> BusPlace | None:
        if not self.up or not any(one.uplink for one in self.rights.values()):
            return None
        return _place(OWN, "own", OWN)

    async def _tell(self, batch: TopicBatch) -> bool:
        if self.takes:
            self.told.append(batch)
        return self.takes


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


HIGH = UplinkSpec(topic="plant/#", priority="high", max_rate=1000)


async def test_what_is_declared_goes_up_and_nothing_else(world: World) -> None:
    world.declare(UplinkSpec(topic="plant/+/count", priority="high"))
    await world.service.keep()
    world.publish("plant/line1/count", "7", "8")
    world.publish("plant/line1/secret", "x")
    await world.service.keep()
    await world.tell_all()
    assert [(one.application, one.topic, one.payload) for one in world.messages] == [
        ("line", "plant/line1/count", b"7"),
        ("line", "plant/line1/count", b"8"),
    ]
    assert [one.at for one in world.messages] == [world.now()] * 2


async def test_a_host_without_uplink_has_neither_a_queue_nor_a_connection(world: World) -> None:
    assert not await world.service.keep()
    assert not await world.service.tell()
    assert not world.path.exists()
    await world.service.close()


@pytest.mark.rule("UPLINK-1")
async def test_what_was_kept_outlives_the_agent_and_is_told_once(world: World) -> None:
    world.declare(HIGH)
    await world.service.keep()
    world.publish("plant/a", "1", "2")
    await world.service.keep()
    world.takes = False
    await world.tell_all()
    await world.die()
    world.publish("plant/a", "3")
    world.takes = True
    await world.service.keep()
    await world.service.keep()
    await world.tell_all()
    assert world.texts == ["1", "2", "3"]
    assert [batch.batch for batch in world.told] == [1, 2], "what was begun came again under its number"


@pytest.mark.rule("UPLINK-1")
async def test_what_the_broker_delivers_again_after_a_crash_is_kept_once(world: World) -> None:
    world.declare(HIGH)
    await world.service.keep()
    world.publish("plant/a", "same", "same", "other")
    # The messages are on the disk, and the agent dies before the broker hears of it.
    queue = SqliteTopicQueue.open(world.path)
    waiting = dict(world.bus.sessions[PORT][OWN].waiting)
    await world.service.keep()
    world.bus.sessions[PORT][OWN].waiting.update(waiting)
    await world.die()
    await world.service.keep()
    await world.service.keep()
    assert world.bus.sessions[PORT][OWN].waiting == {}
    await world.tell_all()
    assert sorted(world.texts) == ["other", "same", "same"]
    queue.close()


@pytest.mark.rule("UPLINK-1")
async def test_what_was_not_on_the_disk_comes_again_from_the_broker(world: World) -> None:
    world.declare(HIGH)
    await world.service.keep()
    world.publish("plant/a", "1")
    await world.die()
    await world.service.keep()
    await world.service.keep()
    await world.tell_all()
    assert world.texts == ["1"]


async def test_equal_messages_of_a_publisher_are_all_kept(world: World) -> None:
    world.declare(HIGH)
    await world.service.keep()
    world.publish("plant/a", *["7"] * 5)
    await world.service.keep()
    world.publish("plant/a", *["7"] * 5)
    await world.service.keep()
    await world.tell_all()
    assert world.texts == ["7"] * 10


@pytest.mark.rule("UPLINK-3")
async def test_nothing_goes_up_while_exchanges_fail_or_the_budget_is_used_up(world: World) -> None:
    world.declare(HIGH)
    await world.service.keep()
    world.publish("plant/a", "1")
    await world.service.keep()
    world.failing = "link.unreachable"
    await world.tell_all()
    world.failing, world.budget = "", 0
    await world.tell_all()
    assert world.told == []
    world.budget = 100
    await world.tell_all()
    assert world.texts == ["1"]


@pytest.mark.rule("UPLINK-2")
async def test_what_is_too_large_or_too_often_is_counted(world: World) -> None:
    world.declare(UplinkSpec(topic="plant/a", priority="high", max_rate=0.5, max_size="1KiB"))
    await world.service.keep()
    world.publish("plant/a", "x" * 1025, *["1"] * 7)
    await world.service.keep()
    await world.tell_all()
    assert world.texts == ["1"] * 5
    (batch,) = world.told
    assert {(one.application, one.topic, one.why): one.count for one in batch.dropped} == {
        ("line", "plant/a", "too large"): 1,
        ("line", "plant/a", "too many"): 2,
    }
    world.clock.advance(2)
    world.publish("plant/a", "2")
    await world.service.keep()
    await world.tell_all()
    assert world.texts[-1] == "2"


async def test_a_window_stands_for_its_messages_and_outlives_the_agent(world: World) -> None:
    world.declare(UplinkSpec(topic="plant/+", priority="high", reduce="mean", window="10s"))
    await world.service.keep()
    world.publish("plant/a", "1", "2")
    world.publish("plant/b", "30", "broken")
    await world.service.keep()
    await world.die()
    await world.service.keep()
    world.publish("plant/a", "6")
    await world.service.keep()
    await world.tell_all()
    assert world.told == []
    world.clock.advance(10)
    await world.service.keep()
    await world.tell_all()
    found = {one.topic: (json.loads(one.payload), one.count) for one in world.messages}
    assert found == {
        "plant/a": ({"mean": 3.0, "min": 1.0, "max": 6.0, "count": 3}, 3),
        "plant/b": ({"mean": 30.0, "min": 30.0, "max": 30.0, "count": 1}, 1),
    }
    assert [(one.why, one.count) for one in world.told[0].dropped] == [("no number", 1)]


async def test_of_a_sample_every_nth_goes_up(world: World) -> None:
    world.declare(UplinkSpec(topic="plant/a", priority="high", reduce="sample 3"))
    await world.service.keep()
    world.publish("plant/a", *map(str, range(1, 8)))
    await world.service.keep()
    await world.tell_all()
    assert [(one.payload, one.count) for one in world.messages] == [(b"3", 3), (b"6", 3)]


async def test_a_bus_that_was_away_is_read_on(world: World) -> None:
    world.declare(HIGH)
    await world.service.keep()
    world.up = False
    await world.service.keep()
    world.publish("plant/a", "meanwhile")
    world.up = True
    await world.service.keep()
    await world.service.keep()
    await world.tell_all()
    assert world.texts == ["meanwhile"]


async def test_a_bus_that_refuses_is_told_and_tried_again(world: World) -> None:
    world.declare(HIGH)
    settings = world.bus.settings.pop(PORT)
    with pytest.raises(Unavailable):
        await world.service.keep()
    world.bus.settings[PORT] = settings
    assert await world.service.keep()


def test_the_agents_own_account_reads_what_goes_up_and_publishes_what_comes_down() -> None:
    one = TopicsSpec(
        publish=("a/#",), subscribe=("b/#",), uplink=(UplinkSpec(topic="a/x"),), downlink=("b/y",)
    )
    found = own_topics([one, TopicsSpec(publish=("c",))])
    assert (found.subscribe, found.publish) == (("a/x",), ("b/y",))
    assert not own_topics([TopicsSpec(publish=("c",))]).is_used
