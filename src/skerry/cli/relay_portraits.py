"""Relays and the ways by them as lines of text; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from skerry.cli.text import age, plural
from skerry.kit.quantities import format_duration, format_size
from skerry.spec.api_relay import Hop, HostPath, RelayStanding, SitePath
from skerry.spec.relay import CacheView, QueueView, RelayView

Lines = Iterator[str]
_HEAD_WIDTH = 15
_SHOWN = 20


def relay_lines(standing: RelayStanding, *, at: datetime) -> Lines:
    """Say everything about a relay."""
    spec = standing.document.get("spec", {})
    yield _field("Relay", standing.name)
    yield _field("State", _state(standing, at))
    yield _field("Labels", ", ".join(f"{key}={value}" for key, value in sorted(standing.labels.items())))
    yield _field("Addresses", ", ".join(spec.get("addresses", ())))
    yield _field("Upstreams", ", ".join(spec.get("upstreams", ())) or "the hub")
    for name, when in sorted(standing.came_by.items()):
        yield f"  it came by relay {name} {age(when, at)}"
    if standing.enrolled_at is None:
        yield f"  nobody has joined as this relay yet: skerry relay token {standing.name}"
        return
    yield _field("Joined", age(standing.enrolled_at, at))
    yield _field("Told", _step(standing))
    if standing.clock_offset_s is not None and abs(standing.clock_offset_s) >= 1:
        yield _field("Clock", f"off by {standing.clock_offset_s:+.0f} s")
    yield _field("Sites", _shown(standing.sites))
    yield _field("Relays below", _shown(standing.below))
    if standing.view is not None:
        yield from _view_lines(standing.view, standing.view_at, at)


def path_lines(path: SitePath, *, at: datetime) -> Lines:
    """Say which way the blobs and reports of a site's hosts take, and where it is broken."""
    for host in path.hosts:
        yield from _host_lines(host, at)
    if not path.hosts:
        yield f"No host has joined site {path.site} yet."
    behind = ", ".join(path.relays)
    yield f"Site {path.site} is behind {behind}." if behind else f"Site {path.site} is behind no relay."


def _host_lines(path: HostPath, at: datetime) -> Lines:
    upwards = path.hops[::-1]
    way = " > ".join(f"relay {hop.name}" if hop.kind == "relay" else hop.name for hop in upwards)
    yield f"{way}: reports go up this way, and blobs come down it."
    for hop in upwards:
        if hop.kind != "hub":
            yield f"  {_hop_text(hop, at)}"
    broken = next((hop for hop in path.hops if hop.name == path.broken and hop.is_silent), None)
    if broken is not None:
        yield f"  It is broken above or at {broken.kind} {broken.name}; what is known of all below is as old."


def _hop_text(hop: Hop, at: datetime) -> str:
    heard = f"last heard of {age(hop.heard_at, at)}" if hop.heard_at else "never heard of"
    silent = ", which is too long ago" if hop.is_silent and hop.heard_at else ""
    dials = f", dials {hop.upstream}" if hop.upstream else ""
    trouble = f"; it says: {hop.trouble}" if hop.trouble else ""
    return f"{hop.kind} {hop.name}: {heard}{silent}{dials}{trouble}"


def _view_lines(view: RelayView, told_at: datetime | None, at: datetime) -> Lines:
    yield _field("It said", f"{age(told_at, at)}, version {view.version or 'unknown'}")
    if view.upstream:
        yield _field("Dials", view.upstream)
    if view.trouble:
        yield _field("Trouble", view.trouble)
    yield _field("Dialled by", f"{plural(len(view.hosts), 'host')}, {plural(len(view.relays), 'relay')}")
    yield _field("Cache", _cache(view.cache))
    if view.cache.damaged:
        yield f"  {plural(view.cache.damaged, 'blob')} found damaged and removed"
    yield _field("Queue", _queue(view.queue))
    if view.queue.dropped_reports or view.queue.dropped_metrics:
        dropped = f"{view.queue.dropped_reports} reports and {view.queue.dropped_metrics} batches of metrics"
        yield f"  given up for want of room since it was set up: {dropped}"
    up, down = view.traffic, view.traffic
    yield _field("Last hour", f"up {_pair(up.up_sent, up.up_received)}")
    yield f"{'':<{_HEAD_WIDTH}}down {_pair(down.down_sent, down.down_received)}"


def _cache(cache: CacheView) -> str:
    asked = cache.hits + cache.misses
    share = f", {100 * cache.hits // asked}% of {asked} from here" if asked else ""
    wanted = f", {cache.wanted_here} of {cache.wanted} wanted ones here" if cache.wanted else ""
    room = f"{format_size(cache.used_bytes)} of {format_size(cache.limit_bytes)}"
    return f"{plural(cache.blobs, 'blob')}, {room}{share}{wanted}"


def _queue(queue: QueueView) -> str:
    if not queue.reports and not queue.metrics:
        return "empty"
    waiting = f"{plural(queue.reports, 'report')} and {queue.metrics} of metrics to hand up"
    oldest = f", the oldest for {format_duration(float(queue.oldest_s))}"
    return f"{waiting}, {format_size(queue.used_bytes)} of {format_size(queue.limit_bytes)}{oldest}"


def _pair(sent: int, received: int) -> str:
    return f"{format_size(sent)} sent, {format_size(received)} received"


def _state(standing: RelayStanding, at: datetime) -> str:
    if standing.last_seen_at is None:
        return "never seen"
    return f"{standing.presence}, last seen {age(standing.last_seen_at, at)}"


def _step(standing: RelayStanding) -> str:
    if standing.generation_held >= standing.generation_wanted:
        return f"in step, generation {standing.generation_held}"
    return (
        f"holds generation {standing.generation_held}, generation {standing.generation_wanted} waits for it"
    )


def _shown(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}" if names else "none"


def _field(head: str, text: str) -> str:
    return f"{head + ':':<{_HEAD_WIDTH}}{text or '-'}"
