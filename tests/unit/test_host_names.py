"""The names of a host: what its DNS says at each moment, what containers are told, and what is announced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.resolv_conf import read_name_servers
from skerry.agent.name_places import parse_dns_places
from skerry.agent.services.host_service import Turn
from skerry.agent.services.names import LOOK_S, HostNames, NamesParts
from skerry.kit.errors import Rejected
from skerry.matching.names import HostWords
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component, Container
from skerry.spec.image import Image
from skerry.spec.ingress import RouteView
from skerry.spec.names import NameWord
from skerry.spec.report import Observed
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_names import MemoryAnnouncer, MemoryNameServer
from skerry.testing.waiting import eventually

NAME = "reader.site.internal"
READER = NameWord("reader", "reader", "https", 443)
AT = "10.0.0.1:53"


def view(**options: Any) -> RouteView:
    whole: dict[str, Any] = {
        "application": "reader", "route": "main", "component": "web", "state": "serving", "path": "/",
        "names": ("reader.zurich.skerry.internal", NAME), "port": 443, "tls": True,
    } | options  # fmt: skip
    return RouteView(**whole)


class Others:
    """The site's other hosts."""

    def __init__(self) -> None:
        self.address = "10.0.0.1"
        self.hosts: list[HostWords] = []
        self.whole = True
        self.said: tuple[NameWord, ...] = ()
        self.listens = False

    def say_names(self, words: Sequence[NameWord], *, listens: bool) -> None:
        self.said, self.listens = tuple(words), listens

    def names(self) -> list[HostWords]:
        return list(self.hosts)

    def knows_names(self) -> bool:
        return self.whole


class World:
    def __init__(self, *places: str, announces: bool = False) -> None:
        self.clock = SimulatedClock()
        self.server, self.announcer, self.others = MemoryNameServer(), MemoryAnnouncer(), Others()
        self.routes: list[RouteView] = [view()]
        self.away: set[str] = set()
        self.notes: list[str] = []
        self.names = HostNames(
            NamesParts(
                host="h1",
                site="zurich",
                places=places,
                upstreams=lambda: ("127.0.0.53:53", "192.168.1.1:53", "192.168.1.2:5353"),
                announces=announces,
                server=self.server,
                announcer=self.announcer,
                neighbours=self.others,
                routes=lambda: self.routes,
                away=lambda: self.away,
                domain=lambda: "skerry.internal",
                clock=self.clock,
                note=self._note,
            )
        )

    def _note(self, kind: str, message: str = "", **_: str) -> None:
        self.notes.append(f"{kind} {message}")

    async def look(self) -> None:
        await self.names.follow(Turn(desired=None, records={}, instances={}))

    def leads(self, name: str = NAME) -> Any:
        answer = self.server.ask(name)
        assert answer is not None
        return [record.data for record in answer.records] if answer.code == "NOERROR" else answer.code

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.names.run_forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def until_listening(self) -> None:
        async def listening() -> bool:
            dns = self.names.show(Observed()).dns
            return dns is not None and bool(dns.listens)

        await eventually(listening)


@pytest.mark.rule("NAME-1")
async def test_what_it_answers_is_what_is_so_at_this_moment() -> None:
    world = World(AT)
    async with world.running():
        await world.until_listening()
        await world.look()
        assert world.leads() == ["10.0.0.1"]
        assert (world.others.said, world.others.listens) == ((READER,), True)
        # Another host takes over while this one stands by: no turn of this host is needed to learn where it is.
        world.away.add("reader")
        await world.look()
        assert world.leads() == "NXDOMAIN"
        world.others.hosts = [HostWords(host="h2", address="10.0.0.2", words=(READER,))]
        assert world.leads() == ["10.0.0.2"]
        world.away.clear()
        await world.look()
        assert world.leads() == ["10.0.0.1", "10.0.0.2"]
        world.routes = []
        world.others.hosts = []
        await world.look()
        assert world.leads() == "NXDOMAIN"


@pytest.mark.rule("NAME-4")
async def test_before_it_has_looked_or_heard_of_all_it_denies_nothing() -> None:
    world = World(AT)
    async with world.running():
        await world.until_listening()
        assert world.leads() == "SERVFAIL"
        world.others.whole = False
        await world.look()
        assert (world.leads(), world.leads("other.site.internal")) == (["10.0.0.1"], "SERVFAIL")
        world.others.whole = True
        assert world.leads("other.site.internal") == "NXDOMAIN"


async def test_a_change_is_told_apart_by_the_serial_number() -> None:
    world = World(AT)
    await world.look()
    first = world.names.zone().serial
    assert world.names.zone().serial == first
    world.routes = []
    await world.look()
    assert world.names.zone().serial == first + 1


async def test_a_place_that_is_taken_is_told_once_and_tried_again() -> None:
    world = World(AT)
    world.server.taken.add(AT)
    changed: list[str] = []
    world.names.on_change = lambda: changed.append("")

    async def told() -> bool:
        return bool(world.notes)

    async with world.running():
        await eventually(told)
        for _ in range(3):
            await world.clock.elapse(LOOK_S)
        assert world.notes == [f"names.trouble names.unavailable: cannot listen at {AT}: it is taken"]
        dns = world.names.show(Observed()).dns
        assert dns is not None and "taken" in dns.trouble and dns.listens == ()
        world.server.taken.clear()
        await world.clock.elapse(LOOK_S)
        await world.until_listening()
        assert world.notes[1:] == ["names.restored dns"]
        assert changed


async def test_nothing_listens_and_nothing_is_reported_unless_asked_for() -> None:
    world = World()
    async with world.running():
        await world.look()
        await world.clock.elapse(LOOK_S)
        assert world.server.places == ()
        assert world.names.show(Observed()) == Observed()
        # Others may well answer for what is here.
        assert (world.others.said, world.others.listens) == ((READER,), False)


def fact(**options: Any) -> tuple[ReleaseFact, Component]:
    web = Component(name="web", command=("serve",), image=Image(), container=Container(**options))
    return ReleaseFact("reader@1", "sha256:" + "0" * 64, (web,)), web


@pytest.mark.parametrize(
    ("place", "network", "told"),
    (
        ("10.0.0.1:53", "application", ("10.0.0.1", "192.168.1.1")),
        ("10.0.0.1:53", "host", ()),
        ("10.0.0.1:53", "none", ()),
        ("10.0.0.1:8053", "application", ()),
        ("127.0.0.1:53", "application", ()),
        ("[fd00::1]:53", "application", ("fd00::1", "192.168.1.1")),
    ),
)
async def test_containers_are_told_of_a_dns_that_they_can_reach_before_it_listens(
    place: str, network: str, told: tuple[str, ...]
) -> None:
    made, web = fact(network=network)
    assert World(place).names.give("reader", made, web).dns == told
    assert World().names.give("reader", made, web).dns == ()


@pytest.mark.rule("NAME-6")
async def test_what_serves_the_site_is_announced_and_withdrawn_with_it() -> None:
    world = World(announces=True)

    async def settled() -> bool:
        dns = world.names.show(Observed()).dns
        return (
            dns is not None
            and len(dns.announces) == len(world.announcer.services) == len(world.routes) - hidden
        )

    world.routes = [view(), view(route="own", expose="host"), view(route="later", state="waiting")]
    hidden = 2
    async with world.running():
        await world.look()
        await eventually(settled)
        (one,) = world.announcer.services
        assert (one.kind, one.name, one.port) == ("_skerry-reader._tcp", "main-h1-zurich", 443)
        assert dict(one.text) == {
            "name": NAME, "path": "/", "protocol": "http", "tls": "site", "auth": "none"
        }  # fmt: skip
        assert world.announcer.at == ("10.0.0.1", "h1-zurich")
        world.routes, hidden = [], 0
        await world.look()
        await eventually(settled)
        assert world.announcer.services == ()


async def test_a_network_without_multicast_is_told_once_and_stops_nothing() -> None:
    world = World(AT, announces=True)
    world.announcer.failing = True
    async with world.running():
        await world.look()
        await world.until_listening()
        for _ in range(3):
            await world.clock.elapse(LOOK_S)
        assert world.notes == ["names.trouble names.no_multicast: multicast DNS does not work here"]
        assert world.leads() == ["10.0.0.1"]


def test_names_of_services_have_room_for_long_names() -> None:
    world = World(announces=True)
    long = "a" * 63
    made = world.names._to_announce([view(application=long, route=long)], ())[0]
    kind, _, rest = made.kind.partition(".")
    assert (len(kind), rest, len(made.name)) == (63, "_tcp", 63)


@pytest.mark.parametrize(
    ("text", "place"),
    (
        ("192.168.1.20", "192.168.1.20:53"),
        ("127.0.0.1:8053", "127.0.0.1:8053"),
        ("[fd00::1]", "[fd00::1]:53"),
        ("fd00::1", "[fd00::1]:53"),
        ("[::1]:0", "[::1]:0"),
    ),
)
def test_a_place_is_an_address_with_or_without_a_port(text: str, place: str) -> None:
    assert parse_dns_places([text, text], port=53) == (place,)


@pytest.mark.parametrize(
    "text", ("", "0.0.0.0", "[::]:53", "224.0.0.1", "edge-1", "1.2.3.4:x", "1.2.3.4:70000", ":53")
)
def test_what_is_no_address_of_one_machine_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_dns_places([text], port=53)
    assert caught.value.code == "names.malformed"


def test_the_servers_of_a_host_are_read_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# x\nsearch lan\nnameserver 127.0.0.53\nnameserver\tx\nnameserver fe80::1%eth0\nnameserver 9.9.9.9\n"
    )
    assert read_name_servers(file) == ("127.0.0.53:53", "[fe80::1]:53", "9.9.9.9:53")
    assert read_name_servers(tmp_path / "none") == ()
