"""What the link makes of a real upstream over real TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette

from skerry.carrier.app import carrier_app
from skerry.carrier.link import HEAD_BYTES, MAX_ANSWER_BYTES, HttpLink, fetch_trust_root
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Denied, Rejected, SkerryError, Unavailable, Untrusted
from skerry.spec.carrier import (
    DeltaAnswer,
    EnrollAnswer,
)
from skerry.testing.memory import MemoryBlobs
from skerry.testing.waiting import eventually_sync
from skerry.trust.certificates import issue_server, make_ca
from tests.unit.carrier_backend import CONTENT, DELTAS, DIGEST, ENROLL, GOOD, OLD, QUESTIONS, REQUEST, Backend
from tests.unit.upstream import SIGNED

pytestmark = pytest.mark.delivery


class Certificates:
    """A CA, and the key and certificate of a server that it issued."""

    def __init__(self, folder: Path, names: list[str], now: datetime) -> None:
        ca_key, ca_cert = make_ca("test hub", now)
        key, cert = issue_server(ca_key, ca_cert, names, now)
        self.ca_pem = ca_cert.decode()
        self.key, self.cert = folder / "server.key", folder / "server.pem"
        folder.mkdir(exist_ok=True)
        self.key.write_bytes(key)
        self.cert.write_bytes(cert)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], datetime.now(UTC))


@contextmanager
def served(backend: Backend, certificates: Certificates) -> Generator[str]:
    """Serve a backend on a free port, as the hub does, and yield its address."""
    with served_app(carrier_app(backend), certificates) as url:
        yield url


@contextmanager
def served_app(app: Starlette, certificates: Certificates) -> Generator[str]:
    """Serve an app on a free port and yield its address."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ssl_keyfile=str(certificates.key),
        ssl_certfile=str(certificates.cert),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        try:
            eventually_sync(lambda: server.started)
            yield f"https://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


Serve = Callable[[socket.socket], None]


@contextmanager
def misbehaving(certificates: Certificates | None, behave: Serve) -> Generator[str]:
    """Accept connections, with TLS if there are certificates, and do to each what the test says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificates is not None:
        context.load_cert_chain(certificates.cert, certificates.key)
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = door.accept()
            except OSError:
                return
            with ExitStack() as stack:
                stack.callback(raw.close)
                try:
                    connection = (
                        context.wrap_socket(raw, server_side=True) if certificates is not None else raw
                    )
                    stack.callback(connection.close)
                    if certificates is not None:
                        _read_request(connection)
                    behave(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"https://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        thread.join()


def _read_request(connection: socket.socket) -> None:
    """Read a request whole: closing with bytes unread would reset the connection and lose the answer."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or b"\r\n\r\n"
    head, _, rest = bytes(received).partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")
    ]
    missing = sum(lengths) - len(rest)
    while missing > 0 and (chunk := connection.recv(65536)):
        missing -= len(chunk)


@contextmanager
def dialled(url: str, ca_pem: str) -> Generator[HttpLink]:
    link = HttpLink(url, ca_pem)
    try:
        yield link
    finally:
        link.close()


def refusal(url: str, ca_pem: str) -> SkerryError:
    """Return the error of a sync."""
    with dialled(url, ca_pem) as link, pytest.raises(SkerryError) as caught:
        link.sync(REQUEST)
    return caught.value


def body(content: bytes, *, status: str = "200 OK", more: bytes = b"") -> Serve:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n".encode() + more + b"\r\n"
    return lambda connection: connection.sendall(head + content)


def test_the_link_speaks_with_the_app(certificates: Certificates, tmp_path: Path) -> None:
    backend = Backend()
    asyncio.run(backend.blobs.put(DIGEST, CONTENT))
    with served(backend, certificates) as url, dialled(url, certificates.ca_pem) as link:
        assert link.sync(REQUEST).acknowledged == 7
        assert link.enroll(ENROLL) == EnrollAnswer(site="harbour", host="edge")
        for offset in (0, 1, 500_000, len(CONTENT), len(CONTENT) + 5):
            with link.blob(DIGEST, offset=offset, token=GOOD) as chunks:
                assert b"".join(chunks) == CONTENT[offset:]
        with pytest.raises(Denied), link.blob(DIGEST, offset=0, token="bad"):
            pass
        backend.error = Conflict("some.code", "in words", hint="do this", place="here")
        with pytest.raises(Conflict) as caught:
            link.sync(REQUEST)
    error = caught.value
    assert (error.code, error.message, error.hint, error.facts) == (
        "some.code",
        "in words",
        "do this",
        {"place": "here"},
    )


def test_a_problem_document_whose_facts_are_named_like_parameters_is_an_error_like_any_other(
    certificates: Certificates,
) -> None:
    facts = {"code": 1, "message": 2, "self": 3, "hint": 4, "place": "here"}
    document = {
        "type": "t",
        "title": "conflict",
        "status": 409,
        "detail": "d",
        "code": "some.code",
        "facts": facts,
    }
    with misbehaving(certificates, body(msgspec.json.encode(document), status="409 Conflict")) as url:
        error = refusal(url, certificates.ca_pem)
    assert (error.code, error.facts) == ("some.code", {"place": "here"})


def test_questions_for_deltas_are_answered_and_their_bytes_counted(certificates: Certificates) -> None:
    backend, counted = Backend(), list[int]()
    backend.delta_answer = DELTAS
    with served(backend, certificates) as url, dialled(url, certificates.ca_pem) as link:
        link.on_traffic = counted.append
        assert link.deltas(QUESTIONS, token=GOOD) == DELTAS
        for token, code in (("bad", "blob_token.invalid"), (OLD, "blob_token.expired")):
            with pytest.raises(Denied) as caught:
                link.deltas(QUESTIONS, token=token)
            assert caught.value.code == code
    assert backend.questions == [("edge", QUESTIONS)]
    asked, answered = len(msgspec.json.encode(QUESTIONS)), len(msgspec.json.encode(DELTAS))
    assert counted[0] == asked + answered + HEAD_BYTES
    assert all(size > asked + HEAD_BYTES for size in counted[1:]), "what is refused crosses the link, too"
    assert len(counted) == 3


def test_an_upstream_of_before_deltas_has_none_and_counts_as_any_other(certificates: Certificates) -> None:
    app, counted = Backend(), list[int]()
    older = carrier_app(app)
    older.router.routes[:] = [one for one in older.router.routes if getattr(one, "path", "") != "/v1/deltas"]
    with served_app(older, certificates) as url, dialled(url, certificates.ca_pem) as link:
        link.on_traffic = counted.append
        assert link.deltas(QUESTIONS, token=GOOD) == DeltaAnswer()
        assert link.sync(REQUEST).acknowledged == 7
    assert len(counted) == 2
    assert app.questions == []


@pytest.mark.parametrize(
    ("behave", "code"),
    (
        (body(b"no JSON"), "link.strange_answer"),
        (body(b'{"available": [{"target": "x"}]}'), "link.strange_answer"),
        (body(b'{"coming": [{"left_s": -1}]}'), "link.strange_answer"),
        (body(b"x" * (MAX_ANSWER_BYTES + 1)), "link.strange_answer"),
        (body(b"<html>", status="404 Not Found"), "link.strange_answer"),
    ),
    ids=["no JSON", "no digest", "less than nothing is left", "huge", "a proxy's page"],
)
def test_a_strange_answer_about_deltas_is_told_from_there_being_none(
    certificates: Certificates, behave: Serve, code: str
) -> None:
    with (
        misbehaving(certificates, behave) as url,
        dialled(url, certificates.ca_pem) as link,
        pytest.raises(Unavailable) as caught,
    ):
        link.deltas(QUESTIONS, token=GOOD)
    assert caught.value.code == code


@pytest.mark.trust
def test_an_upstream_of_another_ca_is_not_trusted(certificates: Certificates, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other", ["127.0.0.1"], datetime.now(UTC))
    backend = Backend()
    with served(backend, certificates) as url:
        assert (refusal(url, other.ca_pem).family, backend.syncs) == ("untrusted", [])


@pytest.mark.trust
def test_an_upstream_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other", ["hub.example"], datetime.now(UTC))
    backend = Backend()
    with served(backend, other) as url:
        error = refusal(url, other.ca_pem)
        assert (error.family, backend.syncs) == ("untrusted", [])
        assert "not trusted" in error.message


@pytest.mark.parametrize("days", (365 * 40, -365 * 40))
def test_dates_of_a_certificate_do_not_matter_because_the_clock_may_be_wrong(
    tmp_path: Path, days: int
) -> None:
    dated = Certificates(tmp_path / "dated", ["127.0.0.1"], datetime.now(UTC) + timedelta(days=days))
    with served(Backend(), dated) as url, dialled(url, dated.ca_pem) as link:
        assert link.sync(REQUEST).acknowledged == 7


def test_an_upstream_that_is_not_there_or_goes_away_is_unavailable_and_not_untrusted(
    certificates: Certificates,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        absent = f"https://127.0.0.1:{door.getsockname()[1]}"
    assert refusal(absent, certificates.ca_pem).code == "link.unreachable"
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"
    ways: list[tuple[Certificates | None, Serve]] = [
        (None, lambda _: None),
        (None, lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        (certificates, lambda _: None),
        (certificates, lambda connection: connection.sendall(b"HTTP/1.1 2")),
        (certificates, lambda connection: connection.sendall(whole)),
        (certificates, lambda connection: connection.sendall(b"\x00" * 5000)),
    ]
    for with_tls, behave in ways:
        with misbehaving(with_tls, behave) as url:
            assert refusal(url, certificates.ca_pem).family == "unavailable"


@pytest.mark.parametrize(
    ("behave", "code"),
    (
        (body(b"no JSON"), "link.strange_answer"),
        (body(b'{"acknowledged": "x"}'), "link.strange_answer"),
        (body(b'{"acknowledged": 1, "desired": ' + b'{"a":' * 90_000 + b"1" + b"}" * 90_001), "link.strange_answer"),
        (body(b"x" * (MAX_ANSWER_BYTES + 1)), "link.strange_answer"),
        (body(b"<html>", status="502 Bad Gateway"), "link.strange_answer"),
        (body(b"", status="302 Found", more=b"Location: https://127.0.0.1:1/\r\n"), "link.strange_answer"),
        (body(b'{"title": "denied"}', status="403 Forbidden"), "link.strange_answer"),
    ),
    ids=["no JSON", "another type", "deep nesting", "huge", "a proxy's page", "a redirect", "no problem document"],
)  # fmt: skip
def test_a_strange_answer_is_refused_and_may_be_better_later(
    certificates: Certificates, behave: Serve, code: str
) -> None:
    with misbehaving(certificates, behave) as url:
        error = refusal(url, certificates.ca_pem)
    assert (error.code, error.retryable) == (code, True)


def test_a_blob_that_is_cut_off_gives_what_came_and_then_says_so(certificates: Certificates) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + CONTENT[:600_000]
    arrived = bytearray()

    def take() -> None:
        with link.blob(DIGEST, offset=0, token=GOOD) as chunks:
            for chunk in chunks:
                arrived.extend(chunk)

    sending = misbehaving(certificates, lambda connection: connection.sendall(half))
    with sending as url, dialled(url, certificates.ca_pem) as link, pytest.raises(Unavailable):
        take()
    assert len(arrived) >= 500_000
    assert CONTENT.startswith(bytes(arrived))


def test_what_is_held_already_is_skipped_when_the_upstream_ignores_ranges(certificates: Certificates) -> None:
    with (
        misbehaving(certificates, body(CONTENT)) as url,
        dialled(url, certificates.ca_pem) as link,
        link.blob(DIGEST, offset=400_000, token=GOOD) as chunks,
    ):
        assert b"".join(chunks) == CONTENT[400_000:]


def test_a_blob_store_that_fails_in_the_middle_cuts_the_answer(certificates: Certificates) -> None:
    class Failing(MemoryBlobs):
        async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
            yield CONTENT[start : start + 1000]
            raise Unavailable("disk.failed", "the disk fails")

    backend = Backend()
    backend.blobs = Failing()
    asyncio.run(backend.blobs.put(DIGEST, CONTENT))
    with served(backend, certificates) as url, dialled(url, certificates.ca_pem) as link:
        with pytest.raises(Unavailable) as caught, link.blob(DIGEST, offset=0, token=GOOD) as chunks:
            assert b"".join(chunks)
        assert caught.value.code == "link.cut"
        assert link.sync(REQUEST).acknowledged == 7


def test_closing_the_link_ends_a_call_that_waits(certificates: Certificates) -> None:
    backend, ended = Backend(), list[SkerryError]()
    request = msgspec.structs.replace(REQUEST, wait_s=200.0)
    with served(backend, certificates) as url, dialled(url, certificates.ca_pem) as link:

        def wait() -> None:
            with pytest.raises(Unavailable) as caught:
                link.sync(request)
            ended.append(caught.value)

        thread = threading.Thread(target=wait)
        thread.start()
        assert backend.waits.wait(20)
        link.close()
        thread.join(10)
        assert not thread.is_alive()
        assert len(ended) == 1
        with pytest.raises(Unavailable):
            link.sync(REQUEST)


def test_closing_the_link_while_it_connects_ends_the_call(certificates: Certificates) -> None:
    proceed, answered = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"https://127.0.0.1:{door.getsockname()[1]}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)

        def serve() -> None:
            raw, _ = door.accept()
            proceed.wait(20)
            try:
                with context.wrap_socket(raw, server_side=True) as connection:
                    answered.wait(20)
                    connection.recv(1)
            except OSError:
                raw.close()

        server = threading.Thread(target=serve)
        server.start()
        link, ended = HttpLink(url, certificates.ca_pem), list[str]()

        def call() -> None:
            with pytest.raises(Unavailable) as caught:
                link.sync(REQUEST)
            ended.append(caught.value.code)

        thread = threading.Thread(target=call)
        thread.start()
        eventually_sync(server.is_alive)
        link.close()  # nothing is connected yet that it could cut
        proceed.set()
        thread.join(10)
        alive = thread.is_alive()
        answered.set()
        server.join()
        thread.join()
    assert not alive
    assert ended


def test_only_https_addresses_are_dialled(certificates: Certificates) -> None:
    for url in ("http://hub", "hub:8443", "", "https://"):
        with pytest.raises(Rejected):
            HttpLink(url, certificates.ca_pem)
    with pytest.raises(Untrusted):
        HttpLink("https://hub", "no certificate")


@pytest.mark.rule("TRUST-3")
def test_a_root_of_trust_is_taken_by_its_digest_only(certificates: Certificates) -> None:
    root = msgspec.json.encode(SIGNED.trust_root(certificates.ca_pem))
    with misbehaving(certificates, body(root)) as url:
        assert fetch_trust_root(url, digest_of(root))[1] == root
        with pytest.raises(Untrusted):
            fetch_trust_root(url, digest_of(b"another"))
    with misbehaving(certificates, body(b"{}")) as url, pytest.raises(Untrusted):
        fetch_trust_root(url, digest_of(b"{}"))
    with misbehaving(None, lambda _: None) as url, pytest.raises(Unavailable):
        fetch_trust_root(url, digest_of(root))
