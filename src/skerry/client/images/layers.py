"""From a layer as it is stored to its uncompressed tar, checked against what the image's configuration says.

Compression is told by the first bytes, not by a media type. gzip may consist of several members, as parallel
compressors write it, and so may zstd.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from skerry.client.images.cache import BlobCache
from skerry.client.images.limits import ImageProgress, OnImage
from skerry.client.source_files import READ_BYTES, SourceFile, changed, identity_of
from skerry.kit.digests import Digest
from skerry.kit.errors import Rejected

_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"
_ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd itself allows without being asked


class StoredLayer(msgspec.Struct, frozen=True):
    """A layer as it lies in a file, from `start` on; `stays` when the file will still be there to upload from."""

    file: BinaryIO
    path: Path
    start: int
    size_bytes: int
    stays: bool


def unpack_layer(
    stored: StoredLayer,
    diff_id: str,
    *,
    label: str,
    cache: BlobCache,
    limit_bytes: int,
    on_progress: OnImage,
) -> SourceFile:
    """Return the uncompressed layer: where it lies, if it is uncompressed already, or in the cache.

    Raises:
        Rejected: it is damaged, too large, or not what the configuration says (`image.layer_mismatch`).
    """

    def tell(done_bytes: int) -> None:
        on_progress(ImageProgress("unpack" if unpack else "check", label, done_bytes, stored.size_bytes))

    stored.file.seek(stored.start)
    unpack = _unpacker(stored.file.read(8))
    if unpack is None and stored.stays:
        return _in_place(stored, diff_id, label=label, limit_bytes=limit_bytes, tell=tell)
    section = Section(stored, tell)
    chunks = unpack(section) if unpack else _chunks(section)
    try:
        kept = cache.keep(_translated(chunks, label), digest=diff_id, limit_bytes=limit_bytes)
    except Rejected as error:
        if error.code == "image.digest_mismatch":
            raise _mismatch(label, diff_id, str(error.facts["found"])) from None
        if error.code == "image.too_large":
            raise Rejected(error.code, f"{label}: {error.message}", hint=error.hint) from None
        raise
    return msgspec.structs.replace(kept, name=label)


class Section(io.RawIOBase):
    """Part of a file as a file of its own, that tells how far it has been read."""

    def __init__(self, stored: StoredLayer, tell: Callable[[int], None]) -> None:
        self._stored = stored
        self._tell = tell
        self._done = 0
        stored.file.seek(stored.start)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, for `io`."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, at most what is held in memory at once."""
        left = self._stored.size_bytes - self._done
        content = self._stored.file.read(min(left, READ_BYTES if size < 0 else size))
        self._done += len(content)
        self._tell(self._done)
        return content


def _in_place(
    stored: StoredLayer, diff_id: str, *, label: str, limit_bytes: int, tell: Callable[[int], None]
) -> SourceFile:
    if stored.size_bytes > limit_bytes:
        raise Rejected("image.too_large", f"{label}: it is larger than an image may be")
    identity, state = identity_of(stored.file), hashlib.sha256()
    for chunk in _chunks(Section(stored, tell)):
        state.update(chunk)
    if identity_of(stored.file) != identity:
        raise changed(stored.path)
    found = "sha256:" + state.hexdigest()
    if found != diff_id:
        raise _mismatch(label, diff_id, found)
    return SourceFile(stored.path, Digest(found), stored.size_bytes, identity, stored.start, label)


def _chunks(section: Section) -> Iterator[bytes]:
    while chunk := section.read(READ_BYTES):
        yield chunk


def _unpacker(first: bytes) -> Callable[[Section], Iterator[bytes]] | None:
    if first.startswith(_GZIP):
        return _gunzip
    if first.startswith(_ZSTD):
        return _unzstd
    if first.startswith((_XZ, _BZIP2)):
        hint = "save the image with gzip, zstd or uncompressed layers"
        raise Rejected("image.compression", "a layer compressed with xz or bzip2", hint=hint)
    return None


def unpack_file(stored: StoredLayer, tell: Callable[[int], None]) -> Iterator[bytes] | None:
    """Return the content of a compressed file in pieces, or None when it is not compressed."""
    stored.file.seek(stored.start)
    unpack = _unpacker(stored.file.read(8))
    return _translated(unpack(Section(stored, tell)), str(stored.path)) if unpack else None


def _gunzip(section: Section) -> Iterator[bytes]:
    state = zlib.decompressobj(wbits=31)
    for chunk in _chunks(section):
        rest = chunk
        while True:
            if state.eof and rest:
                state = zlib.decompressobj(wbits=31)
            piece = state.decompress(rest, READ_BYTES)
            if piece:
                yield piece
            rest = state.unused_data if state.eof else state.unconsumed_tail
            # What fills a whole piece may have more behind it, even when nothing of the input is left.
            if not rest and len(piece) < READ_BYTES:
                break
    if not state.eof:
        raise EOFError("it is cut short")


def _unzstd(section: Section) -> Iterator[bytes]:
    # Late, and typed at one place: the library of Python 3.14, and its backport below.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    try:
        with zstd.ZstdFile(cast("BinaryIO", section), options=options) as reader:
            while chunk := reader.read(READ_BYTES):
                yield chunk
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from None


def _translated(chunks: Iterator[bytes], label: str) -> Iterator[bytes]:
    """Pass pieces on; whatever a decompressor says about damage becomes a refusal."""
    try:
        yield from chunks
    except Rejected as error:
        raise Rejected(error.code, f"{label}: {error.message}", hint=error.hint) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(label, error) from None
    except (zlib.error, EOFError, ValueError) as error:
        raise _damaged(label, error) from None


def _damaged(label: str, error: Exception) -> Rejected:
    hint = "save or pull the image again"
    return Rejected("image.layer_damaged", f"{label} cannot be unpacked: {error}", hint=hint)


def _mismatch(label: str, diff_id: str, found: str) -> Rejected:
    message = f"{label} is not what the image's configuration says: its content is {found}, not {diff_id}"
    hint = "it is damaged or was exchanged: save or pull the image again"
    return Rejected("image.layer_mismatch", message, hint=hint, found=found, expected=diff_id)
