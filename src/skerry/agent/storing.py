"""Keeps what this host needs on its disk within what its site allows, and makes room for what is to be fetched.

What runs, the last good release and what is being fetched stay (`skerry.delivery.keeping` decides). The layers of an
image that the engine holds are only there for the next delta, as is the release before the last: they go when room is
short, those of the release before first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

import structlog

from skerry.agent.carried import spared_blobs
from skerry.agent.releases import Releases
from skerry.delivery.keeping import Keeping, Named, Room, plan_keeping
from skerry.kit.editions import release_in
from skerry.kit.errors import Unavailable
from skerry.ports.blobs import LocalBlobs
from skerry.reconcile.records import ApplicationRecord
from skerry.spec.desired import DiskPolicy

_log = structlog.get_logger()

SPARE_BYTES = 32 << 20
STALE_S = 86400.0


class Storage:
    """The blobs of a host."""

    def __init__(self, blobs: LocalBlobs, releases: Releases, root: Path) -> None:
        self._blobs = blobs
        self._releases = releases
        self._root = root
        self._records: tuple[ApplicationRecord, ...] = ()
        self._ahead: AbstractSet[str] = frozenset()
        self._policy = DiskPolicy()

    def follow(
        self, records: Iterable[ApplicationRecord], ahead: AbstractSet[str], policy: DiskPolicy
    ) -> None:
        """Go by these records, releases that are fetched ahead, and what the site allows from now on."""
        self._records, self._ahead, self._policy = tuple(records), ahead, policy

    def make_room(self, wanted_bytes: int, fetching: AbstractSet[str]) -> None:
        """Remove what must go so that so many bytes can be written for these blobs, bases of their deltas among them.

        Raises:
            Unavailable: they cannot be, whatever goes (`disk.full`); nothing that helps the next delta is removed then.
        """
        keeping = self._plan(wanted_bytes, fetching)
        self._remove(keeping)
        if keeping.lacking:
            raise Unavailable("disk.full", f"disk full: {keeping.why[-1]}")

    def tidy(self, fetching: AbstractSet[str] = frozenset()) -> None:
        """Remove what neither a release nor what is fetched ahead needs; only while no release is under way."""
        self._remove(self._plan(0, fetching))
        named = self._named(fetching, self._blobs.digests())
        self._blobs.sweep({*named.good, *named.candidate, *named.bases}, older_than_s=STALE_S)

    def _plan(self, wanted_bytes: int, fetching: AbstractSet[str]) -> Keeping:
        held = {digest: self._size(digest) for digest in self._blobs.digests()}
        room = Room(
            free=shutil.disk_usage(self._root).free,
            wanted=wanted_bytes,
            limit=self._policy.blobs,
            keep_free=max(SPARE_BYTES, self._policy.keep_free or 0),
        )
        named = self._named(fetching, held.keys())
        begun = {digest: self._blobs.partial_size(digest) for digest in named.candidate if digest not in held}
        return plan_keeping(
            held, named, room, partial={digest: size for digest, size in begun.items() if size}
        )

    def _remove(self, keeping: Keeping) -> None:
        for digest in keeping.remove:
            self._blobs.remove(digest)
        if keeping.remove:
            _log.info("blobs.removed", blobs=len(keeping.remove), why="; ".join(keeping.why))

    def _named(self, fetching: AbstractSet[str], held: AbstractSet[str]) -> Named:
        good, candidate = set[str](), set(fetching)
        layers: list[str] = []
        previous: list[str] = []
        for record in self._records:
            fact = self._releases.fact(record.good)
            if record.good and (fact is None or fact.problem):
                good |= held  # nobody knows what it needs until its document is here again, and whole
            elif record.good:
                spare = self._releases.loaded_layers(record.good)
                good |= self._releases.blobs_of(record.good) - spare
                layers += sorted(spare)
            if record.candidate:
                candidate |= self._releases.blobs_of(record.candidate)
            if record.previous:
                document = release_in(record.previous)
                previous += sorted(self._releases.blobs_of(document) - {document})
                good.add(document)
        candidate |= spared_blobs(self._root, self._settled())
        for digest in self._ahead:
            candidate |= self._releases.blobs_of(digest)
        return Named(good=good, candidate=candidate, bases=(*layers, *previous))

    def _settled(self) -> set[str]:
        """Return the releases that this host knows and has begun, or refused: what they need is kept or not by that."""
        named = {d for r in self._records for d in (r.good, r.previous, r.candidate, *r.refused) if d}
        known = {release_in(edition) for edition in named}
        return known | self._ahead

    def _size(self, digest: str) -> int:
        try:
            return self._blobs.path(digest).stat().st_size
        except FileNotFoundError:
            return 0
