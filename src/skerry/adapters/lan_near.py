"""LanNear: asks the doors of other hosts, over HTTPS with pinned certificates. Standard library only.

Connections are kept for a while and used again; several hosts are asked at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Denied, Missing, SkerryError, Unavailable, Untrusted
from skerry.ports.sharing import Near, NearPlace
from skerry.spec.sharing import SharingAnswer, SharingQuestion

CONNECT_S = 1.5
ANSWER_S = 3.0
SILENT_S = 10.0
"""Longer than a door waits for a blob to grow."""
CHUNK_BYTES = 128 << 10
MAX_ANSWER_BYTES = 256 << 10
MAX_ASKED_AT_ONCE = 8
KEPT_OF_ONE = 2


class LanNear(Near):
    """Usable from any number of threads."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.check_hostname = False
        self._context.verify_mode = (
            ssl.CERT_NONE
        )  # the hash of the certificate says who it is, and nothing else
        self._turn = threading.Lock()
        self._kept: dict[NearPlace, list[_Connection]] = {}
        self._using: set[_Connection] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def ask(
        self, places: Mapping[str, NearPlace], question: SharingQuestion, *, token: str
    ) -> Mapping[str, SharingAnswer | SkerryError]:
        body = msgspec.json.encode(question)
        if len(places) == 1:
            return {host: self._ask(place, body, token) for host, place in places.items()}
        with self._turn:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(MAX_ASKED_AT_ONCE, thread_name_prefix="near")
        asked = {host: self._threads.submit(self._ask, place, body, token) for host, place in places.items()}
        return {host: answer.result() for host, answer in asked.items()}

    @contextlib.contextmanager
    def blob(
        self, place: NearPlace, digest: str, *, offset: int, size: int, token: str
    ) -> Generator[Iterator[bytes]]:
        headers = {"Range": f"bytes={offset}-"}
        with self._exchange(place, "GET", f"/v1/blobs/{digest}", headers, token=token) as (
            connection,
            answer,
        ):
            if answer.getheader("Content-Length") != str(size - offset):
                raise Untrusted("near.strange", f"{place.address} has a blob of that digest and another size")
            connection.limit(SILENT_S)
            yield _chunks(place, answer, size - offset)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            using, idle = list(self._using), [one for kept in self._kept.values() for one in kept]
            self._kept.clear()
        for connection in using:
            connection.cut()
        for connection in idle:
            connection.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, place: NearPlace, body: bytes, token: str) -> SharingAnswer | SkerryError:
        try:
            with self._exchange(place, "POST", "/v1/sharing", {}, token=token, body=body) as (_, answer):
                content = answer.read(MAX_ANSWER_BYTES)
                return msgspec.json.decode(content, type=SharingAnswer)
        except SkerryError as error:
            return error
        except UNREADABLE:
            return Untrusted("near.strange", f"{place.address} answers what is no answer")

    @contextlib.contextmanager
    def _exchange(
        self,
        place: NearPlace,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        token: str,
        body: bytes | None = None,
    ) -> Generator[tuple[_Connection, http.client.HTTPResponse]]:
        """Ask, and give the answer; a connection whose answer was read to its end is kept."""
        headers = {**headers, "Authorization": f"Bearer {token}"}
        connection, answer = self._request(place, method, path, headers, body)
        try:
            _check(place, answer.status)
            yield connection, answer
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            raise _failure(place, error) from error
        finally:
            good = answer.isclosed() and not answer.will_close
            answer.close()
            self._put_back(place, connection, good=good)

    def _request(
        self, place: NearPlace, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        for fresh in (False, True):
            connection = self._take(place, fresh=fresh)
            used = connection.sock is not None
            try:
                connection.limit(ANSWER_S)
                connection.request(method, path, body=body, headers=dict(headers))
                return connection, connection.getresponse()
            except (TimeoutError, OSError, http.client.HTTPException) as error:
                self._put_back(place, connection, good=False)
                # A kept connection may have been closed by the other side meanwhile: that is no failure.
                if not used:
                    raise Unavailable("near.unreachable", f"cannot reach {place.address}: {error}") from error
            except BaseException:
                self._put_back(place, connection, good=False)
                raise
        raise AssertionError("a fresh connection is not used")

    def _take(self, place: NearPlace, *, fresh: bool) -> _Connection:
        with self._turn:
            if self._closed:
                raise Unavailable("near.unreachable", "this host shares no more")
            kept = self._kept.get(place, [])
            connection = kept.pop() if kept and not fresh else _Connection(place, self._context)
            self._using.add(connection)
            return connection

    def _put_back(self, place: NearPlace, connection: _Connection, *, good: bool) -> None:
        with self._turn:
            self._using.discard(connection)
            kept = self._kept.setdefault(place, [])
            if good and not self._closed and len(kept) < KEPT_OF_ONE:
                kept.append(connection)
                return
            if not kept:
                del self._kept[place]
        connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to one place, whose certificate must have the hash that was pinned."""

    def __init__(self, place: NearPlace, context: ssl.SSLContext) -> None:
        host, _, port = place.address.rpartition(":")
        super().__init__(host.strip("[]") or "invalid", int(port or "0"), timeout=CONNECT_S)
        self._place, self._secure = place, context

    def connect(self) -> None:
        """Connect and check who is there."""
        super().connect()
        plain: socket.socket = self.sock
        encrypted = self._secure.wrap_socket(plain)
        self.sock = encrypted
        shown = encrypted.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), self._place.pin):
            self.close()
            raise Untrusted("near.strange", f"somebody else answers at {self._place.address}")
        self.limit(ANSWER_S)

    def limit(self, seconds: float) -> None:
        """Let nothing take longer than this from now on."""
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def cut(self) -> None:
        """End it under whoever reads."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def _chunks(place: NearPlace, answer: http.client.HTTPResponse, size: int) -> Iterator[bytes]:
    left = size
    while left:
        try:
            chunk = answer.read1(min(CHUNK_BYTES, left))
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            raise _failure(place, error) from error
        if not chunk:
            raise Unavailable("near.cut", f"{place.address} left after {size - left} of {size} bytes")
        left -= len(chunk)
        yield chunk


def _check(place: NearPlace, status: int) -> None:
    if status in (200, 206):
        return
    if status == 404:
        raise Missing("near.missing", f"{place.address} has nothing of it")
    if status in (401, 403):
        raise Denied("near.refused", f"{place.address} refuses this host")
    raise Unavailable("near.unreachable", f"{place.address} answers {status}")


def _failure(place: NearPlace, error: Exception) -> Unavailable:
    if isinstance(error, TimeoutError):
        return Unavailable("near.stalled", f"{place.address} sends nothing")
    return Unavailable("near.cut", f"{place.address} was cut off: {error}")
