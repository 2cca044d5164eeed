"""DirectoryBlobs: blobs as files below one directory, for hosts and relays. Standard library only.

- `sha256/ab/<hex>` is a blob: whole, verified, durable. `partial/<hex>` grows and is never used, nor is
  `partial/<hex>.making`, which grows as a delta is applied.
- Every name is made from a checked digest, so no digest can name a file elsewhere.
- Who appends to, finishes or removes a partial file holds a lock on it. The lock is on the file and not on
  its name: after waiting for it, the name may mean another file, and then the wait starts again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Generator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from skerry.adapters import durable_files
from skerry.kit.digests import Digest, digest_of, digest_of_chunks, hex_of, parse_digest
from skerry.kit.errors import Conflict, Missing, Untrusted
from skerry.ports.blobs import LocalBlobs


class DirectoryBlobs(LocalBlobs):
    """Usable from any number of threads and processes at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._whole = root / "sha256"
        self._partial = root / "partial"

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def path(self, digest: str) -> Path:
        name = hex_of(parse_digest(digest))
        return self._whole / name[:2] / name

    def partial_size(self, digest: str) -> int:
        try:
            return self._partial_path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def read_part(self, digest: str, offset: int, size: int) -> bytes:
        # The whole one again at the end: the partial file may have become it meanwhile.
        for path in (self.path(digest), self._partial_path(digest), self.path(digest)):
            with _opened(path, os.O_RDONLY) as descriptor:
                if descriptor is not None:
                    return os.pread(descriptor, size, offset)
        return b""

    def append(self, digest: str, chunks: Iterable[bytes], *, offset: int, limit: int) -> int:
        with self._locked(digest, create=offset == 0) as descriptor:
            size_bytes = os.fstat(descriptor).st_size if descriptor is not None else 0
            if descriptor is None or size_bytes != offset:
                message = f"{size_bytes} bytes are here, so nothing can follow at {offset}"
                raise Conflict("blob.offset", message, digest=digest, size_bytes=size_bytes)
            os.lseek(descriptor, offset, os.SEEK_SET)
            try:
                for chunk in chunks:
                    _write_within(descriptor, chunk, limit - size_bytes, digest)
                    size_bytes += len(chunk)
            except OSError as error:
                raise durable_files.translated(error, self._root) from error
            finally:
                os.fsync(descriptor)
            return size_bytes

    def finish(self, digest: str) -> Path:
        with self._locked(digest, create=False) as descriptor:
            if descriptor is None:
                if self.has(digest):  # somebody else was faster
                    return self.path(digest)
                raise Untrusted("blob.mismatch", "nothing of the blob has arrived", digest=digest)
            partial = self._partial_path(digest)
            found = _digest_of_file(partial)
            if found != digest:
                partial.unlink(missing_ok=True)
                raise _mismatch(digest, found)
            try:
                os.fsync(descriptor)
                durable_files.move_durably(partial, self.path(digest))
            except OSError as error:
                raise durable_files.translated(error, self._root) from error
            self._remove_unfinished(digest)
            return self.path(digest)

    def put(self, digest: str, content: bytes) -> Path:
        path = self.path(digest)
        found = digest_of(content)
        if found != digest:
            raise _mismatch(digest, found)
        if not path.is_file():
            durable_files.write_durably(path, [content], staging=self._partial)
        return path

    def adopt(self, digest: str, file: Path) -> Path:
        path = self.path(digest)
        try:
            found = _digest_of_file(file)
            if found != digest:
                raise _mismatch(digest, found)
            durable_files.move_durably(file, path)
        except FileNotFoundError as error:
            if not path.is_file():  # else an attempt that was cut short had moved it
                raise Missing("blob.unknown", f"there is no blob {digest}") from error
        except OSError as error:
            raise durable_files.translated(error, self._root) from error
        return path

    def make_by_delta(self, digest: str, size_bytes: int, *, base: Sequence[str], delta: str) -> Path:
        # Needed for some minutes a month, and large.
        from skerry.adapters.delta_files import DeltaJob, apply_delta_file
        from skerry.delivery.words import choose_words

        job = DeltaJob(
            base=tuple(self._present(one) for one in base),
            target=self.path(digest),
            target_digest=parse_digest(digest),
            target_size_bytes=size_bytes,
            base_digest=parse_digest(base[0]) if len(base) == 1 else None,
            workplace=self._partial,
        )
        with self._locked(digest, create=True), self._present(delta).open("rb") as opened:

            def open_at(offset: int) -> BinaryIO:
                opened.seek(offset)
                return opened

            if not job.target.is_file():  # else somebody was faster
                # Without numpy, which is half as fast and takes a third of the memory that an agent has.
                apply_delta_file(job, open_at, words=choose_words(numpy=False))
            self._partial_path(digest).unlink(missing_ok=True)
        return job.target

    def verify(self, digest: str) -> bool:
        path = self.path(digest)
        try:
            if _digest_of_file(path) == digest:
                return True
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        return False

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)
        with self._locked(digest, create=False) as descriptor:
            if descriptor is not None:
                self._partial_path(digest).unlink(missing_ok=True)
                self._remove_unfinished(digest)

    def digests(self) -> frozenset[str]:
        found = (f"sha256:{file.name}" for file in self._whole.glob("??/*"))
        return frozenset(digest for digest in found if _is_digest(digest))

    def sweep(self, keep: AbstractSet[str], *, older_than_s: float) -> int:
        removed = 0
        oldest = time.time() - older_than_s
        kept = {hex_of(digest) for digest in keep}
        for file in list(self._partial.glob("*")):
            if file.name.partition(".")[0] in kept:
                continue
            with _opened(file, os.O_RDONLY) as descriptor:
                if descriptor is None or os.fstat(descriptor).st_mtime > oldest or not _try_lock(descriptor):
                    continue
                file.unlink(missing_ok=True)
                removed += 1
        return removed

    def _present(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.is_file():
            raise Missing("blob.unknown", f"there is no blob {digest}")
        return path

    def _remove_unfinished(self, digest: str) -> None:
        """Remove what attempts by delta left; the blob's lock is held."""
        for unfinished in self._partial.glob(f"{hex_of(digest)}.making*"):
            unfinished.unlink(missing_ok=True)

    def _partial_path(self, digest: str) -> Path:
        return self._partial / hex_of(parse_digest(digest))

    @contextmanager
    def _locked(self, digest: str, *, create: bool) -> Generator[int | None]:
        """Hold the partial file's lock and yield its descriptor; None when there is no partial file."""
        path = self._partial_path(digest)
        while True:
            if create:
                try:
                    durable_files.make_directory(self._partial)
                except OSError as error:
                    raise durable_files.translated(error, self._root) from error
            with _opened(path, os.O_RDWR | (os.O_CREAT if create else 0)) as descriptor:
                if descriptor is None:
                    yield None
                    return
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_still(path, descriptor):
                    yield descriptor
                    return


@contextmanager
def _opened(path: Path, flags: int) -> Generator[int | None]:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise durable_files.translated(error, path) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_within(descriptor: int, chunk: bytes, room: int, digest: str) -> None:
    """Write as much of a chunk as the blob may have; `Untrusted` when there is more."""
    durable_files.write_all(descriptor, memoryview(chunk)[: max(0, room)])
    if len(chunk) > room:
        raise Untrusted("blob.too_long", "more bytes came than the blob has", digest=digest)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Tell whether the name means the file that is open."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _digest_of_file(path: Path) -> Digest:
    return digest_of_chunks(durable_files.read_chunks(path))[0]


def _is_digest(text: str) -> bool:
    return len(text) == 71 and set(hex_of(text)) <= set("0123456789abcdef")


def _mismatch(digest: str, found: str) -> Untrusted:
    return Untrusted("blob.mismatch", f"the bytes are not those of {digest}", digest=digest, found=found)
