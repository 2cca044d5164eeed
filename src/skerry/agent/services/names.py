"""The names of a host's site: says which are here, answers for all of them, and announces its own.

Rules: the answer to a question is made from what is known at that moment, so that nothing has to be told to the DNS
when an application moves. What does not work is told once, and tried again; applications run on meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import msgspec
import structlog

from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.errors import as_failure
from skerry.matching.names import Asked, HostWords, Zone, ZoneAnswer, answer_question, lay_zone, words_of
from skerry.ports.clock import Clock
from skerry.ports.names import Announcer, NameServer, ServicePlace
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component
from skerry.spec.ingress import RouteView
from skerry.spec.names import SHORT_DOMAIN, DnsView, NameWord
from skerry.spec.report import Observed

_log = structlog.get_logger()

LOOK_S = 5.0
DNS_PORT = 53
MAX_LABEL = 63
MAX_ANNOUNCED = 128
MAX_CONTAINER_DNS = 3


class Neighbours(Protocol):
    """The site's other hosts."""

    @property
    def address(self) -> str:
        """This machine's IP address on its network."""
        ...

    def say_names(self, words: Sequence[NameWord], *, listens: bool) -> None:
        """Tell the site which names are here."""
        ...

    def names(self) -> list[HostWords]:
        """Return what the others said."""
        ...

    def knows_names(self) -> bool:
        """Tell whether that is all of the site."""
        ...


class NamesParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the names of a host are made of.

    `places` are where its DNS listens (`HOST:PORT`), none where there is no DNS; `upstreams` whom it asks for the rest.
    `announces` says whether routes are announced by multicast DNS. `routes` are those of the ingress, `away` the
    applications that stand by here. `domain` is what the site's names end with.
    """

    host: str
    site: str
    places: tuple[str, ...]
    upstreams: Callable[[], tuple[str, ...]]
    announces: bool
    server: NameServer
    announcer: Announcer
    neighbours: Neighbours
    routes: Callable[[], Sequence[RouteView]]
    away: Callable[[], Collection[str]]
    domain: Callable[[], str]
    clock: Clock
    note: Callable[..., None]


class HostNames(HostService):
    """Keeps the names of one host."""

    name = "names"

    def __init__(self, parts: NamesParts) -> None:
        super().__init__()
        self._parts = parts
        self._own: tuple[NameWord, ...] = ()
        self._near: tuple[NameWord, ...] = ()
        self._followed = False
        self._known: tuple[object, ...] = ()
        self._zone = Zone(apexes=(), whole=False)
        self._serial = int(parts.clock.now().timestamp())
        self._listens: tuple[str, ...] = ()
        self._services: tuple[ServicePlace, ...] = ()
        self._announced: tuple[str, ...] = ()
        self._troubles: dict[str, str] = {}
        self._wake = asyncio.Event()

    async def follow(self, turn: Turn) -> None:
        parts = self._parts
        routes, away = parts.routes(), parts.away()
        self._own, self._near = words_of(routes, away), words_of(routes, away, expose="host")
        self._followed = True
        parts.neighbours.say_names(self._own, listens=bool(parts.places))
        services = self._to_announce(routes, away) if parts.announces else ()
        if services != self._services:
            self._services = services
            self._wake.set()

    def answer(self, asked: Asked) -> ZoneAnswer | None:
        """Return what this host answers at this moment; None: it is no name of the site."""
        return answer_question(self.zone(), asked)

    def zone(self) -> Zone:
        """Return the site's names as far as this host knows them."""
        parts = self._parts
        address = parts.neighbours.address or self._fallback()
        hosts = [HostWords(host=parts.host, address=address, words=self._own), *parts.neighbours.names()]
        whole = self._followed and parts.neighbours.knows_names()
        known = (hosts, self._near, whole, parts.domain())
        if known != self._known:
            self._known = known
            self._serial += 1
            zone = lay_zone(
                hosts, site=parts.site, domain=parts.domain(), own=parts.host, near=self._near, whole=whole
            )
            self._zone = msgspec.structs.replace(zone, serial=self._serial & 0xFFFFFFFF)
        return self._zone

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Have containers with a network of their own ask this host's DNS first, and others where it is away."""
        if component.image is None or component.container.network != "application":
            return NOTHING
        # Where it shall listen counts: after a reboot containers begin before it does.
        own = [host for place in self._parts.places if (host := _for_containers(place))]
        if not own:
            return NOTHING
        others = [host for place in self._parts.upstreams() if (host := _for_containers(place))]
        return Given(dns=tuple(dict.fromkeys((own[0], *others)))[:MAX_CONTAINER_DNS])

    def show(self, observed: Observed) -> Observed:
        if not (self._parts.places or self._parts.announces):
            return observed
        trouble = "; ".join(why for _, why in sorted(self._troubles.items()))[:1024]
        view = DnsView(listens=self._listens, trouble=trouble, announces=self._announced)
        return msgspec.structs.replace(observed, dns=view)

    async def run_forever(self) -> None:
        """Keep the DNS where it shall be, and announced what is here."""
        parts = self._parts
        while True:
            self._wake.clear()
            if parts.places:
                try:
                    await parts.server.serve(parts.places, parts.upstreams(), self.answer)
                except Exception as caught:
                    self._fail("dns", caught)
                else:
                    self._recover("dns")
                self._set_listens(parts.server.listening)
            if parts.announces:
                await self._announce()
            await sleep_unless_woken(parts.clock, LOOK_S, self._wake)

    async def close(self) -> None:
        await self._parts.server.close()
        await self._parts.announcer.close()

    def _set_listens(self, listens: tuple[str, ...]) -> None:
        if listens != self._listens:
            self._listens = listens
            _log.info("names.listening", places=list(listens))
            self.on_change()

    async def _announce(self) -> None:
        parts, services = self._parts, self._services
        address = parts.neighbours.address
        label = _label(f"{parts.host}-{parts.site}")
        try:
            await parts.announcer.announce(address, label, services if address else ())
        except Exception as caught:
            self._announced = ()
            self._fail("announcing", caught)
            return
        self._recover("announcing")
        announced = tuple(f"{one.name}.{one.kind}" for one in services) if address else ()
        if announced != self._announced:
            self._announced = announced
            self.on_change()

    def _to_announce(self, routes: Sequence[RouteView], away: Collection[str]) -> tuple[ServicePlace, ...]:
        """Return what is announced: the routes for the whole site that serve."""
        parts = self._parts
        found = [
            ServicePlace(
                f"_{_label(f'skerry-{view.application}', MAX_LABEL - 1)}._tcp",
                _label(f"{view.route}-{parts.host}-{parts.site}"),
                view.port,
                _text(view),
            )
            for view in routes
            if view.state == "serving" and view.expose == "site" and view.application not in away
        ]
        return tuple(found[:MAX_ANNOUNCED])

    def _fallback(self) -> str:
        """Return where the DNS listens: a machine that has found no address of its own has at least that one."""
        return self._listens[0].rpartition(":")[0].strip("[]") if self._listens else ""

    def _fail(self, what: str, caught: Exception) -> None:
        error = as_failure(caught)
        if self._troubles.get(what) != error.message:
            _log.warning("names.trouble", what=what, code=error.code, reason=error.message)
            self._parts.note("names.trouble", f"{error.code}: {error.message}")
            self._troubles[what] = error.message
            self.on_change()

    def _recover(self, what: str) -> None:
        if self._troubles.pop(what, None):
            self._parts.note("names.restored", what)
            self.on_change()


def _text(view: RouteView) -> tuple[tuple[str, str], ...]:
    """Return what an announcement says beside the port: the name to use, and how (RFC 6763, 6)."""
    name = next(
        (one for one in view.names if one.endswith(f".{SHORT_DOMAIN}")), view.names[0] if view.names else ""
    )
    pairs = (
        ("name", name),
        ("path", view.path),
        ("protocol", view.protocol),
        ("tls", "site" if view.tls else "plain"),
        ("auth", view.auth),
    )
    return tuple((key, value) for key, value in pairs if value and len(key) + len(value) < 255)


def _label(text: str, most: int = MAX_LABEL) -> str:
    """Return a label of the DNS: what is too long is cut, and told apart by a digest."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _for_containers(place: str) -> str:
    """Return the address of a DNS that containers can be told of: none of loopback, and none with another port."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    loopback = host.startswith("127.") or host == "::1"
    return host if port == str(DNS_PORT) and not loopback else ""
