"""Links between the buses of hosts: who is let in, what crosses, and that it crosses once."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.mqtt_client import MqttClient
from skerry.adapters.system_clock import SystemClock
from skerry.adapters.tls_bus_links import TlsBusLinks, TlsLinkEnd
from skerry.agent.bus_crossing import MAX_WAITING, MAX_WAITING_BYTES, LinkMessage, Outgoing, OwnBus
from skerry.agent.services.bus_links import LINK_USER
from skerry.kit.errors import Unavailable, Untrusted
from skerry.matching.bus_links import apart
from skerry.ports.broker import BusAccount, BusPlace
from skerry.ports.bus_link import MAX_FRAME_BYTES, LinkEnd, LinkIdentity
from skerry.spec.topics import HostTopics
from skerry.testing.waiting import eventually
from skerry.trust.pki import spiffe_id
from tests.contract.bus_world import HERE, LINE, BusWorld, needs
from tests.contract.link_world import LinkWorld, Station
from tests.unit.pki_world import Root


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[LinkWorld]:
    made = LinkWorld(tmp_path, "h1", "h2", "h3")
    yield made
    await made.close()


class Ends:
    """The links that a door has let in."""

    def __init__(self) -> None:
        self.open: list[LinkEnd] = []

    async def accept(self, end: LinkEnd) -> None:
        self.open.append(end)
        while True:
            await end.send(await end.receive(limit_s=60))


async def said(end: LinkEnd, frame: bytes) -> bytes:
    """Return what is said back; nothing when the link has ended."""
    try:
        await end.send(frame)
        return await end.receive(limit_s=60)
    except Unavailable:
        return b""
    finally:
        end.close()


async def dialled(
    world: LinkWorld, caller: Station, *, identity: LinkIdentity | None = None, answers: str = "h1"
) -> list[str]:
    """Return as whom a host is let in by another; nobody when it is not."""
    door, ends = TlsBusLinks(), Ends()
    port = await door.listen(HERE, 0, world.stations[answers].identity(), ends.accept)
    try:
        end = await caller.door.dial(HERE, port, identity or caller.identity(), answers)
        assert (await said(end, b"hello") == b"hello") == bool(ends.open)
    except (Untrusted, Unavailable):
        return [end.host for end in ends.open]
    finally:
        await door.close()
    return [end.host for end in ends.open]


@pytest.mark.rule("BUS-6")
async def test_hosts_of_a_site_know_each_other(world: LinkWorld) -> None:
    assert await dialled(world, world.stations["h2"]) == ["h2"]


@pytest.mark.rule("BUS-6")
async def test_no_host_passes_for_another(world: LinkWorld) -> None:
    posing = world.stations["h3"].identity(pose_as="h2")
    assert await dialled(world, world.stations["h3"], identity=posing) == []
    door, ends = TlsBusLinks(), Ends()
    port = await door.listen(HERE, 0, world.stations["h3"].identity(pose_as="h1"), ends.accept)
    caller = world.stations["h2"]
    with pytest.raises(Untrusted) as caught:
        await caller.door.dial(HERE, port, caller.identity(), "h1")
    assert "somebody else than h1" in caught.value.message
    await door.close()


@pytest.mark.rule("BUS-6")
async def test_no_application_passes_for_its_host(world: LinkWorld) -> None:
    caller = world.stations["h2"]
    posing = caller.identity(uri=spiffe_id(caller.local.trust_domain, "harbour", "line"))
    assert await dialled(world, caller, identity=posing) == []


@pytest.mark.rule("BUS-6")
async def test_a_host_of_another_site_or_root_is_not_let_in(world: LinkWorld, tmp_path: Path) -> None:
    for number, root in enumerate((Root(world.clock.now(), "valley"), world.root)):
        root.site = "valley"
        away = Station(tmp_path / f"away-{number}" / "h2", "h2", world.clock, site="valley")
        for _ in range(4):
            pki = root.answer({"h2": away.authority.view(root.pki())}, world.clock.now())
            away.authority.follow(pki)
        assert await dialled(world, away) == []


@pytest.mark.rule("BUS-6")
async def test_who_is_revoked_is_not_let_in(world: LinkWorld) -> None:
    caller = world.stations["h2"]
    identity = caller.identity()
    world.root.revoke("h2", world.clock.now())
    world.stations["h1"].authority.follow(world.root.pki())
    assert await dialled(world, caller, identity=identity) == []


@pytest.mark.rule("BUS-6")
async def test_without_a_certificate_nobody_is_let_in(world: LinkWorld) -> None:
    door, ends = TlsBusLinks(), Ends()
    port = await door.listen(HERE, 0, world.stations["h1"].identity(), ends.accept)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(HERE, port, ssl=context)
    assert await said(TlsLinkEnd("h1", reader, writer), b"hello") == b""
    assert ends.open == []
    await door.close()


async def test_a_frame_that_is_too_long_ends_the_link(world: LinkWorld) -> None:
    door, ends = TlsBusLinks(), Ends()
    port = await door.listen(HERE, 0, world.stations["h1"].identity(), ends.accept)
    caller = world.stations["h2"]
    end = await caller.door.dial(HERE, port, caller.identity(), "h1")
    assert await said(end, b"x" * (MAX_FRAME_BYTES + 1)) == b""
    await door.close()


@pytest.mark.rule("BUS-5")
async def test_exactly_what_one_publishes_and_another_reads_crosses(world: LinkWorld) -> None:
    line = world.state("h1", publish=["plant/line1/#", "plant/own"])
    rules = world.state("h2", subscribe=["plant/+/count", "plant/end"], publish=["plant/orders"])
    world.state("h3", subscribe=["plant/line1/end"])
    await world.until_linked()
    assert rules.rights.publish == ("plant/line1/count",) and rules.rights.subscribe == ()
    assert line.rights.publish == () and line.rights.subscribe == ("plant/line1/count", "plant/line1/end")
    reader, other, writer = rules.enter(), world.stations["h3"].enter(), line.enter()
    for topic in ("plant/own", "plant/line1/state", "plant/line1/count", "plant/line1/end"):
        writer.client.publish(topic, topic.encode())
    await other.until(b"plant/line1/end")
    await reader.until(b"plant/line1/count")


@pytest.mark.rule("BUS-5")
async def test_a_host_is_sent_nothing_that_is_for_another(world: LinkWorld) -> None:
    line = world.state("h1", publish=["plant/line1/#"])
    world.state("h2", subscribe=["plant/+/count"])
    nosy = world.state("h3", subscribe=["plant/line1/end"])
    await world.until_linked()
    await nosy.links.close()
    end = await nosy.door.dial(HERE, line.port, nosy.identity(), "h1")
    writer = line.enter()
    for topic in ("plant/line1/count", "plant/line1/other", "plant/line1/end"):
        writer.client.publish(topic, b"7")
    message = LinkMessage("", 0)
    while not message.number:
        message = msgspec.msgpack.decode(await end.receive(limit_s=60), type=LinkMessage)
    assert message.topic == "plant/line1/end"
    end.close()


@pytest.mark.rule("BUS-5")
async def test_among_three_hosts_every_message_comes_once_and_nothing_goes_round(world: LinkWorld) -> None:
    topics = ["plant/a/#"]
    stations = [world.state(name, publish=topics, subscribe=topics) for name in world.stations]
    await world.until_linked()
    readers = [station.enter() for station in stations]
    said = [f"{number} of {reader}".encode() for reader in range(3) for number in range(20)]
    for number in range(20):
        for index, reader in enumerate(readers):
            reader.client.publish("plant/a/b", f"{number} of {index}".encode())
    for reader in readers:
        await reader.until(*said)
    # What went round would come before this, which takes the same ways after it.
    for index, reader in enumerate(readers):
        reader.client.publish("plant/a/end", f"end {index}".encode())
    for reader in readers:
        await reader.until(*said, b"end 0", b"end 1", b"end 2")


@pytest.mark.rule("BUS-5")
async def test_the_same_words_from_two_hosts_both_come(world: LinkWorld) -> None:
    topics = ["plant/a"]
    one, other = (world.state(name, publish=topics, subscribe=topics) for name in ("h1", "h2"))
    await world.until_linked()
    here, there = one.enter(), other.enter()
    for _ in range(10):
        here.client.publish("plant/a", b"same")
        there.client.publish("plant/a", b"same")
    for reader in (here, there):
        await reader.until(*[b"same"] * 20)


@pytest.mark.broker
@pytest.mark.rule("BUS-5")
@pytest.mark.parametrize("kind", ("nats", "mosquitto"))
async def test_at_real_brokers_only_what_others_publish_is_sent_on_and_once(
    kind: str, tmp_path: Path
) -> None:
    needs(kind)
    world, came = BusWorld(kind, tmp_path), list[str]()
    topics = ("plant/line1/#", "plant/+/count")
    link = BusAccount(user=LINK_USER, password="of-links", publish=topics, subscribe=apart(topics))
    place = BusPlace(
        address=HERE, port=world.settings.port, user=LINK_USER, password="of-links", client="skerry-link-1"
    )
    bus = OwnBus(lambda: MqttClient(limit_s=20), SystemClock(), lambda topic, _: came.append(topic))
    try:
        await world.apply(LINE, link)
        await bus.keep(place, apart(topics))
        line = await asyncio.to_thread(world.open, LINE)
        for number in range(10):
            await bus.publish("plant/line1/count", f"{number}".encode())
        await asyncio.to_thread(line.client.publish, "plant/line1/count", b"0")
        await asyncio.to_thread(line.client.publish, "plant/line1/end", b"")

        async def over() -> bool:
            return "plant/line1/end" in came

        await eventually(over, what="what was published last")
        assert came == ["plant/line1/count", "plant/line1/end"]
    finally:
        await bus.close()
        await world.close()


@pytest.mark.rule("BUS-7")
async def test_what_is_published_while_a_link_is_cut_comes_when_it_is_back(world: LinkWorld) -> None:
    line = world.state("h1", publish=["plant/a"])
    rules = world.state("h2", subscribe=["plant/a"])
    await world.until_linked()
    reader, writer = rules.enter(), line.enter()
    writer.client.publish("plant/a", b"before")
    await reader.until(b"before")
    await rules.links.close()
    for number in range(5):
        writer.client.publish("plant/a", f"{number}".encode())
    await world.until_linked()
    await reader.until(b"before", *[f"{number}".encode() for number in range(5)])


@pytest.mark.rule("BUS-7")
async def test_a_host_that_is_away_is_said_and_holds_up_no_other(world: LinkWorld) -> None:
    line = world.state("h1", publish=["plant/a"])
    rules, gone = world.state("h2", subscribe=["plant/a"]), world.state("h3", publish=["plant/a"])
    await world.until_linked()
    await gone.links.close()
    world.stations.pop("h3")
    reader, writer = rules.enter(), line.enter()
    writer.client.publish("plant/a", b"7")
    await reader.until(b"7")

    async def said() -> bool:
        return bool(rules.links.views["h3"])

    await eventually(said, what="that h3 is away")
    assert rules.links.views["h1"] == ""


@pytest.mark.rule("BUS-7")
async def test_for_a_host_that_never_came_nothing_waits(world: LinkWorld) -> None:
    line = world.state("h1", publish=["plant/a"])
    rules = world.state("h2", subscribe=["plant/a"])
    late = world.stations.pop("h3")
    late.topics = HostTopics(subscribe=("plant/a",))
    await world.until_linked()
    reader, writer = rules.enter(), line.enter()
    writer.client.publish("plant/a", b"before it came")
    await reader.until(b"before it came")
    world.stations["h3"] = late
    await world.until_linked()
    came = late.enter()
    writer.client.publish("plant/a", b"after")
    await came.until(b"after")


async def test_a_port_that_somebody_else_has_is_changed_for_another(world: LinkWorld) -> None:
    line = world.state("h1", publish=["plant/a"])
    rules = world.state("h2", subscribe=["plant/a"])
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        taken.listen()
        line.port = port = int(taken.getsockname()[1])
        await world.until_linked()
        assert line.port != port
        reader, writer = rules.enter(), line.enter()
        writer.client.publish("plant/a", b"7")
        await reader.until(b"7")


@pytest.mark.rule("BUS-7")
def test_what_waits_for_a_host_is_bounded() -> None:
    waiting = Outgoing("session")
    for _ in range(MAX_WAITING + 3):
        waiting.put("plant/a", b"x")
    assert waiting.dropped == 3
    large = Outgoing("session")
    for _ in range(5):
        large.put("plant/a", bytes(MAX_WAITING_BYTES // 4))
    assert large.dropped == 1
