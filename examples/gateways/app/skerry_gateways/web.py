"""What a gateway answers over HTTP: `/healthz` (it works), `/readyz` (both sides answer), `/metrics`, its own pages.

Rules: GET alone, requests of 8 KiB at most, `MAX_OPEN` connections at a time, each for `LIMIT_S` at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from skerry_gateways.standing import Standing

MAX_OPEN = 32
LIMIT_S = 10.0


class Page(NamedTuple):
    """An answer."""

    status: int
    kind: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]


async def serve(standing: Standing, port: int, pages: Pages | None = None) -> asyncio.Server:
    """Answer on a port of all addresses until the server is closed."""
    known: dict[str, Callable[[], Page]] = {
        "/healthz": lambda: Page(200, "text/plain", b"ok\n"),
        "/readyz": lambda: _ready(standing.trouble),
        "/metrics": lambda: Page(200, "text/plain; version=0.0.4", standing.metrics().encode()),
        **(pages or {}),
    }
    room = asyncio.Semaphore(MAX_OPEN)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            async with asyncio.timeout(LIMIT_S), room:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, _, rest = head.partition(" ")
                path = rest.partition(" ")[0].partition("?")[0]
                page = known[path]() if path in known else Page(404, "text/plain", b"no such page\n")
                if method != "GET":
                    page = Page(405, "text/plain", b"GET alone\n")
                writer.write(
                    f"HTTP/1.1 {page.status} -\r\nContent-Type: {page.kind}\r\nContent-Length: {len(page.body)}\r\n"
                    "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                    + page.body
                )
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "0.0.0.0", port, limit=8192)


def _ready(trouble: str) -> Page:
    return Page(503 if trouble else 200, "text/plain", f"{trouble or 'ok'}\n".encode())
