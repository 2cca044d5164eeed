"""Reads what a container wrote after a mark: the time of the last line that was read, in nanoseconds of the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from skerry.adapters.docker_execute import payloads
from skerry.adapters.engine_api import Answer, EngineApi, part
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import Output

READ_LIMIT_S = 30.0

_stamped = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d)) (.*)", re.DOTALL
)
_epoch = datetime(1970, 1, 1, tzinfo=UTC)


def read_output(api: EngineApi, container: str, mark: str, limit: int) -> Output:
    """Return the lines that were written after a mark.

    Raises:
        Unavailable: the engine does not answer (`runtime.engine_failed`, `runtime.engine_away`).
    """
    after = int(mark) if mark.isdigit() else 0
    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "since": str(after // 10**9)}
    read, more = bytearray(), False
    path = f"/containers/{part(container)}/logs"
    with api.request("GET", path, query=query, timeout_s=READ_LIMIT_S) as stream:
        if stream.status != 200:
            said = Answer(stream.status, stream.read_all(1 << 16))
            if said.status == 404:
                return Output((), mark)
            raise Unavailable("runtime.engine_failed", f"cannot read the log: {said.message}")
        for piece in payloads(stream.chunks()):
            read += piece
            # What was read before is in the same second, and told again.
            if len(read) > 2 * limit + (1 << 20):
                more = True
                break
    lines = bytes(read).splitlines(keepends=True)
    if more and len(lines) > 1:
        lines.pop()  # it may have been cut
    return _after(lines, after, mark, limit, more=more)


def _after(lines: list[bytes], after: int, mark: str, limit: int, *, more: bool) -> Output:
    """Return those of the lines that are newer; what has no time belongs to the line before it."""
    pieces: list[tuple[datetime | None, bytes]] = []
    newest, size, taking = after, 0, False
    for line in lines:
        found = _stamped.fullmatch(line)
        if found is None:
            if taking:
                pieces.append((pieces[-1][0] if pieces else None, line))
            continue
        written = _nanoseconds(found)
        taking = written > after
        if not taking:
            continue
        if size >= limit and written > newest:
            return Output(tuple(pieces), str(newest), more=True)
        newest, size = max(newest, written), size + len(found[11])
        pieces.append((_epoch + timedelta(microseconds=written // 1000), found[11]))
    return Output(tuple(pieces), str(newest) if newest else mark, more=more)


def _nanoseconds(found: re.Match[bytes]) -> int:
    year, month, day, hour, minute, second = (int(found[group]) for group in range(1, 7))
    at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    offset = (int(found[9]) * 60 + int(found[10])) * 60 if found[8] else 0
    seconds = round((at - _epoch).total_seconds()) - (-offset if found[8] == b"-" else offset)
    return seconds * 10**9 + int((found[7] or b"0").ljust(9, b"0"))
