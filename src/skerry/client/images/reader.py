"""Reads the images that documents name, wherever they are, once each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from skerry.client.images.archives import Directory, opened_archive, read_layout, read_saved
from skerry.client.images.assembly import Assembly, PlatformImage
from skerry.client.images.cache import BlobCache
from skerry.client.images.engine import read_engine
from skerry.client.images.limits import OnImage
from skerry.client.images.platforms import Platform
from skerry.client.images.registry import read_registry
from skerry.kit.errors import Missing, Rejected


class ImageReader:
    """Reads images for one push; use it inside its cache's `with`, and upload there, too."""

    def __init__(
        self,
        cache: BlobCache,
        on_progress: OnImage,
        *,
        environment: Mapping[str, str],
        insecure_registries: frozenset[str] = frozenset(),
    ) -> None:
        self._assembly = Assembly(cache, on_progress)
        self._environment = environment
        self._insecure = insecure_registries
        self._read: dict[tuple[str, str], list[PlatformImage]] = {}

    def read(self, source: str, directory: Path, *, wanted: Platform | None = None) -> list[PlatformImage]:
        """Return the images of a source, one per platform; paths are relative to `directory`.

        Raises:
            OSError: a file cannot be read.
            SkerryError: what the source is refused for, or why it cannot be had now.
        """
        key = (source, wanted.text if wanted else "")
        if key not in self._read:
            self._read[key] = self._read_source(source, directory, wanted)
        return self._read[key]

    def _read_source(self, source: str, directory: Path, wanted: Platform | None) -> list[PlatformImage]:
        form, _, rest = source.partition(":")
        if form == "docker":
            return read_registry(
                rest.removeprefix("//"),
                self._assembly,
                environment=self._environment,
                insecure=self._insecure,
                wanted=wanted,
            )
        if form == "engine":
            return read_engine(rest, self._assembly, environment=self._environment, wanted=wanted)
        path, reference = _split(directory, rest)
        if form == "oci":
            return read_layout(Directory(path), self._assembly, reference=reference, wanted=wanted)
        if form not in ("oci-archive", "docker-archive"):
            raise Rejected("image.source", f"not a source of images: {source[:200]}")
        read: Callable[..., list[PlatformImage]] = read_layout if form == "oci-archive" else read_saved
        with opened_archive(path, self._assembly, name=str(path)) as archive:
            return read(archive, self._assembly, reference=reference, wanted=wanted)


def _split(directory: Path, text: str) -> tuple[Path, str]:
    """Return path and name in `PATH[:NAME]`, a path that is there counting for more than a name."""
    pieces = text.split(":")
    for count in range(len(pieces), 0, -1):
        path = directory / ":".join(pieces[:count])
        if path.exists():
            return path, ":".join(pieces[count:])
    hint = "the path is relative to this document; has the image been saved?"
    raise Missing("image.no_such_file", f"no such file: {text}", hint=hint)
