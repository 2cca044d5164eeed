"""Stores in memory: as quick as dictionaries, and they keep the same promises as the real ones.

What they hold outlives the objects that use them, as a disk outlives a process: give the same store to the
next agent to see how it starts again.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.delivery.delta_apply import DeltaApplier, verify_base, verify_header
from skerry.delivery.delta_format import read_header
from skerry.delivery.words import choose_words
from skerry.kit.digests import digest_of, hex_of, parse_digest
from skerry.kit.errors import Conflict, Missing, Unavailable, Untrusted
from skerry.ports.agent_store import MAX_KEPT_EVENTS, AgentStore, KeptEvent, QueuedReport, WindowRow
from skerry.ports.blobs import Blobs, LocalBlobs

_chunk_bytes = 256 * 1024


class MemoryAgentStore(AgentStore):
    """`close` lets go of nothing, so that the store can be opened again by using it."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}
        self._reports: dict[int, QueuedReport] = {}
        self._events: list[KeptEvent] = []
        self._windows: dict[tuple[object, ...], WindowRow] = {}
        self._turn = threading.Lock()

    def load(self, key: str) -> bytes | None:
        return self._documents.get(key)

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        with self._turn:
            for key, value in documents.items():
                if value is None:
                    self._documents.pop(key, None)
                else:
                    self._documents[key] = value

    def put_report(self, report: QueuedReport, *, events: Sequence[KeptEvent] = ()) -> None:
        with self._turn:
            queued = self._reports.get(report.sequence)
            if queued is not None and queued.sent:
                raise Conflict("report.sent", f"report {report.sequence} was sent and cannot change")
            self._reports[report.sequence] = report
            self._events = [*self._events, *events][-MAX_KEPT_EVENTS:]

    def kept_events(self, limit: int = MAX_KEPT_EVENTS) -> Sequence[KeptEvent]:
        with self._turn:
            return self._events[-limit:]

    def reports(self, limit: int, *, above: int = -1) -> Sequence[QueuedReport]:
        with self._turn:
            wanted = sorted(sequence for sequence in self._reports if sequence > above)
            return [self._reports[sequence] for sequence in wanted[:limit]]

    def mark_sent(self, up_to: int) -> None:
        with self._turn:
            for sequence, report in self._reports.items():
                if sequence <= up_to:
                    self._reports[sequence] = QueuedReport(sequence, report.envelope, sent=True)

    def acknowledge(self, up_to: int) -> None:
        with self._turn:
            self._forget([sequence for sequence in self._reports if sequence <= up_to])

    def drop_oldest(self, keep: int) -> int:
        with self._turn:
            newest_first = sorted(self._reports, reverse=True)
            self._forget(newest_first[keep:])
            return len(newest_first[keep:])

    def change_windows(self, put: Sequence[WindowRow], remove: Sequence[WindowRow] = ()) -> None:
        with self._turn:
            for window in remove:
                self._windows.pop(_name_of(window), None)
            self._windows.update({_name_of(window): window for window in put})

    def window_names(self) -> Sequence[WindowRow]:
        return [msgspec.structs.replace(window, value=b"") for window in self.windows()]

    def windows(
        self,
        *,
        application: str = "",
        releases: Sequence[str] = (),
        states: Sequence[str] = (),
        limit: int = 10_000,
    ) -> Sequence[WindowRow]:
        with self._turn:
            found = [
                window
                for window in self._windows.values()
                if application in ("", window.application)
                and (not releases or window.release in releases)
                and (not states or window.state in states)
            ]
        return sorted(found, key=lambda window: (window.begin, *_name_of(window)))[:limit]

    def mark_windows(self, windows: Sequence[WindowRow], state: str) -> None:
        with self._turn:
            for window in windows:
                there = self._windows.get(_name_of(window))
                if there is not None and there.value == window.value:
                    self._windows[_name_of(window)] = msgspec.structs.replace(there, state=state)

    def close(self) -> None:
        return

    def _forget(self, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            del self._reports[sequence]


class MemoryLocalBlobs(LocalBlobs):
    """Partial blobs in memory, whole ones as files below `root`, because their users want paths.

    `room_bytes` is how much fits in all; None is no limit. It can be changed at any time.
    """

    def __init__(self, root: Path, *, room_bytes: int | None = None) -> None:
        self.room_bytes = room_bytes
        self._root = root
        self._partial: dict[str, bytearray] = {}
        self._turns: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def path(self, digest: str) -> Path:
        return self._root / hex_of(parse_digest(digest))

    def partial_size(self, digest: str) -> int:
        return len(self._partial.get(parse_digest(digest), b""))

    def read_part(self, digest: str, offset: int, size: int) -> bytes:
        if self.has(digest):
            return self.path(digest).read_bytes()[offset : offset + size]
        return bytes(self._partial.get(parse_digest(digest), b"")[offset : offset + size])

    def append(self, digest: str, chunks: Iterable[bytes], *, offset: int, limit: int) -> int:
        with self._turns[digest]:
            if self.partial_size(digest) != offset:
                raise Conflict("blob.offset", f"{self.partial_size(digest)} bytes are here, not {offset}")
            partial = self._partial.setdefault(digest, bytearray())
            for chunk in chunks:
                room = self._room()
                taken = chunk[: max(0, limit - len(partial))]
                partial += taken if room is None else taken[:room]
                if room is not None and len(taken) > room:
                    raise Unavailable("disk.full", "no room left in this test")
                if len(taken) < len(chunk):
                    raise Untrusted("blob.too_long", "more bytes came than the blob has", digest=digest)
            return len(partial)

    def finish(self, digest: str) -> Path:
        with self._turns[digest]:
            if digest not in self._partial:
                if self.has(digest):
                    return self.path(digest)
                raise Untrusted("blob.mismatch", "nothing of the blob has arrived", digest=digest)
            content = bytes(self._partial.pop(digest))
            _require_match(digest, content)
            return self._write(digest, content)

    def put(self, digest: str, content: bytes) -> Path:
        path = self.path(digest)
        with self._turns[digest]:
            _require_match(digest, content)
            room = self._room()
            if room is not None and not path.exists() and len(content) > room:
                raise Unavailable("disk.full", "no room left in this test")
            return path if path.exists() else self._write(digest, content)

    def adopt(self, digest: str, file: Path) -> Path:
        if file.exists():
            with self._turns[digest]:
                _require_match(digest, file.read_bytes())
                self.path(digest).parent.mkdir(parents=True, exist_ok=True)
                file.replace(self.path(digest))
        elif not self.has(digest):
            raise Missing("blob.unknown", f"there is no blob {digest}")
        return self.path(digest)

    def make_by_delta(self, digest: str, size_bytes: int, *, base: Sequence[str], delta: str) -> Path:
        if missing := [one for one in (*base, delta) if not self.has(one)]:
            raise Missing("blob.unknown", f"there is no blob {missing[0]}")
        old, made = b"".join(self.path(one).read_bytes() for one in base), io.BytesIO()
        with self._turns[digest], self.path(delta).open("rb") as opened:
            header, length = read_header(opened)
            verify_header(header, target_digest=parse_digest(digest), target_size=size_bytes)
            verify_base(header, io.BytesIO(old))
            applier = DeltaApplier(header, base=io.BytesIO(old), output=made, words=choose_words(numpy=False))
            for _ in applier.run(opened, applier.begin(length)):
                pass
            self._partial.pop(digest, None)
        return self.put(digest, made.getvalue())

    def sweep(self, keep: AbstractSet[str], *, older_than_s: float) -> int:
        # Nothing here knows its age: all of it counts as old, unless nothing is old enough.
        swept = [digest for digest in self._partial if digest not in keep and older_than_s <= 0]
        for digest in swept:
            del self._partial[digest]
        return len(swept)

    def verify(self, digest: str) -> bool:
        with self._turns[digest]:
            path = self.path(digest)
            if not path.exists():
                return False
            if digest_of(path.read_bytes()) != digest:
                path.unlink()
                return False
            return True

    def remove(self, digest: str) -> None:
        with self._turns[digest]:
            self.path(digest).unlink(missing_ok=True)
            self._partial.pop(digest, None)

    def digests(self) -> frozenset[str]:
        if not self._root.exists():
            return frozenset()
        return frozenset(f"sha256:{file.name}" for file in self._root.iterdir())

    def _write(self, digest: str, content: bytes) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        path = self.path(digest)
        # Whoever looks meanwhile sees nothing or all of it.
        beside = self._root.with_name(f"{self._root.name}.{path.name}.new")
        beside.write_bytes(content)
        beside.replace(path)
        return path

    def _room(self) -> int | None:
        if self.room_bytes is None:
            return None
        whole = sum(self.path(digest).stat().st_size for digest in self.digests())
        return max(0, self.room_bytes - whole - sum(map(len, self._partial.values())))


class MemoryBlobs(Blobs):
    """The hub's blobs in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    async def size(self, digest: str) -> int | None:
        content = self._blobs.get(parse_digest(digest))
        return None if content is None else len(content)

    async def put(self, digest: str, content: bytes) -> None:
        _require_match(parse_digest(digest), content)
        self._blobs.setdefault(digest, content)

    async def adopt(self, digest: str, file: Path) -> None:
        if parse_digest(digest) not in self._blobs:
            await self.put(digest, await asyncio.to_thread(file.read_bytes))
        await asyncio.to_thread(file.unlink, missing_ok=True)

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        content = self._blobs.get(parse_digest(digest))
        if content is None:
            raise Missing("blob.unknown", f"there is no blob {digest}")
        stop = len(content) if end is None else min(end, len(content))
        for first in range(start, stop, _chunk_bytes):
            yield content[first : min(first + _chunk_bytes, stop)]

    async def remove(self, digest: str) -> None:
        self._blobs.pop(parse_digest(digest), None)

    def file(self, digest: str) -> Path | None:
        return None


def _name_of(window: WindowRow) -> tuple[str, str, str, str, int]:
    return window.application, window.release, window.component, window.metric, window.begin


def _require_match(digest: str, content: bytes) -> None:
    found = digest_of(content)
    if found != digest:
        raise Untrusted("blob.mismatch", f"the bytes are not those of {digest}", digest=digest, found=found)
