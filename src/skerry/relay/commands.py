"""What `skerry relay` does besides serving: telling how things stand at the relay."""

from __future__ import annotations

from pathlib import Path

from skerry.kit.errors import Missing
from skerry.kit.quantities import format_duration, format_size
from skerry.relay.identity import load_place
from skerry.relay.standing import RelayStatus, read_status


def status_of(data: Path) -> RelayStatus:
    """Return how the relay of a data directory stands, or stood when it last ran.

    Raises:
        Missing: no relay has joined there (`relay.not_joined`).
    """
    place = load_place(data)
    if place is None:
        hint = "run skerry relay join with the token that skerry relay token printed"
        raise Missing("relay.not_joined", f"no relay has joined in {data}", hint=hint)
    return read_status(data, place)


def status_text(status: RelayStatus) -> list[str]:
    """Return the status in lines for people."""
    cache, queue, traffic = status.cache, status.queue, status.traffic
    asked = cache.hits + cache.misses
    rate = f", {100 * cache.hits // asked} % of {asked} reads from it" if asked else ""
    oldest = f", the oldest for {format_duration(queue.oldest_s)}" if queue.reports or queue.metrics else ""
    where = f"serving at {status.serving}" if status.serving else "running, not serving yet"
    lines = [
        f"relay {status.relay}, upstream {status.upstream}",
        f"process: {where if status.running else 'NOT running'}",
        f"last contact: {status.last_contact.isoformat() if status.last_contact else 'never'}",
        f"state: generation {status.generation}, {status.sites} sites",
        f"cache: {cache.blobs} blobs, {format_size(cache.used_bytes)} of {format_size(cache.limit_bytes)}{rate}",
        f"wanted: {cache.wanted_here} of {cache.wanted} here",
        (
            f"queue: {queue.reports} reports, {queue.metrics} metrics, {format_size(queue.used_bytes)} of "
            f"{format_size(queue.limit_bytes)}{oldest}"
        ),
        (
            f"last hour: up {format_size(traffic.up_sent)} sent, {format_size(traffic.up_received)} received; "
            f"down {format_size(traffic.down_sent)} sent, {format_size(traffic.down_received)} received"
        ),
    ]
    if queue.dropped_reports or queue.dropped_metrics:
        lines.append(f"dropped: {queue.dropped_reports} heartbeats, {queue.dropped_metrics} metrics")
    if cache.damaged:
        lines.append(f"damaged blobs found: {cache.damaged}")
    lines.extend(f"host {name}: heard {age} s ago" for name, age in sorted(status.hosts.items()))
    lines.extend(f"relay {name}: heard {age} s ago" for name, age in sorted(status.relays.items()))
    if status.trouble:
        lines.append(f"trouble: {status.trouble}")
    return lines
