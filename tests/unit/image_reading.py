"""Images from files as a push reads them: what came of one, what would be uploaded, and how one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.client.images.assembly import PlatformImage
from skerry.client.images.cache import BlobCache
from skerry.client.images.limits import ImageProgress
from skerry.client.images.reader import ImageReader
from skerry.kit.errors import SkerryError
from tests.unit.image_files import tar_of


def read(
    source: str, cache: BlobCache, folder: Path, seen: list[ImageProgress] | None = None
) -> list[PlatformImage]:
    told = seen if seen is not None else []
    return ImageReader(cache, told.append, environment={}).read(source, folder)


def digests_of(image: PlatformImage) -> list[str]:
    return [image.config.digest, *(layer.digest for layer in image.layers)]


def contents_of(image: PlatformImage) -> list[bytes]:
    """Return what would be uploaded."""
    parts: list[bytes] = []
    for source in (image.config, *image.layers):
        with source.path.open("rb") as file:
            file.seek(source.start)
            parts.append(file.read(source.size_bytes))
    return parts


def refused(source: str, cache: BlobCache, folder: Path) -> SkerryError:
    with pytest.raises(SkerryError) as caught:
        read(source, cache, folder)
    return caught.value


def saved(folder: Path, files: dict[str, bytes]) -> Path:
    file = folder / "app.tar"
    file.write_bytes(tar_of(files))
    return file
