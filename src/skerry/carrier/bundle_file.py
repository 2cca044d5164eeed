"""A bundle, and carried reports, as files: written beside their name and renamed when whole, read in pieces.

Whoever writes or reads one goes this way: the command line that puts a bundle together, and the host or relay that
takes it. What may be believed of what is read is `skerry.trust.bundle`'s matter.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import sync_directory
from skerry.kit.errors import Conflict, Missing, Rejected, SkerryError, Unavailable, Untrusted
from skerry.kit.quantities import format_size
from skerry.spec.bundle import MAX_CARRIED_BYTES, BundleEntry, BundleManifest, CarriedReports
from skerry.spec.carrier import MAX_SYNC_REPORTS, JsonEnvelope
from skerry.trust.bundle import BundleHead, Small, altered, encode_start, read_head, read_small

CHUNK_BYTES = 1 << 20
SPARE_BYTES = 16 << 20
REPORTS_MAGIC = b"skerry-reports-1\n"
MAX_PARTS = 100_000

Tell = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many."""
ReadBlob = Callable[[str], Iterator[bytes]]


class BundleFile:
    """A bundle that is open."""

    def __init__(self, file: BinaryIO, *, prefix: bool = False) -> None:
        """Read the head; a `prefix` is a bundle without its blobs.

        Raises:
            Rejected, Untrusted: as `skerry.trust.bundle.read_head`.
        """
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.head: BundleHead = read_head(self.read, self._size, prefix=prefix)

    def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes from an offset; fewer where the file ends.

        Raises:
            Unavailable: it cannot be read (`bundle.unreadable`).
        """
        try:
            self._file.seek(offset)
            # Never more than there is: a length that a stranger stated takes no memory.
            return self._file.read(max(0, min(size, self._size - offset)))
        except OSError as error:
            raise _unreadable(error) from error

    def small(self) -> Small:
        """Return metadata and desired states.

        Raises:
            Untrusted: as `skerry.trust.bundle.read_small`.
        """
        return read_small(self.head, self.read)

    def prefix(self) -> bytes:
        """Return the bundle without its blobs, in memory; bounded as its manifest is."""
        return self.read(0, self.head.small_end)

    def chunks(self, entry: BundleEntry, *, start: int = 0) -> Iterator[bytes]:
        """Yield an entry's bytes from `start` on, not verified."""
        at, left = self.head.at(entry) + start, entry.size_bytes - start
        while left > 0:
            chunk = self.read(at, min(left, CHUNK_BYTES))
            if not chunk:
                raise Untrusted("bundle.truncated", "the bundle is cut off", hint="copy it again")
            at, left = at + len(chunk), left - len(chunk)
            yield chunk

    def check(self, tell: Tell) -> None:
        """Read every entry and compare it with its digest.

        Raises:
            Untrusted: one is not what the manifest states (`bundle.altered`).
        """
        done, total = 0, self.head.claimed.size_bytes
        for entry in self.head.claimed.entries:
            state = hashlib.sha256()
            for chunk in self.chunks(entry):
                state.update(chunk)
                done += len(chunk)
                tell(done, total)
            if f"sha256:{state.hexdigest()}" != entry.digest:
                raise altered(entry)


@contextmanager
def open_bundle(path: Path, *, prefix: bool = False) -> Generator[BundleFile]:
    """Open a bundle to be read.

    Raises:
        Missing: there is none (`bundle.missing`).
        Unavailable: it cannot be read (`bundle.unreadable`).
        Rejected, Untrusted: as `skerry.trust.bundle.read_head`.
    """
    with _opened(path) as file:
        yield BundleFile(file, prefix=prefix)


def write_bundle(
    target: Path,
    envelope: JsonEnvelope,
    manifest: BundleManifest,
    small: Sequence[bytes],
    blob: ReadBlob,
    *,
    tell: Tell,
) -> int:
    """Write a bundle and return how long it is; the name is there when all of it is. `blob` reads by digest.

    Raises:
        Unavailable: no room (`disk.full`), a file system whose files cannot be so long (`bundle.too_long`), or the
            target cannot be written (`disk.unwritable`).
        Untrusted: what `blob` reads is not what the manifest states (`bundle.altered`).
        Conflict: there is something of that name already (`bundle.exists`).
    """
    head = msgspec.json.encode(envelope)
    total = len(encode_start(head)) + len(head) + manifest.size_bytes
    free = _free(target.parent)
    if free < total:
        message = f"{format_size(total)} to write, {format_size(free)} free"
        raise Unavailable("disk.full", f"{target.parent} is full: {message}")
    with _replacing(target) as file:
        file.write(encode_start(head) + head)
        done = 0
        for number, entry in enumerate(manifest.entries):
            state, size = hashlib.sha256(), 0
            chunks: Iterable[bytes] = (small[number],) if number < len(small) else blob(entry.digest)
            for chunk in chunks:
                state.update(chunk)
                size += len(chunk)
                if size > entry.size_bytes:
                    raise altered(entry)
                file.write(chunk)
                tell(done + size, manifest.size_bytes)
            if f"sha256:{state.hexdigest()}" != entry.digest or size != entry.size_bytes:
                raise altered(entry)
            done += size
    return total


def write_reports(target: Path, envelopes: Sequence[JsonEnvelope]) -> int:
    """Write reports of one host that are carried by hand, and return how long the file is; replaces an older one.

    Raises:
        Unavailable: it cannot be written (`disk.full`, `disk.unwritable`).
    """
    return write_reports_of_hosts(target, (envelopes,))


def write_reports_of_hosts(target: Path, hosts: Iterable[Sequence[JsonEnvelope]]) -> int:
    """Write reports that are carried by hand, each time some of one host, and return how long the file is.

    Raises:
        Unavailable: it cannot be written (`disk.full`, `disk.unwritable`).
    """
    total = len(REPORTS_MAGIC)
    with _replacing(target, taken=True) as file:
        file.write(REPORTS_MAGIC)
        for envelopes in hosts:
            for part in _parts(envelopes):
                content = msgspec.json.encode(CarriedReports(reports=tuple(part)))
                file.write(len(content).to_bytes(4, "big") + content)
                total += 4 + len(content)
    return total


def read_reports(path: Path) -> Iterator[CarriedReports]:
    """Yield the parts of a file with carried reports, each of one host; believed is nothing of them.

    Raises:
        Missing: there is none (`bundle.missing`).
        Rejected: it is no such file (`reports.foreign`).
        Untrusted: it is cut off (`reports.truncated`) or not as any is made (`reports.malformed`).
    """
    with _opened(path) as file:
        if _read(file, len(REPORTS_MAGIC)) != REPORTS_MAGIC:
            raise Rejected(
                "reports.foreign",
                f"{path.name} holds no reports",
                hint="skerry agent export-reports writes some",
            )
        for _ in range(MAX_PARTS):
            start = _read(file, 4)
            if not start:
                return
            size = int.from_bytes(start, "big")
            if size > MAX_CARRIED_BYTES:
                raise Untrusted("reports.malformed", "a part of it is longer than any is")
            content = _read(file, size)
            if len(start) != 4 or len(content) != size:
                raise Untrusted("reports.truncated", "the file is cut off", hint="copy it again")
            try:
                part = msgspec.json.decode(content, type=CarriedReports)
            except UNREADABLE as error:
                raise Untrusted("reports.malformed", f"a part of it is none: {str(error)[:200]}") from error
            yield part
        raise Untrusted("reports.malformed", "it has more parts than any has")


def _parts(envelopes: Sequence[JsonEnvelope]) -> Iterator[list[JsonEnvelope]]:
    """Yield reports in their order, as many at a time as one part may have."""
    part: list[JsonEnvelope] = []
    size = 0
    for envelope in envelopes:
        length = len(msgspec.json.encode(envelope))
        if part and (len(part) == MAX_SYNC_REPORTS or size + length > MAX_CARRIED_BYTES // 2):
            yield part
            part, size = [], 0
        part.append(envelope)
        size += length
    if part:
        yield part


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        raise Missing("bundle.missing", f"there is no file {path}") from None
    except OSError as error:
        raise _unreadable(error) from error
    with opened:
        yield opened


@contextmanager
def _replacing(target: Path, *, taken: bool = False) -> Generator[BinaryIO]:
    """Write a file that gets its name when the block ends well; else nothing is left of it."""
    if not taken and os.path.lexists(target):
        raise Conflict("bundle.exists", f"there is a file {target} already", hint="choose another name")
    beside = target.with_name(target.name + ".new")
    try:
        beside.unlink(missing_ok=True)  # what was killed has left
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
            sync_directory(target.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(error, target) from error


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise _unwritable(error, folder) from error


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> SkerryError:
    return Unavailable("bundle.unreadable", f"cannot read {error.filename or 'it'}: {error.strerror}")


def _unwritable(error: OSError, target: Path) -> SkerryError:
    if error.errno == errno.EFBIG:
        hint = "FAT allows 4 GiB: split it with --max-size 4GB"
        return Unavailable("bundle.too_long", f"the file system does not let {target} be so long", hint=hint)
    code = "disk.full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "disk.unwritable"
    return Unavailable(code, f"cannot write {target}: {error.strerror}")
