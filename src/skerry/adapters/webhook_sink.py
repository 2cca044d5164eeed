"""SinkTarget by HTTP: each batch is one POST of JSON, signed with HMAC-SHA256 (RFC 2104) where there is a secret.

A connection for each batch, by asyncio alone: the time limit covers all of it, from the look-up of the name to the
status, of which no more than 16 KiB are read. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from skerry.adapters.sink_files import read_sink_secret
from skerry.kit.errors import Rejected, Unavailable
from skerry.kit.quantities import parse_duration
from skerry.ports.clock import Clock
from skerry.ports.sink import SinkTarget
from skerry.spec.api_topics import TopicMessageView
from skerry.spec.sink import WebhookSpec

MAX_LINE_BYTES = 16 << 10
MAX_HEADERS = 100
_LATER = frozenset({408, 425, 429})


class WebhookSink(SinkTarget):
    """One URL."""

    def __init__(self, name: str, spec: WebhookSpec, folder: Path, clock: Clock) -> None:
        self._name = name
        self._spec = spec
        self._folder = folder
        self._clock = clock
        self._limit_s = parse_duration(spec.timeout)
        self._url = urlsplit(spec.url)

    async def deliver(self, messages: Sequence[TopicMessageView]) -> None:
        body = msgspec.json.encode({"sink": self._name, "messages": messages})
        head = await asyncio.to_thread(self._head, body)
        place = self._url.netloc
        try:
            async with asyncio.timeout(self._limit_s):
                status = await self._post(head + body)
        except TimeoutError:
            raise Unavailable(
                "sink.unreachable", f"{place} does not answer within {self._limit_s:g} s"
            ) from None
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            told = str(error) or type(error).__name__
            raise Unavailable("sink.unreachable", f"{place}: {told}") from error
        if status >= 500 or status in _LATER:
            raise Unavailable("sink.busy", f"{place} answers {status}")
        if not 200 <= status < 300:
            raise Rejected("sink.refused", f"{place} answers {status}")

    async def close(self) -> None:
        pass

    def _head(self, body: bytes) -> bytes:
        path = self._url.path or "/"
        lines = [
            f"POST {path}{'?' + self._url.query if self._url.query else ''} HTTP/1.1",
            f"Host: {self._url.netloc}",
            "User-Agent: skerry",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if self._spec.secret_file is not None:
            at = str(int(self._clock.now().timestamp()))
            secret = read_sink_secret(self._folder, self._spec.secret_file)
            lines += [f"Skerry-Timestamp: {at}", f"Skerry-Signature: {sign(secret, at, body)}"]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _post(self, request: bytes) -> int:
        secure = self._url.scheme == "https"
        reader, writer = await asyncio.open_connection(
            self._url.hostname,
            self._url.port or (443 if secure else 80),
            ssl=await asyncio.to_thread(ssl.create_default_context) if secure else None,
            limit=MAX_LINE_BYTES,
        )
        try:
            writer.write(request)
            # One that refuses may answer before it has read all.
            await writer.drain()
            return await _final_status(reader)
        finally:
            writer.close()


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return what `Skerry-Signature` says of a body that is sent at a time."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


async def _final_status(reader: asyncio.StreamReader) -> int:
    """Return the status of the answer, without those that only announce it (RFC 9110, 15.2)."""
    for _ in range(MAX_HEADERS):
        words = (await reader.readuntil(b"\r\n")).split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].strip().isdigit():
            raise ValueError("the answer is not HTTP")
        status = int(words[1])
        if status >= 200:
            return status
        for _ in range(MAX_HEADERS):
            if await reader.readuntil(b"\r\n") == b"\r\n":
                break
    raise ValueError("the answer does not end")
