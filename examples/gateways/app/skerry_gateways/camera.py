"""Cameras: the newest picture over HTTP, and on the bus a message about it and the picture itself.

A stream over HTTP in parts (`multipart/x-mixed-replace`) and single pictures are read as they are; everything else,
such as RTSP, a device or a video, is decoded by ffmpeg. `/frame.jpg` is the newest picture, or 503 where the newest is
older than `STALE_S`; the message names its number, time, size and digest, so that who fetches it knows what it has.
The picture comes as the same message with its JPEG, in base64; nobody waits for a lost one, the next is newer. One of
more than `MAX_PICTURE_BYTES` is not sent: brokers take 256 KiB in a message.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import logging
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from skerry_gateways.binding import Binding
from skerry_gateways.bus import Bus
from skerry_gateways.points import instant
from skerry_gateways.standing import Standing
from skerry_gateways.web import Page, Pages

MAX_FRAME_BYTES = 16 << 20
TIMEOUT_S = 10.0
STALE_S = 10.0
MAX_PICTURE_BYTES = 180 << 10
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_log = logging.getLogger("gateway.camera")


class FrameCutter:
    """Cuts pictures out of a stream of JPEGs: from their first marker to their last one."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the pictures that are whole now. A picture larger than `MAX_FRAME_BYTES` is dropped."""
        self._held += data
        while True:
            begin = self._held.find(_BEGIN)
            if begin < 0:
                del self._held[:-1]  # half a marker may be there
                return
            end = self._held.find(_END, begin + 2)
            if end < 0:
                del self._held[:begin]
                if len(self._held) > MAX_FRAME_BYTES:
                    self._held.clear()
                return
            yield bytes(self._held[begin : end + 2])
            del self._held[: end + 2]


class CameraGateway:
    """One camera."""

    kind = "camera"

    def __init__(self, binding: Binding, bus: Bus, standing: Standing, *, period_s: float) -> None:
        self._binding = binding
        self._bus = bus
        self._standing = standing
        self._period_s = period_s
        self._frame = b""
        self._taken = 0.0
        self._sequence = 0

    @property
    def pages(self) -> Pages:
        """What it answers over HTTP beside health and metrics."""
        return {"/frame.jpg": self._newest}

    async def run_once(self) -> None:
        """Take pictures until the stream ends.

        Raises:
            OSError, TimeoutError: it broke, or could not be had.
        """
        url = self._binding.text("url")
        if url.startswith("http"):
            answer = await asyncio.to_thread(self._open, url)
            try:
                kind = answer.headers.get_content_type()
                if kind == "image/jpeg":
                    await self._poll(url)
                if kind.startswith("multipart/"):
                    await self._follow(_parts_of(answer))
                    raise ConnectionError("the stream has ended")
            finally:
                await asyncio.to_thread(answer.close)
        await self._follow(self._decoded(url or self._binding.text("device")))
        raise ConnectionError("the stream has ended")

    def gone(self) -> None:
        """Say that there is no new picture."""
        message = {"sequence": self._sequence, "quality": "bad", "gateway_time": instant(datetime.now(UTC))}
        self._bus.publish("frame", json.dumps(message).encode())

    def _newest(self) -> Page:
        if not self._frame or time.monotonic() - self._taken > STALE_S:
            return Page(503, "text/plain", b"no picture of the last seconds\n")
        return Page(200, "image/jpeg", self._frame)

    def _take(self, frame: bytes) -> None:
        now = datetime.now(UTC)
        self._frame, self._taken = frame, time.monotonic()
        self._sequence += 1
        self._standing.source = True
        message = {
            "sequence": self._sequence,
            "quality": "good",
            "source_time": instant(now),
            "gateway_time": instant(now),
            "size_bytes": len(frame),
            "sha256": hashlib.sha256(frame).hexdigest(),
            "path": "/frame.jpg",
        }
        self._bus.publish("frame", json.dumps(message).encode())
        if len(frame) > MAX_PICTURE_BYTES:
            self._standing.counts["dropped"] += 1
            return
        whole = {**message, "jpeg": base64.b64encode(frame).decode()}
        self._bus.publish("picture", json.dumps(whole).encode(), qos=0, retain=False)

    async def _follow(self, stream: AsyncIterator[bytes]) -> None:
        cutter, due = FrameCutter(), 0.0
        async for data in stream:
            for frame in cutter.feed(data):
                if time.monotonic() >= due:
                    due = time.monotonic() + self._period_s
                    self._take(frame)

    async def _poll(self, url: str) -> None:
        while True:
            self._take(await asyncio.to_thread(self._fetch, url))
            await asyncio.sleep(self._period_s)

    def _request(self, url: str) -> urllib.request.Request:
        request = urllib.request.Request(url)
        if username := self._binding.text("username"):
            credentials = f"{username}:{self._binding.secret('password')}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(credentials).decode()}")
        return request

    def _open(self, url: str) -> http.client.HTTPResponse:
        answer: http.client.HTTPResponse = urllib.request.urlopen(self._request(url), timeout=TIMEOUT_S)
        return answer

    def _fetch(self, url: str) -> bytes:
        with self._open(url) as answer:
            frame = answer.read(MAX_FRAME_BYTES + 1)
        if len(frame) > MAX_FRAME_BYTES or not frame.startswith(_BEGIN):
            raise ConnectionError("the camera gives no JPEG")
        return frame

    async def _decoded(self, source: str) -> AsyncIterator[bytes]:
        process = await asyncio.create_subprocess_exec(
            *ffmpeg_command(source, self._period_s, listed=bool(self._binding.text("username"))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            if username := self._binding.text("username"):
                process.stdin.write(listing_of(source, username, self._binding.secret("password")))
            process.stdin.close()
            while True:
                async with asyncio.timeout(max(TIMEOUT_S, 3 * self._period_s)):
                    data = await process.stdout.read(1 << 16)
                if not data:
                    return
                yield data
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _parts_of(answer: http.client.HTTPResponse) -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(answer.read1, 1 << 16):
        yield data


def ffmpeg_command(source: str, period_s: float, *, listed: bool) -> list[str]:
    """Return how ffmpeg is called.

    Where the source is `listed` it comes over standard input: it names a password, and arguments can be read by
    everybody on the host.
    """
    command = ["ffmpeg", "-nostdin", "-loglevel", "error"]
    if source.startswith("rtsp") and not listed:
        command += ["-rtsp_transport", "tcp"]
    if listed:
        allowed = "pipe,http,https,tcp,tls,rtsp,rtsps,rtp,udp,crypto"
        command += ["-f", "concat", "-safe", "0", "-protocol_whitelist", allowed, "-i", "pipe:0"]
    else:
        command += ["-i", source]
    rate = f"fps={1 / max(period_s, 0.02):.3f}"
    return [*command, "-an", "-vf", rate, "-f", "image2pipe", "-c:v", "mjpeg", "-q:v", "4", "pipe:1"]


def listing_of(url: str, username: str, password: str) -> bytes:
    """Return the list that ffmpeg reads an address with who gets in from, each part quoted."""
    parts = urlsplit(url)
    netloc = f"{quote(username, safe='')}:{quote(password, safe='')}@{parts.netloc}"
    address = parts._replace(netloc=netloc).geturl().replace("'", "%27")
    option = "option rtsp_transport tcp\n" if url.startswith("rtsp") else ""
    return f"ffconcat version 1.0\nfile '{address}'\n{option}".encode()
