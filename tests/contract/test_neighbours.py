"""What every way to the neighbours keeps: datagrams arrive whole or not at all, and nothing listens when closed."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable

import pytest

from skerry.adapters.udp_datagrams import UdpDatagrams, join_address
from skerry.kit.errors import Unavailable
from skerry.ports.neighbours import Datagrams
from skerry.testing.memory_lan import MemoryLan
from skerry.testing.waiting import eventually

HERE = "127.0.0.1"


def memory_machines() -> Callable[[], Datagrams]:
    lan = MemoryLan()
    return lambda: lan.machine(HERE)


KINDS: dict[str, Callable[[], Callable[[], Datagrams]]] = {
    "udp": lambda: UdpDatagrams,
    "memory": memory_machines,
}


@pytest.fixture(params=KINDS)
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Datagrams, Datagrams]]:
    make = KINDS[str(request.param)]()
    one, other = make(), make()
    yield one, other
    one.close()
    other.close()


Ends = tuple[Datagrams, Datagrams]


async def until(inbox: list[bytes], count: int) -> None:
    async def enough() -> bool:
        return len(inbox) >= count

    await eventually(enough, what=f"{count} datagrams")


async def test_what_is_sent_arrives_whole_at_the_other_end(ends: Ends) -> None:
    one, other = ends
    inbox: list[bytes] = []
    answers: list[bytes] = []
    there = await other.open(HERE, 0, inbox.append)
    here = await one.open(HERE, 0, answers.append)
    for datagram in (b"a", b"b" * 1200, b""):
        one.send(there, datagram)
    await until(inbox, 3)
    assert inbox == [b"a", b"b" * 1200, b""]
    other.send(here, b"back")
    await until(answers, 1)
    assert answers == [b"back"]


async def test_a_port_is_kept_and_cannot_be_had_twice(ends: Ends) -> None:
    one, other = ends
    place = await one.open(HERE, 0, lambda _: None)
    port = int(place.rpartition(":")[2])
    assert place == f"{HERE}:{port}"
    with pytest.raises(Unavailable) as caught:
        await other.open(HERE, port, lambda _: None)
    assert caught.value.code == "lan.unavailable"
    one.close()
    assert await other.open(HERE, port, lambda _: None) == place


async def test_opening_again_closes_the_former(ends: Ends) -> None:
    one, other = ends
    place = await one.open(HERE, 0, lambda _: None)
    moved = await one.open(HERE, 0, lambda _: None)
    assert moved != place
    assert await other.open(HERE, int(place.rpartition(":")[2]), lambda _: None) == place


async def test_an_address_of_another_machine_cannot_be_listened_at(ends: Ends) -> None:
    with pytest.raises(Unavailable) as caught:
        await ends[0].open("192.0.2.77", 0, lambda _: None)
    assert caught.value.code == "lan.unavailable"


@pytest.mark.parametrize(
    "address", (f"{HERE}:9", "", "nonsense", "not.a.number:70000", "192.0.2.77:9", "[::1]:9", f"{HERE}:x")
)
async def test_what_cannot_be_sent_is_lost_without_a_word(ends: Ends, address: str) -> None:
    one, other = ends
    one.send(address, b"before it is open")
    await one.open(HERE, 0, lambda _: None)
    one.send(address, b"x")
    inbox: list[bytes] = []
    one.send(await other.open(HERE, 0, inbox.append), b"the next one arrives")
    await until(inbox, 1)
    one.close()
    one.send(address, b"after it was closed")


async def test_the_own_address_is_one_that_can_be_listened_at(ends: Ends) -> None:
    one, _ = ends
    host = await one.own_address(HERE)
    assert host == HERE
    assert await one.open(host, 0, lambda _: None)


async def test_udp_finds_its_address_also_when_the_upstream_has_no_known_one() -> None:
    found = await UdpDatagrams().own_address("no-such-host.invalid")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            expected = str(probe.getsockname()[0])
    except OSError:
        expected = ""
    assert found == expected


def test_an_ipv6_address_has_brackets() -> None:
    assert (join_address("::1", 7), join_address(HERE, 7)) == ("[::1]:7", f"{HERE}:7")
