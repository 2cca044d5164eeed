"""Makes releases ready to start: files verified and laid out, images in the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

import structlog

from skerry.agent.releases import Releases
from skerry.kit.errors import SkerryError, Unavailable, Untrusted
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.images import ImageParts, Images

_log = structlog.get_logger()

LOOK_EVERY_S = 30.0


class Preparer:
    """Prepares releases, one at a time. `loaded` are the images the engine held when it was last asked."""

    def __init__(self, releases: Releases, blobs: LocalBlobs, clock: Clock) -> None:
        self._releases = releases
        self._blobs = blobs
        self._clock = clock
        self._images: Images | None = None
        self._one_at_a_time = asyncio.Lock()
        self._look_at = 0.0
        self.loaded: AbstractSet[str] = frozenset()

    def attach(self, images: Images) -> None:
        """Use an engine from now on."""
        self._images = images
        self._look_at = 0.0

    async def look(self) -> None:
        """Ask the engine now and then what it holds; while it does not answer, what it held counts."""
        if self._images is None or self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + LOOK_EVERY_S
        try:
            self.loaded = await self._images.loaded()
        except Unavailable as error:
            _log.info("images.unknown", reason=error.message)

    def doubt(self) -> None:
        """Ask the engine again at the next look: something that should be there was not."""
        self._look_at = 0.0

    async def prepare(self, digest: str) -> None:
        """Make a release ready; again is harmless.

        Raises:
            Untrusted: a blob was damaged, or the engine made something else of an image.
            Rejected: the engine takes an image for none.
            Unavailable: no room, or no engine.
        """
        async with self._one_at_a_time:
            await asyncio.to_thread(self._releases.prepare, digest)
            for parts in self._releases.images_of(digest):
                if parts.identity not in self.loaded:
                    await self._load(parts)

    async def prune(self, digests: AbstractSet[str]) -> None:
        """Remove the images that none of these releases needs."""
        if self._images is None or not self.loaded:
            return
        keep = {parts.identity for digest in digests for parts in self._releases.images_of(digest)}
        if self.loaded - keep:
            try:
                removed = await self._images.prune(keep)
            except SkerryError as error:
                _log.warning("images.not_pruned", reason=error.message)
                return
            self.loaded = self.loaded - removed

    async def _load(self, parts: ImageParts) -> None:
        if self._images is None:
            raise Unavailable("engine.missing", "no container engine answers on this host")
        for blob, _ in (parts.config, *parts.layers):
            if not await asyncio.to_thread(self._blobs.verify, blob):
                raise Untrusted("blob.damaged", "a layer was damaged on disk; it is fetched again")
        await self._images.load(parts, self._blobs.path)
        self.loaded = self.loaded | {parts.identity}
