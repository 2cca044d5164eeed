"""ObjectBlobs: the hub's blobs in a directory, S3, GCS or Azure, by obstore.

- Keys are `sha256/ab/<hex>`. What is there is never written again: puts are create-only where the store can
  say so, and a blob too large for one request is written only when it is not there, with the same content.
- Nothing gets in without having been hashed here.
- In a directory reads and writes are our own: obstore's local store does not fsync, and it reads at a tenth of
  the speed of a plain `pread` in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore

from skerry.adapters import durable_files
from skerry.kit.digests import digest_of, digest_of_chunks, hex_of, parse_digest
from skerry.kit.durable import sync_file
from skerry.kit.errors import Missing, Unavailable, Untrusted
from skerry.ports.blobs import Blobs

_part_bytes = 8 * 1024 * 1024
_staging = "staging"
_stale_s = 86400.0  # another process may be writing there at this moment


class ObjectBlobs(Blobs):
    """Blobs in any store that obstore speaks to; credentials and address are the store's."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._directory = Path(store.prefix) if isinstance(store, LocalStore) and store.prefix else None

    @classmethod
    def in_directory(cls, root: Path) -> ObjectBlobs:
        """Return blobs below a directory, which is created; what crashes left half written there is removed."""
        durable_files.make_directory(root)
        for file in (root / _staging).glob("*"):
            if file.stat().st_mtime < time.time() - _stale_s:
                file.unlink(missing_ok=True)
        return cls(LocalStore(root))

    async def size(self, digest: str) -> int | None:
        with _translating():
            try:
                return (await obstore.head_async(self._store, _key(digest)))["size"]
            except FileNotFoundError:
                return None

    async def put(self, digest: str, content: bytes) -> None:
        key = _key(digest)
        found = await asyncio.to_thread(digest_of, content)
        if found != digest:
            raise _mismatch(digest, found)
        if await self.size(digest) is not None:
            return
        if self._directory is not None:
            await asyncio.to_thread(self._write_local, self._directory, key, [content])
            return
        with _translating():
            try:
                await obstore.put_async(self._store, key, content, mode="create")
            except AlreadyExistsError:
                return

    async def adopt(self, digest: str, file: Path) -> None:
        key = _key(digest)
        if await self.size(digest) is None:
            if self._directory is not None:
                await asyncio.to_thread(self._move_local, self._directory, digest, file)
            else:
                with _translating():
                    await obstore.put_async(self._store, key, _hashed(file, digest), chunk_size=_part_bytes)
        await asyncio.to_thread(file.unlink, missing_ok=True)

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        size_bytes = await self.size(digest)
        if size_bytes is None:
            raise _missing(digest)
        stop = size_bytes if end is None else min(end, size_bytes)
        if start >= stop:
            return
        if self._directory is not None:
            async for chunk in _read_local(self._directory / _key(digest), start, stop):
                yield chunk
            return
        with _translating():
            try:
                result = await obstore.get_async(self._store, _key(digest), options={"range": (start, stop)})
            except FileNotFoundError:  # removed since
                raise _missing(digest) from None
            async for chunk in result.stream(min_chunk_size=durable_files.CHUNK_BYTES):
                for first in range(0, len(chunk), durable_files.CHUNK_BYTES):  # some stores send all at once
                    yield bytes(chunk[first : first + durable_files.CHUNK_BYTES])

    async def remove(self, digest: str) -> None:
        with _translating():
            try:
                await obstore.delete_async(self._store, _key(digest))
            except FileNotFoundError:  # some stores say so, others do not
                return

    def file(self, digest: str) -> Path | None:
        return None if self._directory is None else self._directory / _key(digest)

    def _write_local(self, root: Path, key: str, chunks: list[bytes]) -> None:
        durable_files.write_durably(root / key, chunks, staging=root / _staging)

    def _move_local(self, root: Path, digest: str, file: Path) -> None:
        """Move a file in, by name where that is possible, else by its bytes."""
        found = digest_of_chunks(durable_files.read_chunks(file))[0]
        if found != digest:
            raise _mismatch(digest, found)
        target = root / _key(digest)
        try:
            sync_file(file)
            durable_files.move_durably(file, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise durable_files.translated(error, target) from error
            durable_files.write_durably(target, _hashed(file, digest), staging=root / _staging)


def _key(digest: str) -> str:
    name = hex_of(parse_digest(digest))
    return f"sha256/{name[:2]}/{name}"


async def _read_local(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # removed since
        raise _missing(f"sha256:{path.name}") from None
    try:
        while start < stop:
            length = min(durable_files.CHUNK_BYTES, stop - start)
            chunk = await asyncio.to_thread(os.pread, descriptor, length, start)
            if not chunk:
                raise Unavailable("blobs.failed", f"the blob {path.name} ends before its length")
            yield chunk
            start += len(chunk)
    finally:
        os.close(descriptor)


def _hashed(file: Path, digest: str) -> Iterator[bytes]:
    """Yield a file and raise at its end when it does not match, which makes the writer discard it all."""
    state = hashlib.sha256()
    for chunk in durable_files.read_chunks(file):
        state.update(chunk)
        yield chunk
    found = "sha256:" + state.hexdigest()
    if found != digest:
        raise _mismatch(digest, found)


@contextmanager
def _translating() -> Generator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        if f"os error {errno.ENOSPC}" in str(error) or f"os error {errno.EDQUOT}" in str(error):
            raise durable_files.disk_full("the blobs") from error
        raise Unavailable(
            "blobs.failed", f"the blob store cannot be used: {str(error).splitlines()[0]}"
        ) from error


def _missing(digest: str) -> Missing:
    return Missing("blob.unknown", f"there is no blob {digest}")


def _mismatch(digest: str, found: str) -> Untrusted:
    return Untrusted("blob.mismatch", f"the bytes are not those of {digest}", digest=digest, found=found)
