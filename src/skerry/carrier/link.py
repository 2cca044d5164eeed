"""The way up: urllib3 over TLS to a hub or relay. Blocking; used in worker threads.

The upstream's certificate must chain to the pinned CA and name the host that was dialled. Its dates are not
checked: a device whose clock stands at 1970 must still be able to learn the time. What counts is signed anyway
(see the decision record on TLS and wrong clocks).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import urllib3
from urllib3.connection import HTTPSConnection

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Missing, Rejected, SkerryError, Unavailable, Untrusted
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
from skerry.spec.problem_details import error_of

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
BODY_TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 8 << 20
CHUNK_BYTES = 256 << 10
MIN_CHUNK_BYTES = 256
HEAD_BYTES = 1024
"""What the heads of a request and its answer take, roughly; bodies are counted exactly."""
_RECEIVE_BYTES = tuple(1 << power for power in range(13, 22))
"""Receive buffers for slow readers: what the upstream may send ahead of being read crosses the link at full speed."""
_X509_V_FLAG_NO_CHECK_TIME = 0x200000  # OpenSSL's x509_vfy.h; the ssl module has no name for it

T = TypeVar("T")


def upstream_context(ca_pem: str) -> ssl.SSLContext:
    """Return a context that trusts one CA and nothing else, whatever the local clock says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= _X509_V_FLAG_NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=ca_pem)
    except ssl.SSLError as error:
        raise Untrusted("trust_root.bad_ca", "the trust root holds no usable CA certificate") from error
    return context


class HttpLink:
    """A `Link` over HTTPS."""

    def __init__(self, url: str, ca_pem: str, *, body_limit_s: float = BODY_TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise Rejected("link.bad_address", f"not an https address: {url[:200]!r}")
        self._prefix = parts.path.rstrip("/")
        self._body_limit_s = body_limit_s
        self._connections: set[HTTPSConnection] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.on_traffic: Callable[[int], None] = lambda _: None
        self._host, self._port = parts.hostname, parts.port or 443
        self._context = upstream_context(ca_pem)
        self._pools: dict[int, urllib3.HTTPSConnectionPool] = {}
        self._pool = self._pool_for(None)

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Ask to belong to a site."""
        return self._exchange("/v1/enroll", request, EnrollAnswer, ANSWER_TIMEOUT_S)

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Ask that new keys take the place of the old ones."""
        return self._exchange("/v1/keys", request, KeyChangeAnswer, ANSWER_TIMEOUT_S)

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Hand over reports and wait up to `request.wait_s` for news."""
        return self._exchange("/v1/sync", request, SyncAnswer, request.wait_s + ANSWER_TIMEOUT_S)

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Ask which deltas there are."""
        try:
            return self._exchange("/v1/deltas", request, DeltaAnswer, ANSWER_TIMEOUT_S, token=token)
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
            raise _error_of(response.status, body)
        return body

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
                raise _error_of(response.status, _read_bounded(response, self._body_limit_s))
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
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for pool in list(self._pools.values()):
            pool.close()

    def _exchange(
        self, path: str, message: msgspec.Struct, answer: type[T], timeout_s: float, *, token: str = ""
    ) -> T:
        sent = msgspec.json.encode(message)
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        response = self._request("POST", path, sent, headers=headers, timeout_s=timeout_s)
        try:
            body = _read_bounded(response, self._body_limit_s)
        finally:
            response.release_conn()
        self.on_traffic(len(sent) + len(body) + HEAD_BYTES)
        if response.status != 200:
            raise _error_of(response.status, body)
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
        timeout_s: float = ANSWER_TIMEOUT_S,
        pool: urllib3.HTTPSConnectionPool | None = None,
    ) -> urllib3.BaseHTTPResponse:
        if self._closed:
            raise Unavailable("link.closed", "the link is closed")
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s)
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
            message = f"cannot reach {self._host}:{self._port}: {_reason(error)}"
            raise Unavailable("link.unreachable", message) from error

    def _pool_for(self, rate: int | None) -> urllib3.HTTPSConnectionPool:
        """Return the connections for a reader of that rate: their receive buffer holds about a second of it."""
        size = next((size for size in _RECEIVE_BYTES if size >= (rate or 0)), 0) if rate else 0
        with self._lock:
            pool = self._pools.get(size)
            if pool is None:
                options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]  # as urllib3 does by itself
                if size:
                    # Set before it connects: it bounds the window from the first byte.
                    options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, size))
                pool = self._pools[size] = urllib3.HTTPSConnectionPool(
                    self._host,
                    self._port,
                    maxsize=4,
                    ssl_context=self._context,
                    retries=False,
                    socket_options=options,
                )
                pool.ConnectionCls = self._connection_class()  # pyright: ignore[reportAttributeAccessIssue]
            return pool

    def _connection_class(self) -> type[HTTPSConnection]:
        link = self

        class TrackedConnection(HTTPSConnection):
            """Known to the link while it is open, so that `close` can cut it."""

            def connect(self) -> None:
                super().connect()
                with link._lock:
                    link._connections.add(self)
                if link._closed:
                    # `close` came while we connected and could not see us.
                    self.close()
                    raise OSError("the link is closed")

            def close(self) -> None:
                with link._lock:
                    link._connections.discard(self)
                super().close()

        return TrackedConnection


def fetch_trust_root(
    url: str, root_digest: str, *, body_limit_s: float = BODY_TIMEOUT_S
) -> tuple[TrustRoot, bytes]:
    """Fetch the trust root from a hub or relay and check it against the digest that a join token pins.

    The connection itself is not trusted (nothing is yet); only the digest counts.

    Raises:
        Untrusted: the document has another digest (`trust_root.mismatch`).
        Unavailable: the upstream cannot be reached.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Rejected("link.bad_address", f"not an https address: {url[:200]!r}")
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S)
    pool = urllib3.HTTPSConnectionPool(parts.hostname, parts.port or 443, ssl_context=context, retries=False)
    try:
        with warnings.catch_warnings():
            # Unverified on purpose: nobody who joins a host should be told that this is dangerous.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            response = pool.urlopen(
                "GET",
                f"{parts.path.rstrip('/')}/v1/trust-root?digest={root_digest}",
                timeout=timeout,
                preload_content=False,
            )
        body = _read_bounded(response, body_limit_s)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable("link.unreachable", f"cannot reach {url}: {_reason(error)}") from error
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


def _error_of(status: int, body: bytes) -> SkerryError:
    strange = Unavailable(
        "link.strange_answer", f"the upstream answered HTTP {status} without a problem document"
    )
    return error_of(body) or strange


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
