"""Hosts of a site whose buses are linked: brokers in memory, real certificates, real connections on the loopback."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from skerry.adapters.system_clock import SystemClock
from skerry.adapters.tls_bus_links import TlsBusLinks
from skerry.agent.authority import HostAuthority
from skerry.agent.certificate_files import CertificateFolders
from skerry.agent.keys import KeyFiles
from skerry.agent.services.bus_links import LINK_USER, HostLinks, LinkParts
from skerry.agent.services.host_service import Turn
from skerry.agent.site_ca import LocalCertificates, Wanted
from skerry.ports.broker import BrokerSettings, BusAccount, BusPlace
from skerry.ports.bus_link import LinkIdentity, link_name, link_uri
from skerry.spec.desired import DesiredState
from skerry.spec.facts import Fact
from skerry.spec.topics import BUS_ADDRESS_FACT, HostTopics
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_bus import MemoryBroker, MemoryBus
from skerry.testing.waiting import eventually
from tests.contract.bus_world import HERE, Reader
from tests.unit.pki_world import Root

SITE = "harbour"
PORT = 1883
"""Of brokers in memory, each of which has ports of its own."""


class Station:
    """One host: what it issues to itself, and its links."""

    def __init__(self, folder: Path, name: str, clock: SimulatedClock, site: str = SITE) -> None:
        folder.mkdir(parents=True)
        self.name, self.site = name, site
        self.authority = HostAuthority(
            folder, KeyFiles(folder), host=name, now=clock.now, note=lambda *_: None
        )
        memory = CertificateFolders(folder / "memory")
        self.local = LocalCertificates(self.authority, memory, clock, site=site, now=clock.now)
        self.bus = MemoryBus()
        self.broker = MemoryBroker(self.bus)
        self.door = TlsBusLinks()
        self.notes: list[str] = []
        self.links = HostLinks(
            LinkParts(
                host=name,
                site=site,
                door=self.door,
                client=self.bus.client,
                local=self.local,
                clock=SystemClock(),
                note=self._note,
            )
        )
        self.topics = HostTopics()
        self.port = 0

    def _note(self, kind: str, _message: str = "") -> None:
        self.notes.append(kind)

    def identity(self, *, pose_as: str = "", uri: str = "") -> LinkIdentity:
        """Return who this host is on links, or whom it poses as; or what has a certificate with another URI."""
        name = pose_as or self.name
        local = self.local
        dns = (link_name(name, local.domain),)
        uris = (uri or link_uri(name, self.site, local.trust_domain),)
        files = local.ask(Wanted(f"link-{name}", dns=dns, uris=uris))
        assert files is not None, local.why(f"link-{name}")
        return LinkIdentity(
            host=name,
            site=self.site,
            domain=local.domain,
            trust_domain=local.trust_domain,
            certificate=files.cert,
            key=files.key,
            authorities=files.bundle,
            revoked=files.crl,
            mark=files.mark,
        )

    async def step(self, buses: dict[str, HostTopics]) -> None:
        now = datetime.now(UTC)
        desired = DesiredState(site=self.site, generation=1, issued_at=now, expires_at=now, bus=buses)
        facts = {"lan_address": Fact(value=f"{HERE}:7443", source="test")}
        self.links.follow(Turn(desired=desired, records={}, instances={}, facts=facts))
        app = BusAccount(
            user="app", password="of-app", publish=self.topics.publish, subscribe=self.topics.subscribe
        )
        accounts = [app, self.links.account] if self.links.account else [app]
        await self.broker.apply(BrokerSettings(accounts=tuple(accounts), port=PORT))
        self.port = await self.links.step(PORT, self.port)

    def enter(self) -> Reader:
        """Be on this host's bus as an application, and read what it may."""
        reader = Reader(self.bus.client())
        place = BusPlace(address=HERE, port=PORT, user="app", password="of-app", client=f"app-{self.name}")
        reader.client.open(place, take=reader.take)
        reader.client.subscribe(self.topics.subscribe)
        return reader

    @property
    def rights(self) -> BusAccount:
        """The rights of the links at this host's broker."""
        (found,) = [a for a in self.bus.settings[PORT].accounts if a.user == LINK_USER]
        return found

    async def close(self) -> None:
        await self.links.close()


class LinkWorld:
    """A site of such hosts, under one root."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.clock = SimulatedClock(datetime.now(UTC))
        self.root = Root(self.clock.now(), SITE)
        self.stations = {name: Station(folder / name, name, self.clock) for name in names}
        self.certify()

    def certify(self) -> None:
        """Have every host take what the hub says of certificates, until nobody has more to say."""
        for _ in range(4):
            told = {name: one.authority.view(self.root.pki()) for name, one in self.stations.items()}
            pki = self.root.answer(told, self.clock.now())
            for one in self.stations.values():
                one.authority.follow(pki)

    def state(self, host: str, *, publish: Iterable[str] = (), subscribe: Iterable[str] = ()) -> Station:
        """Say what the applications of a host publish and read."""
        station = self.stations[host]
        station.topics = HostTopics(publish=tuple(publish), subscribe=tuple(subscribe))
        return station

    async def step(self) -> None:
        """Have every host take one step; where they are is known from the next one on."""
        buses: dict[str, HostTopics] = {}
        for name, one in self.stations.items():
            fact = one.links.facts().get(BUS_ADDRESS_FACT)
            buses[name] = msgspec.structs.replace(one.topics, address=str(fact.value) if fact else "")
        for one in self.stations.values():
            await one.step(buses)

    async def until_linked(self) -> None:
        """Wait until every link is open."""

        async def open_now() -> bool:
            await self.step()
            return not any(why for one in self.stations.values() for why in one.links.views.values())

        await eventually(open_now, what=str({n: s.links.views for n, s in self.stations.items()}))

    async def close(self) -> None:
        for one in self.stations.values():
            await one.close()
