"""Messages from the hub are published once on the host's bus, in time, and to who takes them alone."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from skerry.agent.bus_line import BusLine
from skerry.agent.services.bus import OWN, own_topics
from skerry.agent.services.downlink import DownlinkParts, HostDownlink
from skerry.agent.services.host_service import Turn
from skerry.kit.errors import Unavailable
from skerry.ports.broker import BrokerSettings, BusAccount, BusMessage, BusPlace
from skerry.ports.runtime import InstanceView
from skerry.spec.desired import DesiredState
from skerry.spec.downlink import DownlinkMessage
from skerry.spec.report import Observed
from skerry.spec.topics import TopicsSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.memory_bus import MemoryBus

PORT = 1883
RULES = TopicsSpec(subscribe=("plant/#",), downlink=("plant/set/+",))


class World:
    """A host with a bus in memory on which application rules reads."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.bus = MemoryBus()
        self.store = MemoryAgentStore()
        self.rights = {"rules": RULES}
        self.up = True
        self.came: list[tuple[str, bytes]] = []
        self.messages: list[DownlinkMessage] = []
        own = own_topics(self.rights.values())
        accounts = (
            BusAccount(user="rules", password="p", subscribe=RULES.subscribe),
            BusAccount(user=OWN, password="own", publish=own.publish, subscribe=own.subscribe),
        )
        self.bus.settings[PORT] = BrokerSettings(accounts=accounts, port=PORT)
        reader = self.bus.client()
        reader.open(place("rules", "p"), take=self._take)
        reader.subscribe(RULES.subscribe)
        self.begin()

    def begin(self) -> None:
        """Begin as a new agent does."""
        line = BusLine(
            self.bus.client,
            lambda: place(OWN, "own") if self.up else None,
            lambda: self.clock.now().timestamp(),
            lambda: own_topics(self.rights.values()).subscribe,
        )
        parts = DownlinkParts(
            line=line, rights=lambda: self.rights, store=self.store, clock=self.clock, now=self.clock.now
        )
        self.service = HostDownlink(parts)

    def send(self, number: int, topic: str = "plant/set/speed", *, application: str = "rules") -> None:
        self.messages.append(
            DownlinkMessage(
                id=f"{number:032x}",
                application=application,
                topic=topic,
                payload=base64.b64encode(str(number).encode()).decode(),
                expires_at=self.clock.now() + timedelta(minutes=1),
            )
        )

    async def step(self, *, running: bool = True) -> dict[str, str]:
        now = self.clock.now()
        desired = DesiredState(
            site="harbour",
            generation=1,
            issued_at=now,
            expires_at=now + timedelta(days=1),
            downlink=tuple(self.messages),
        )
        view = InstanceView(id="i", state="running", labels={"application": "rules"})
        instances = {"i": view} if running else {}
        await self.service.follow(Turn(desired=desired, records={}, instances=instances))
        await self.service.publish()
        return {str(int(key, 16)): state for key, state in self.service.show(Observed()).downlink.items()}

    def _take(self, message: BusMessage) -> None:
        self.came.append((message.topic, message.payload))


def place(user: str, password: str) -> BusPlace:
    return BusPlace(address="127.0.0.1", port=PORT, user=user, password=password, client=user)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.rule("UPLINK-5")
async def test_a_message_is_published_once_also_by_an_agent_that_begins_anew(world: World) -> None:
    world.send(1)
    assert await world.step() == {"1": "delivered"}
    assert await world.step() == {"1": "delivered"}
    world.begin()
    assert await world.step() == {"1": "delivered"}
    assert world.came == [("plant/set/speed", b"1")]


@pytest.mark.rule("UPLINK-5")
async def test_what_has_expired_is_not_published(world: World) -> None:
    world.send(1)
    world.clock.advance(60)
    assert await world.step() == {"1": "expired"}
    assert world.came == []


@pytest.mark.rule("UPLINK-5")
async def test_an_application_gets_only_what_it_takes_from_the_hub(world: World) -> None:
    world.send(1, "plant/other")
    world.send(2, application="stranger")
    assert await world.step() == {"1": "refused"}
    assert world.came == []


async def test_a_message_waits_for_its_application_and_for_the_bus(world: World) -> None:
    world.send(1)
    assert await world.step(running=False) == {"1": "waiting"}
    world.up = False
    assert await world.step() == {"1": "waiting"}
    world.up = True
    settings = world.bus.settings.pop(PORT)
    with pytest.raises(Unavailable):
        await world.step()
    world.bus.settings[PORT] = settings
    assert world.came == []
    assert await world.step() == {"1": "delivered"}


async def test_what_is_asked_for_no_more_is_forgotten_when_it_has_expired(world: World) -> None:
    world.send(1)
    await world.step()
    kept, world.messages = world.messages, []
    assert await world.step() == {}
    world.messages = kept
    assert await world.step() == {"1": "delivered"}, "it has not expired yet"
    world.messages = []
    world.clock.advance(61)
    await world.step()
    assert world.store.load("downlink") == b"{}"
    assert world.came == [("plant/set/speed", b"1")]
