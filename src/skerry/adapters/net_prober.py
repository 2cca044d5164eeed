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
_status_re = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_path_re = re.compile(r"/[\x21-\x7e]*")


class NetProber:
    """Probes over plain TCP and HTTP."""

    async def http(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """See `Prober.http`."""
        if not _path_re.fullmatch(path):
            return f"{path!r} is not a path"
        name = f"[{host}]" if ":" in host else host
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: skerry-probe\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        )
        return await _ask(host, port, request.encode(), path, timeout_s)

    async def tcp(self, host: str, port: int, *, timeout_s: float) -> str | None:
        """See `Prober.tcp`."""
        return await _ask(host, port, b"", "", timeout_s)


async def _ask(host: str, port: int, request: bytes, path: str, timeout_s: float) -> str | None:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_LINE_BYTES)
            if not request:
                return None
            writer.write(request)
            return _judge(await _first_line(reader), path)
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


def _judge(line: bytes | None, path: str) -> str | None:
    if line == b"":
        return "connection closed without an answer"
    found = _status_re.fullmatch(line or b"")
    if found is None:
        return "the answer is not HTTP"
    status = int(found[1])
    return None if 200 <= status <= 399 else f"HTTP {status} from {path}"


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
