"""Which way a host's blobs and reports take, from what relays said last; pure.

A relay lists who dials it. A host, or a relay, goes by the one that heard it last; who has dialled the hub itself
since goes there. Where no relay lists a host yet, the way is as far as the hub saw it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.ports.hub_store import HostRecord
from skerry.ports.relay_records import RelayRecord
from skerry.spec.api_relay import Hop, HostPath

NOT_FOR = timedelta(minutes=5)
"""A relay that was not heard of for longer is silent."""


class Sightings(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub saw itself: who dialled it and when, and the relays by which hosts came."""

    hosts: Mapping[str, datetime] = {}
    relays: Mapping[str, datetime] = {}
    came_by: Mapping[str, Mapping[str, datetime]] = {}


def trace_path(
    host: HostRecord,
    relays: Sequence[RelayRecord],
    sightings: Sightings,
    *,
    now: datetime,
    tolerance: timedelta,
) -> HostPath:
    """Return the way of a host."""
    by_name = {relay.name: relay for relay in relays}
    above, heard_at = _latest(_lists_host(host.name, relays), sightings.hosts.get(host.name))
    if above is None and host.name not in sightings.hosts:
        above, _ = _latest(sightings.came_by.get(host.name, {}), None)
    hops = [_host_hop(host, heard_at, now, tolerance)]
    visited: set[str] = set()
    while above is not None and above in by_name and above not in visited:
        visited.add(above)
        relay = by_name[above]
        upper, told_at = _latest(_lists_relay(above, relays), sightings.relays.get(above))
        hops.append(_relay_hop(relay, told_at, now))
        above = upper
    hops.append(Hop(kind="hub", name="hub"))
    hops.reverse()
    silent = next((hop for hop in hops if hop.is_silent), None)
    return HostPath(host=host.name, hops=tuple(hops), broken=silent.name if silent else "")


def _lists_host(name: str, relays: Sequence[RelayRecord]) -> dict[str, datetime]:
    return {
        relay.name: relay.view_at - timedelta(seconds=relay.view.hosts[name])
        for relay in relays
        if relay.view is not None and relay.view_at is not None and name in relay.view.hosts
    }


def _lists_relay(name: str, relays: Sequence[RelayRecord]) -> dict[str, datetime]:
    return {
        relay.name: relay.view_at - timedelta(seconds=relay.view.relays[name])
        for relay in relays
        if relay.view is not None and relay.view_at is not None and name in relay.view.relays
    }


def _latest(
    listed: Mapping[str, datetime], dialled_at: datetime | None
) -> tuple[str | None, datetime | None]:
    """Return who heard of somebody last, and when; None for the hub itself."""
    if not listed:
        return None, dialled_at
    name = max(sorted(listed), key=lambda name: listed[name])
    if dialled_at is not None and dialled_at >= listed[name]:
        return None, dialled_at
    return name, listed[name]


def _host_hop(host: HostRecord, told_at: datetime | None, now: datetime, tolerance: timedelta) -> Hop:
    heard_at = _later(host.last_seen_at, told_at)
    silent = heard_at is None or now - heard_at > tolerance
    return Hop(kind="host", name=host.name, heard_at=heard_at, is_silent=silent)


def _relay_hop(relay: RelayRecord, told_at: datetime | None, now: datetime) -> Hop:
    heard_at = _later(relay.last_seen_at, told_at)
    return Hop(
        kind="relay",
        name=relay.name,
        upstream=relay.view.upstream if relay.view else "",
        heard_at=heard_at,
        is_silent=heard_at is None or now - heard_at > NOT_FOR,
        trouble=relay.view.trouble if relay.view else "",
    )


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)
