"""The way up: urllib3 over TLS to a hub or relay. Blocking; used in worker threads.

The upstream's certificate must chain to the pinned CA and name the host that was dialled. Its dates are not
checked: a device whose clock stands at 1970 must still be able to learn the time. What counts is signed anyway
(see the decision record on TLS and wrong clocks).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import urllib3
from urllib3.connection import HTTPSConnection

from skerry.carrier.dialling import (
    Dialling,
    open_pool,
    proxy_for,
    unverified_context,
    upstream_context,
)
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Denied, Missing, Rejected, SkerryError, Unauthenticated, Unavailable, Untrusted
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
    TrustRoot,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest
from skerry.spec.problem_details import error_of

BODY_TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 8 << 20
CHUNK_BYTES = 256 << 10
PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}
"""In seconds, and how many: a connection that is gone is found out within a bit more than a minute and a half."""
MIN_CHUNK_BYTES = 256
HEAD_BYTES = 1024
"""What the heads of a request and its answer take, roughly; bodies are counted exactly."""
_RECEIVE_BYTES = tuple(1 << power for power in range(13, 22))
"""Receive buffers for slow readers: what the upstream may send ahead of being read crosses the link at full speed."""
_WAITS = -1
"""Key of the connections of calls that wait for news, so that these can be cut alone."""

T = TypeVar("T")


class HttpLink:
    """A `Link` over HTTPS."""

    def __init__(
        self,
        url: str,
        ca_pem: str,
        *,
        dialling: Dialling | None = None,
        body_limit_s: float = BODY_TIMEOUT_S,
    ) -> None:
        """Dial nothing as yet.

        Raises:
            Rejected: the address is none of HTTPS (`link.bad_address`), or what it is dialled by is wrong.
            Untrusted: there is no usable CA (`trust_root.bad_ca`).
        """
        self._dialling = dialling or Dialling()
        self._host, self._port, self._prefix = parse_upstream(url)
        self._proxy = proxy_for(self._host, self._port, self._dialling, os.environ)
        self._body_limit_s = body_limit_s
        self._connections: set[HTTPSConnection] = set()
        self._waiting: set[HTTPSConnection] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.on_traffic: Callable[[int], None] = lambda _: None
        self._context = upstream_context(ca_pem, self._dialling.ca_pem)
        self._pools: dict[int, urllib3.HTTPSConnectionPool] = {}
        self._pool = self._pool_for(None)

    @property
    def proxy(self) -> str:
        """The proxy it dials by, without name and password; empty when it dials straight."""
        return self._proxy.url if self._proxy else ""

    def reach(self) -> None:
        """Find out whether the upstream answers and is the one it should be."""
        response = self._request("GET", "/v1/trust-root")
        try:
            body = _read_bounded(response, self._body_limit_s)
        finally:
            response.release_conn()
        self.on_traffic(len(body) + HEAD_BYTES)
        if response.status >= 500:
            raise _error_of(response, body)

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Ask to belong to a site."""
        return self._exchange("/v1/enroll", request, EnrollAnswer)

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Ask that new keys take the place of the old ones."""
        return self._exchange("/v1/keys", request, KeyChangeAnswer)

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Hand over reports and wait up to `request.wait_s` for news."""
        return self._exchange("/v1/sync", request, SyncAnswer, wait_s=request.wait_s)

    def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Ask to be the relay that a token names."""
        return self._exchange("/v1/enroll-relay", request, RelayEnrollAnswer)

    def carry(self, request: CarryRequest) -> CarryAnswer:
        """Hand over what is below a relay and wait up to `request.wait_s` for news."""
        return self._exchange("/v1/carry", request, CarryAnswer, wait_s=request.wait_s)

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Ask which deltas there are."""
        try:
            return self._exchange("/v1/deltas", request, DeltaAnswer, token=token)
        except Missing:
            return DeltaAnswer()

    def metadata(self, name: str, *, token: str, max_bytes: int) -> bytes | None:
        """Return a file of signed metadata, None when there is none of that name."""
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        response = self._request("GET", f"/v1/metadata/{quote(name, '')}", headers=headers)
        try:
            body = _read_bounded(response, self._body_limit_s, max_bytes)
        finally:
            response.release_conn()
        self.on_traffic(len(body) + HEAD_BYTES)
        if response.status == 404:
            return None
        if response.status != 200:
            raise _error_of(response, body)
        return body

    def blob_size(self, digest: str, *, token: str) -> int | None:
        """Return how long a blob is, None when there is none of that digest."""
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        response = self._request("HEAD", f"/v1/blobs/{digest}", headers=headers)
        response.release_conn()
        self.on_traffic(HEAD_BYTES)
        length = response.headers.get("content-length", "")
        if response.status == 200 and length.isdecimal() and len(length) < 19:
            return int(length)
        if response.status == 404:
            return None
        # The answer to HEAD has no body that would say why.
        families: dict[int, type[SkerryError]] = {401: Unauthenticated, 403: Denied}
        family = families.get(response.status, Unavailable)
        raise family("link.no_size", f"the upstream answered HTTP {response.status} to HEAD of a blob")

    @contextlib.contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        """Open a blob from a byte on. A cut in the middle is raised from the iterator as `Unavailable`."""
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        if offset or limit is not None:
            headers["Range"] = f"bytes={offset}-{'' if limit is None else offset + limit - 1}"
        pool = self._pool_for(rate)
        response = self._request("GET", f"/v1/blobs/{digest}", headers=headers, pool=pool)
        self.on_traffic(HEAD_BYTES)
        try:
            if response.status == 416:
                yield iter(())
            elif response.status not in (200, 206):
                raise _error_of(response, _read_bounded(response, self._body_limit_s))
            else:
                # An upstream that ignores Range sends all; skip what is held already.
                skip = offset if response.status == 200 else 0
                yield _chunks(response, skip, limit, _chunk_bytes(rate))
        finally:
            response.close()
            response.release_conn()

    def close(self) -> None:
        """Cut all connections; a call that waits for an answer ends with `Unavailable`."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for connection in connections:
            _cut(connection)
        for pool in list(self._pools.values()):
            pool.close()

    def cut_waits(self) -> None:
        """Cut the connections of calls that wait for news; they end with `Unavailable`."""
        with self._lock:
            connections = list(self._waiting)
        for connection in connections:
            _cut(connection)

    def _exchange(
        self, path: str, message: msgspec.Struct, answer: type[T], *, wait_s: float = 0.0, token: str = ""
    ) -> T:
        sent = msgspec.json.encode(message)
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        pool = self._pool_for(None, waits=True) if wait_s > 0 else None
        response = self._request("POST", path, sent, headers=headers, wait_s=wait_s, pool=pool)
        try:
            body = _read_bounded(response, self._body_limit_s)
        finally:
            response.release_conn()
        self.on_traffic(len(sent) + len(body) + HEAD_BYTES)
        if response.status != 200:
            raise _error_of(response, body)
        try:
            return msgspec.json.decode(body, type=answer)
        except UNREADABLE as error:
            raise Unavailable(
                "link.strange_answer", f"the upstream's answer is no {answer.__name__}"
            ) from error

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        wait_s: float = 0.0,
        pool: urllib3.HTTPSConnectionPool | None = None,
    ) -> urllib3.BaseHTTPResponse:
        if self._closed:
            raise Unavailable("link.closed", "the link is closed")
        timeout = urllib3.Timeout(connect=self._dialling.connect_s, read=wait_s + self._dialling.answer_s)
        try:
            return (pool or self._pool).urlopen(
                method,
                self._prefix + path,
                body=body,
                headers=headers,
                timeout=timeout,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, AttributeError) as error:
            # AttributeError: urllib3 meets a socket that `close` has just taken away.
            if isinstance(_root_of(error), ssl.SSLCertVerificationError):
                message = f"the upstream at {self._host} is not trusted: {_reason(error)}"
                raise Untrusted("link.tls", message) from error
            by = f" by the proxy {self._proxy.url}" if self._proxy else ""
            message = f"cannot reach {self._host}:{self._port}{by}: {_reason(error)}"
            raise Unavailable("link.unreachable", message) from error

    def _pool_for(self, rate: int | None, *, waits: bool = False) -> urllib3.HTTPSConnectionPool:
        """Return the connections for a reader of that rate: their receive buffer holds about a second of it."""
        size = next((size for size in _RECEIVE_BYTES if size >= (rate or 0)), 0) if rate else 0
        key = _WAITS if waits else size
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                options = [
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                    *_probes(),
                ]  # the first as urllib3 does
                if size:
                    # Set before it connects: it bounds the window from the first byte.
                    options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, size))
                address, more = (self._host, self._port), self._dialling.ca_pem
                pool = open_pool(address, self._context, self._proxy, options=options, more_ca_pem=more)
                pool.ConnectionCls = self._connection_class(waits=waits)  # pyright: ignore[reportAttributeAccessIssue]
                self._pools[key] = pool
            return pool

    def _connection_class(self, *, waits: bool) -> type[HTTPSConnection]:
        link = self

        class TrackedConnection(HTTPSConnection):
            """Known to the link while it is open, so that `close` can cut it."""

            def connect(self) -> None:
                super().connect()
                with link._lock:
                    link._connections.add(self)
                    if waits:
                        link._waiting.add(self)
                if link._closed:
                    # `close` came while we connected and could not see us.
                    self.close()
                    raise OSError("the link is closed")

            def close(self) -> None:
                with link._lock:
                    link._connections.discard(self)
                    link._waiting.discard(self)
                super().close()

        return TrackedConnection


def parse_upstream(url: str) -> tuple[str, int, str]:
    """Return host, port and path of an upstream's address; the host of an IPv6 address is without brackets.

    Raises:
        Rejected: it is none of HTTPS (`link.bad_address`).
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        parts, host, port = urlsplit(""), "", 0
    if parts.scheme != "https" or not host or "@" in parts.netloc:
        raise Rejected("link.bad_address", f"not an https address: {_without_secrets(url)!r}")
    return host, port, parts.path.rstrip("/")


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)[:200]


def _probes() -> list[tuple[int, int, int]]:
    """Return the options by which the kernel finds out, while we wait for news, that the other end knows of us no more.

    A firewall that forgets a connection, or cuts it, tells nobody who is silent.
    """
    found = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in PROBES.items():
        if (option := getattr(socket, name, None)) is not None:
            found.append((socket.IPPROTO_TCP, option, value))
    return found


def fetch_trust_root(
    url: str, root_digest: str, *, dialling: Dialling | None = None, body_limit_s: float = BODY_TIMEOUT_S
) -> tuple[TrustRoot, bytes]:
    """Fetch the trust root from a hub or relay and check it against the digest that a join token pins.

    The connection itself is not trusted (nothing is yet); only the digest counts.

    Raises:
        Untrusted: the document has another digest (`trust_root.mismatch`).
        Unavailable: the upstream cannot be reached.
    """
    dialling = dialling or Dialling()
    host, port, prefix = parse_upstream(url)
    proxy = proxy_for(host, port, dialling, os.environ)
    timeout = urllib3.Timeout(connect=dialling.connect_s, read=dialling.answer_s)
    pool = open_pool((host, port), unverified_context(), proxy, more_ca_pem=dialling.ca_pem)
    try:
        with warnings.catch_warnings():
            # Unverified on purpose: nobody who joins a host should be told that this is dangerous.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            response = pool.urlopen(
                "GET",
                f"{prefix}/v1/trust-root?digest={root_digest}",
                timeout=timeout,
                preload_content=False,
            )
        body = _read_bounded(response, body_limit_s)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        by = f" by the proxy {proxy.url}" if proxy else ""
        raise Unavailable("link.unreachable", f"cannot reach {url}{by}: {_reason(error)}") from error
    finally:
        pool.close()
    if "sha256:" + hashlib.sha256(body).hexdigest() != root_digest:
        message = f"{url} shows another root of trust than the one that was stated"
        hint = "somebody may be in between, or the hub was made anew: ask for a new token"
        raise Untrusted("trust_root.mismatch", message, hint=hint)
    try:
        return msgspec.json.decode(body, type=TrustRoot), body
    except UNREADABLE as error:
        raise Untrusted("trust_root.malformed", "the trust root is not readable by this version") from error


def _read_bounded(
    response: urllib3.BaseHTTPResponse, limit_s: float, max_bytes: int = MAX_ANSWER_BYTES
) -> bytes:
    """Return a body of bounded length and time: the socket's own limit begins anew with every byte."""
    body, until = bytearray(), time.monotonic() + limit_s
    try:
        while chunk := response.read1(CHUNK_BYTES):
            body += chunk
            if len(body) > max_bytes:
                response.close()
                raise Unavailable("link.strange_answer", f"the answer has more than {max_bytes} bytes")
            if time.monotonic() > until:
                response.close()
                raise Unavailable("link.slow_answer", f"the answer did not arrive within {limit_s:g} s")
    except (urllib3.exceptions.HTTPError, OSError, AttributeError) as error:
        raise Unavailable("link.cut", f"the answer did not arrive whole: {_reason(error)}") from error
    return bytes(body)


def _cut(connection: HTTPSConnection) -> None:
    # In TLS to a proxy there is another TLS, and that has no end to shut.
    sock = getattr(connection.sock, "socket", connection.sock)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _error_of(response: urllib3.BaseHTTPResponse, body: bytes) -> SkerryError:
    error = error_of(body)
    if error is None and response.status == 429:
        error = Unavailable("rate.limited", "the upstream asks to come again later")
    if error is None:
        message = f"the upstream answered HTTP {response.status} without a problem document"
        error = Unavailable("link.strange_answer", message)
    wait_s = _asked_wait_s(response) if response.status in (429, 503) else None
    if wait_s is not None and "retry_after_s" not in error.facts:
        error.facts = {**error.facts, "retry_after_s": wait_s}
    return error


def _asked_wait_s(response: urllib3.BaseHTTPResponse) -> float | None:
    """Return how long `Retry-After` asks to wait (RFC 9110, 10.2.3); None when it is not there or no such thing."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isdecimal() and len(asked) < 10:
        return float(asked)
    then = _http_date(asked)
    if then is None:
        return None
    # By the clock of who says so, if it tells that: ours may be years off.
    now = _http_date(response.headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (then - now).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _chunk_bytes(rate: int | None) -> int:
    """Return how much to read at a time, so that a slow reader pauses often and for less than a second."""
    return CHUNK_BYTES if rate is None else max(MIN_CHUNK_BYTES, min(CHUNK_BYTES, rate // 4))


def _chunks(
    response: urllib3.BaseHTTPResponse, skip: int, limit: int | None, chunk_bytes: int
) -> Generator[bytes]:
    left = limit
    try:
        # Not `read`, which keeps what has come until there is enough of it, and loses it when the connection breaks.
        while (left is None or left > 0) and (chunk := response.read1(chunk_bytes)):
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            chunk = chunk[skip:] if left is None else chunk[skip : skip + left]
            skip = 0
            left = None if left is None else left - len(chunk)
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError, AttributeError) as error:
        raise Unavailable("link.cut", f"the blob was cut off: {_reason(error)}") from error


def _root_of(error: Any) -> Any:
    """Return what an error of urllib3 wraps, down to the first."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        if inner is None:
            return error
        error = inner


def _reason(error: BaseException) -> str:
    """Return the innermost cause in a few words, without the names of urllib3's objects."""
    cause = _root_of(error)
    text = re.sub(r"^(<.*?>|\w+\(.*?\)): ", "", str(cause))
    return text[:200] or type(cause).__name__
