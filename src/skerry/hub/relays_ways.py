"""By which relays hosts and other relays have come, as their own signed word showed.

A way is believed when a fresh report of a host, signed by it, came by a relay; and of a relay in between, when that
relay lists the host and its own fresh report came the same way. So a relay can claim nobody who does not come by the
relay above it. Ways that nobody has come by for `FORGET_AFTER` are forgotten. What is stored may be an hour old.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.ports.hub_store import HubStore
from skerry.ports.relay_records import Way

FORGET_AFTER = timedelta(days=30)
STORE_EVERY = timedelta(hours=1)

Upstreams = Mapping[str, Sequence[str]]
"""By relay, the relays above it that its document names."""


class _Seen(msgspec.Struct):
    at: datetime
    stored_at: datetime | None = None
    site: str = ""


class Ways:
    """Who comes by whom. Changed in one event loop; it may be read in threads meanwhile."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._hosts: defaultdict[str, dict[str, _Seen]] = defaultdict(dict)
        self._relays: defaultdict[str, dict[str, _Seen]] = defaultdict(dict)
        self._direct: dict[str, datetime] = {}
        for way in store.host_ways():
            self._hosts[way.relay][way.name] = _Seen(way.seen_at, way.seen_at, way.site)
        for way in store.relay_ways():
            self._relays[way.relay][way.name] = _Seen(way.seen_at, way.seen_at)

    def note_host(self, relay: str, host: str, site: str, at: datetime) -> bool:
        """Note that a host came by a relay; tell whether it had not for long."""
        direct = self._direct.get(host)
        if direct is not None and at >= direct:
            del self._direct[host]
        seen = self._hosts[relay].get(host)
        if seen is None or seen.site != site:
            self._hosts[relay][host] = _Seen(at, None, site)
            return True
        return _raise(seen, at)

    def note_relay(self, relay: str, below: str, at: datetime) -> bool:
        """Note that a relay came by another; tell whether it had not for long."""
        seen = self._relays[relay].get(below)
        if seen is None:
            self._relays[relay][below] = _Seen(at)
            return True
        return _raise(seen, at)

    def note_direct(self, host: str, at: datetime) -> None:
        """Note that a host has dialled the hub itself."""
        self._direct[host] = at

    def dialled_at(self, host: str) -> datetime | None:
        """Return when a host last dialled the hub itself, None when it came by a relay since."""
        return self._direct.get(host)

    def host_came(self, relay: str, host: str, now: datetime) -> datetime | None:
        """Return when a host last came by a relay, None when that is too long ago."""
        seen = self._hosts.get(relay, {}).get(host)
        return seen.at if seen is not None and now - seen.at < FORGET_AFTER else None

    def site_of(self, relay: str, host: str) -> str:
        """Return the site of a host that came by a relay; empty when it did not."""
        seen = self._hosts.get(relay, {}).get(host)
        return seen.site if seen is not None else ""

    def relay_came(self, relay: str, below: str, now: datetime) -> datetime | None:
        """Return when a relay last came by another, None when that is too long ago."""
        seen = self._relays.get(relay, {}).get(below)
        return seen.at if seen is not None and now - seen.at < FORGET_AFTER else None

    def below(self, relay: str, upstreams: Upstreams, now: datetime) -> frozenset[str]:
        """Return the relays below one at any depth: by their documents, and by how they came."""
        found: set[str] = set()
        waiting = [relay]
        while waiting:
            upper = waiting.pop()
            came = {name for name in list(self._relays.get(upper, {})) if self.relay_came(upper, name, now)}
            named = {name for name, above in upstreams.items() if upper in above}
            new = {name for name in came | named if name in upstreams} - found
            found |= new
            waiting += new
        return frozenset(found - {relay})

    def sites(self, relays: Collection[str], now: datetime) -> frozenset[str]:
        """Return the sites of whose hosts one came by any of these relays."""
        return frozenset(
            seen.site
            for relay in relays
            for seen in list(self._hosts.get(relay, {}).values())
            if now - seen.at < FORGET_AFTER
        )

    def count_hosts(self, relays: Collection[str], now: datetime) -> int:
        """Return how many hosts came by any of these relays."""
        return len(
            {
                host
                for relay in relays
                for host, seen in list(self._hosts.get(relay, {}).items())
                if now - seen.at < FORGET_AFTER
            }
        )

    async def flush(self) -> None:
        """Store what is new, or an hour newer than what is stored."""
        hosts, relays = _due(self._hosts), _due(self._relays)
        if hosts or relays:
            await asyncio.to_thread(self._store.put_ways, hosts=hosts, relays=relays)

    def forget_host(self, name: str) -> None:
        """Forget a removed host."""
        self._direct.pop(name, None)
        for hosts in list(self._hosts.values()):
            hosts.pop(name, None)

    def forget_relay(self, name: str) -> None:
        """Forget a removed relay."""
        self._hosts.pop(name, None)
        self._relays.pop(name, None)
        for relays in self._relays.values():
            relays.pop(name, None)

    def trim(self, now: datetime) -> None:
        """Forget the ways by which nobody has come for long. Blocking."""
        for of in (self._hosts, self._relays):
            for ways in list(of.values()):
                for name in [name for name, seen in list(ways.items()) if now - seen.at >= FORGET_AFTER]:
                    ways.pop(name, None)
        self._store.trim_ways(now - FORGET_AFTER - STORE_EVERY)


def _raise(seen: _Seen, at: datetime) -> bool:
    revived = at - seen.at >= FORGET_AFTER
    seen.at = max(seen.at, at)
    return revived


def _due(ways: Mapping[str, Mapping[str, _Seen]]) -> list[Way]:
    found: list[Way] = []
    for relay, names in ways.items():
        for name, seen in names.items():
            if seen.stored_at is None or seen.at - seen.stored_at >= STORE_EVERY:
                seen.stored_at = seen.at
                found.append(Way(relay, name, seen.at))
    return found
