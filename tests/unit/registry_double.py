"""A small registry over HTTP: tokens, redirects, ranges, and connections that can be cut."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from skerry.kit.digests import digest_of
from tests.unit.http_double import DoubleServer, Quiet, serving

USER, PASSWORD, TOKEN = "publisher", "pass:word", "a-token"


class RegistryDouble:
    """What the registry holds and has been asked, and how it shall misbehave."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.sent_bytes = 0
        self.cuts: list[int] = []
        """After how many bytes of each next layer the connection is cut."""
        self.wants_token = False
        self.honours_ranges = True
        self.redirect_to: str = ""
        """Where blobs are really served from."""
        self.authorizations: list[str] = []
        self.statuses: list[int] = []
        """With what the next requests are refused."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def hold(self, content: bytes) -> str:
        digest = digest_of(content)
        self.blobs[digest] = content
        return digest


@contextmanager
def serve_registry() -> Generator[RegistryDouble]:
    """Serve a registry on a free port of this machine."""
    server = _Server(_Handler)
    server.registry = RegistryDouble(server.port)
    with serving(server):
        yield server.registry


class _Server(DoubleServer):
    registry: RegistryDouble


class _Handler(Quiet, BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        registry, parts = self.server.registry, urlsplit(self.path)
        registry.asked.append(parts.path)
        registry.authorizations.append(self.headers.get("authorization", ""))
        if registry.statuses:
            return self._send(registry.statuses.pop(0), b"")
        if parts.path == "/token":
            return self._token(parse_qs(parts.query))
        if registry.wants_token and self.headers.get("authorization") != f"Bearer {TOKEN}":
            realm = (
                f'Bearer realm="http://{registry.host}/token",service="here",scope="repository:team/app:pull"'
            )
            return self._send(401, b"", {"www-authenticate": realm})
        match = re.fullmatch(r"/v2/team/app/(manifests|blobs)/(.+)", parts.path)
        if match is None:
            return self._send(404, b"")
        if match[1] == "blobs" and registry.redirect_to:
            return self._send(307, b"", {"location": f"{registry.redirect_to}{parts.path}"})
        content = (registry.manifests if match[1] == "manifests" else registry.blobs).get(match[2])
        if content is None:
            return self._send(404, b"")
        return self._blob(content) if match[1] == "blobs" else self._send(200, content)

    def _token(self, query: dict[str, list[str]]) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        fits = self.headers.get("authorization") == wanted and query["scope"] == ["repository:team/app:pull"]
        self._send(200 if fits else 401, json.dumps({"token": TOKEN}).encode())

    def _blob(self, content: bytes) -> None:
        registry = self.server.registry
        stated = self.headers.get("range", "")
        start = 0
        if stated and registry.honours_ranges:
            registry.ranges.append(stated)
            start = int(stated.removeprefix("bytes=").removesuffix("-"))
        rest = content[start:]
        cut = registry.cuts.pop(0) if registry.cuts and len(content) > 1000 else None
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(rest)))
        if start:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        sent = rest if cut is None else rest[:cut]
        self.wfile.write(sent)
        registry.sent_bytes += len(sent)
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
