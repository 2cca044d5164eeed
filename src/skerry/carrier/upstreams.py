"""Several upstreams in the place of one: uses the first that answers, and comes back to an earlier one.

- Which one is used is decided by `Choice`, which has no clock and touches nothing: the monotonic time is handed in.
- One that fails several times in a row is left for the next; a call that meets this goes on with that one. What an
  upstream refuses is an answer, and no failure.
- An earlier one is asked whether it is there again after a while, each time a longer one; so is one that was come back
  to and failed soon: so nothing goes to and fro. Only a call that waits for news asks, and it waits no longer than
  until the next question is due.
- Who waits at an upstream that was left is called back at once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec
import structlog

from skerry.kit.errors import Rejected, SkerryError, Unavailable, Untrusted
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest

_log = structlog.get_logger()

MAX_UPSTREAMS = 8
FAILURES = 3
"""In a row; after these an upstream is left for the next."""
STAY_S = 60.0
"""For how long the next one is stayed with at least, before an earlier one is asked."""
MOST_STAY_S = 1800.0
PROVEN_S = 300.0
"""An upstream that was come back to and has answered for so long is trusted again as if it had never failed."""
LEAST_WAIT_S = 1.0

T = TypeVar("T")


class DialledLink(Link, Protocol):
    """A link to one upstream, that tells how many bytes went to and fro."""

    on_traffic: Callable[[int], None]

    def reach(self) -> None:
        """Find out whether the upstream answers and is the one it should be.

        Raises:
            Unavailable: it does not answer.
            Untrusted: it is another.
        """
        ...

    def cut_waits(self) -> None:
        """Cut calls that wait for news; the link can be used further."""
        ...


class Upstream(msgspec.Struct, frozen=True):
    """An upstream by its address, and the link to it."""

    url: str
    link: DialledLink


class UpstreamView(msgspec.Struct, frozen=True):
    """How an upstream stands. `trouble` is why it was left or does not answer; `since` when that began."""

    url: str
    in_use: bool = False
    trouble: str = ""
    since: datetime | None = None


class _Standing(msgspec.Struct):
    """What is known of an upstream; times are monotonic."""

    failures: int = 0
    stay_s: float = STAY_S
    ask_at: float = 0.0
    since: float = 0.0


class Choice:
    """Which of several upstreams to use, the first rather than others. `spread` is a factor that differs by chance."""

    def __init__(self, count: int, *, spread: Callable[[], float] = lambda: 1.0) -> None:
        if not 1 <= count <= MAX_UPSTREAMS:
            raise Rejected("upstreams.number", f"there can be 1 to {MAX_UPSTREAMS} upstreams, not {count}")
        self._standings = [_Standing() for _ in range(count)]
        self._spread = spread
        self._answered = False
        self.used = 0

    def note_success(self, used: int, now: float) -> None:
        """Note that an upstream answered."""
        standing = self._standings[used]
        standing.failures, self._answered = 0, True
        if used == self.used and now - standing.since >= PROVEN_S:
            standing.stay_s = STAY_S

    def note_failure(self, used: int, now: float) -> bool:
        """Note that an upstream failed; tell whether another is used now."""
        if used != self.used:
            return True  # it was left already, by another call or for an earlier one
        standing = self._standings[used]
        standing.failures += 1
        if standing.failures < FAILURES or len(self._standings) == 1:
            return False
        self._put_off(standing, now)
        self._answered = False
        self.used = self._next(used)
        self._standings[self.used].since = now
        return True

    def question(self, now: float) -> int | None:
        """Return an earlier upstream that is to be asked now whether it is there again."""
        due = (number for number in range(self.used) if self._standings[number].ask_at <= now)
        return next(due, None)

    def note_answer(self, asked: int, now: float, *, there: bool) -> bool:
        """Note what came of asking an earlier one; tell whether it is used from now on."""
        standing = self._standings[asked]
        if not there:
            self._put_off(standing, now)
            return False
        if asked >= self.used:
            return False
        standing.failures, standing.since = 0, now
        self.used = asked
        return True

    def wait_s(self, now: float) -> float | None:
        """Return how long to wait for news at the longest, so that earlier ones are asked in time; None: any time."""
        due = [self._standings[number].ask_at - now for number in range(self.used)]
        return max(LEAST_WAIT_S, min(due)) if due else None

    def _put_off(self, standing: _Standing, now: float) -> None:
        standing.ask_at = now + standing.stay_s * self._spread()
        # While none answers there is nothing to learn about how long to stay with another.
        if self._answered:
            standing.stay_s = min(standing.stay_s * 2, MOST_STAY_S)

    def _next(self, left: int) -> int:
        """Return the one to use after another: the first that has not failed, else the next in the row."""
        others = [(left + step) % len(self._standings) for step in range(1, len(self._standings))]
        sound = [number for number in sorted(others) if self._standings[number].failures < FAILURES]
        return sound[0] if sound else others[0]


class Upstreams:
    """A `Link` over several, safe to use from several threads."""

    def __init__(self, upstreams: Sequence[Upstream], clock: Clock) -> None:
        """`upstreams` are in the order of preference.

        Raises:
            Rejected: there are none, or too many (`upstreams.number`).
        """
        self._upstreams = tuple(upstreams)
        self._clock = clock
        self._lock = threading.Lock()
        self.on_traffic: Callable[[int], None] = lambda _: None
        self._choice = _choice(len(self._upstreams))
        self._troubles: dict[int, tuple[str, datetime]] = {}
        self._closed = False
        self._listen()

    @property
    def url(self) -> str:
        """The address of the upstream in use."""
        return self._upstreams[self._choice.used].url

    def view(self) -> tuple[UpstreamView, ...]:
        """Return how all of them stand, in the order of preference."""
        with self._lock:
            nothing: tuple[str, datetime | None] = ("", None)
            return tuple(
                UpstreamView(upstream.url, number == self._choice.used, *self._troubles.get(number, nothing))
                for number, upstream in enumerate(self._upstreams)
            )

    def replace(self, upstreams: Sequence[Upstream]) -> None:
        """Use others from now on, with links of their own; who waits at one of before is called back.

        Raises:
            Rejected: there are none, or too many (`upstreams.number`).
        """
        choice = _choice(len(upstreams))
        with self._lock:
            before, self._upstreams = self._upstreams, tuple(upstreams)
            self._choice, self._troubles = choice, {}
            self._listen()
            unused = (*before, *upstreams) if self._closed else before
        for upstream in unused:
            upstream.link.close()

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Ask to belong to a site."""
        return self._call(lambda link: link.enroll(request))

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Ask that new keys take the place of the old ones."""
        return self._call(lambda link: link.change_keys(request))

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Hand over reports and wait up to `request.wait_s` for news."""

        def ask(link: DialledLink) -> SyncAnswer:
            return link.sync(msgspec.structs.replace(request, wait_s=self._wait_s(request.wait_s)))

        return self._call(ask, waits=request.wait_s > 0)

    def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Ask to be the relay that a token names."""
        return self._call(lambda link: link.enroll_relay(request))

    def carry(self, request: CarryRequest) -> CarryAnswer:
        """Hand over what is below a relay and wait up to `request.wait_s` for news."""

        def ask(link: DialledLink) -> CarryAnswer:
            return link.carry(msgspec.structs.replace(request, wait_s=self._wait_s(request.wait_s)))

        return self._call(ask, waits=request.wait_s > 0)

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Ask which deltas there are."""
        return self._call(lambda link: link.deltas(request, token=token))

    def blob_size(self, digest: str, *, token: str) -> int | None:
        """Return how long a blob is, None when there is none of that digest."""
        return self._call(lambda link: link.blob_size(digest, token=token))

    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob from a byte on; one that is cut is asked for again, perhaps at another upstream."""
        with self._lock:
            link = self._upstreams[self._choice.used].link
        return link.blob(digest, offset=offset, token=token, limit=limit, rate=rate)

    def metadata(self, name: str, *, token: str, max_bytes: int) -> bytes | None:
        """Return a file of signed metadata, None when there is none of that name."""
        return self._call(lambda link: link.metadata(name, token=token, max_bytes=max_bytes))

    def close(self) -> None:
        """Cut all connections; a call that waits ends with `Unavailable`."""
        with self._lock:
            self._closed = True
            upstreams = self._upstreams
        for upstream in upstreams:
            upstream.link.close()

    def _listen(self) -> None:
        for upstream in self._upstreams:
            upstream.link.on_traffic = self._count

    def _count(self, size: int) -> None:
        self.on_traffic(size)  # which is set later

    def _wait_s(self, wanted: float) -> float:
        with self._lock:
            most = self._choice.wait_s(self._clock.monotonic())
        return wanted if most is None else min(wanted, most)

    def _call(self, ask: Callable[[DialledLink], T], *, waits: bool = False) -> T:
        if waits:
            self._ask_earlier()
        tries = 0
        while True:
            tries += 1
            with self._lock:
                choice, upstreams = self._choice, self._upstreams
                used = choice.used
            try:
                answer = ask(upstreams[used].link)
            except SkerryError as error:
                if not _is_failure(error):
                    self._note_success(choice, used)
                    raise
                if self._closed or not self._note_failure(choice, used, error) or tries > len(upstreams):
                    raise
            else:
                self._note_success(choice, used)
                return answer

    def _note_success(self, choice: Choice, used: int) -> None:
        with self._lock:
            choice.note_success(used, self._clock.monotonic())
            if choice is self._choice and used == choice.used:
                self._troubles.pop(used, None)

    def _note_failure(self, choice: Choice, used: int, error: SkerryError) -> bool:
        """Note a failure, and tell whether another upstream is used now."""
        with self._lock:
            if choice is not self._choice:
                return True
            was = choice.used
            left = choice.note_failure(used, self._clock.monotonic())
            if used != was:
                return left
            _, since = self._troubles.get(used, ("", self._clock.now().replace(microsecond=0)))
            self._troubles[used] = (str(error)[:300], since)
            now_used = choice.used
            before, after = self._upstreams[was], self._upstreams[now_used]
        if now_used != was:
            _log.warning("upstream.left", url=before.url, reason=error.message, now=after.url)
            before.link.cut_waits()
        return left

    def _ask_earlier(self) -> None:
        """Find out whether an earlier upstream is there again, if it is time to."""
        with self._lock:
            choice, upstreams = self._choice, self._upstreams
            asked = choice.question(self._clock.monotonic())
        if asked is None:
            return
        there = False
        with suppress(SkerryError):
            upstreams[asked].link.reach()
            there = True
        with self._lock:
            was = choice.used
            back = choice.note_answer(asked, self._clock.monotonic(), there=there)
            if back:
                self._troubles.pop(asked, None)
        if back:
            _log.info("upstream.back", url=upstreams[asked].url, left=upstreams[was].url)
            upstreams[was].link.cut_waits()


def _choice(count: int) -> Choice:
    # A fleet that lost a relay does not come back to it in one second.
    return Choice(count, spread=lambda: random.uniform(0.75, 1.25))  # noqa: S311


def _is_failure(error: SkerryError) -> bool:
    """Tell whether another upstream may do better. That one is busy, or refuses, is an answer."""
    if isinstance(error, Untrusted):
        return error.code == "link.tls"
    return isinstance(error, Unavailable) and error.http_status != 429 and error.code != "rate.limited"
