"""LanDoor: a small HTTPS server for the other hosts of a site, a thread for each connection. Standard library only.

- `POST /v1/sharing` answers a question, `GET /v1/blobs/DIGEST` (with `Range: bytes=FROM-`) gives a blob, also one that
  still grows. An answer that cannot be brought to its end is cut.
- The key of its certificate is this machine's own. Nobody is asked to trust it: others know its hash.
- So many connections at the most, and few of one address. Who has not shown a token within seconds is cut off, and so
  is who does not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import socketserver
import ssl
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import structlog

from skerry.adapters.udp_datagrams import join_address
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Denied, Unavailable
from skerry.ports.sharing import Door, NearPlace, Served
from skerry.spec.sharing import SharingQuestion

_log = structlog.get_logger()

MAX_CONNECTIONS = 32
MAX_OF_ONE = 10
ADMIT_WITHIN_S = 10.0
LOOK_EVERY_S = 1.0
IDLE_S = 30.0
MAX_BODY_BYTES = 128 << 10
_range_re = re.compile(r"^bytes=([0-9]{1,18})-$")
_path_re = re.compile(r"^/v1/blobs/(sha256:[0-9a-f]{64})$")


class LanDoor(Door):
    """Keeps its key and certificate in `folder`. Who has shown no token after `admit_within_s` is cut off."""

    def __init__(self, folder: Path, name: str, *, admit_within_s: float = ADMIT_WITHIN_S) -> None:
        self._folder, self._name, self._admit_within_s = folder, name, admit_within_s
        self._server: _Server | None = None

    def open(self, host: str, port: int, served: Served) -> NearPlace:
        self.close()
        context, pin = self._identity()
        bare = host.strip("[]")
        try:
            server = _bound(bare, port, served, context)
            server.admit_within_s = self._admit_within_s
        except OSError as error:
            message = f"cannot listen at {join_address(bare, port)}: {error.strerror or error}"
            raise Unavailable("lan.unavailable", message) from error
        look_every_s = min(LOOK_EVERY_S, self._admit_within_s)
        thread = threading.Thread(
            target=server.serve_forever, args=(look_every_s,), name="lan-door", daemon=True
        )
        thread.start()
        self._server = server
        return NearPlace(join_address(bare, int(server.server_address[1])), pin)

    def close(self) -> None:
        if self._server is not None:
            closing = threading.Thread(target=self._server.shutdown)
            closing.start()
            with contextlib.suppress(OSError):  # so that it looks at once
                socket.create_connection(self._server.socket.getsockname()[:2], timeout=0.2).close()
            closing.join()
            self._server.server_close()
            self._server.cut_all()
            self._server = None

    def _identity(self) -> tuple[ssl.SSLContext, str]:
        """Return a context with this host's certificate, made when there is none that can be read, and its hash."""
        file = self._folder / "lan.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        try:
            context.load_cert_chain(file)
        except (OSError, ssl.SSLError):
            from skerry.trust.certificates import make_pinned  # X.509 is needed once

            key, certificate = make_pinned(self._name, datetime.now(UTC))
            write_file(file, key + certificate)
            context.load_cert_chain(file)
        pem = file.read_text(encoding="ascii")
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])
        return context, hashlib.sha256(der).hexdigest()


def _bound(host: str, port: int, served: Served, context: ssl.SSLContext) -> _Server:
    try:
        return _Server(host, port, served, context)
    except OSError:
        if not port:
            raise
        # Somebody else has the port; the neighbours are told the one that it is.
        return _Server(host, 0, served, context)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, host: str, port: int, served: Served, context: ssl.SSLContext) -> None:
        self.served, self.context = served, context
        self.admit_within_s = ADMIT_WITHIN_S
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._turn = threading.Lock()
        self._open: dict[
            int, tuple[str, socket.socket, float]
        ] = {}  # until it is admitted: by when it must be
        super().__init__((host, port), _Asked)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Let so many in."""
        address = str(client_address[0])
        with self._turn:
            of_one = sum(1 for other, _, _ in self._open.values() if other == address)
            return len(self._open) < MAX_CONNECTIONS and of_one < MAX_OF_ONE

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it in a thread."""
        with self._turn:
            self._open[id(request)] = (
                str(client_address[0]),
                request,
                time.monotonic() + self.admit_within_s,
            )
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve it, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._turn:
                self._open.pop(id(request), None)

    def secured(self, request: socket.socket, encrypted: ssl.SSLSocket) -> None:
        """Note what the connection is from now on."""
        with self._turn:
            if held := self._open.get(id(request)):
                self._open[id(request)] = (held[0], encrypted, held[2])

    def admitted(self, request: socket.socket) -> None:
        """Note that who asks has shown a token."""
        with self._turn:
            if held := self._open.get(id(request)):
                self._open[id(request)] = (held[0], held[1], float("inf"))

    def service_actions(self) -> None:
        """Cut off who shows no token."""
        self.cut_all(until=time.monotonic())

    def cut_all(self, until: float = float("inf")) -> None:
        """Cut the connections that had to be admitted by then."""
        with self._turn:
            cut = [connection for _, connection, by in self._open.values() if by <= until]
        for connection in cut:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say little: whoever is on the network can cause it."""
        _log.debug("sharing.connection_failed", address=str(client_address[0]), exc_info=True)


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] (no other server serves it)
    wbufsize = 0
    disable_nagle_algorithm = True
    timeout = IDLE_S
    error_content_type: ClassVar[str] = "text/plain"  # type: ignore[misc]
    error_message_format: ClassVar[str] = "%(code)d\n"  # type: ignore[misc]

    def setup(self) -> None:
        self._plain: socket.socket = self.request
        self._plain.settimeout(ADMIT_WITHIN_S)
        encrypted = self.server.context.wrap_socket(
            self._plain, server_side=True, do_handshake_on_connect=False
        )
        self.request = encrypted
        self.server.secured(self._plain, encrypted)
        super().setup()

    def handle(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):  # it left, or was cut off
            self.request.do_handshake()
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)
        self.request.close()

    def do_POST(self) -> None:
        """Answer a question."""
        length = self.headers.get("Content-Length", "")
        if self.path != "/v1/sharing" or not length.isdecimal() or int(length[:9]) > MAX_BODY_BYTES:
            self._refuse(404)
            return
        host = self._admit()
        if not host:
            return
        try:
            question = msgspec.json.decode(self.rfile.read(int(length[:9])), type=SharingQuestion)
        except UNREADABLE:
            self._refuse(400)
            return
        body = msgspec.json.encode(self.server.served.answer(host, question))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Give a blob, or its rest."""
        asked = _path_re.match(self.path)
        start = _range_re.match(self.headers.get("Range", "bytes=0-"))
        if asked is None or start is None:
            self._refuse(404)
            return
        if not self._admit():
            return
        served, digest, first = self.server.served, asked[1], int(start[1])
        size = served.size(digest)
        if size is None or first > size:
            self._refuse(404)
            return
        self.send_response(206)
        self.send_header("Content-Length", str(size - first))
        self.send_header("Content-Range", f"bytes {first}-{max(first, size - 1)}/{size}")
        self.end_headers()
        left = size - first
        for chunk in served.chunks(digest, start=first, end=size):
            self.wfile.write(chunk)
            left -= len(chunk)
        self.close_connection = self.close_connection or left != 0

    def _admit(self) -> str:
        """Return which host asks; empty when it was refused."""
        _, _, token = self.headers.get("Authorization", "").partition("Bearer ")
        try:
            host = self.server.served.admit(token)
        except Denied as error:
            _log.info("sharing.refused", address=str(self.client_address[0]), code=error.code)
            self._refuse(403)
            return ""
        self.server.admitted(self._plain)
        return host

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self.send_error(status)

    def version_string(self) -> str:
        """Say nothing of what runs here."""
        return "skerry"

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing for each request."""
