"""Images in files: OCI image layouts as directory or tar, and what `docker save` and `podman save` write.

Formats: OCI image specification 1.1 (image layout); Docker image specification 1.2 (combined image JSON and
file system changeset, `manifest.json`). A whole archive may be compressed; then it is unpacked into the cache first.
Links in an archive are never followed: saving tools write some for readers of long ago, and what `manifest.json` names
must be a file. One is no obstacle: Docker links a layer that is there twice, and its content is known by its digest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import msgspec

from skerry.client.images.assembly import Assembly, OpenLayer, PlatformImage
from skerry.client.images.layers import StoredLayer, unpack_file
from skerry.client.images.limits import MAX_DOCUMENT_BYTES, ImageProgress
from skerry.client.images.manifests import Configuration, Descriptor, Index, parse_configuration
from skerry.client.images.platforms import Platform
from skerry.client.images.selection import choose_named, read_images
from skerry.client.images.tar_index import index_tar
from skerry.client.source_files import open_source
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of, hex_of, parse_digest
from skerry.kit.errors import Missing, Rejected

T = TypeVar("T")


class Folder(Protocol):
    """Files by name: those of a directory or of an archive."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def open(self, name: str) -> contextlib.AbstractContextManager[StoredLayer]:
        """Open a file."""
        ...


class Directory:
    """A directory of the publisher's; its links are followed, as for all files that are pushed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)

    @contextlib.contextmanager
    def open(self, name: str) -> Generator[StoredLayer]:
        """Open a file; `name` is ours, never the image's."""
        path = self._path / name
        try:
            file = open_source(path)
        except FileNotFoundError:
            raise _lacking(self.name, name) from None
        with file:
            yield StoredLayer(file, path, 0, _size(file), stays=True)


class Archive:
    """A tar; `stays` when it will still be there while the release is uploaded."""

    def __init__(self, path: Path, *, name: str, stays: bool) -> None:
        self._path = path
        self._stays = stays
        self.name = name
        self._members = index_tar(path)

    @contextlib.contextmanager
    def open(self, name: str) -> Generator[StoredLayer]:
        """Open a member.

        Raises:
            Rejected: it is not there, or is no file.
        """
        member = self._members.get(name)
        if member is None:
            raise _lacking(self.name, name)
        if member.kind != "file":
            message = f"{self.name}: {name!r} is a {member.kind}, not a file"
            raise Rejected("image.archive", message, hint="links in archives are not followed")
        with open_source(self._path) as file:
            yield StoredLayer(file, self._path, member.start, member.size_bytes, stays=self._stays)

    def holds(self, name: str) -> bool:
        """Tell whether a file of that name is in it."""
        member = self._members.get(name)
        return member is not None and member.kind == "file"


class LayoutBlobs:
    """The blobs of an OCI image layout."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob."""
        return _read(self._folder, _blob_name(descriptor))

    @contextlib.contextmanager
    def layer(self, descriptor: Descriptor, label: str) -> Generator[StoredLayer]:
        """Open a layer.

        Raises:
            Rejected: it is not there, or has another size than was said.
        """
        with self._folder.open(_blob_name(descriptor)) as stored:
            if stored.size_bytes != descriptor.size:
                message = f"{label}: a layer has {stored.size_bytes} bytes, not {descriptor.size}"
                raise Rejected("image.layer_damaged", message, hint="save the image again")
            yield stored


class _Layout(msgspec.Struct, frozen=True, rename="camel"):
    image_layout_version: str


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


def read_layout(
    folder: Folder, assembly: Assembly, *, reference: str = "", wanted: Platform | None = None
) -> list[PlatformImage]:
    """Return the images of an OCI image layout.

    Raises:
        Rejected: it is none, or the images in it are not whole.
    """
    layout = _decoded(folder, "oci-layout", _Layout)
    if layout.image_layout_version != "1.0.0":
        message = f"{folder.name}: an image layout of version {layout.image_layout_version[:20]!r}"
        raise Rejected("image.malformed", message, hint="1.0.0 is the one that is known")
    index = _decoded(folder, "index.json", Index)
    tops = choose_named(index.manifests, reference, name=folder.name)
    return read_images(tops, LayoutBlobs(folder), assembly, name=folder.name, wanted=wanted)


def read_saved(
    archive: Archive, assembly: Assembly, *, reference: str = "", wanted: Platform | None = None
) -> list[PlatformImage]:
    """Return the image of an archive that `docker save` or `podman save` wrote.

    Raises:
        Rejected: it is none, holds several images, or is not whole.
    """
    if not archive.holds("manifest.json") and archive.holds("oci-layout"):
        message = f"{archive.name} is an OCI image layout"
        raise Rejected("image.other_format", message, hint="name it as oci-archive:FILE")
    saved = _chosen(_decoded(archive, "manifest.json", tuple[_Saved, ...]), reference, archive.name)
    content = _read(archive, saved.config)
    found = digest_of(content)
    stated = "sha256:" + saved.config.rpartition("/")[2].removesuffix(".json")
    if len(stated) == len(found) and stated != found:
        message = f"{archive.name}: the configuration is {found}, not {stated}"
        raise Rejected("image.digest_mismatch", message, hint="save the image again")
    configuration = parse_configuration(content, where=f"{archive.name}: configuration")
    if configuration.os != "linux" or (wanted and not configuration.platform.is_same(wanted)):
        message = f"{archive.name} is for {configuration.platform.text}"
        raise Rejected(
            "image.no_platform", message, hint=f"needed here: {wanted.text if wanted else 'linux'}"
        )
    layers = _saved_layers(archive, saved.layers, configuration)
    return [assembly.assemble(content, configuration, layers, name=archive.name)]


@contextlib.contextmanager
def opened_archive(path: Path, assembly: Assembly, *, name: str, stays: bool = True) -> Generator[Archive]:
    """Open an archive; one that is compressed as a whole is unpacked into the cache for as long as it is open.

    Raises:
        OSError: it cannot be read.
        Rejected: it is no archive, or a damaged or hostile one.
    """
    with open_source(path) as file:
        stored = StoredLayer(file, path, 0, _size(file), stays=stays)

        def tell(done_bytes: int) -> None:
            assembly.on_progress(ImageProgress("unpack", name, done_bytes, stored.size_bytes))

        chunks = unpack_file(stored, tell)
        if chunks is None:
            yield Archive(path, name=name, stays=stays)
        else:
            with assembly.cache.spool(chunks) as (spooled, _):
                yield Archive(spooled, name=name, stays=False)


def _chosen(saved: tuple[_Saved, ...], reference: str, name: str) -> _Saved:
    tags = sorted({tag for image in saved for tag in image.repo_tags or ()})
    hint = f"known here: {', '.join(tags)[:400]}" if tags else "the images there have no names"
    if reference:
        for image in saved:
            if any(tag == reference or tag.endswith(f"/{reference}") for tag in image.repo_tags or ()):
                return image
        raise Rejected("image.no_such_name", f"{name} has no image named {reference}", hint=hint)
    match saved:
        case (only,):
            return only
        case ():
            raise Rejected("image.malformed", f"{name} has no image in it", hint="save it again")
        case _:
            message = f"{name} has {len(saved)} images"
            raise Rejected("image.ambiguous", message, hint=f"name one, as {name}:NAME:TAG; {hint}")


def _saved_layers(archive: Archive, names: tuple[str, ...], configuration: Configuration) -> list[OpenLayer]:
    """Return how each layer is opened; one that is only a link is there under another name with the same digest."""
    by_digest = {
        diff_id: name
        for diff_id, name in zip(configuration.rootfs.diff_ids, names, strict=False)
        if archive.holds(name)
    }
    diff_ids = (*configuration.rootfs.diff_ids, *("",) * len(names))
    return [
        partial(archive.open, name if archive.holds(name) else by_digest.get(diff_id, name))
        for name, diff_id in zip(names, diff_ids, strict=False)
    ]


def _blob_name(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{hex_of(parse_digest(descriptor.digest))}"


def _read(folder: Folder, name: str) -> bytes:
    with folder.open(name) as stored:
        if stored.size_bytes > MAX_DOCUMENT_BYTES:
            message = (
                f"{folder.name}: {name} has {stored.size_bytes} bytes; {MAX_DOCUMENT_BYTES} are the most"
            )
            raise Rejected("image.malformed", message, hint="is it a container image?")
        stored.file.seek(stored.start)
        return stored.file.read(stored.size_bytes)


def _decoded(folder: Folder, name: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(_read(folder, name), type=kind)
    except UNREADABLE as error:
        message = f"{folder.name}: {name} cannot be read: {str(error)[:200]}"
        raise Rejected("image.malformed", message, hint="save the image again") from None


def _lacking(folder: str, name: str) -> Missing:
    hint = "is it a container image of this form, and was it written to its end?"
    return Missing("image.incomplete", f"{folder} lacks {name[:200]}", hint=hint)


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size
