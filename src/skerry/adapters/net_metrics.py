"""NetMetrics: a metrics source on asyncio streams, one connection for each look.

The request is HTTP/1.0, so that the answer ends where the connection does; an answer in chunks all the same
(RFC 9112, 7.1) is put together. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import re

from skerry.kit.errors import Rejected, Unavailable

MAX_HEAD_BYTES = 16 << 10
ACCEPT = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"

_status_re = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_chunked_re = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r?\n", re.IGNORECASE)
_encoded_re = re.compile(rb"\ncontent-encoding:", re.IGNORECASE)
_path_re = re.compile(r"/[\x21-\x7e]*")


class NetMetrics:
    """A `MetricsSource` over plain HTTP."""

    async def fetch(self, host: str, port: int, path: str, *, timeout_s: float, max_bytes: int) -> bytes:
        """See `MetricsSource.fetch`."""
        if not _path_re.fullmatch(path):
            raise _unreachable(f"{path!r} is not a path")
        try:
            async with asyncio.timeout(timeout_s):
                return await _fetch(host, port, path, max_bytes)
        except TimeoutError as error:
            raise _unreachable(f"no answer within {timeout_s:g}s") from error
        except (OSError, OverflowError, UnicodeError, asyncio.IncompleteReadError) as error:
            raise _unreachable(str(error) or "the connection was closed") from error


async def _fetch(host: str, port: int, path: str, max_bytes: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
    try:
        name = f"[{host}]" if ":" in host else host
        request = (
            f"GET {path} HTTP/1.0\r\nHost: {name}:{port}\r\nUser-Agent: skerry-metrics\r\n"
            f"Accept: {ACCEPT}\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode())
        try:
            head = await reader.readuntil(b"\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise _unreachable("the answer's head is too long") from error
        status = _status_re.match(head)
        if status is None:
            raise _unreachable("the answer is not HTTP")
        if status[1] != b"200":
            raise _unreachable(f"HTTP {status[1].decode()} from {path}")
        if _encoded_re.search(head):
            raise _unreachable("the answer is compressed, which was not asked for")
        body = await _read(reader, max_bytes)
        return _joined(body) if _chunked_re.search(head) else body
    finally:
        # Not waited for: a peer that does not read must not hold this up.
        writer.close()


async def _read(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while block := await reader.read(64 << 10):
        body += block
        if len(body) > max_bytes:
            raise Rejected("metrics.too_large", f"more than {max_bytes} bytes of metrics")
    return bytes(body)


def _joined(body: bytes) -> bytes:
    """Return the content of chunks."""
    parts: list[bytes] = []
    place = 0
    while True:
        end = body.find(b"\n", place)
        try:
            size = int(body[place:end].split(b";")[0].strip() or b"x", 16) if end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0 or end + 1 + size > len(body):
            raise _unreachable("the answer was cut off")
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 1 : end + 1 + size])
        place = body.find(b"\n", end + 1 + size) + 1
        if place == 0:
            raise _unreachable("the answer was cut off")


def _unreachable(why: str) -> Unavailable:
    return Unavailable("metrics.unreachable", why)
