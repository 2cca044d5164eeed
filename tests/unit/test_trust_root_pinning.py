"""Who answers at a hub's address is believed only when it shows the trust root that a token pins."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.agent.commands import join_site
from skerry.carrier.link import MAX_ANSWER_BYTES, fetch_trust_root
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable, Untrusted
from skerry.spec.carrier import JoinToken
from skerry.testing.signing import SignedRepository
from skerry.trust.certificates import issue_server, make_ca
from skerry.trust.keys import SigningKey
from skerry.trust.tokens import encode_join_token

pytestmark = pytest.mark.trust

SECRET = "join-the-secret-of-this-test"
# What the sockets between the two may hold when one stops reading.
BUFFERS_BYTES = 32 << 20


class Server(http.server.ThreadingHTTPServer):
    """Answers every GET as a test says, over TLS, and notes all that it is sent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.answer = b""
        self.endless = False
        self.drips = False
        self.location = ""
        self.asked: list[str] = []
        self.sent_bytes = 0
        self.finished = threading.Event()
        self.enough = threading.Event()
        self.url = f"https://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    @property
    def asked_of(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        server = self.asked_of
        server.asked.append(self.requestline)
        self.send_response(302 if server.location else 200)
        if server.location:
            self.send_header("Location", server.location)
        self.end_headers()
        try:
            self.wfile.write(server.answer)
            while server.drips and not server.enough.wait(0.02):
                server.sent_bytes += self.wfile.write(b"x")
                self.wfile.flush()
            while server.endless:
                server.sent_bytes += self.wfile.write(b"x" * 65536)
        finally:
            server.finished.set()

    def do_POST(self) -> None:
        self.asked_of.asked.append(self.requestline)
        self.send_error(503)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Identity:
    """A hub's root of trust and the TLS context that goes with it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        now = datetime.now(UTC)
        ca_key, ca_cert = make_ca("a hub", now)
        key, cert = issue_server(ca_key, ca_cert, ["127.0.0.1"], now)
        (folder / "key.pem").write_bytes(key)
        (folder / "cert.pem").write_bytes(cert)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        signed = SignedRepository(SigningKey.generate())
        self.root = msgspec.json.encode(signed.trust_root(ca_cert.decode()))


@contextmanager
def serving(identity: Identity, answer: bytes = b"") -> Generator[Server]:
    """Serve until the end of the `with`."""
    with Server(identity.context) as server:
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def genuine(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "genuine")


@pytest.fixture
def impostor(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "impostor")


def token(server: Server, pinned: Identity) -> str:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    root = digest_of(pinned.root)
    return encode_join_token(
        JoinToken(hub=server.url, site="harbour", root=root, secret=SECRET, expires_at=expires_at)
    )


def test_the_pinned_trust_root_is_taken_with_its_very_bytes(genuine: Identity) -> None:
    with serving(genuine, genuine.root) as server:
        root, raw = fetch_trust_root(server.url, digest_of(genuine.root))
    assert raw == genuine.root
    assert root.ca_pem in genuine.root.decode().replace("\\n", "\n")


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "another hub": lambda root: root.replace(b'"hub":"h"', b'"hub":"i"'),
    "a byte more": lambda root: root + b" ",
    "a byte less": lambda root: root[:-1],
    "nothing": lambda root: b"",
}


@pytest.mark.rule("TRUST-3")
@pytest.mark.parametrize("alter", tuple(ALTERED.values()), ids=tuple(ALTERED))
def test_any_other_bytes_than_the_pinned_are_refused(
    genuine: Identity, alter: Callable[[bytes], bytes]
) -> None:
    altered = alter(genuine.root)
    assert altered != genuine.root
    with serving(genuine, altered) as server, pytest.raises(Untrusted) as caught:
        fetch_trust_root(server.url, digest_of(genuine.root))
    assert caught.value.code == "trust_root.mismatch"


@pytest.mark.rule("TRUST-3")
def test_a_host_that_joins_through_an_impostor_stops_before_it_makes_or_sends_anything(
    genuine: Identity, impostor: Identity, tmp_path: Path
) -> None:
    with serving(impostor, impostor.root) as server, pytest.raises(Untrusted) as caught:
        join_site(tmp_path / "edge", token(server, genuine), host="edge")
    assert caught.value.code == "trust_root.mismatch"
    assert [line.partition("?")[0] for line in server.asked] == ["GET /v1/trust-root"]
    assert not (tmp_path / "edge" / "keys").exists()


@pytest.mark.rule("TRUST-3")
def test_an_impostor_that_repeats_the_genuine_trust_root_does_not_get_the_secret(
    genuine: Identity, impostor: Identity, tmp_path: Path
) -> None:
    with serving(impostor, genuine.root) as server, pytest.raises(Untrusted) as caught:
        join_site(tmp_path / "edge", token(server, genuine), host="edge")
    assert caught.value.code == "link.tls"
    assert [line.partition("?")[0] for line in server.asked] == ["GET /v1/trust-root"]
    assert not (tmp_path / "edge" / "identity.json").exists()


def test_a_redirection_is_not_followed(genuine: Identity, impostor: Identity) -> None:
    with serving(impostor, impostor.root) as elsewhere, serving(genuine) as server:
        server.location = f"{elsewhere.url}/v1/trust-root"
        with pytest.raises(Untrusted):
            fetch_trust_root(server.url, digest_of(impostor.root))
    assert elsewhere.asked == []


def test_an_answer_without_end_is_given_up(genuine: Identity) -> None:
    with serving(genuine) as server:
        server.endless = True
        with pytest.raises(Unavailable) as caught:
            fetch_trust_root(server.url, digest_of(genuine.root))
        assert server.finished.wait(30), "the connection is cut, not left open"
    assert caught.value.code == "link.strange_answer"
    assert server.sent_bytes < MAX_ANSWER_BYTES + BUFFERS_BYTES


def test_an_answer_that_drips_is_given_up_in_time(genuine: Identity) -> None:
    with serving(genuine) as server:
        server.drips = True
        try:
            with pytest.raises(Unavailable) as caught:
                fetch_trust_root(server.url, digest_of(genuine.root), body_limit_s=0.1)
        finally:
            server.enough.set()
    assert caught.value.code == "link.slow_answer"
