"""How this relay stands: for the hub in its reports, and for people on its machine in `status.json`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from skerry import __version__
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable
from skerry.kit.locking import is_held
from skerry.ports.clock import Clock
from skerry.relay.cache import BlobCache
from skerry.relay.guests import Guests
from skerry.relay.holdings import Holdings
from skerry.relay.identity import Place
from skerry.relay.loops.upstream import Upward
from skerry.relay.queue import Queue
from skerry.relay.traffic import Traffic
from skerry.spec.relay import CacheView, QueueView, RelayView, TrafficView

WRITE_EVERY_S = 2.0


class RelayStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What `skerry relay status` shows; `written_at` says how old all but `running` is.

    `held` is by site below which generation of its DesiredState is here, 0 for none. `clock_offset_s` is what the relay
    adds to the clock of its machine.
    """

    relay: str
    upstream: str
    running: bool = False
    serving: str = ""
    generation: int = 0
    sites: int = 0
    last_contact: datetime | None = None
    written_at: datetime | None = None
    trouble: str = ""
    cache: CacheView = CacheView()
    queue: QueueView = QueueView()
    traffic: TrafficView = TrafficView()
    hosts: dict[str, int] = {}
    relays: dict[str, int] = {}
    held: dict[str, int] = {}
    clock_offset_s: float = 0.0


class StandingParts(msgspec.Struct, frozen=True):
    """What the standing is taken from."""

    place: Place
    clock: Clock
    guests: Guests
    holdings: Holdings
    queue: Queue
    cache: BlobCache
    traffic: Traffic
    upward: Upward


class Standing:
    """Says how the relay stands. `serving` is where it listens; `troubles` are asked for what hinders it."""

    def __init__(self, parts: StandingParts) -> None:
        self._parts = parts
        self.serving = ""
        self.upstream: Callable[[], str] = lambda: parts.place.upstream
        self.troubles: list[Callable[[], str]] = [lambda: parts.upward.trouble, lambda: parts.queue.trouble]

    def view(self) -> RelayView:
        """Return what the hub is told."""
        parts = self._parts
        now = parts.clock.monotonic()
        return RelayView(
            version=__version__,
            upstream=self.upstream()[:512],
            trouble=self._trouble(),
            cache=parts.cache.view(),
            queue=self._queue(),
            traffic=parts.traffic.view(),
            held=dict(parts.holdings.desired),
            hosts=parts.guests.callers(now),
            relays=parts.guests.callers_below(now),
        )

    def status(self) -> RelayStatus:
        """Return what people are shown."""
        parts, view = self._parts, self.view()
        state = parts.holdings.state
        return RelayStatus(
            relay=parts.place.relay,
            upstream=view.upstream,
            serving=self.serving,
            generation=state.generation if state is not None else 0,
            sites=len(state.sites) if state is not None else 0,
            last_contact=parts.upward.last_contact,
            written_at=parts.clock.now(),
            trouble=view.trouble,
            cache=view.cache,
            queue=view.queue,
            traffic=view.traffic,
            hosts=dict(view.hosts),
            relays=dict(view.relays),
            held={site: view.held.get(site, 0) for site in state.sites} if state is not None else {},
            clock_offset_s=(parts.upward.now() - parts.clock.now()).total_seconds(),
        )

    def _trouble(self) -> str:
        return "; ".join(text for trouble in self.troubles if (text := trouble()))[:1024]

    def _queue(self) -> QueueView:
        size = self._parts.queue.size()
        oldest_s = 0.0 if size.oldest_at is None else self._parts.clock.now().timestamp() - size.oldest_at
        return QueueView(
            reports=size.reports,
            metrics=size.metrics,
            used_bytes=size.used_bytes,
            limit_bytes=self._parts.queue.limit_bytes,
            oldest_s=max(0, int(oldest_s)),
            dropped_reports=size.dropped_reports,
            dropped_metrics=size.dropped_metrics,
        )


def write_status(data: Path, status: RelayStatus) -> None:
    """Write the status for people; a full disk keeps the old one, which says how old it is."""
    try:
        write_file(data / "status.json", msgspec.json.encode(status), sync=False)
    except Unavailable:
        return


def read_status(data: Path, place: Place) -> RelayStatus:
    """Return how the relay of a data directory stands, or stood when it last ran."""
    running = is_held(data / "relay.lock")
    try:
        found = msgspec.json.decode((data / "status.json").read_bytes(), type=RelayStatus)
    except (OSError, *UNREADABLE):
        found = RelayStatus(relay=place.relay, upstream=place.upstream)
    return msgspec.structs.replace(
        found, running=running, trouble=found.trouble if running else "the relay does not run"
    )
