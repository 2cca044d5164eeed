"""What a host knows of the blobs of its neighbours, and from whom it gets each one. Usable from any thread.

Rules:
- Before a host fetches a blob from above it has told every neighbour it can reach that it wants it, and asked them.
  Who decides takes into account what was told meanwhile. So of two hosts that reach each other at most one begins.
- Waiting for others is bounded: for `PATIENCE_S`, and `PATIENCE_MORE_S` for each further one.
- A neighbour that fails is left aside for a while; one whose bytes were wrong for longer.
- Without neighbours that share, nothing of this costs anything.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager

import msgspec
import structlog

from skerry.delivery.sharing import Holder, Source, Wanting, choose_source
from skerry.kit.digests import short
from skerry.kit.errors import Denied, SkerryError, Untrusted
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.sharing import Near, NearPlace
from skerry.spec.sharing import MAX_ASKED, Holding, SharingAnswer, SharingQuestion

_log = structlog.get_logger()

PATIENCE_S = 3.0
PATIENCE_MORE_S = 1.0
SETTLE_S = 3.0
"""So long after the start, or after a neighbour was named, its first heartbeat is waited for."""
UNREACHABLE_S = 20.0
UNREACHABLE_MOST_S = 640.0
"""Doubled from the first to this one while a neighbour answers nothing: each time it is asked costs a second or two."""
REFUSED_S = 60.0
FRUITLESS_S = 15.0
STEP_BACK_S = 30.0
DISTRUST_S = 600.0
MAX_REMEMBERED = 5000


class SharingParts(msgspec.Struct, frozen=True):
    """What sharing works with; `token` returns what shows the neighbours who asks."""

    near: Near
    blobs: LocalBlobs
    clock: Clock
    token: Callable[[], str]


class _Want(msgspec.Struct):
    """A blob that downloads of this host want. `told_bytes` is what the neighbours were told to be here."""

    size_bytes: int
    users: int = 0
    told_bytes: int = 0
    waits_since: float | None = None
    passed: set[str] = msgspec.field(default_factory=set[str])
    claims: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict[str, tuple[int, int]])


class Sharing:
    """One host's part. `follow` says whom it can reach."""

    def __init__(self, host: str, parts: SharingParts | None = None) -> None:
        """Without parts it is a host that shares nothing."""
        self._host, self._shared_parts = host, parts
        self._lock = threading.Lock()
        self._places: Mapping[str, NearPlace] = {}
        self._awaited: AbstractSet[str] = frozenset()
        self._settles_at = float("-inf")
        self._wants: dict[str, _Want] = {}
        self._above: Counter[str] = Counter()
        self._back: dict[str, float] = {}
        self._aside: dict[str, float] = {}
        self._unanswered: Counter[str] = Counter()
        self._fruitless: dict[tuple[str, str], float] = {}
        self._liars: set[str] = set()
        self._givers: dict[str, set[str]] = {}
        self._told = 0

    # ── who is there ─────────────────────────────────────────────────────────────────────────────────

    def follow(self, places: Mapping[str, NearPlace], named: Collection[str]) -> None:
        """Take where the neighbours that are heard share, and the names of all there should be."""
        now = self._parts.clock.monotonic()
        with self._lock:
            if set(named) - self._awaited:
                self._settles_at = now + SETTLE_S
            self._awaited = frozenset(named)
            for host, place in places.items():
                # One that began anew is tried at once; distrust is not lifted by that.
                if self._places.get(host) != place and host not in self._liars:
                    self._aside.pop(host, None)
            self._places = dict(places)
            self._liars = {host for host in self._liars if self._aside.get(host, now) > now}
            self._back = {digest: until for digest, until in self._back.items() if until > now}
            self._fruitless = {pair: until for pair, until in self._fruitless.items() if until > now}
            while len(self._givers) > MAX_REMEMBERED:
                self._givers.pop(next(iter(self._givers)))

    @property
    def active(self) -> bool:
        """Whether any other host of the site shares, or may turn out to."""
        if self._shared_parts is None:
            return False
        return bool(self._places) or self._unsettled(self._parts.clock.monotonic())

    # ── what downloads ask ───────────────────────────────────────────────────────────────────────────

    @contextmanager
    def wanting(self, sizes: Mapping[str, int]) -> Generator[None]:
        """Want blobs (size by digest) while the context lasts."""
        with self._lock:
            for digest, size in sizes.items():
                self._wants.setdefault(digest, _Want(size)).users += 1
        try:
            yield
        finally:
            with self._lock:
                for digest in sizes:
                    want = self._wants[digest]
                    want.users -= 1
                    if not want.users:
                        del self._wants[digest]

    def survey(self, digests: Iterable[str]) -> dict[str, Source]:
        """Return where each blob would come from now, without beginning anything. Blocking, for some seconds."""
        listed = list(digests)
        if not self.active:
            return {}
        found: dict[str, Source] = {}
        for start in range(0, len(listed), MAX_ASKED):
            part = listed[start : start + MAX_ASKED]
            told, answers = self._ask(part)
            with self._lock:
                now = self._parts.clock.monotonic()
                found |= {digest: self._choose(digest, told, answers, now) for digest in part}
        return found

    def source(self, digest: str) -> Source:
        """Return whence a wanted blob comes; when from `above`, it has begun, until `settle` is called. Blocking."""
        if not self.active:
            return self._begin(digest, Source("above", why="no neighbour shares"))
        with self._lock:
            if want := self._wants.get(digest):
                want.told_bytes = self._parts.blobs.partial_size(digest)
        told, answers = self._ask([digest])
        with self._lock:
            now = self._parts.clock.monotonic()
            choice = self._choose(digest, told, answers, now)
            want = self._wants.get(digest)
            if want is not None and choice.kind == "later":
                choice = self._bounded(digest, want, choice, (told, answers, now))
            elif want is not None:
                want.waits_since = None
            if choice.kind == "above":
                self._above[digest] += 1
        return choice

    def settle(self, digest: str) -> None:
        """Note that a blob is not fetched from above any more."""
        with self._lock:
            self._above[digest] -= 1
            if self._above[digest] <= 0:
                del self._above[digest]

    def step_back(self, digest: str) -> None:
        """Note that this host could not fetch a blob from above: others go first for a while."""
        if self._shared_parts is not None:
            with self._lock:
                self._back[digest] = self._parts.clock.monotonic() + STEP_BACK_S

    def open(
        self, host: str, digest: str, *, offset: int, size: int
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob at a neighbour; raises as `Near.blob`, and `near.unreachable` when it has gone silent."""
        with self._lock:
            place = self._places.get(host) or NearPlace("", "")
        parts = self._parts
        return parts.near.blob(place, digest, offset=offset, size=size, token=parts.token())

    def gave(self, host: str, digest: str) -> None:
        """Note that bytes of a blob came from a neighbour."""
        with self._lock:
            self._givers.setdefault(digest, set()).add(host)

    def failed(self, host: str, digest: str, error: SkerryError, *, came: int) -> None:
        """Note that a neighbour failed to give a blob after `came` bytes of it."""
        now = self._parts.clock.monotonic()
        with self._lock:
            self._note_error(host, error, now)
            if not came or error.code == "near.stalled":
                self._fruitless[host, digest] = now + FRUITLESS_S
        _log.info("sharing.failed", neighbour=host, blob=short(digest), code=error.code, reason=error.message)

    def complete(self, digest: str) -> None:
        """Note that a blob is here and was what it should be."""
        with self._lock:
            self._givers.pop(digest, None)
            self._back.pop(digest, None)

    def blame(self, digest: str) -> bool:
        """Note that a blob was not what it should be; tell whether a neighbour gave any of it."""
        with self._lock:
            givers = self._givers.pop(digest, set())
            self._liars |= givers
            for host in givers:
                self._aside[host] = self._parts.clock.monotonic() + DISTRUST_S
        for host in sorted(givers):
            _log.error("neighbour.wrong_bytes", neighbour=host, blob=digest, aside_s=DISTRUST_S)
        return bool(givers)

    def close(self) -> None:
        """Cut what comes from neighbours."""
        if self._shared_parts is not None:
            self._shared_parts.near.close()

    # ── what neighbours ask ──────────────────────────────────────────────────────────────────────────

    def answer(self, host: str, question: SharingQuestion) -> SharingAnswer:
        """Take what a neighbour announces, and return what this host has of it."""
        blobs, now = self._parts.blobs, self._parts.clock.monotonic()
        holdings: dict[str, Holding] = {}
        with self._lock:
            self._told += 1
            for digest, held in question.wants.items():
                want = self._wants.get(digest)
                if want is not None:
                    want.claims[host] = (self._told, held)
                if blobs.has(digest):
                    holdings[digest] = Holding(state="whole")
                elif self._above[digest] > 0:
                    holdings[digest] = Holding(state="above", held_bytes=blobs.partial_size(digest))
                elif want is not None and self._able(digest, now):
                    holdings[digest] = Holding(state="wanted", held_bytes=want.told_bytes)
        return SharingAnswer(holdings=holdings)

    def coming(self, digest: str) -> int | None:
        """Return the length of a blob that comes from above now, None when it does not."""
        with self._lock:
            want = self._wants.get(digest)
            return want.size_bytes if want is not None and self._above[digest] > 0 else None

    # ── how it is decided ────────────────────────────────────────────────────────────────────────────

    @property
    def _parts(self) -> SharingParts:
        assert self._shared_parts is not None, "a host that shares nothing never gets here"
        return self._shared_parts

    def _begin(self, digest: str, choice: Source) -> Source:
        with self._lock:
            self._above[digest] += 1
        return choice

    def _ask(self, digests: list[str]) -> tuple[int, dict[str, SharingAnswer]]:
        """Announce these blobs and return what was answered, with how much had been told to us before."""
        parts = self._parts
        with self._lock:
            told, now = self._told, parts.clock.monotonic()
            places = {host: at for host, at in self._places.items() if self._aside.get(host, now) <= now}
            wants = {
                digest: self._wants[digest].told_bytes if digest in self._wants else 0 for digest in digests
            }
        if not places:
            return told, {}
        said = parts.near.ask(places, SharingQuestion(wants=wants), token=parts.token())
        now = parts.clock.monotonic()
        answers: dict[str, SharingAnswer] = {}
        for host, answer in said.items():
            if isinstance(answer, SharingAnswer):
                answers[host] = answer
                self._unanswered.pop(host, None)
                continue
            with self._lock:
                self._note_error(host, answer, now)
            _log.info("sharing.not_answered", neighbour=host, code=answer.code, reason=answer.message)
        return told, answers

    def _choose(self, digest: str, told: int, answers: Mapping[str, SharingAnswer], now: float) -> Source:
        want = self._wants.get(digest)
        others = list(self._holders(digest, told, answers, now))
        mine = Wanting(self._host, want.told_bytes if want else 0, able=self._able(digest, now))
        choice = choose_source(digest, mine, others)
        if choice.kind == "above" and self._unsettled(now):
            return Source("later", why="its neighbours may still speak up")
        return choice

    def _holders(
        self, digest: str, told: int, answers: Mapping[str, SharingAnswer], now: float
    ) -> Iterator[Holder]:
        want = self._wants.get(digest)
        claims = want.claims if want is not None else {}
        for host, answer in answers.items():
            holding = answer.holdings.get(digest)
            number, held = claims.get(host, (0, 0))
            if holding is None and number > told:
                # It began to want it while it was asked.
                holding = Holding(state="wanted", held_bytes=held)
            if holding is None or self._fruitless.get((host, digest), now) > now:
                continue
            if holding.state == "wanted" and number > told:
                holding = Holding(state="wanted", held_bytes=held)
            if holding.state != "wanted" or want is None or host not in want.passed:
                yield Holder(host, holding.state, holding.held_bytes)

    def _bounded(
        self, digest: str, want: _Want, choice: Source, seen: tuple[int, dict[str, SharingAnswer], float]
    ) -> Source:
        """Return the choice, or another when the one that is to fetch has been waited for long enough."""
        told, answers, now = seen
        want.waits_since = now if want.waits_since is None else want.waits_since
        if choice.host and now - want.waits_since >= PATIENCE_S + PATIENCE_MORE_S * len(want.passed):
            want.passed.add(choice.host)
            return self._choose(digest, told, answers, now)
        return choice

    def _able(self, digest: str, now: float) -> bool:
        return self._back.get(digest, now) <= now

    def _unsettled(self, now: float) -> bool:
        return now < self._settles_at and bool(self._awaited - self._places.keys())

    def _note_error(self, host: str, error: SkerryError, now: float) -> None:
        aside_s = 0.0
        if isinstance(error, Untrusted):
            aside_s = DISTRUST_S
        elif isinstance(error, Denied):
            aside_s = REFUSED_S
        elif error.code == "near.unreachable":
            aside_s = min(UNREACHABLE_MOST_S, UNREACHABLE_S * 2.0 ** min(self._unanswered[host], 16))
            self._unanswered[host] += 1
        if aside_s:
            self._aside[host] = max(self._aside.get(host, 0.0), now + aside_s)
