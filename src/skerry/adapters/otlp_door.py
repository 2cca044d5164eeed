"""OtlpDoor: receives OTLP over HTTP/1.1 on the loopback address. Standard library only.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp: POST to a path that ends in `/v1/metrics`, protobuf or JSON,
perhaps gzip; the answer is an empty ExportMetricsServiceResponse of the same type. Other paths end in what else is
taken. The part of the path before that is the key of who pushes. Bodies need a length; so many connections at the most,
and nobody may be slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import Mapping

import structlog

from skerry.kit.errors import SkerryError, Unavailable, as_failure
from skerry.ports.push_door import Taken

_log = structlog.get_logger()

LOCAL = "127.0.0.1"
MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 4 << 20
IDLE_S = 120.0
REQUEST_S = 20.0
PROTOBUF, JSON = "application/x-protobuf", "application/json"

_request_re = re.compile(rb"POST /([A-Za-z0-9._~-]{1,128})/([a-z0-9/]{1,64}) HTTP/1\.[01]")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    503: "Service Unavailable",
}


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class OtlpDoor:
    """A `PushDoor`."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, port: int, taken: Mapping[str, Taken]) -> int:
        """See `PushDoor.open`."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                if len(self._connections) <= MAX_CONNECTIONS:
                    await _serve(reader, writer, taken)
            finally:
                self._connections.discard(task)
                writer.close()

        for wanted in dict.fromkeys((port, 0)):
            with contextlib.suppress(OSError):
                self._server = await asyncio.start_server(serve, LOCAL, wanted, limit=MAX_HEAD_BYTES)
                return int(self._server.sockets[0].getsockname()[1])
        raise Unavailable("otlp.unavailable", f"cannot listen at {LOCAL}")

    async def close(self) -> None:
        """See `PushDoor.close`."""
        if self._server is not None:
            self._server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            self._server = None


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, taken: Mapping[str, Taken]
) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        while True:
            async with asyncio.timeout(IDLE_S):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(REQUEST_S):
                status, kind = await _answer(reader, head, taken)
                lasting = status == 200 and b"connection: close" not in head.lower()
                body = b"{}" if kind == JSON else b""
                connection = "keep-alive" if lasting else "close"
                answer = (
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: {connection}\r\n\r\n"
                )
                writer.write(answer.encode() + body)
                await writer.drain()
            if not lasting:
                return


async def _answer(reader: asyncio.StreamReader, head: bytes, taken: Mapping[str, Taken]) -> tuple[int, str]:
    """Take a request and return the status and the type of the answer."""
    line, _, rest = head.partition(b"\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (one.partition(":") for one in rest.decode("latin-1").split("\r\n"))
    }
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    shown = kind if kind in (PROTOBUF, JSON) else JSON
    try:
        asked = _request_re.fullmatch(line)
        take = taken.get(asked[2].decode()) if asked is not None else None
        if asked is None or take is None:
            raise _Refused(404)
        if kind not in (PROTOBUF, JSON):
            raise _Refused(415)
        body = await _body(reader, headers)
        await asyncio.to_thread(take, asked[1].decode(), body, kind == JSON)
    except _Refused as refused:
        return refused.status, shown
    except Exception as caught:
        error = as_failure(caught)
        _log.info("otlp.refused", code=error.code, reason=str(error)[:200])
        return _status(error), shown
    return 200, shown


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdigit() or len(length) > 9:
        raise _Refused(411)
    if int(length) > MAX_BODY_BYTES:
        raise _Refused(413)
    body = await reader.readexactly(int(length))
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise _Refused(415)
    press = zlib.decompressobj(31)
    try:
        whole = press.decompress(body, MAX_BODY_BYTES)
    except zlib.error as error:
        raise _Refused(400) from error
    if not press.eof:
        raise _Refused(413)
    return whole


def _status(error: SkerryError) -> int:
    return error.http_status if error.http_status in _REASONS else 503
