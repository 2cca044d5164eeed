"""Which lines answer a question about logs, and how they travel."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected
from skerry.spec.logs import LEVELS, CrashRecord, LogQuestion, LogRecord
from skerry.telemetry.log_lines import searched_text

RAW_PART_BYTES = 192 << 10
MAX_RAW_BYTES = 1 << 20
MAX_ANSWER_RAW_BYTES = 4 << 20

T = TypeVar("T")
Search = Callable[[str], bool]


def match_record(record: LogRecord, question: LogQuestion, search: Search | None) -> bool:
    """Tell whether a line is one of those that are asked for; `search` looks for the question's `grep`."""
    if record.application != question.application:
        return False
    if question.component and record.component != question.component:
        return False
    if question.since is not None and record.at < question.since:
        return False
    if question.until is not None and record.at >= question.until:
        return False
    if question.level and LEVELS.index(record.level or "info") < LEVELS.index(question.level):
        return False
    return search is None or search(searched_text(record))


class Found(msgspec.Struct, frozen=True):
    """The newest lines that match, oldest first; `more` says that older ones were left out."""

    records: tuple[LogRecord, ...]
    more: bool


def find_newest(
    chunks: Iterable[Sequence[LogRecord]],
    question: LogQuestion,
    search: Search | None,
    *,
    enough: Callable[[], bool] = lambda: False,
) -> Found:
    """Return what answers a question, from chunks, each in order, of which one with newer lines comes first.

    No further chunk is looked at once `enough` says so; then older lines may have been left out.
    """
    found: list[LogRecord] = []
    more = False
    for chunk in chunks:
        if enough() or (more and chunk and chunk[-1].at < found[-1].at):
            more = True
            break
        found += [record for record in reversed(chunk) if match_record(record, question, search)]
        found.sort(
            key=lambda record: record.at, reverse=True
        )  # keeps the order of what was written at one time
        fitting = _fitting(found, question.limit)
        more = more or fitting < len(found)
        del found[fitting:]
    return Found(tuple(reversed(found)), more=more)


def _fitting(newest_first: Sequence[LogRecord], limit: int) -> int:
    """Return how many of the lines fit into an answer."""
    size = 0
    for number, record in enumerate(newest_first[:limit]):
        size += size_of(record)
        if size > MAX_ANSWER_RAW_BYTES:
            return number
    return min(limit, len(newest_first))


def size_of(record: LogRecord) -> int:
    """Return about how many bytes a record takes on the way."""
    fields = sum(len(name) + len(value) + 4 for name, value in record.fields.items())
    return 96 + 2 * len(record.message) + fields


def pack_records(records: Sequence[LogRecord]) -> list[bytes]:
    """Return the contents of parts of an answer; one that is empty when there is nothing to say."""
    parts: list[list[LogRecord]] = [[]]
    size = 0
    for record in records:
        size += size_of(record)
        if parts[-1] and size > RAW_PART_BYTES:
            parts.append([])
            size = size_of(record)
        parts[-1].append(record)
    return [zlib.compress(msgspec.msgpack.encode(part), 6) for part in parts]


def unpack_records(content: bytes) -> tuple[LogRecord, ...]:
    """Return the lines of a part.

    Raises:
        Rejected: they are none, or too many (`answer.malformed`).
    """
    return _unpack(content, _records)


def pack_crash(record: CrashRecord) -> bytes:
    """Return the content of a part of kind `crash`."""
    return zlib.compress(msgspec.msgpack.encode(record), 6)


def unpack_crash(content: bytes) -> CrashRecord:
    """Return what a part of kind `crash` says.

    Raises:
        Rejected: it says nothing of the kind (`answer.malformed`).
    """
    return _unpack(content, _crash)


_records = msgspec.msgpack.Decoder(tuple[LogRecord, ...])
_crash = msgspec.msgpack.Decoder(CrashRecord)


def _unpack(content: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    try:
        inflating = zlib.decompressobj()
        raw = inflating.decompress(content, MAX_RAW_BYTES)
        if inflating.unconsumed_tail or not inflating.eof:
            raise Rejected("answer.malformed", f"cut short, or more than {MAX_RAW_BYTES} bytes")
        return decoder.decode(raw)
    except (zlib.error, *UNREADABLE) as error:
        raise Rejected("answer.malformed", f"not what it says it is: {str(error)[:200]}") from error
