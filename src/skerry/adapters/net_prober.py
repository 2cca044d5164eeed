"""Prober on asyncio streams: one connection for each probe, and no more read than the answer's first line.

The request is HTTP/1.1 with `Connection: close` (RFC 9112); redirects are not followed, as a status from
300 to 399 already says that somebody is at home.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket

_LINE_BYTES = 1024
_STATUS = "status "
_status_re = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_path_re = re.compile(r"/[\x21-\x7e]*")


class NetProber:
    """Probes over plain TCP and HTTP."""

    async def http(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """See `Prober.http`."""
        return await _request(host, port, f"GET {path}", timeout_s, range(200, 400))

    async def post(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """See `Prober.post`."""
        return await _request(host, port, f"POST {path}", timeout_s, range(200, 300))

    async def tcp(self, host: str, port: int, *, timeout_s: float) -> str | None:
        """See `Prober.tcp`."""
        return await _ask(host, port, b"", timeout_s)


async def _request(host: str, port: int, what: str, timeout_s: float, good: range) -> str | None:
    method, _, path = what.partition(" ")
    if not _path_re.fullmatch(path):
        return f"{path!r} is not a path"
    name = f"[{host}]" if ":" in host else host
    length = "" if method == "GET" else "Content-Length: 0\r\n"
    request = (
        f"{what} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: skerry-probe\r\n{length}"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    answer = await _ask(host, port, request.encode(), timeout_s)
    if answer is None or not answer.startswith(_STATUS):
        return answer
    status = answer.removeprefix(_STATUS)
    return None if int(status) in good else f"HTTP {status} from {path}"


async def _ask(host: str, port: int, request: bytes, timeout_s: float) -> str | None:
    """Return None when a connection was all that was asked, a status behind `_STATUS`, or what went wrong."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_LINE_BYTES)
            if not request:
                return None
            writer.write(request)
            return _read_status(await _first_line(reader))
    except TimeoutError:
        return f"no answer within {timeout_s:g}s"
    except (OSError, OverflowError, UnicodeError) as error:
        return _explain(error)
    finally:
        if writer is not None:
            # Not waited for: a peer that does not read must not hold the probe up.
            writer.close()


async def _first_line(reader: asyncio.StreamReader) -> bytes | None:
    """Return the first line, what came of it before the end, or None when it is too long."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        return None


def _read_status(line: bytes | None) -> str:
    if line == b"":
        return "connection closed without an answer"
    found = _status_re.fullmatch(line or b"")
    if found is None:
        return "the answer is not HTTP"
    return _STATUS + found[1].decode()


def _explain(error: OSError | OverflowError | UnicodeError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection closed without an answer"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "the host's name is not known"
    if isinstance(error, OverflowError):
        return "no such port"
    number = errno.errorcode.get(error.errno or 0, "error")
    return f"connection failed: {error.strerror or number}"
