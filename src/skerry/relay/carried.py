"""What a running relay takes of bundles that were carried to it; by files in the directory `carried`.

`skerry relay import` verifies a bundle and puts its blobs into `carried/blobs`, then what is left of it here:
`<id>.bundle` has its manifest, metadata and desired states. The relay judges that anew, takes the blobs into its cache,
the metadata among its files and the desired states among its holdings, as if its upstream had answered so, and leaves
`<id>.answer`. Those below hear of it at once.

Rules: all that can be refused is refused before anything is taken; what hosts need is here before the desired state
that asks for it; nothing is gone from here before it was taken; every step may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from skerry.carrier.bundle_file import BundleFile, open_bundle
from skerry.carrier.bundle_taking import look_forever, take_waiting
from skerry.kit.errors import Conflict, Rejected
from skerry.kit.locking import is_held
from skerry.kit.quantities import format_size
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.relay.cache import BlobCache
from skerry.relay.files import MetadataFiles
from skerry.relay.guests import Guests
from skerry.relay.holdings import Holdings
from skerry.relay.identity import Identity
from skerry.relay.loops.upstream import Upward
from skerry.spec.bundle import BundleEntry
from skerry.trust.bundle_relay import RelayJudged, RelayTaker, judge_for_relay

_log = structlog.get_logger()

STALE_S = 7 * 86_400.0


class CarriedParts(msgspec.Struct, frozen=True):
    """What takes of a bundle; `staged` are its blobs before the cache has them."""

    identity: Identity
    clock: Clock
    guests: Guests
    holdings: Holdings
    cache: BlobCache
    files: MetadataFiles
    upward: Upward
    staged: LocalBlobs


class Carried:
    """Takes what was put into the directory. Lives in one event loop."""

    def __init__(self, data: Path, parts: CarriedParts) -> None:
        self._folder = carried_folder(data)
        self._parts = parts

    async def run_forever(self) -> None:
        """Look for what was carried here, about twice a second."""
        await look_forever(self._parts.clock, self.step)

    async def step(self) -> None:
        """Take what is there.

        Raises:
            Unavailable: the disk is full; what was not taken is tried again.
        """
        if await take_waiting(self._folder, self._take):
            await asyncio.to_thread(self.sweep, 0.0)

    def sweep(self, older_than_s: float = STALE_S) -> None:
        """Remove blobs that no bundle brought to its end in so long. Blocking."""
        if any(self._folder.glob("*.bundle")) or is_held(self._folder / "lock"):
            return
        staged, oldest = self._parts.staged, time.time() - older_than_s
        staged.sweep(frozenset(), older_than_s=max(older_than_s, STALE_S))
        for digest in staged.digests():
            with contextlib.suppress(FileNotFoundError):
                if staged.path(digest).stat().st_mtime <= oldest:
                    staged.remove(digest)

    async def _take(self, file: Path) -> int:
        parts = self._parts
        judged, metadata = await asyncio.to_thread(self._judge, file)
        entries = judged.entries()
        self._check(entries)
        await parts.cache.take_in({entry.brings: parts.staged.path(entry.brings) for entry in entries})
        await asyncio.to_thread(self._keep_roots, judged)
        await parts.files.take_in(metadata)
        for site in judged.sites.values():
            await parts.holdings.take_desired(site.envelope, carried=True)
        await parts.upward.acknowledge(self._acknowledged(judged))
        _log.info("bundle.taken", bundle=judged.manifest.id, sites=len(judged.sites), blobs=len(entries))
        return max(site.generation for site in judged.sites.values())

    def _judge(self, file: Path) -> tuple[RelayJudged, Mapping[str, bytes]]:
        parts = self._parts
        state = parts.holdings.state
        with open_bundle(file, prefix=True) as bundle:
            judged = judge_at_relay(
                bundle,
                parts.identity,
                sites=frozenset(state.sites if state is not None else ()),
                held=dict(parts.holdings.desired),
                now=parts.upward.now(),
            )
            return judged, bundle.small().metadata

    def _check(self, entries: list[BundleEntry]) -> None:
        """Refuse a bundle whose blobs are not here, or would not stay.

        Raises:
            Conflict: some are not here (`bundle.incomplete`).
            Rejected: they do not fit into the cache (`relay.cache_too_small`).
        """
        parts = self._parts
        sizes = {entry.brings: brought_bytes(entry) for entry in entries}
        if not parts.cache.has_room_for(sizes):
            raise too_small(sum(sizes.values()), parts.cache.limit_bytes)
        if not all(parts.staged.has(digest) or parts.cache.has(digest) for digest in sizes):
            hint = "import it once more"
            raise Conflict("bundle.incomplete", "files of the bundle are not here any more", hint=hint)

    def _keep_roots(self, judged: RelayJudged) -> None:
        trust = self._parts.identity.trust
        for keep in judged.roots:
            trust.answer_kept(keep)
        trust.note_root(judged.trusted.root)

    def _acknowledged(self, judged: RelayJudged) -> dict[str, int]:
        """Return up to which sequence the hub has reports, by the keys of hosts.

        A RelayState that is newer than the bundle may name other keys under the same names: then nothing is believed,
        and the link that brought it brings acknowledgements, too.
        """
        state, manifest = self._parts.holdings.state, judged.manifest
        if state is None or state.issued_at > manifest.made_at:
            return {}
        found = {
            guest.key: manifest.sites[guest.site].hosts.get(guest.name)
            for guest in self._parts.guests.hosts()
            if guest.site in judged.sites
        }
        return {key: host.acknowledged for key, host in found.items() if host and host.acknowledged}


def judge_at_relay(
    bundle: BundleFile, who: Identity, *, sites: AbstractSet[str], held: Mapping[str, int], now: datetime
) -> RelayJudged:
    """Return what a relay may take of a bundle.

    Raises:
        Untrusted: as `skerry.trust.bundle_relay.judge_for_relay`.
    """
    taker = RelayTaker(
        hub=who.trust_root.hub,
        pinned=who.trust.pinned,
        kept=who.trust.answer_kept,
        sites=sites,
        held=held,
        now=now,
    )
    return judge_for_relay(bundle.head, bundle.small(), taker)


def brought_bytes(entry: BundleEntry) -> int:
    """Return how long the blob is that an entry brings."""
    return entry.target_bytes if entry.target else entry.size_bytes


def too_small(needed: int, limit: int) -> Rejected:
    """Return the refusal of what the cache has no room for."""
    message = (
        f"the cache has {format_size(limit)}, which is too little for the {format_size(needed)} in this"
        " bundle beside what else sites below need"
    )
    return Rejected("relay.cache_too_small", message, hint="give the relay more: spec.cache of its document")


def carried_folder(data: Path) -> Path:
    """Return the directory of what is carried, below a data directory."""
    return data / "carried"
