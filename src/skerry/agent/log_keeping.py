"""Reads what components and the agent write, and keeps it in the ring.

Rules: reading goes on from a mark that is stored with the lines, so that a restart neither loses nor doubles what was
stored; what a power cut takes from memory is read again from the runtime, under a later time. A component that writes
more than is read at a time is cut short there, never another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.agent.own_log import OwnLog
from skerry.kit.errors import SkerryError
from skerry.ports.log_ring import LogRing
from skerry.ports.runtime import InstanceView, Runtime
from skerry.spec.logs import LogQuestion, LogRecord
from skerry.telemetry.log_answers import Found, Search, find_newest, size_of
from skerry.telemetry.log_lines import LineSplitter, parse_line

_log = structlog.get_logger()

READ_BYTES = 256 << 10
MAX_READS = 8
FLUSH_AFTER_S = 60.0
FORGET_AFTER_S = 600.0
FLUSH_BYTES = 128 << 10
MOST_IN_MEMORY = 2 << 20
OWN = "agent"
SEARCH_LIMIT_S = 20.0
"""After so long a search answers with what it has found."""

Listener = Callable[[Sequence[LogRecord]], None]


class _Source(msgspec.Struct):
    """How far an instance's output was read, and its lines that are not in the ring yet."""

    application: str
    component: str
    mark: str
    splitter: LineSplitter = msgspec.field(default_factory=LineSplitter)
    records: list[LogRecord] = msgspec.field(default_factory=list[LogRecord])
    size: int = 0
    since: float | None = None
    idle: int = 0


class LogKeeper:
    """Lives in the event loop; what blocks is done in threads."""

    def __init__(
        self,
        ring: LogRing,
        runtime: Runtime,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        own: OwnLog | None = None,
    ) -> None:
        self._ring = ring
        self._runtime = runtime
        self._now = now
        self._monotonic = monotonic
        self._own = own or OwnLog()
        self._sources: dict[str, _Source] = {OWN: _Source("", "", "")}
        self._marks: dict[str, str] | None = None
        self._absent: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._failing = ""
        self.listeners: list[Listener] = []
        self.instances: Mapping[str, InstanceView] = {}

    async def collect(self, *, patient: bool = False) -> None:
        """Read what was written since the last time; `patient` leaves out what has been silent, most of the times."""
        async with self._turn:
            if self._marks is None:
                self._marks = await asyncio.to_thread(self._ring.marks)
            new = self._own.records(self._now)
            self._note(self._sources[OWN], new)
            for key, view in self.instances.items():
                source = self._source(key, view)
                source.idle += 1
                if patient and source.idle > 12 and source.idle % 6:
                    continue
                new += await self._read(key, source)
            if new:
                for listener in list(self.listeners):
                    listener(new)

    async def store(self, *, everything: bool = False) -> None:
        """Put into the ring what has been in memory for a while, or is much.

        Raises:
            Unavailable: the disk is full; the newest lines stay in memory.
        """
        async with self._turn:
            gone = [key for key in self._sources if key != OWN and key not in self.instances]
            for key, source in list(self._sources.items()):
                old = source.since is not None and self._monotonic() - source.since >= FLUSH_AFTER_S
                if everything or key in gone or old or source.size >= FLUSH_BYTES:
                    await self._flush(key, source, ended=everything or key in gone)
            for key in gone:
                del self._sources[key]
            await self._forget_marks()

    async def find(self, question: LogQuestion, search: Search | None) -> tuple[Found, datetime | None]:
        """Return the newest lines that answer a question, and how far back there are any of that application."""
        async with self._turn:  # what moves to the disk meanwhile would be found twice
            return await asyncio.to_thread(self._find, question, search)

    def _find(self, question: LogQuestion, search: Search | None) -> tuple[Found, datetime | None]:
        deadline = self._monotonic() + SEARCH_LIMIT_S
        application = question.application
        held = [
            record
            for source in self._sources.values()
            for record in source.records
            if source.application == application
        ]
        held.sort(key=lambda record: record.at)
        kept = self._ring.newest_first(application, since=question.since, until=question.until)
        found = find_newest(
            itertools.chain([held], kept), question, search, enough=lambda: self._monotonic() > deadline
        )
        return found, self._ring.oldest(application) or (held[0].at if held else None)

    async def _forget_marks(self) -> None:
        """Forget how far output was read of instances that have been gone for a while.

        One that is not seen may be there: an engine may begin later than this agent.
        """
        marks, now = self._marks or {}, self._monotonic()
        self._absent = {key: self._absent.get(key, now) for key in marks if key not in self.instances}
        stale = [key for key, since in self._absent.items() if now - since >= FORGET_AFTER_S and key != OWN]
        if stale:
            await asyncio.to_thread(self._ring.forget_marks, stale)
            self._marks = {key: mark for key, mark in marks.items() if key not in stale}

    async def _read(self, key: str, source: _Source) -> list[LogRecord]:
        new: list[LogRecord] = []
        try:
            for _ in range(MAX_READS):
                output = await self._runtime.output(key, mark=source.mark, limit=READ_BYTES)
                source.mark = output.mark
                if output.lost:
                    new.append(self._remark(source, "lines were given up before they could be read"))
                for at, piece in output.pieces:
                    new += self._parse(source, source.splitter.feed(piece), at)
                if output.pieces:
                    source.idle = 0
                elif source.idle > 1:  # what was written last has no end of line
                    new += self._parse(source, source.splitter.end(), None)
                if not output.more:
                    break
        except SkerryError as error:
            if self._failing != error.code:
                _log.warning("logs.unread", instance=key, code=error.code, reason=error.message)
            self._failing = error.code
        else:
            self._failing = ""
        self._note(source, new)
        return new

    def _parse(
        self, source: _Source, lines: Sequence[tuple[bytes, int]], at: datetime | None
    ) -> list[LogRecord]:
        return [
            parse_line(
                line,
                at or self._now(),
                application=source.application,
                component=source.component,
                cut=cut,
            )
            for line, cut in lines
        ]

    def _remark(self, source: _Source, message: str) -> LogRecord:
        return LogRecord(
            at=self._now(),
            application=source.application,
            component=source.component,
            level="warning",
            message=f"[skerry] {message}",
        )

    def _note(self, source: _Source, new: Sequence[LogRecord]) -> None:
        if not new:
            return
        if source.since is None:
            source.since = self._monotonic()
        source.records += new
        source.size += sum(map(size_of, new))
        while source.size > MOST_IN_MEMORY:  # the disk is full
            source.size -= size_of(source.records.pop(0))

    async def _flush(self, key: str, source: _Source, *, ended: bool) -> None:
        if ended:
            self._note(source, self._parse(source, source.splitter.end(), None))
        records = list(source.records)
        if not records:
            return
        writing = asyncio.ensure_future(asyncio.to_thread(self._ring.add, key, records, mark=source.mark))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The agent ends: what is being written must be known to be, or it would be written once more.
            await asyncio.wait([writing])
            if writing.exception() is None:
                self._note_stored(key, source, len(records))
            raise
        self._note_stored(key, source, len(records))

    def _note_stored(self, key: str, source: _Source, count: int) -> None:
        if self._marks is not None and source.mark:
            self._marks[key] = source.mark
        del source.records[:count]
        source.size, source.since = 0, None

    def _source(self, key: str, view: InstanceView) -> _Source:
        source = self._sources.get(key)
        if source is None:
            labels, marks = view.labels, self._marks or {}
            source = _Source(labels.get("application", ""), labels.get("component", ""), marks.get(key, ""))
            self._sources[key] = source
        return source
