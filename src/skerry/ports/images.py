"""Images: container images in the engine of one host, by the digest of their configuration.

Promises every adapter keeps (tests/contract/test_images.py):
- After `load` the engine holds an image with exactly this identity, or `load` has raised and holds nothing of it.
- Loading streams from the blobs; no second copy is written to disk on the way.
- `prune` removes only images that this port loaded, and never one that a container uses.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

import msgspec


class ImageParts(msgspec.Struct, frozen=True):
    """An image by its blobs: `config` and `layers` (uncompressed, lowest first), each a digest with its size."""

    config: tuple[str, int]
    layers: tuple[tuple[str, int], ...]

    @property
    def identity(self) -> str:
        """The digest of the configuration, by which every engine knows the image."""
        return self.config[0]


class Images(Protocol):
    """Loads, lists and removes images."""

    async def loaded(self) -> AbstractSet[str]:
        """Return the identities of the images that are here and were loaded by us.

        Raises:
            Unavailable: the engine does not answer.
        """
        ...

    async def load(self, parts: ImageParts, blob: Callable[[str], Path]) -> None:
        """Bring an image into the engine from blobs; again is harmless.

        Raises:
            Untrusted: what the engine made of it has another identity (`image.mismatch`), or a blob is damaged.
            Rejected: the engine takes it for no image (`image.malformed`).
            Unavailable: no room, or the engine does not answer.
        """
        ...

    async def prune(self, keep: AbstractSet[str]) -> AbstractSet[str]:
        """Remove the images loaded by us that are not to be kept and that no container uses; return them."""
        ...
