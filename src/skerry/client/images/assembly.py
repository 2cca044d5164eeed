"""An image from its parts: the configuration decides the layers, and every layer proves itself.

A layer that was proven before, for another platform or in an earlier push, is not read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from skerry.client.images.cache import BlobCache
from skerry.client.images.layers import StoredLayer, unpack_layer
from skerry.client.images.limits import MAX_DOCUMENT_BYTES, MAX_IMAGE_BYTES, ImageProgress, OnImage
from skerry.client.images.manifests import Configuration
from skerry.client.images.platforms import Platform
from skerry.client.source_files import SourceFile
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected

OpenLayer = Callable[[], AbstractContextManager[StoredLayer]]


class PlatformImage(msgspec.Struct, frozen=True):
    """An image for one platform, every part a file that can be uploaded; the manifest where it came with one."""

    platform: Platform
    config: SourceFile
    layers: tuple[SourceFile, ...]
    manifest: SourceFile | None = None

    @property
    def size_bytes(self) -> int:
        """How much room its uncompressed layers take."""
        return sum(layer.size_bytes for layer in self.layers)


class Assembly:
    """Puts images together for one push; use it inside its cache's `with`."""

    def __init__(self, cache: BlobCache, on_progress: OnImage) -> None:
        self.cache = cache
        self.on_progress = on_progress
        self._proven: dict[str, SourceFile] = {}

    def assemble(
        self, content: bytes, configuration: Configuration, layers: Sequence[OpenLayer], *, name: str
    ) -> PlatformImage:
        """Return the image whose configuration is `content`; layers are opened only where they must be read.

        Raises:
            Rejected: a layer is not what the configuration says, or there are more or fewer of them.
        """
        diff_ids = configuration.rootfs.diff_ids
        if len(diff_ids) != len(layers):
            message = f"{name}: {len(layers)} layers, where the configuration names {len(diff_ids)}"
            raise Rejected("image.malformed", message, hint="save or pull the image again")
        kept: list[SourceFile] = []
        left_bytes = MAX_IMAGE_BYTES
        for index, (diff_id, open_layer) in enumerate(zip(diff_ids, layers, strict=True)):
            label = f"{name} layer {index + 1} of {len(diff_ids)}"
            layer = self._proven.get(diff_id) or self._find(diff_id, label)
            if layer is None:
                with open_layer() as stored:
                    layer = unpack_layer(
                        stored,
                        diff_id,
                        label=label,
                        cache=self.cache,
                        limit_bytes=left_bytes,
                        on_progress=self.on_progress,
                    )
            self._proven[diff_id] = layer
            left_bytes -= layer.size_bytes
            kept.append(layer)
        config = self.keep(content, f"{name} configuration")
        return PlatformImage(configuration.platform, config, tuple(kept))

    def held(self, content: bytes, configuration: Configuration, *, name: str) -> PlatformImage | None:
        """Return an image all of whose layers are in the cache, and None when one is not."""
        if not all(
            diff_id in self._proven or self._find(diff_id, name) for diff_id in configuration.rootfs.diff_ids
        ):
            return None
        return self.assemble(content, configuration, [_never] * len(configuration.rootfs.diff_ids), name=name)

    def document(self, digest: str) -> bytes | None:
        """Return a small document that an earlier push kept."""
        kept = self.cache.find(digest)
        if kept is None or kept.size_bytes > MAX_DOCUMENT_BYTES:
            return None
        content = kept.path.read_bytes()
        return content if digest_of(content) == digest else None

    def keep(self, content: bytes, label: str) -> SourceFile:
        """Return a small document as a file that can be uploaded."""
        return msgspec.structs.replace(self.cache.put(content), name=label)

    def _find(self, diff_id: str, label: str) -> SourceFile | None:
        def tell(_: Path, done_bytes: int, total_bytes: int) -> None:
            self.on_progress(ImageProgress("check", label, done_bytes, total_bytes))

        found = self.cache.find(diff_id, tell)
        if found is None:
            return None
        self._proven[diff_id] = msgspec.structs.replace(found, name=label)
        return self._proven[diff_id]


def _never() -> AbstractContextManager[StoredLayer]:
    raise AssertionError("a layer that is in the cache is not opened")
