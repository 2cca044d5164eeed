"""Asks the upstream which deltas there are to the blobs of a download, and takes the way that was decided on.

Rules: a delta is a blob like any other, and what comes of it is checked against the digest that the signed release
states; one that turns out to be bad costs its bytes once, and the blob then comes another way.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import structlog

from skerry.agent.transfer import Download, FetchParts, Transfer
from skerry.delivery.relatives import Base
from skerry.delivery.ways import (
    DeltaMaking,
    DeltaOffer,
    Offered,
    WantedBlob,
    Way,
    WaysPlan,
    plan_ways,
)
from skerry.kit.digests import short
from skerry.kit.errors import Denied, Missing, SkerryError, Untrusted
from skerry.spec.carrier import MAX_DELTA_QUESTIONS, DeltaAnswer, DeltaQuestion, DeltaRequest

_log = structlog.get_logger()

MAX_REFUSED = 1000
MAX_BAD = 2
"""After two bad deltas to a blob no more are asked for: an upstream must not keep a host busy with them."""

_LINK_FAILS = frozenset({"link.unreachable", "link.tls", "link.cut", "link.slow_answer", "link.closed"})

Bases = Mapping[str, tuple[Base, ...]]


class WayFinder:
    """The ways of all downloads of a host; what was waited for and what was bad is remembered while it runs."""

    def __init__(self, parts: FetchParts, transfer: Transfer) -> None:
        self._parts = parts
        self._transfer = transfer
        self._refused: dict[str, str] = {}  # the delta, and what it was to lead to
        self._waited_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def plan(self, missing: Sequence[tuple[str, int]], bases: Bases, download: Download) -> WaysPlan:
        """Return how to get blobs (digest, size), asking the upstream where there is something to ask. Blocking.

        What a neighbour has, or fetches in full, comes from there.

        Raises:
            HeldBack: the upstream would have to be asked, and the download may not go on now.
            Unavailable: the upstream cannot be reached, or has given no leave to fetch yet.
        """
        blobs = self._parts.blobs
        wanted = [WantedBlob(digest, size, min(size, blobs.partial_size(digest))) for digest, size in missing]
        sources = self._parts.sharing.survey([blob.digest for blob in wanted])
        near = {digest for digest, source in sources.items() if source.kind == "near"}
        if not near:
            return self._plan(wanted, bases, download)
        rest = [blob for blob in wanted if blob.digest not in near]
        plan = self._plan(rest, bases, download) if rest else WaysPlan(())
        by_digest = {way.blob.digest: way for way in plan.ways}
        by_digest |= {
            blob.digest: Way(blob, blob.size_bytes - blob.held_bytes, why="from a neighbour")
            for blob in wanted
            if blob.digest in near
        }
        ways = tuple(by_digest[blob.digest] for blob in wanted if blob.digest in by_digest)
        return msgspec.structs.replace(plan, ways=ways)

    def _plan(self, wanted: Sequence[WantedBlob], bases: Bases, download: Download) -> WaysPlan:
        if bases:
            self._transfer.check(download)
        with self._lock:
            refused = dict(self._refused)
        bad = Counter(refused.values())
        held = {
            blob.digest: here
            for blob in wanted
            if bad[blob.digest] < MAX_BAD and (here := self._held(bases.get(blob.digest, ())))
        }
        answer = self._ask([blob for blob in wanted if blob.digest in held], held)
        offered = self._offered(answer, held, refused.keys())
        return plan_ways(wanted, offered, rate=self._rate(), waited_s=self._waited_s)

    def note_wait(self, targets: Sequence[str], wait_s: float) -> None:
        """Note that deltas to these blobs were waited for."""
        for target in targets:
            self._waited_s[target] = self._waited_s.get(target, 0.0) + wait_s

    def forget_wait(self, targets: Iterable[str]) -> None:
        """Forget how long these blobs were waited for: they are here, or nobody wants them."""
        for target in targets:
            self._waited_s.pop(target, None)

    def take(self, way: Way, download: Download) -> None:
        """Fetch a blob on its way. Returns without it when its delta was bad: it is to be planned for again. Blocking.

        Raises: as `Transfer.fetch`.
        """
        if not way.delta:
            self._transfer.fetch(way.blob.digest, way.blob.size_bytes, download)
            return
        blobs, target = self._parts.blobs, way.blob
        try:
            if not blobs.has(way.delta):
                self._transfer.fetch(way.delta, way.delta_bytes, download)
            blobs.make_by_delta(target.digest, target.size_bytes, base=way.base, delta=way.delta)
        except (Untrusted, Missing) as error:
            if not error.code.startswith(("delta.", "blob.")):
                raise
            self._refuse(way, error)
        else:
            _log.info(
                "delta.applied", target=short(target.digest), bytes=way.delta_bytes, of=target.size_bytes
            )
        blobs.remove(way.delta)

    def _refuse(self, way: Way, error: Untrusted | Missing) -> None:
        _log.warning("delta.refused", target=short(way.blob.digest), code=error.code, reason=error.message)
        with self._lock:
            self._refused[way.delta] = way.blob.digest
            while len(self._refused) > MAX_REFUSED:
                self._refused.pop(next(iter(self._refused)))
        for base in way.base:
            # Perhaps it is not the delta that is damaged; what does not match is removed, and fetched when needed.
            self._parts.blobs.verify(base)

    def _held(self, options: Sequence[Base]) -> tuple[Base, ...]:
        """Return the bases that are here whole: one that proved damaged is not, and nothing is made from it."""
        return tuple(base for base in options if all(self._parts.blobs.has(one) for one in base))

    def _ask(self, wanted: Sequence[WantedBlob], bases: Bases) -> DeltaAnswer:
        largest = sorted(wanted, key=lambda blob: blob.held_bytes - blob.size_bytes)[:MAX_DELTA_QUESTIONS]
        questions = [DeltaQuestion(target=blob.digest, bases=bases[blob.digest]) for blob in largest]
        token = self._parts.token() if questions else ""
        if not token:
            return DeltaAnswer()
        try:
            return self._parts.link.deltas(DeltaRequest(wanted=tuple(questions)), token=token)
        except SkerryError as error:
            # Only what hinders the blobs as well hinders a download: they come without deltas, too.
            if isinstance(error, Denied) or error.code in _LINK_FAILS:
                raise
            _log.warning("deltas.not_asked", code=error.code, reason=error.message)
            return DeltaAnswer()

    def _offered(self, answer: DeltaAnswer, bases: Bases, refused: AbstractSet[str]) -> Offered:
        """Return the answer, as far as it answers what was asked."""
        blobs = self._parts.blobs
        return Offered(
            offers=[
                DeltaOffer(
                    one.target,
                    one.base,
                    one.delta,
                    one.size_bytes,
                    one.size_bytes
                    if blobs.has(one.delta)
                    else min(one.size_bytes, blobs.partial_size(one.delta)),
                )
                for one in answer.available
                if one.base in bases.get(one.target, ())
            ],
            making=[
                DeltaMaking(one.target, one.base, one.left_s)
                for one in answer.coming
                if one.base in bases.get(one.target, ())
            ],
            refused=refused,
        )

    def _rate(self) -> float | None:
        known = [rate for rate in (self._transfer.speed, self._parts.limiter.rate()) if rate is not None]
        return min(known, default=None)
