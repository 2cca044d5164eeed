"""Somebody who has taken a relay over, or stands in its place with its key: hosts dial it, and it says what it likes.

It serves with the relay's own certificate, hands on to the relay what it was asked, and changes what comes either way
as a test tells it. What it cannot do is sign: neither for the hub nor for hosts.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import msgspec
import urllib3

from skerry.carrier.dialling import upstream_context
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.testing.segmented import RelayProcess

_PASSED_ON = ("authorization", "content-type", "range", "accept-encoding")
_HANDED_DOWN = ("content-type", "content-range", "accept-ranges")
_TIMEOUT_S = 60.0
LONGEST_WAIT_S = 1.0


class LyingCarrier:
    """Serves on a free port of this machine.

    Each of the lies may be set at any time: `on_request` changes what a host asks, or answers in the relay's place;
    `on_answer` changes what a host is answered; `on_blob` the bytes of a blob, by digest: fewer are a cut. `under_way`
    counts the requests that the relay has not answered.
    """

    def __init__(self, relay: RelayProcess, ca_pem: str) -> None:
        host, _, port = relay.address.rpartition(":")
        self._relay = urllib3.HTTPSConnectionPool(
            host, int(port), maxsize=8, ssl_context=upstream_context(ca_pem), retries=False
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(relay.data / "tls" / "server.pem", relay.data / "tls" / "server.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self.under_way = 0
        self._lock = threading.Lock()
        self.be_honest()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._relay.close()

    def be_honest(self) -> None:
        """Change nothing from now on."""
        self.on_request: Callable[[SyncRequest], SyncRequest | SyncAnswer] = lambda request: request
        self.on_answer: Callable[[SyncAnswer], SyncAnswer] = lambda answer: answer
        self.on_blob: Callable[[str, bytes], bytes] = lambda _, content: content

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        carrier = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
                    super().handle()

            def do_GET(self) -> None:
                carrier._serve(self)

            do_HEAD = do_POST = do_GET  # noqa: N815 (the names that http.server asks for)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def _serve(self, asked: BaseHTTPRequestHandler) -> None:
        body: bytes | None = asked.rfile.read(int(asked.headers.get("content-length") or 0))
        if asked.path == "/v1/sync":
            request = msgspec.json.decode(body or b"", type=SyncRequest)
            # Nothing waits for long in the name of a host whose carrier may be silent the next moment.
            taken = self.on_request(
                msgspec.structs.replace(request, wait_s=min(request.wait_s, LONGEST_WAIT_S))
            )
            if isinstance(taken, SyncAnswer):
                _answer(asked, 200, {"content-type": "application/json"}, msgspec.json.encode(taken))
                return
            body = msgspec.json.encode(taken)
        with self._lock:
            self.under_way += 1
        try:
            self._hand_on(asked, body)
        finally:
            with self._lock:
                self.under_way -= 1

    def _hand_on(self, asked: BaseHTTPRequestHandler, body: bytes | None) -> None:
        headers = {name: value for name in _PASSED_ON if (value := asked.headers.get(name)) is not None}
        found = self._relay.urlopen(
            asked.command, asked.path, body=body or None, headers=headers, timeout=_TIMEOUT_S
        )
        kept = {name: value for name in _HANDED_DOWN if (value := found.headers.get(name)) is not None}
        content, size = found.data, None
        if asked.path == "/v1/sync" and found.status == 200:
            content = msgspec.json.encode(self.on_answer(msgspec.json.decode(content, type=SyncAnswer)))
        elif asked.path.startswith("/v1/blobs/") and found.status in (200, 206):
            size = int(found.headers.get("content-length", len(content)))
            content = self.on_blob(asked.path.removeprefix("/v1/blobs/"), content)
        _answer(asked, found.status, kept, content, size=size)


def _answer(
    asked: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    content: bytes,
    *,
    size: int | None = None,
) -> None:
    """Answer, and say that it has a `size`, which may be more than comes."""
    asked.send_response(status)
    for name, value in headers.items():
        asked.send_header(name, value)
    asked.send_header("content-length", str(len(content) if size is None else size))
    asked.end_headers()
    if asked.command != "HEAD":
        asked.wfile.write(content)
        asked.close_connection = size is not None and len(content) < size
