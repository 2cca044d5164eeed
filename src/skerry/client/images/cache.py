"""The cache of layers: blobs by digest below one directory, for pushes that come again.

- `sha256/<hex>` is a blob: whole when it got its name, and hashed again whenever it is used, so that neither a
  power cut nor a bad disk can make it lie. `partial/<hex>` is a download that goes on where it stopped.
- Whoever uses the cache holds a shared lock. The oldest blobs are removed when it is let go by the last one, so
  nothing vanishes under a push; the bound may be passed for as long as pushes run.
- The time of last use is the access time: the time of change tells pushes whether a file is still the one they hashed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from skerry.client.images.limits import MAX_IMAGE_BYTES
from skerry.client.source_files import Hashed, SourceFile, hash_source, identity_of
from skerry.kit.digests import Digest, digest_of, hex_of, parse_digest
from skerry.kit.durable import sync_directory, sync_file
from skerry.kit.errors import Rejected, Unavailable
from skerry.kit.quantities import format_size, parse_size

DEFAULT_CAPACITY_BYTES = 20 << 30
_ROOM_LEFT_BYTES = 64 << 20
_LOOK_EVERY_BYTES = 32 << 20
_STALE_S = 7 * 86400.0


def cache_path(environment: Mapping[str, str]) -> Path:
    """Return where the cache is."""
    root = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(root) / "skerry" / "blobs"


def cache_capacity(environment: Mapping[str, str]) -> int:
    """Return how many bytes the cache keeps; `SKERRY_CACHE_SIZE` says so, such as `5GiB`.

    Raises:
        Rejected: it is no size (`cache.size`).
    """
    try:
        return parse_size(environment.get("SKERRY_CACHE_SIZE") or "20GiB")
    except ValueError as error:
        raise Rejected("cache.size", f"SKERRY_CACHE_SIZE: {error}") from None


class BlobCache:
    """Usable by several pushes at once; use it in a `with` for as long as its files are needed."""

    def __init__(self, root: Path, *, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self._root = root
        self._capacity_bytes = capacity_bytes
        self._whole = root / "sha256"
        self._partial = root / "partial"
        self._temporary = root / "tmp"
        self._lock = -1

    def __enter__(self) -> BlobCache:  # noqa: PYI034 - nobody inherits from it
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock < 0:
            return
        # Letting go first: two pushes that both wanted to turn their lock into an exclusive one would block each other.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove_oldest()
        except OSError:
            pass  # others are at work: the last of them tidies up
        finally:
            os.close(self._lock)
            self._lock = -1

    def _begin(self) -> None:
        """Make the directory and hold it, at the first use: a push without images needs no cache."""
        if self._lock >= 0:
            return
        try:
            for folder in (self._whole, self._partial, self._temporary):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # Whoever holds it alone only removes files: the wait is short.
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        except OSError as error:
            raise self._translated(error) from error

    def find(self, digest: str, on_progress: Hashed | None = None) -> SourceFile | None:
        """Return a blob that is here and, hashed anew, is what its name says."""
        self._begin()
        path = self._whole / hex_of(parse_digest(digest))
        try:
            source = hash_source(path, on_progress or _quietly)
            if source.digest == digest:
                os.utime(path, ns=(time.time_ns(), source.identity[3]))
                return source
            path.unlink(missing_ok=True)
        except (FileNotFoundError, Rejected):
            return None
        except OSError as error:
            raise self._translated(error) from error
        return None

    def put(self, content: bytes) -> SourceFile:
        """Keep content that is held in memory."""
        digest = digest_of(content)
        return self.find(digest) or self.keep([content], digest=digest, limit_bytes=len(content))

    def keep(self, chunks: Iterable[bytes], *, digest: str, limit_bytes: int = MAX_IMAGE_BYTES) -> SourceFile:
        """Keep a blob that comes in pieces.

        Raises:
            Rejected: it is another one (`image.digest_mismatch`, with `found`), or too large (`image.too_large`).
            Unavailable: there is no room for it (`disk.full`).
        """
        with self.spool(chunks, limit_bytes=limit_bytes) as (path, found):
            if found != digest:
                raise Rejected(
                    "image.digest_mismatch",
                    f"the content is {found}, not {digest}",
                    found=found,
                    expected=digest,
                )
            target = self._whole / hex_of(parse_digest(digest))
            try:
                sync_file(path)
                # Not replaced when another push was faster: that one may be uploading from it.
                with contextlib.suppress(FileExistsError):
                    os.link(path, target)
            except OSError:
                # A file system without hard links.
                path.replace(target)
            sync_directory(target.parent)
            with target.open("rb") as file:
                return SourceFile(target, Digest(digest), file.seek(0, os.SEEK_END), identity_of(file))

    @contextlib.contextmanager
    def spool(
        self, chunks: Iterable[bytes], *, limit_bytes: int = MAX_IMAGE_BYTES
    ) -> Generator[tuple[Path, Digest]]:
        """Hold content in a file for a while; yields its path and digest.

        Raises:
            Rejected: it is larger than `limit_bytes`.
            Unavailable: there is no room for it.
        """
        self._begin()
        state, size_bytes, looked = hashlib.sha256(), 0, 0
        try:
            descriptor, name = tempfile.mkstemp(dir=self._temporary)
        except OSError as error:
            raise self._translated(error) from error
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    size_bytes += len(chunk)
                    if size_bytes > limit_bytes:
                        message = f"it is larger than {format_size(limit_bytes)} when uncompressed"
                        raise Rejected("image.too_large", message)
                    if size_bytes >= looked:
                        self._look_for_room()
                        looked = size_bytes + _LOOK_EVERY_BYTES
                    state.update(chunk)
                    self._write(file, chunk)
                self._write(file, b"")
            yield path, Digest("sha256:" + state.hexdigest())
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def partial(self, digest: str) -> Generator[BinaryIO]:
        """Yield a file, at its end, that a download can go on with; removed once the block ends without an error.

        When another push downloads the very same, this one gets a file of its own rather than waiting for it.
        """
        self._begin()
        path = self._partial / hex_of(parse_digest(digest))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    with tempfile.TemporaryFile("w+b", dir=self._temporary) as own:
                        yield own
                    return
                file.seek(0, os.SEEK_END)
                yield file
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._translated(error) from error

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        try:
            file.write(chunk)
            if not chunk:
                file.flush()
        except OSError as error:
            raise self._translated(error) from error

    def _look_for_room(self) -> None:
        seen = os.statvfs(self._root)
        if seen.f_bavail * seen.f_frsize < _ROOM_LEFT_BYTES:
            raise self._translated(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _translated(self, error: OSError) -> Unavailable:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, or name another place with XDG_CACHE_HOME"
            return Unavailable("disk.full", f"no room for an image's layers in {self._root}", hint=hint)
        return Unavailable("cache.unusable", f"cannot use {self._root}: {error.strerror}")

    def _remove_oldest(self) -> None:
        """Remove what was used longest ago, until the rest fits; called by who holds the cache alone."""
        for file in self._temporary.iterdir():
            file.unlink(missing_ok=True)
        files = [(entry, entry.stat()) for entry in (*self._whole.iterdir(), *self._partial.iterdir())]
        total = sum(seen.st_size for _, seen in files)
        for file, seen in sorted(files, key=lambda pair: max(pair[1].st_atime, pair[1].st_mtime)):
            stale = file.parent == self._partial and time.time() - seen.st_mtime > _STALE_S
            if total > self._capacity_bytes or stale:
                file.unlink(missing_ok=True)
                total -= seen.st_size


def _quietly(path: Path, done_bytes: int, total_bytes: int) -> None:
    """Hash without saying so."""
