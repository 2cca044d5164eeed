"""Reads what a container wrote after a mark: the time of the last piece, and how many of that time were read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from skerry.adapters.engine_api import Answer, EngineApi, part
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import Output

READ_LIMIT_S = 30.0
HEADER_BYTES = 8
MAX_FRAME_BYTES = 4 << 20

_stamped = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d)) (.*)", re.DOTALL
)
_epoch = datetime(1970, 1, 1, tzinfo=UTC)


class _Mark(msgspec.Struct, frozen=True):
    """How far a container was read: the time of the last piece, and how many pieces of that time were read.

    Podman tells whole seconds alone, in which much more may be written later.
    """

    container: str
    written: int = 0
    count: int = 0

    @classmethod
    def parse(cls, text: str, container: str) -> _Mark:
        """Return a mark of this container; the beginning where it is of another one, whose output has gone."""
        named, _, rest = text.partition(".")
        written, _, count = rest.partition(".")
        if named != container or not (written.isdigit() and count.isdigit()):
            return cls(container)
        return cls(container, int(written), int(count))

    def __str__(self) -> str:
        return f"{self.container}.{self.written}.{self.count}"


def read_output(api: EngineApi, container: str, mark: str, limit: int) -> Output:
    """Return the pieces that were written after a mark.

    Raises:
        Unavailable: the engine does not answer (`runtime.engine_failed`, `runtime.engine_away`).
    """
    begun = _Mark.parse(mark, container)
    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "since": str(begun.written // 10**9)}
    path = f"/containers/{part(container)}/logs"
    with api.request("GET", path, query=query, timeout_s=READ_LIMIT_S) as stream:
        if stream.status != 200:
            said = Answer(stream.status, stream.read_all(1 << 16))
            if said.status == 404:
                return Output((), mark)
            raise Unavailable("runtime.engine_failed", f"cannot read the log: {said.message}")
        return _after(begun, _frames(stream.chunks()), limit)


def _after(begun: _Mark, frames: Iterable[bytes], limit: int) -> Output:
    """Return those of the pieces that come after a mark; what has no time belongs to the piece before it."""
    pieces: list[tuple[datetime | None, bytes]] = []
    newest, count, skip, size = begun.written, begun.count, begun.count, 0
    for frame in frames:
        found = _stamped.fullmatch(frame)
        if found is None:
            if pieces:
                pieces.append((pieces[-1][0], frame))
            continue
        written = _nanoseconds(found)
        if written < begun.written:
            continue
        if written == begun.written and skip:
            skip -= 1
            continue
        if size >= limit:
            return Output(tuple(pieces), str(_Mark(begun.container, newest, count)), more=True)
        count = count + 1 if written == newest else 1
        newest, size = max(newest, written), size + len(found[11])
        pieces.append((_epoch + timedelta(microseconds=written // 1000), found[11]))
    return Output(tuple(pieces), str(_Mark(begun.container, newest, count)))


def _frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what was written, each piece as the engine keeps it: a line, or a part of a long one, after its time.

    A long line is kept in parts, each with a time of its own and no end of line, so that only frames tell them apart.
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= HEADER_BYTES:
            size = int.from_bytes(held[4:HEADER_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise Unavailable("runtime.engine_failed", f"cannot read the log: a piece of {size} bytes")
            if len(held) < HEADER_BYTES + size:
                break
            yield bytes(held[HEADER_BYTES : HEADER_BYTES + size])
            del held[: HEADER_BYTES + size]


def _nanoseconds(found: re.Match[bytes]) -> int:
    year, month, day, hour, minute, second = (int(found[group]) for group in range(1, 7))
    at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    offset = (int(found[9]) * 60 + int(found[10])) * 60 if found[8] else 0
    seconds = round((at - _epoch).total_seconds()) - (-offset if found[8] == b"-" else offset)
    return seconds * 10**9 + int((found[7] or b"0").ljust(9, b"0"))
