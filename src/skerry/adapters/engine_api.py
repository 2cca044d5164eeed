"""A thin client of the Docker-compatible API on a Unix socket, and how the engine of a host is found.

Rules:
- Every call has a time limit for the whole of it, and every answer a bound in bytes.
- Each call has a connection of its own: engines forget idle ones, and nothing is left in a wrong state.
- What an engine says is data: JSON that is not what it should be is an engine that does not work.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import stat
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from skerry.kit.errors import Unavailable

API_VERSION = "1.41"
_ANSWER_LIMIT_BYTES = 8 << 20
_TIME_LIMIT_S = 30.0
_PING_LIMIT_S = 1.0
_CHUNK_BYTES = 64 << 10
_TOO_OLD = re.compile(r"[Mm]inimum supported API version is (\d+\.\d+)")


# Stands in for what an engine left out or gave as null.
NOTHING: Mapping[str, Any] = {}


class Answer(msgspec.Struct, frozen=True):
    """What an engine said: the HTTP status and the body."""

    status: int
    content: bytes

    @property
    def is_good(self) -> bool:
        """Tell whether it was done, or had been done before (304)."""
        return self.status < 300 or self.status == 304

    def json(self) -> Any:
        """Return the body's value.

        Raises:
            Unavailable: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise Unavailable("runtime.engine_failed", "the container engine's answer is no JSON") from error

    @property
    def message(self) -> str:
        """Return what the engine gave as the reason, in at most 1,000 characters."""
        try:
            said = json.loads(self.content)
            text = said.get("message") or said.get("cause") or ""
        except (ValueError, AttributeError):
            text = self.content.decode(errors="replace")
        return " ".join(str(text).split())[:1000] or f"HTTP status {self.status}"


class EngineApi:
    """Calls to one engine. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = API_VERSION

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float = _TIME_LIMIT_S,
    ) -> Answer:
        """Ask and return the answer, whatever its status.

        Raises:
            Unavailable: no whole answer came in time (`runtime.engine_away`), or it was too long.
        """
        answer = self._ask(method, path, query, body, timeout_s)
        too_old = _TOO_OLD.search(answer.message) if answer.status == 400 else None
        if too_old is not None and too_old[1] != self._version:
            self._version = too_old[1]
            answer = self._ask(method, path, query, body, timeout_s)
        return answer

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None, body: object, timeout_s: float
    ) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        with self.request(method, path, query=query, body=content, timeout_s=timeout_s) as stream:
            return Answer(stream.status, stream.read_all(_ANSWER_LIMIT_BYTES))

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = _TIME_LIMIT_S,
    ) -> Generator[EngineStream]:
        """Ask and give the answer as a stream, which ends with the context.

        A body in pieces is sent chunked; an error of what makes them passes through. `timeout_s` bounds each
        step of the sending, the wait for the answer, and then all that is read of it.

        Raises:
            Unavailable: the engine does not answer (`runtime.engine_away`).
        """
        connection = UnixConnection(self.path, timeout_s)
        response: http.client.HTTPResponse | None = None
        try:
            self._send(connection, method, self._address(path, query), body)
            # An answer without a length takes the socket away from the connection.
            held = connection.sock
            response = connection.getresponse()
            yield EngineStream(held, response, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise away(self.path, error) from error
        finally:
            if response is not None:
                response.close()
            connection.close()

    @staticmethod
    def _send(
        connection: UnixConnection, method: str, address: str, body: bytes | Iterable[bytes] | None
    ) -> None:
        headers = {"Host": "engine"}
        is_stream = body is not None and not isinstance(body, bytes)
        if body is not None:
            headers["Content-Type"] = "application/x-tar" if is_stream else "application/json"
        if is_stream:
            headers["Transfer-Encoding"] = "chunked"
        try:
            connection.request(method, address, body, headers, encode_chunked=is_stream)
        except (BrokenPipeError, ConnectionResetError):
            # It does not want the rest; its answer, if it has given one, says why.
            if not is_stream or connection.sock is None:
                raise

    def send_and_leave(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, wait_s: float
    ) -> None:
        """Ask for something that takes long and go on without its answer, but wait a little for the engine.

        Raises:
            Unavailable: the engine does not take the request.
        """
        connection = UnixConnection(self.path, _TIME_LIMIT_S)
        try:
            connection.request(method, self._address(path, query), None, {"Host": "engine"})
            assert connection.sock is not None
            connection.sock.settimeout(wait_s)
            # An answer says that it is done already; none says that the engine is at it.
            with contextlib.suppress(TimeoutError):
                connection.sock.recv(1)
        except (OSError, http.client.HTTPException) as error:
            raise away(self.path, error) from error
        finally:
            connection.close()

    def _address(self, path: str, query: Mapping[str, str] | None) -> str:
        # Podman's own calls name its own version.
        versioned = path if path.startswith("/v") and "/libpod/" in path else f"/v{self._version}{path}"
        return f"{versioned}?{urlencode(query)}" if query else versioned


class EngineStream:
    """The answer to one request, as it comes."""

    def __init__(
        self, held: socket.socket | None, response: http.client.HTTPResponse, timeout_s: float
    ) -> None:
        self.status = response.status
        self._socket = held
        self._response = response
        self._deadline = time.monotonic() + timeout_s

    def read_all(self, limit_bytes: int) -> bytes:
        """Return the rest.

        Raises:
            Unavailable: it is longer than the limit.
        """
        content = bytearray()
        for chunk in self.chunks():
            content += chunk
            if len(content) > limit_bytes:
                raise Unavailable("runtime.answer_too_long", "the container engine says too much")
        return bytes(content)

    def chunks(self) -> Iterator[bytes]:
        """Yield what comes, until the end or the deadline.

        Raises:
            TimeoutError: the deadline has passed.
        """
        while True:
            self._limit()
            chunk = self._response.read1(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    def lines(self, limit_bytes: int) -> Iterator[bytes]:
        """Yield line by line for as long as the connection lasts, without a deadline.

        Raises:
            Unavailable: a line is longer than the limit.
        """
        if self._socket is not None:
            self._socket.settimeout(None)
        while line := self._response.readline(limit_bytes + 1):
            if len(line) > limit_bytes:
                raise Unavailable("runtime.answer_too_long", "the container engine says too much")
            yield line

    def shut(self) -> None:
        """End the stream from another thread: who reads it sees its end."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._socket is not None:
            self._socket.settimeout(left)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect; called by the library."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(str(self._path))
        except BaseException:
            made.close()
            raise
        self.sock = made


def away(path: Path, error: Exception) -> Unavailable:
    """Return the error for an engine that does not answer."""
    reason = "it takes too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Unavailable("runtime.engine_away", f"no answer from the container engine at {path}: {reason}")


def part(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def label_filter(*labels: str) -> str:
    """Return the value of the query parameter `filters` for what has all these labels (`key=value`)."""
    return json.dumps({"label": list(labels)})


def answers_ping(path: Path, timeout_s: float = _PING_LIMIT_S) -> bool:
    """Tell whether an engine answers at a socket in time."""
    connection = UnixConnection(path, timeout_s)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def find_engine(environ: Mapping[str, str], root: Path = Path("/")) -> Path | None:
    """Return the socket of the first container engine that answers within a second, or None.

    What the environment names counts first, then Podman before Docker. `root` is where the usual places
    are looked for; it is another one in tests.
    """
    named = [environ.get(name, "") for name in ("DOCKER_HOST", "CONTAINER_HOST")]
    places = [Path(value.removeprefix("unix://")) for value in named if value.startswith("unix:///")]
    own = environ.get("XDG_RUNTIME_DIR", "")
    places.append(root / "run/podman/podman.sock")
    if own.startswith("/"):
        places.append(root / own.lstrip("/") / "podman/podman.sock")
    places.append(root / "var/run/docker.sock")
    return next((place for place in places if is_socket(place) and answers_ping(place)), None)


def is_socket(path: Path) -> bool:
    """Tell whether there is a socket that this process may use."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return False
