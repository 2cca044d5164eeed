"""A small hub over real HTTPS: canned views, and an upload endpoint whose connections can be cut."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, SkerryError
from skerry.spec.api import (
    ApplyAnswer,
    ApplyRequest,
    Change,
    MissingAnswer,
    MissingBlob,
    MissingRequest,
    ReleaseView,
    UploadAnswer,
)
from skerry.spec.problem_details import PROBLEM_MEDIA_TYPE, problem_of
from skerry.spec.publishing import MetadataRequest, PublishRequest
from tests.unit.http_double import DoubleServer, Quiet, serving
from tests.unit.signing_hub import SigningHub

SECRET = "one-time"
TOKEN = "skerry_token"


class HubDouble:
    """What the hub holds and has seen, and how it shall misbehave."""

    def __init__(self, url: str, signing: SigningHub, ca_pem: str) -> None:
        self.url = url
        self.signing = signing
        self.trust_root = trust_root = signing.trust_root
        self.ca_pem = ca_pem
        self.root = digest_of(trust_root)
        self.views: dict[str, Any] = {}
        self.refusals: dict[str, tuple[int, dict[str, Any]]] = {}
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.releases: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.bodies: dict[str, bytes] = {}
        """What was last posted, by path."""
        self.offsets: list[int] = []
        self.received_bytes = 0
        self.cuts: list[int] = []
        """After how many bytes of each next upload request of a large blob the connection is cut."""

    def refuse(self, call: str, status: int, **details: Any) -> None:
        """Answer a call such as `GET /sites` with a problem document."""
        self.refusals[call] = (
            status,
            {"type": "urn:skerry:error", "status": status, "detail": "no", **details},
        )


@contextmanager
def serve_hub(directory: Path) -> Generator[HubDouble]:
    """Serve a hub on a free port of this machine."""
    ca_pem, chain = _make_certificates(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = _Server(_Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    url = f"https://127.0.0.1:{server.port}"
    server.hub = HubDouble(url, SigningHub(directory / "hub-data", url, ca_pem), ca_pem)
    with serving(server):
        yield server.hub


class _Server(DoubleServer):
    hub: HubDouble


class _Handler(Quiet, BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    # Head and body are two writes; without this the second waits 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        hub, path, _ = self._begin()
        if path == "/v1/trust-root":
            return self._send(200, hub.trust_root)
        if path == "/metadata":
            return self._send(200, msgspec.json.encode(hub.signing.repository.view()))
        if path == "/publishers":
            return self._send(200, msgspec.json.encode(hub.signing.repository.publishers()))
        content = hub.signing.file(path.removeprefix("/metadata/")) if path.startswith("/metadata/") else None
        if content is not None:
            return self._send(200, content, "application/octet-stream")
        if (digest := path.rpartition("/")[2]) in hub.blobs:
            return self._send(200, hub.blobs[digest], "application/octet-stream")
        return self._answer_view(hub, path)

    def do_DELETE(self) -> None:
        hub, path, _ = self._begin()
        if self._refused(hub, path):
            return
        if hub.views.pop(path, None) is None:
            self._problem(404, {"code": "missing", "title": "missing", "detail": f"no {path}"})
        else:
            self._send(204, b"")

    def do_POST(self) -> None:
        hub, path, _ = self._begin()
        body = self.rfile.read(int(self.headers["content-length"]))
        hub.bodies[path] = body
        if self._refused(hub, path):
            return None
        if path == "/login" and json.loads(body) != {"secret": SECRET}:
            return self._problem(
                401, {"code": "login.secret", "title": "unauthenticated", "detail": "wrong secret"}
            )
        if path == "/apply":
            return self._send(
                200, msgspec.json.encode(_apply(hub, msgspec.json.decode(body, type=ApplyRequest)))
            )
        if path == "/blobs/missing":
            return self._send(
                200, msgspec.json.encode(_missing(hub, msgspec.json.decode(body, type=MissingRequest)))
            )
        if path in ("/releases", "/metadata"):
            try:
                return self._publish(hub, path, body)
            except SkerryError as error:
                return self._send(
                    error.http_status, msgspec.json.encode(problem_of(error)), PROBLEM_MEDIA_TYPE
                )
        return self._answer_view(hub, path)

    def do_PUT(self) -> None:
        hub, path, query = self._begin()
        digest = path.removeprefix("/uploads/")
        upload = hub.uploads.setdefault(digest, bytearray())
        offset, size = int(query["offset"][0]), int(query["size"][0])
        hub.offsets.append(offset)
        length = int(self.headers["content-length"])
        if offset != len(upload):
            self.rfile.read(length)
            problem = {"code": "upload.offset", "title": "conflict", "facts": {"offset": len(upload)}}
            return self._problem(409, problem)
        cut_after = hub.cuts.pop(0) if hub.cuts and size > 1000 else None
        taken = self.rfile.read(length if cut_after is None else min(cut_after, length))
        upload.extend(taken)
        hub.received_bytes += len(taken)
        if cut_after is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if len(upload) == size:
            assert digest == f"sha256:{hashlib.sha256(upload).hexdigest()}"
            hub.blobs[digest] = bytes(hub.uploads.pop(digest))
        answer = UploadAnswer(offset=offset + length, complete=digest in hub.blobs)
        return self._send(200, msgspec.json.encode(answer))

    def _begin(self) -> tuple[HubDouble, str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        path = unquote(parts.path.removeprefix("/api/v1"))
        self.server.hub.requests.append(f"{self.command} {path}{'?' if parts.query else ''}{parts.query}")
        return self.server.hub, path, parse_qs(parts.query)

    def _refused(self, hub: HubDouble, path: str) -> bool:
        refusal = hub.refusals.get(f"{self.command} {path}")
        if refusal:
            self._problem(*refusal)
        return refusal is not None

    def _answer_view(self, hub: HubDouble, path: str) -> None:
        if self._refused(hub, path):
            return
        if path in hub.views:
            self._send(200, msgspec.json.encode(hub.views[path]))
        else:
            self._problem(404, {"code": "missing", "title": "missing", "detail": f"no {path}"})

    def _publish(self, hub: HubDouble, path: str, body: bytes) -> None:
        if path == "/metadata":
            given = msgspec.json.decode(body, type=MetadataRequest).metadata
            hub.signing.publish({role.role: role.content for role in given})
            return self._send(200, msgspec.json.encode(hub.signing.repository.view()))
        asked = msgspec.json.decode(body, type=PublishRequest)
        missing = [
            d
            for d in re.findall(r'"digest":"(sha256:[0-9a-f]+)"', asked.document.decode())
            if d not in hub.blobs
        ]
        if missing:
            raise Conflict("release.blobs", f"lacks {missing}")
        record = hub.signing.release(asked)
        new = hub.signing.publish({role.role: role.content for role in asked.metadata}, record)
        hub.releases[record.name] = asked.document
        view = ReleaseView(
            name=record.name,
            application=record.application,
            version=record.version,
            digest=record.digest,
            models={},
            size_bytes=1,
            created_at=record.created_at,
            created_by="test",
            publisher=record.publisher,
            document=json.loads(asked.document),
        )
        hub.views[f"/releases/{record.name}"] = view
        return self._send(201 if new else 200, msgspec.json.encode(view))

    def _problem(self, status: int, details: dict[str, Any]) -> None:
        whole = {"type": "urn:skerry:error", "status": status, "detail": "no", **details}
        self._send(status, json.dumps(whole).encode(), "application/problem+json")

    def _send(self, status: int, body: bytes, media_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _apply(hub: HubDouble, request: ApplyRequest) -> ApplyAnswer:
    changes: list[Change] = []
    for document in request.documents:
        key = (document["kind"], document["metadata"]["name"])
        before = hub.documents.get(key)
        if before is None:
            changes.append(Change(kind=key[0], name=key[1], action="create", after=document))
        else:
            action: Any = "unchanged" if before == document else "update"
            changes.append(Change(kind=key[0], name=key[1], action=action, before=before, after=document))
        if not request.dry_run:
            hub.documents[key] = document
    return ApplyAnswer(changes=tuple(changes), dry_run=request.dry_run)


def _missing(hub: HubDouble, request: MissingRequest) -> MissingAnswer:
    return MissingAnswer(
        missing=tuple(
            MissingBlob(digest=blob.digest, offset=len(hub.uploads.get(blob.digest, b"")))
            for blob in request.blobs
            if blob.digest not in hub.blobs
        )
    )


def _make_certificates(directory: Path) -> tuple[str, Path]:
    """Return the CA as PEM, and a file with the server's key and chain."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test hub")])

    def signed(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    ca_pem = signed(ca_name, ca_key.public_key(), ca=True).public_bytes(serialization.Encoding.PEM).decode()
    chain = directory / "hub.pem"
    chain.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + signed(name, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM)
    )
    return ca_pem, chain
