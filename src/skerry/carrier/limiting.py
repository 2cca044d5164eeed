"""Applies a link budget to what a host or relay reads: grants bytes, paces them, and remembers what was used.

Rules: desired state and reports are never held back, but they count. Usage is stored every few seconds while bytes
flow, so that a kill loses no more of the count. Time is the host's corrected one; pacing is by the monotonic clock.
Who is held back is told why and for how long, and holds no connection meanwhile. Safe to call from several threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec
import structlog

from skerry.delivery.budget import (
    Bucket,
    BudgetState,
    Flow,
    count_bytes,
    decide_flow,
    own_share,
    turn_periods,
)
from skerry.delivery.windows import decide_switch
from skerry.kit.errors import SkerryError
from skerry.ports.clock import Clock
from skerry.ports.kept_documents import KeptDocuments
from skerry.spec.desired import LinkPolicy, SitePolicy
from skerry.spec.facts import HostFacts

_log = structlog.get_logger()

SAVE_EVERY_S = 3.0
SAVE_EVERY_BYTES = 64 << 10
"""So much may stay unsaved for longer: reports of a host with no news must not cost a write each."""
LONGEST_PAUSE_S = 5.0
LOOK_EVERY_S = 1.0


class Grant(msgspec.Struct, frozen=True):
    """`size` bytes may be read now, at about `rate` bytes per second (None: as fast as they come)."""

    size: int
    rate: int | None = None


class Held(msgspec.Struct, frozen=True):
    """Nothing may be read for `wait_s`, and why."""

    wait_s: float
    why: str


class Limiter:
    """Says what may be read from the upstream. Without a policy everything may."""

    def __init__(self, store: KeptDocuments, clock: Clock, now: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._lock = threading.RLock()
        self._state = msgspec.json.decode(store.load("link_usage") or b"{}", type=BudgetState)
        self._policy: LinkPolicy | None = None
        self._site: SitePolicy | None = None
        self._zone: tzinfo = UTC
        self._metered = False
        self._flow: Flow | None = None
        self._look_at = 0.0
        self._bucket = Bucket(None, clock.monotonic())
        self._free_at = 0.0
        self._switch: tuple[SitePolicy, datetime, datetime, str] | None = None
        self._reserved = 0
        self._unsaved = 0
        self._saved_at = clock.monotonic()
        self.round = 0

    def follow(self, policy: SitePolicy, facts: HostFacts) -> None:
        """Keep to a site's policy from now on; `round` counts the changes."""
        fact = facts.get("link.metered")
        metered = fact is not None and fact.value is True
        if self._site is not None and (policy, metered) == (self._site, self._metered):
            return
        with self._lock:
            self._site, self._metered = policy, metered
            self._policy = own_share(policy.link) if policy.link else None
            self._zone = _zone(policy.time_zone)
            self._flow = None
            self.round += 1

    def switch_wait(self) -> str:
        """Return what a switch to another release has to wait for, empty when it need not."""
        site = self._site
        if site is None or not site.switch_windows:
            return ""
        now = self._now()
        if self._switch is None or self._switch[0] != site or now >= self._switch[1] or now < self._switch[2]:
            why, until = decide_switch(site.switch_windows, now, self._zone, site.time_zone)
            # An open window ends at a time that is not asked for here: look again soon.
            self._switch = (site, until or now + timedelta(seconds=LOOK_EVERY_S), now, why)
        return self._switch[3]

    def ask(self, size: int) -> Grant | Held:
        """Ask to read `size` bytes; what is granted counts as used until it is given back or came."""
        with self._lock:
            flow = self._look(afresh=True)
            if flow is None:
                return Grant(size)
            allowance = None if flow.allowance is None else flow.allowance - self._reserved
            if flow.held:
                return Held(max(1.0, (flow.until - self._now()).total_seconds()), flow.why)
            if (wait_s := self._free_at - self._clock.monotonic()) > LONGEST_PAUSE_S:
                return Held(wait_s, "waiting for the link's rate")
            if allowance is not None and allowance <= 0:
                return Held(LONGEST_PAUSE_S, "other downloads take what is left of the link's budget")
            granted = size if allowance is None else min(size, allowance)
            self._reserved += granted
            return Grant(granted, flow.rate)

    def rate(self) -> int | None:
        """Return how many bytes per second may flow now, None when there is no limit."""
        with self._lock:
            flow = self._look()
            return flow.rate if flow is not None else None

    def take(self, size: int) -> float:
        """Note that `size` bytes of a grant came, and return for how long nothing more may; infinite: no more."""
        with self._lock:
            self._reserved = max(0, self._reserved - size)
            flow = self._count(size)
            if flow is not None and flow.rate == 0:
                return float("inf")
            return max(0.0, self._free_at - self._clock.monotonic())

    def give_back(self, size: int) -> None:
        """Give back what was granted and did not come."""
        with self._lock:
            self._reserved = max(0, self._reserved - size)
            self._save()

    def count(self, size: int) -> None:
        """Count bytes that are never held back."""
        with self._lock:
            self._count(size)

    def close(self) -> None:
        """Store what was counted."""
        with self._lock:
            self._save()

    def _count(self, size: int) -> Flow | None:
        if self._policy is None:
            return None
        mono = self._clock.monotonic()
        self._state = count_bytes(self._state, size, metered=self._metered)
        self._unsaved += size
        flow = self._look()
        self._free_at = mono + self._bucket.take(size, mono)
        if mono - self._saved_at >= SAVE_EVERY_S and (self._reserved or self._unsaved >= SAVE_EVERY_BYTES):
            self._save()
        return flow

    def _look(self, *, afresh: bool = False) -> Flow | None:
        """Return what may flow, as decided within the last second; `afresh` with all that was counted."""
        if self._policy is None:
            return None
        mono, now = self._clock.monotonic(), self._now()
        if afresh or self._flow is None or mono >= self._look_at or now >= self._flow.until:
            self._state = turn_periods(self._policy, self._state, now, self._zone)
            self._flow = decide_flow(self._policy, self._state, now, self._zone, metered=self._metered)
            self._look_at = mono + LOOK_EVERY_S
            self._bucket.tune(self._flow.rate, mono)
            self._free_at = mono + self._bucket.take(0, mono)
        return self._flow

    def _save(self) -> None:
        if not self._unsaved:
            return
        with contextlib.suppress(SkerryError):
            # On a full disk it is stored with the next bytes; the count in memory holds.
            self._store.save({"link_usage": msgspec.json.encode(self._state)})
            self._unsaved = 0
        self._saved_at = self._clock.monotonic()


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    # Most sites need none, and a host may have no time zones at all.
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        _log.warning("link.no_time_zone", zone=name, hint="install the system's tzdata; UTC serves instead")
        return UTC
