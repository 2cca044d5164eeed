"""A host's DNS as independent clients see it: dig, and bytes that no client would send."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from skerry.adapters import dns_forwarding
from skerry.adapters.dns_clients import BURST, MAX_CLIENTS, Rates, is_near
from skerry.adapters.dns_packets import MAX_QUERY_BYTES, load_library, read_query
from skerry.adapters.dns_server import MAX_CONNECTIONS_EACH, DnsNameServer
from skerry.kit.errors import Unavailable
from skerry.matching.names import Asked, HostWords, ZoneAnswer, answer_question, lay_zone
from skerry.spec.names import NameWord
from skerry.testing.clock import SimulatedClock
from skerry.testing.waiting import eventually

HERE = "127.0.0.1"
NAME = "reader.site.internal"
LARGE = "large.site.internal"

dnslib: Any = load_library()

pytestmark = pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig (bind9-dnsutils)")


WORDS = (NameWord("reader", "reader", "https", 443), NameWord("sensor", "sensor", "raw", 5020))
HOSTS = [
    HostWords(host="h1", address="10.0.0.1", words=WORDS),
    HostWords(host="h6", address="fd00::6", words=WORDS),
    *(
        HostWords(
            host=f"l{number}", address=f"10.1.0.{number}", words=(NameWord("large", "large", "https", 443),)
        )
        for number in range(100)
    ),
]
ZONE = lay_zone(HOSTS, site="zurich", domain="skerry.internal", own="h1")


def say(asked: Asked) -> ZoneAnswer | None:
    return answer_question(ZONE, asked)


class Upstream(asyncio.DatagramProtocol):
    """Somebody else's DNS: answers as it is told to, and counts."""

    def __init__(self, answer: Callable[[Any], bytes]) -> None:
        self.answer = answer
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        assert self._transport is not None
        found = self.answer(dnslib.DNSRecord.parse(data))
        if found:
            self._transport.sendto(found, addr)


@asynccontextmanager
async def upstream(answer: Callable[[Any], bytes]) -> AsyncGenerator[tuple[str, Upstream]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Upstream(answer), local_addr=(HERE, 0))
    try:
        yield f"{HERE}:{transport.get_extra_info('sockname')[1]}", protocol
    finally:
        transport.close()


def with_address(asked: Any) -> bytes:
    reply = asked.reply(ra=1, aa=0)
    reply.add_answer(dnslib.RR(asked.q.qname, dnslib.QTYPE.A, rdata=dnslib.A("192.0.2.80"), ttl=60))
    return bytes(reply.pack())


@pytest.fixture
async def server() -> AsyncIterator[DnsNameServer]:
    # Time stands still: however long a busy machine takes, no upstream and no client is too late.
    made = DnsNameServer(SimulatedClock(), idle_s=3600)
    yield made
    await made.close()


async def serve(server: DnsNameServer, *upstreams: str) -> str:
    """Have a server listen, and return where."""
    await server.serve([f"{HERE}:0"], upstreams, say)
    (at,) = server.listening
    return at


async def dig(at: str, *words: str) -> str:
    """Ask as people do, and return what is said."""
    host, _, port = at.rpartition(":")
    place = ("@" + host.strip("[]"), "-p", port)
    process = await asyncio.create_subprocess_exec(
        "dig", *place, "+time=10", "+tries=2", *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said.decode()


def status(said: str) -> str:
    found = re.search(r"status: (\w+)", said)
    return found[1] if found else said


@pytest.mark.parametrize("way", ("+notcp", "+tcp"))
async def test_dig_finds_the_names_of_the_site(server: DnsNameServer, way: str) -> None:
    at = await serve(server)
    assert (await dig(at, way, "+short", NAME)).split() == ["10.0.0.1"]
    assert (await dig(at, way, "+short", "AAAA", "READER.zurich.skerry.INTERNAL")).split() == ["fd00::6"]
    said = await dig(at, way, "+short", "SRV", f"_raw._tcp.sensor.{'site.internal'}")
    assert sorted(said.splitlines()) == [f"0 0 5020 h{n}.skerry.zurich.skerry.internal." for n in (1, 6)]
    assert (await dig(at, way, "+short", "-x", "10.0.0.1")).split() == ["h1.skerry.zurich.skerry.internal."]
    assert (await dig(at, way, "+short", "NS", "site.internal")).split() == [
        "h1.skerry.zurich.skerry.internal."
    ]
    said = await dig(at, way, "other.site.internal")
    assert status(said) == "NXDOMAIN" and "SOA" in said and " aa " in said
    said = await dig(at, way, "TXT", NAME)
    assert (status(said), "ANSWER: 0" in said, "SOA" in said) == ("NOERROR", True, True)


async def test_an_answer_that_is_too_long_for_a_datagram_comes_by_tcp(server: DnsNameServer) -> None:
    at = await serve(server)
    assert len((await dig(at, "+short", LARGE)).split()) == 100
    said = await dig(at, "+ignore", LARGE)
    assert " tc " in said and "ANSWER: 0" in said


async def test_what_breaks_the_rules_gets_a_code_or_nothing(server: DnsNameServer) -> None:
    at = await serve(server)
    assert status(await dig(at, "+opcode=4", NAME)) == "NOTIMP"
    assert status(await dig(at, "-c", "CH", "TXT", "version.bind")) == "REFUSED"
    assert status(await dig(at, "+edns=1", "+noednsnegotiation", NAME)) == "BADVERS"
    assert "Transfer failed" in await dig(at, "AXFR", "site.internal")
    assert read_query(b"") is None
    assert read_query(bytes(dnslib.DNSRecord.question(NAME).reply().pack())) is None
    for broken in (
        b"\0\1\0\0\0\1" + bytes(6),
        bytes(5) + b"\2" + bytes(40),
        bytes(MAX_QUERY_BYTES + 1),
        bytes(5) + b"\1" + bytes(6) + b"\x46" + bytes(70) + b"\0\0\1\0\1",
    ):
        found = read_query(broken)
        assert found is not None and found.refusal == 1
    assert (await dig(at, "+short", NAME)).split() == ["10.0.0.1"]


@pytest.mark.rule("NAME-5")
async def test_the_rest_is_asked_of_upstreams_and_kept_for_a_while(server: DnsNameServer) -> None:
    async with upstream(with_address) as (place, other):
        at = await serve(server, place)
        for _ in range(3):
            assert (await dig(at, "+nocookie", "+short", "www.example.org")).split() == ["192.0.2.80"]
        assert other.asked == 1
        assert status(await dig(at, "nothing.site.internal")) == "NXDOMAIN"
        assert other.asked == 1, "a name of the site went to others"


@pytest.mark.rule("NAME-5")
async def test_without_upstreams_the_site_goes_on_and_the_rest_fails_at_once() -> None:
    clock = SimulatedClock()
    held = DnsNameServer(clock)
    try:
        async with upstream(lambda _: b"") as (place, other):
            at = await serve(held, place)
            for number in range(1, 3):
                asking = asyncio.create_task(dig(at, "+tries=1", "+time=60", "www.example.org"))
                await eventually(lambda number=number: _is(other.asked == number))  # type: ignore[misc]
                assert (await dig(at, "+short", NAME)).split() == ["10.0.0.1"]
                await clock.elapse(dns_forwarding.TIMEOUT_S)
                assert status(await asking) == "SERVFAIL"
            # It is left aside now: no clock has to move for an answer.
            assert status(await dig(at, "www.example.org")) == "SERVFAIL"
            assert other.asked == 2
    finally:
        await held.close()


async def test_an_answer_to_another_question_is_passed_over() -> None:
    def forged(asked: Any) -> bytes:
        return with_address(dnslib.DNSRecord.question("bank.example.org"))

    async with upstream(forged) as (wrong, liar), upstream(with_address) as (right, other):
        clock = SimulatedClock()
        held = DnsNameServer(clock)
        try:
            at = await serve(held, wrong, right)
            asking = asyncio.create_task(dig(at, "+short", "+tries=1", "+time=60", "www.example.org"))
            await eventually(lambda: _is(liar.asked == 1))
            await clock.elapse(dns_forwarding.TIMEOUT_S)
            assert (await asking).split() == ["192.0.2.80"]
            assert (liar.asked, other.asked) == (1, 1)
        finally:
            await held.close()


@pytest.mark.rule("NAME-2")
def test_only_machines_nearby_are_answered() -> None:
    near = ("127.0.0.1", "127.9.9.9", "10.88.0.7", "172.16.0.1", "192.168.1.9", "169.254.3.3", "::1", "fe80::1%eth0",
            "fd00::9", "::ffff:10.0.0.1")  # fmt: skip
    far = (
        "8.8.8.8",
        "172.32.0.1",
        "192.0.2.1",
        "100.64.0.1",
        "2001:db8::1",
        "0.0.0.0",
        "::",
        "::ffff:8.8.8.8",
        "",
        "x",
    )
    assert [one for one in near if not is_near(one)] == []
    assert [one for one in far if is_near(one)] == []


@pytest.mark.rule("NAME-2")
async def test_a_client_from_far_away_gets_no_byte_and_a_near_one_its_share() -> None:
    server = DnsNameServer(SimulatedClock())
    await server.serve([], [], say)
    sent: list[bytes] = []

    class Wire(asyncio.DatagramTransport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return (HERE, 53)

        def is_closing(self) -> bool:
            return False

        def sendto(self, data: object, addr: object = None) -> None:
            assert isinstance(data, bytes)
            sent.append(data)

    question = bytes(dnslib.DNSRecord.question(NAME).pack())
    server._ask_udp(question, ("8.8.8.8", 4000), Wire())
    assert sent == []
    server._ask_udp(question, ("192.168.1.9", 4000), Wire())
    assert len(sent) == 1
    for _ in range(int(BURST) * 3):
        server._ask_udp(question, ("192.168.1.10", 4000), Wire())
    assert len(sent) - 1 == BURST


def test_clients_are_remembered_up_to_a_bound() -> None:
    rates = Rates()
    for number in range(MAX_CLIENTS * 2):
        assert rates.afford(f"10.0.{number >> 8}.{number & 255}", 0.0)
    assert len(rates._left) == MAX_CLIENTS
    for _ in range(int(BURST) + 1):
        rates.afford("10.9.9.9", 0.0)
    assert not rates.afford("10.9.9.9", 0.0)
    assert rates.afford("10.9.9.9", 0.1)


async def test_connections_of_one_client_are_bounded_and_long_questions_cut(server: DnsNameServer) -> None:
    at = await serve(server)
    port = int(at.rpartition(":")[2])
    open_ones = [await asyncio.open_connection(HERE, port) for _ in range(MAX_CONNECTIONS_EACH)]
    question = bytes(dnslib.DNSRecord.question(NAME).pack())
    for reader, writer in open_ones:  # they are taken in order: when these were answered, all are known
        writer.write(struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        assert await reader.readexactly(length)
    reader, writer = await asyncio.open_connection(HERE, port)
    writer.write(struct.pack("!H", len(question)) + question)
    with pytest.raises((EOFError, OSError)):
        await reader.readexactly(1)
    writer.close()
    first_reader, first_writer = open_ones[0]
    first_writer.write(struct.pack("!H", MAX_QUERY_BYTES + 1))
    with pytest.raises((EOFError, OSError)):
        await first_reader.readexactly(1)
    for _, writer in open_ones:
        writer.close()


async def test_a_place_that_is_taken_is_said_and_the_others_are_served(server: DnsNameServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HERE, 0))
        place = f"{HERE}:{taken.getsockname()[1]}"
        free = await serve(server)
        with pytest.raises(Unavailable) as caught:
            await server.serve([f"{HERE}:0", place], [], say)
        assert caught.value.code == "names.unavailable"
        assert (await dig(free, "+short", NAME)).split() == ["10.0.0.1"]
    await server.serve([place], [], say)
    assert server.listening == (place,)
    assert (await dig(place, "+short", NAME)).split() == ["10.0.0.1"]
    assert "timed out" in await dig(free, "+time=1", "+tries=1", NAME) or "refused" in await dig(
        free, "+tries=1", NAME
    )


async def _is(found: bool) -> bool:
    return found
