"""The neighbour loop: sends and takes heartbeats, and keeps at hand whose turn it is to run what is placed by turns.

Rules: nothing listens unless blobs or a placed application are shared with another host; the port is chosen once
and kept; an address that changes is followed; datagrams that are no good are counted, and logged when a kind of them
begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
import structlog

from skerry.agent.identity import Identity
from skerry.agent.neighbourhood import AppStatus, Hearing, Neighbourhood
from skerry.agent.sharing_door import DoorKeeper
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Bug, Rejected, SkerryError, Unavailable, as_failure
from skerry.matching.names import HostWords
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.neighbours import Datagrams
from skerry.reconcile.duty import Duty
from skerry.spec.desired import DesiredState
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.names import NameWord
from skerry.trust.keys import SigningKey

__all__ = ["AppStatus", "NeighbourLoop"]

_log = structlog.get_logger()

LOOK_FOR_ADDRESS_S = 15.0
RETRY_S = 2.0
QUIET_S = 3600.0


class LanPlace(msgspec.Struct, frozen=True):
    """Where heartbeats come and go: kept in the store under `lan`."""

    host: str = ""
    port: int = 0


class NeighbourLoop:
    """What a host says to its neighbours and hears from them.

    `stated` is `host`, `host:port` or `:port` where a person has said it. The order of calls in each round of
    the reconciler: `follow`, `tell`, then `duties`.
    """

    def __init__(
        self,
        identity: Identity,
        datagrams: Datagrams,
        store: AgentStore,
        clock: Clock,
        *,
        stated: str = "",
        doors: DoorKeeper | None = None,
    ) -> None:
        """`doors` keeps this host's door where it shares blobs."""
        self._doors = doors
        self._hood = Neighbourhood(
            host=identity.place.host,
            site=identity.place.site,
            key=identity.key,
            session=secrets.token_hex(8),
            shares=doors is not None,
        )
        self._datagrams, self._store, self._clock = datagrams, store, clock
        self._upstream = urlsplit(identity.place.upstream).hostname or ""
        self._stated = parse_lan_address(stated)
        self._place = _load(store)
        self._open = ""
        self._look_at = 0.0
        self._wake = asyncio.Event()
        self._desired: DesiredState | None = None
        self._version = 0
        self._heard: Mapping[str, Hearing] = {}
        self._failing = ""
        self._dropped: dict[str, tuple[int, float]] = {}
        self.on_change: Callable[[], None] = lambda: None

    # ── what the reconciler calls ────────────────────────────────────────────────────────────────────

    def take_key(self, key: SigningKey) -> None:
        """Sign heartbeats with another key from now on."""
        self._hood.take_key(key)
        if self._doors is not None:
            self._doors.take_key(key)

    def follow(self, desired: DesiredState | None) -> None:
        """Take what is desired: whom to send to, their keys, and the placements."""
        if desired is not self._desired:
            self._desired = desired
            self._hood.follow(desired, self._clock.monotonic())
            if self._doors is not None:
                self._doors.follow(desired)
                self._doors.look(self._hood, self._clock.monotonic())
            self._noticed()

    def tell(self, statuses: Mapping[str, AppStatus]) -> None:
        """Say how this host's placed applications stand; duties follow at once, and the neighbours hear of it."""
        self._hood.tell(statuses, self._clock.monotonic())
        self._noticed()

    def duties(self) -> Mapping[str, Duty]:
        """Return the duty of each placed application that this host has a part in.

        A placed application without a duty is to be left as it is: nothing has been told yet, or the desired
        state says nothing about this host.
        """
        return self._hood.duties

    def views(self) -> dict[str, Hearing]:
        """Return which of the hosts it talks with this host hears, for its report."""
        return dict(self._hood.views)

    def say_names(self, words: Sequence[NameWord], *, listens: bool) -> None:
        """Tell the site which names are here; `listens`: what the others say of theirs is wanted as well."""
        if self._hood.say(words, listens=listens):
            self._wake.set()

    def names(self) -> list[HostWords]:
        """Return what the site's other hosts said of names."""
        return self._hood.names(self._clock.monotonic())

    def knows_names(self) -> bool:
        """Tell whether that is all of the site, as far as can be known."""
        return self._hood.knows_names(self._clock.monotonic())

    @property
    def address(self) -> str:
        """This machine's IP address on its network, empty while none is known."""
        return self._place.host

    def facts(self) -> HostFacts:
        """Return the fact `lan_address`; empty while no address of this machine is known."""
        if not (self._place.host and self._place.port):
            return {}
        address = _join(self._place)
        source = "override" if self._stated.host else "route to upstream"
        return {"lan_address": Fact(value=address, source=source)}

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many datagrams were dropped since the start, by why."""
        return self._hood.dropped

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """Find this machine's address and choose a port, so that the hub can be told; listens only for a moment."""
        host = self._stated.host or await self._datagrams.own_address(self._upstream) or self._place.host
        port = self._stated.port or self._place.port
        if host and not port:
            with contextlib.suppress(Unavailable):  # the loop opens it again, and tells what is wrong
                bound = await self._datagrams.open(host, 0, lambda _: None)
                port = int(bound.rpartition(":")[2])
                self._datagrams.close()
        self._keep(LanPlace(host, port))
        self._look_at = self._clock.monotonic() + LOOK_FOR_ADDRESS_S

    async def run_forever(self) -> None:
        """Send what is due and take what arrives, for ever."""
        try:
            while True:
                self._wake.clear()
                wait_s = RETRY_S
                try:
                    wait_s = await self._step()
                    self._succeed()
                except Exception as caught:
                    self._fail(as_failure(caught))
                await sleep_unless_woken(self._clock, wait_s, self._wake)
        finally:
            self._datagrams.close()
            self._open = ""
            if self._doors is not None:
                self._doors.end()

    async def _step(self) -> float:
        """Open or close, send what is due, and return in how many seconds to come back."""
        now = self._clock.monotonic()
        if self._hood.needed:
            await self._listen(now)
        elif self._open:
            self._datagrams.close()
            self._open = ""
        if self._doors is not None:
            at = self._place if self._hood.needed else LanPlace()
            await self._doors.keep(self._hood, at.host, at.port)
        for address, datagram in self._hood.outgoing(now):
            self._datagrams.send(address, datagram)
        self._noticed()
        self._count_dropped(now)
        until_look_s = max(0.0, self._look_at - now) if self._hood.needed else LOOK_FOR_ADDRESS_S
        return min(self._hood.next_due_s(now), until_look_s)

    async def _listen(self, now: float) -> None:
        """Listen at this machine's address, and follow it when it changes."""
        if now >= self._look_at or not self._place.host:
            self._look_at = now + LOOK_FOR_ADDRESS_S
            # With no way to the upstream there may still be one to the neighbours, from the address of before.
            host = self._stated.host or await self._datagrams.own_address(self._upstream) or self._place.host
            self._keep(LanPlace(host, self._place.port))
        if not self._place.host:
            raise Unavailable("lan.no_address", "this machine has no address on its network yet")
        if self._open == _join(self._place):
            return
        try:
            bound = await self._datagrams.open(self._place.host, self._place.port, self._receive)
        except Unavailable:
            if self._stated.port or not self._place.port:
                raise
            # Somebody else has the port now; the neighbours learn the new one from the next heartbeat.
            bound = await self._datagrams.open(self._place.host, 0, self._receive)
        self._keep(LanPlace(self._place.host, int(bound.rpartition(":")[2])))
        self._open = self._hood.address = _join(self._place)
        _log.info("neighbours.listening", address=self._open)

    def _receive(self, datagram: bytes) -> None:
        if not self._hood.receive(datagram, self._clock.monotonic()).startswith("heartbeat."):
            self._wake.set()

    def _noticed(self) -> None:
        """Wake who decides by the duties when they have changed, and the loop for what is to be said."""
        if self._hood.version == self._version:
            return
        self._version = self._hood.version
        before, self._heard = self._heard, self._hood.views
        for host, hearing in self._heard.items():
            if hearing != before.get(host, "unknown"):
                _log.info("neighbour.changed", neighbour=host, hearing=hearing)
        self._wake.set()
        self.on_change()

    def _count_dropped(self, now: float) -> None:
        """Log a kind of bad datagram when it begins, and again when it has gone on for an hour."""
        for code, count in self._hood.dropped.items():
            told, at = self._dropped.get(code, (0, -QUIET_S))
            if count != told and now - at >= QUIET_S:
                _log.warning("neighbours.dropped", code=code, count=count - told)
                self._dropped[code] = (count, now)

    def _keep(self, place: LanPlace) -> None:
        if place != self._place:
            self._place = place
            with contextlib.suppress(Unavailable):  # on a full disk it is chosen again after a restart
                self._store.save({"lan": msgspec.json.encode(place)})

    def _fail(self, error: SkerryError) -> None:
        if self._failing != error.code:
            cause = error.__cause__ if isinstance(error, Bug) else None
            _log.warning("neighbours.failing", code=error.code, reason=str(error), exc_info=cause)
        self._failing = error.code

    def _succeed(self) -> None:
        if self._failing:
            _log.info("neighbours.restored")
        self._failing = ""


def _load(store: AgentStore) -> LanPlace:
    try:
        return msgspec.json.decode(store.load("lan") or b"{}", type=LanPlace)
    except UNREADABLE:
        return LanPlace()


def parse_lan_address(text: str) -> LanPlace:
    """Return the place of `HOST`, `HOST:PORT`, `:PORT` or, for IPv6, `[HOST]:PORT`; an empty text states nothing.

    Raises:
        Rejected: it is none of these (`lan.malformed`).
    """
    host, port = text, ""
    if text.startswith(("[", ":")) or text.count(":") == 1:
        host, _, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    host = host.strip("[]")
    try:
        if host:
            ipaddress.ip_address(host)
        return LanPlace(host, _parse_port(port))
    except ValueError as error:
        hint = "write an address of this machine, such as 192.168.1.20 or 192.168.1.20:7946, or only :7946"
        raise Rejected("lan.malformed", f"not an address for heartbeats: {text[:64]!r}", hint=hint) from error


def _parse_port(text: str) -> int:
    number = int(text) if text else 0
    if not 0 <= number < 65536:
        raise ValueError(text)
    return number


def _join(place: LanPlace) -> str:
    return f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
