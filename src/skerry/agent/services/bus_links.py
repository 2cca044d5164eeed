"""Joins the bus of a host with those of the others of its site, by topics that both sides have written down.

Who reads dials who publishes. What may cross is in the signed document, the same for both ends, so that neither has to
believe the other. Nothing here needs a link to the hub. A host that cannot be reached is tried again, at most every
`RETRY_MOST_S`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping

import msgspec

from skerry.agent.bus_crossing import Incoming, Outgoing, OwnBus
from skerry.agent.services.host_service import Turn
from skerry.agent.site_ca import LocalCertificates, Wanted
from skerry.kit.errors import SkerryError, Unavailable
from skerry.matching.bus_links import BusLinks, apart, plan_links
from skerry.matching.topics import match_any_topic
from skerry.ports.broker import BusAccount, BusClient, BusPlace
from skerry.ports.bus_link import BusLinkDoor, LinkEnd, LinkIdentity, link_name, link_uri
from skerry.ports.clock import Clock
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.topics import BUS_ADDRESS_FACT

LINK_USER = "skerry.link"
"""No application has a dot in its name."""
CERTIFICATE = "bus-link"
RETRY_S = 1.0
RETRY_MOST_S = 30.0
NOT_LINKED = "not linked yet"


class LinkParts(msgspec.Struct, frozen=True, kw_only=True):
    """What links are made of; `client` returns a new client of the host's own broker."""

    host: str
    site: str
    door: BusLinkDoor
    client: Callable[[], BusClient]
    local: LocalCertificates
    clock: Clock
    note: Callable[..., None]


class HostLinks:
    """The links of one host."""

    def __init__(self, parts: LinkParts) -> None:
        self._parts = parts
        self._plan = BusLinks()
        self._peers: Mapping[str, str] = {}
        self._identity: LinkIdentity | None = None
        self._address = ""
        self._listening = ""
        self._bus = OwnBus(parts.client, parts.clock, self._send)
        self._session = secrets.token_hex(8)
        self._password = secrets.token_urlsafe(32)
        self._outgoing: dict[str, Outgoing] = {}
        self._incoming: dict[str, Incoming] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._why: dict[str, str] = {}
        self._dropped = 0

    def follow(self, turn: Turn) -> None:
        """Take what is to cross, and where this host is."""
        parts = self._parts
        if turn.desired is not None:
            buses = turn.desired.bus
            self._plan = plan_links(parts.host, buses)
            self._peers = {name: bus.address for name, bus in buses.items()}
        fact = turn.facts.get("lan_address")
        if fact is not None and isinstance(fact.value, str):
            self._address = fact.value.rpartition(":")[0].strip("[]")
        self._identity = self._own_identity() if self._is_used else None

    @property
    def account(self) -> BusAccount | None:
        """The account of the links at the own broker: what crosses, and nothing else."""
        if not self._is_used:
            return None
        publish = {pattern for patterns in self._plan.takes.values() for pattern in patterns}
        return BusAccount(
            user=LINK_USER, password=self._password, publish=tuple(sorted(publish)), subscribe=self._read
        )

    @property
    def views(self) -> dict[str, str]:
        """What is wrong with the link from each host that something is to come from; empty where it is open."""
        return {name: self._why.get(name, NOT_LINKED)[:256] for name in self._plan.takes}

    def facts(self) -> HostFacts:
        """Return where others find this host's bus, while they may."""
        return {BUS_ADDRESS_FACT: Fact(value=self._listening, source="the agent")} if self._listening else {}

    async def step(self, own_port: int, link_port: int) -> int:
        """Bring links to what is wanted; returns the port they come to, which is `link_port` if that is one.

        Raises:
            SkerryError: what hinders all of them.
        """
        if not self._is_used:
            await self.close()
            return link_port
        for name in self._dialling.keys() - self._plan.takes.keys():
            self._dialling.pop(name).cancel()
        if self._identity is None:
            why = self._parts.local.why(CERTIFICATE) or "not issued yet"
            raise Unavailable("link.no_certificate", f"no certificate for links between hosts: {why}")
        place = BusPlace(
            address="127.0.0.1",
            port=own_port,
            user=LINK_USER,
            password=self._password,
            client=f"skerry-link-{self._session}",
        )
        await self._bus.keep(place, self._read)
        for name, patterns in self._plan.takes.items():
            self._incoming.setdefault(name, Incoming(self._bus.publish)).patterns = patterns
            if name not in self._dialling:
                self._dialling[name] = asyncio.ensure_future(self._dial_forever(name))
        if self._plan.sends and self._address:
            link_port = await self._listen(link_port, self._identity)
            bare = f"[{self._address}]" if ":" in self._address else self._address
            self._listening = f"{bare}:{link_port}"
        elif not self._plan.sends and self._listening:
            await self._parts.door.close()
            self._listening = ""
        self._outgoing = {name: one for name, one in self._outgoing.items() if name in self._plan.sends}
        self._tell_dropped()
        return link_port

    async def close(self) -> None:
        """End all links."""
        tasks = list(self._dialling.values())
        self._dialling.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outgoing.clear()
        self._incoming.clear()
        self._why.clear()
        self._listening = ""
        await self._parts.door.close()
        await self._bus.close()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────

    def _send(self, topic: str, payload: bytes) -> None:
        for name, patterns in self._plan.sends.items():
            # One that has never come may be a host that stands by, and wants none of it.
            if name in self._outgoing and match_any_topic(patterns, topic):
                self._outgoing[name].put(topic, payload)

    async def _listen(self, port: int, identity: LinkIdentity) -> int:
        """Listen at the port that was kept, or at another one if somebody else has it: the others are told which."""
        try:
            return await self._parts.door.listen(self._address, port, identity, self._let_in)
        except Unavailable:
            if not port:
                raise
            return await self._parts.door.listen(self._address, 0, identity, self._let_in)

    async def _let_in(self, end: LinkEnd) -> None:
        if end.host not in self._plan.sends:
            raise Unavailable("link.nothing", f"nothing is to go to {end.host}")
        await self._outgoing.setdefault(end.host, Outgoing(self._session)).serve(end)

    def _tell_dropped(self) -> None:
        dropped = self._bus.dropped + sum(one.dropped for one in self._outgoing.values())
        if dropped and not self._dropped:
            self._parts.note("bus.link_full", "messages for hosts that cannot be reached are dropped")
        self._dropped = dropped

    # ── taking ───────────────────────────────────────────────────────────────────────────────────────

    async def _dial_forever(self, name: str) -> None:
        pause_s = RETRY_S

        def heard() -> None:
            nonlocal pause_s
            self._why[name], pause_s = "", RETRY_S

        while True:
            end: LinkEnd | None = None
            try:
                end = await self._dial(name)
                await self._incoming[name].take(end, heard=heard)
            except SkerryError as error:
                self._why[name] = error.message
            finally:
                if end is not None:
                    end.close()
            await self._parts.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def _dial(self, name: str) -> LinkEnd:
        address, _, port = self._peers.get(name, "").rpartition(":")
        if self._identity is None or not (address and port.isdecimal()):
            raise Unavailable(
                "link.unknown", f"{name} has not said where its bus is: maybe nothing uses it there now"
            )
        return await self._parts.door.dial(address.strip("[]"), int(port), self._identity, name)

    # ── who this host is ─────────────────────────────────────────────────────────────────────────────

    @property
    def _is_used(self) -> bool:
        return bool(self._plan.sends or self._plan.takes)

    @property
    def _read(self) -> tuple[str, ...]:
        return apart(pattern for patterns in self._plan.sends.values() for pattern in patterns)

    def _own_identity(self) -> LinkIdentity | None:
        parts, local = self._parts, self._parts.local
        names = (link_name(parts.host, local.domain),)
        uris = (link_uri(parts.host, parts.site, local.trust_domain),)
        files = local.ask(Wanted(CERTIFICATE, dns=names, uris=uris)) if local.domain else None
        if files is None:
            return None
        return LinkIdentity(
            host=parts.host,
            site=parts.site,
            domain=local.domain,
            trust_domain=local.trust_domain,
            certificate=files.cert,
            key=files.key,
            authorities=files.bundle,
            revoked=files.crl,
            mark=files.mark,
        )
