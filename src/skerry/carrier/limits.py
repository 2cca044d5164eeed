"""How often a caller may ask: rates, growing delays and turns at a time, for both doors of a hub.

Rules: the tables have no clock: the monotonic time is handed in, in seconds. Every table is bounded, and forgets
who was idle for longest. What one caller does is counted against it alone: an address pays only for callers of it
that have not proven who they are, so that a flood does not keep out those who have.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from skerry.kit.errors import Conflict, Denied, Rejected, Unavailable, Untrusted
from skerry.ports.clock import Clock

MAX_CALLERS = 20_000


class TooMany(Unavailable):
    """The caller asks too often: later, and its answer says when."""

    http_status = 429

    @property
    def retry_after_s(self) -> int:
        """Return after how many seconds to ask again; at least one."""
        return max(1, math.ceil(float(self.facts.get("retry_after_s") or 0)))


def too_many(wait_s: float, what: str = "requests") -> TooMany:
    """Return the error of a caller who is to wait for `wait_s` seconds."""
    seconds = max(1, math.ceil(wait_s))
    message = f"too many {what} from here: ask again in {seconds} s"
    return TooMany("rate.limited", message, retry_after_s=seconds)


class Rate(msgspec.Struct, frozen=True):
    """So many at once, and so many a second in the long run."""

    per_s: float
    burst: float


class Rates:
    """A token bucket per caller."""

    def __init__(self, rate: Rate, *, most: int = MAX_CALLERS) -> None:
        self._rate = rate
        self._most = most
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and as of when

    def __len__(self) -> int:
        return len(self._held)

    def wait_s(self, caller: str, now: float, *, cost: float = 1.0) -> float:
        """Return how long a caller has to wait until it may ask; 0 is now."""
        return max(0.0, (cost - self._left(caller, now)) / self._rate.per_s)

    def take(self, caller: str, now: float, *, cost: float = 1.0) -> float:
        """Count a request, and return 0; or count nothing, and return how long the caller has to wait."""
        if wait_s := self.wait_s(caller, now, cost=cost):
            return wait_s
        self._held[caller] = (self._left(caller, now) - cost, now)
        self._held.move_to_end(caller)
        if len(self._held) > self._most:
            self._held.popitem(last=False)
        return 0.0

    def _left(self, caller: str, now: float) -> float:
        left, then = self._held.get(caller, (self._rate.burst, now))
        return min(self._rate.burst, left + (now - then) * self._rate.per_s)


class Delays:
    """A delay per caller that doubles with each failure beyond the free ones, and ends with a success."""

    def __init__(self, *, free: int, longest_s: float, most: int = MAX_CALLERS) -> None:
        self._free = free
        self._longest_s = longest_s
        self._most = most
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how often, and when last

    def __len__(self) -> int:
        return len(self._failed)

    def wait_s(self, caller: str, now: float) -> float:
        """Return how long a caller has to wait until it may try again; 0 is now."""
        times, last = self._failed.get(caller, (0, now))
        return max(0.0, last + self._delay_s(times) - now)

    def fail(self, caller: str, now: float) -> None:
        """Count a failure."""
        times, last = self._failed.get(caller, (0, now))
        if now - last > 10 * self._longest_s:  # long ago: it begins anew
            times = 0
        self._failed[caller] = (times + 1, now)
        self._failed.move_to_end(caller)
        if len(self._failed) > self._most:
            self._failed.popitem(last=False)

    def succeed(self, caller: str) -> None:
        """Forget a caller's failures."""
        self._failed.pop(caller, None)

    def _delay_s(self, times: int) -> float:
        return 0.0 if times < self._free else min(self._longest_s, 2.0 ** min(times - self._free, 60))


class Turns:
    """So many requests of a caller at a time."""

    def __init__(self, most_at_once: int) -> None:
        self._most_at_once = most_at_once
        self._under_way: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    @contextmanager
    def turn(self, caller: str) -> Generator[None]:
        """Count a request for as long as it lasts.

        Raises:
            TooMany: as many as may be are under way.
        """
        if self._under_way.get(caller, 0) >= self._most_at_once:
            raise too_many(1.0, "requests at a time")
        self._under_way[caller] = self._under_way.get(caller, 0) + 1
        try:
            yield
        finally:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]


class Gate:
    """Who may ask now. A caller that has proven who it is has a rate of its own; others share their address's.

    An address pays for those who fail, not for those who ask: a whole site behind one address costs it nothing.
    """

    def __init__(self, *, proven: Rate, failures: Rate, most: int = MAX_CALLERS) -> None:
        self._rates = Rates(proven, most=most)
        self._failures = Rates(failures, most=most)
        self._proven: OrderedDict[str, None] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._rates) + len(self._failures) + len(self._proven)

    def enter(self, address: str, caller: str, now: float) -> None:
        """Let a request in.

        Raises:
            TooMany: the caller has proven itself and asks too often, or has not and its address fails too often.
        """
        if caller in self._proven:
            self._proven.move_to_end(caller)
            wait_s = self._rates.take(caller, now)
        else:
            wait_s = self._failures.wait_s(address, now)
        if wait_s:
            raise too_many(wait_s)

    def knows(self, caller: str) -> bool:
        """Tell whether a caller has proven who it is."""
        return caller in self._proven

    def prove(self, caller: str) -> None:
        """Note that a caller has proven who it is."""
        self._proven[caller] = None
        self._proven.move_to_end(caller)
        if len(self._proven) > self._most:
            self._proven.popitem(last=False)

    def fail(self, address: str, caller: str, now: float) -> None:
        """Note that a caller could not prove who it is."""
        self._proven.pop(caller, None)
        self._failures.take(address, now)


def address_of(host: str | None) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 that one IPv6 network has to itself."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


HOST_RATE = Rate(per_s=200.0, burst=2000.0)
DELTA_RATE = Rate(per_s=20.0, burst=400.0)
STRANGER_RATE = Rate(per_s=20.0, burst=1000.0)


class CarrierLimits:
    """What the carrier API allows hosts, by what they claim to be and where from, and strangers by their address.

    A host has its rate at one address: nobody elsewhere can use it up by claiming its name. What is asked with a good
    blob token counts for the host that the token is of.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gate = Gate(proven=HOST_RATE, failures=STRANGER_RATE)
        self._deltas = Rates(DELTA_RATE)

    @contextmanager
    def guard(self, address: str, claim: str = "") -> Generator[None]:
        """Let a request in, and learn from how it ends.

        Raises:
            TooMany: it is not let in.
        """
        caller = f"{address} {claim}" if claim else ""
        self._gate.enter(address, caller, self._clock.monotonic())
        try:
            yield
        except (Denied, Untrusted, Rejected, Conflict):
            self._gate.fail(address, caller, self._clock.monotonic())
            raise
        if caller:
            self._gate.prove(caller)

    def take_deltas(self, host: str, *, hosts: int = 1) -> None:
        """Count a question for deltas of a host, or of a relay with so many `hosts` behind it.

        A relay may ask as often as they together; at the relay each of them has its own bound.

        Raises:
            TooMany: it asks too often.
        """
        if wait_s := self._deltas.take(host, self._clock.monotonic(), cost=1.0 / max(1, hosts)):
            raise too_many(wait_s, "questions for deltas")
