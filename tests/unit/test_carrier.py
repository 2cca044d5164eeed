"""Both ends of the carrier API: what the app refuses and serves, and what the link makes of a real TLS upstream."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import msgspec
import pytest
import uvicorn

from skerry.carrier.app import carrier_app
from skerry.carrier.link import MAX_ANSWER_BYTES, HttpLink, fetch_trust_root
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Denied, Rejected, SkerryError, Unauthenticated, Unavailable, Untrusted
from skerry.ports.blobs import Blobs
from skerry.spec.carrier import (
    MAX_BODY_BYTES,
    EnrollAnswer,
    EnrollRequest,
    SyncAnswer,
    SyncRequest,
    TrustRoot,
)
from skerry.testing.memory import MemoryBlobs
from skerry.testing.waiting import eventually_sync
from skerry.trust.certificates import issue_server, make_ca
from skerry.trust.tokens import issue_blob_token, verify_blob_token
from tests.unit.upstream import HOST, HUB, NOW, STRANGER, report_envelope

pytestmark = pytest.mark.delivery

CONTENT = bytes(range(256)) * 4000
DIGEST = digest_of(CONTENT)
GOOD = issue_blob_token("edge", "harbour", NOW + timedelta(hours=1), HUB)
OLD = issue_blob_token("edge", "harbour", NOW - timedelta(seconds=1), HUB)
FOREIGN = issue_blob_token("edge", "harbour", NOW + timedelta(hours=1), STRANGER)
REQUEST = SyncRequest(reports=(report_envelope(1),))
ENROLL = EnrollRequest(secret="s", host="edge", sign_key=HOST.public, seal_key="", proof=report_envelope(1))


class Backend:
    """A CarrierBackend that answers at once, or raises what it is told to."""

    def __init__(self) -> None:
        self.memory = MemoryBlobs()
        self.blobs: Blobs = self.memory
        self.error: Exception | None = None
        self.syncs: list[SyncRequest] = []
        self.enrolls: list[EnrollRequest] = []
        self.waits = threading.Event()

    async def trust_root(self) -> bytes:
        return b'{"root": 1}'

    async def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        self.enrolls.append(request)
        return EnrollAnswer(site="harbour", host=request.host)

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        self.syncs.append(request)
        if self.error is not None:
            raise self.error
        if request.wait_s:
            self.waits.set()
            await asyncio.sleep(request.wait_s)
        return SyncAnswer(acknowledged=7)

    def check_blob_token(self, token: str) -> None:
        verify_blob_token(token, {HUB.key_id: HUB.verifier}, NOW)


# ── the app ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def backend() -> Backend:
    made = Backend()
    await made.blobs.put(DIGEST, CONTENT)
    return made


@pytest.fixture
async def client(backend: Backend) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(carrier_app(backend), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="https://hub") as made:
        yield made


def problem(response: httpx2.Response) -> tuple[int, str]:
    """Return status and code of a problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["type"] == f"urn:skerry:error:{document['title']}"
    assert document["detail"]
    return response.status_code, document["code"]


NESTED = b'{"reports":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"reports": ["\xff"]}',
    "another type": b"[]",
    "no reports": b'{"reports": []}',
    "an unknown field": b'{"reports": [{}], "more": 1}',
    "too many reports": msgspec.json.encode({"reports": [{}] * 101}),
    "too long a wait": msgspec.json.encode({"reports": [{}], "wait_s": 1e9}),
    "no number": b'{"reports": [{}], "wait_s": NaN}',
    "deep nesting": NESTED,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=list(MALFORMED))
@pytest.mark.parametrize("path", ("/v1/sync", "/v1/enroll"))
async def test_a_malformed_body_is_refused(
    client: httpx2.AsyncClient, backend: Backend, path: str, body: bytes
) -> None:
    assert problem(await client.post(path, content=body)) == (400, "body.malformed")
    assert not backend.syncs
    assert not backend.enrolls


async def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(
    client: httpx2.AsyncClient,
) -> None:
    sent = 0

    async def endless() -> AsyncGenerator[bytes]:
        nonlocal sent
        while sent < 50 * MAX_BODY_BYTES:
            sent += 65536
            yield b" " * 65536

    assert problem(await client.post("/v1/sync", content=endless())) == (400, "body.too_large")
    assert sent <= MAX_BODY_BYTES + 65536


async def test_messages_go_through(client: httpx2.AsyncClient, backend: Backend) -> None:
    answer = await client.post("/v1/sync", content=msgspec.json.encode(REQUEST))
    assert msgspec.json.decode(answer.content, type=SyncAnswer).acknowledged == 7
    assert backend.syncs == [REQUEST]
    answer = await client.post("/v1/enroll", content=msgspec.json.encode(ENROLL))
    assert answer.json() == {"site": "harbour", "host": "edge"}
    assert (await client.get("/v1/trust-root")).content == b'{"root": 1}'
    assert problem(await client.get("/v1/sync")) == (405, "http.405")
    assert problem(await client.get("/v1/nothing")) == (404, "http.404")


@pytest.mark.parametrize("kind", (Rejected, Conflict, Denied, Unauthenticated, Unavailable, Untrusted))
async def test_every_family_of_errors_is_a_problem_document(
    client: httpx2.AsyncClient, backend: Backend, kind: type[SkerryError]
) -> None:
    backend.error = kind("some.code", "in words", hint="do this", place="here")
    response = await client.post("/v1/sync", content=msgspec.json.encode(REQUEST))
    assert problem(response) == (kind.http_status, "some.code")
    assert response.json()["hint"] == "do this"
    assert response.json()["facts"] == {"place": "here"}
    assert response.json().get("retryable", False) is kind.retryable


@pytest.mark.secrets
async def test_a_bug_is_answered_without_its_details(client: httpx2.AsyncClient, backend: Backend) -> None:
    backend.error = ValueError("the password is 1234")
    response = await client.post("/v1/sync", content=msgspec.json.encode(REQUEST))
    assert problem(response) == (500, "internal")
    assert "1234" not in response.text


@pytest.mark.trust
@pytest.mark.parametrize(
    ("header", "status", "code"),
    (
        (None, 401, "blob_token.absent"),
        ("", 401, "blob_token.absent"),
        ("Bearer", 401, "blob_token.absent"),
        (f"Basic {GOOD}", 401, "blob_token.absent"),
        ("Bearer nonsense", 403, "blob_token.invalid"),
        (f"Bearer {GOOD[:-6]}AAAAAA", 403, "blob_token.invalid"),
        (f"Bearer {FOREIGN}", 403, "blob_token.invalid"),
        (f"Bearer {OLD}", 403, "blob_token.expired"),
    ),
)  # fmt: skip
async def test_no_blob_is_served_without_a_good_token(
    client: httpx2.AsyncClient, header: str | None, status: int, code: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    for digest in (DIGEST, digest_of(b"absent"), "malformed"):
        assert problem(await client.get(f"/v1/blobs/{digest}", headers=headers)) == (status, code)


async def get(
    client: httpx2.AsyncClient, asked: str = "", *, method: str = "GET", digest: str = DIGEST
) -> httpx2.Response:
    headers = {"Authorization": f"bearer {GOOD}"} | ({"Range": asked} if asked else {})
    return await client.request(method, f"/v1/blobs/{digest}", headers=headers)


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    (
        ("bytes=0-", 0, SIZE),
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=5-", 5, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=5-{SIZE}", 5, SIZE),
        ("bytes=5-999999999999999999", 5, SIZE),
    ),
)
async def test_a_range_is_served(client: httpx2.AsyncClient, asked: str, start: int, end: int) -> None:
    response = await get(client, asked)
    assert response.status_code == 206
    assert response.content == CONTENT[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", (f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=9-5"))
async def test_a_range_that_cannot_be_served_is_said_to_be_so(client: httpx2.AsyncClient, asked: str) -> None:
    response = await get(client, asked)
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{SIZE}"
    assert response.content == b""


@pytest.mark.parametrize(
    "asked", ("", "bytes=-5", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes=1", "bytes=" + "9" * 40 + "-")
)
async def test_a_range_of_a_form_it_does_not_serve_is_answered_with_all(
    client: httpx2.AsyncClient, asked: str
) -> None:
    response = await get(client, asked)
    assert (response.status_code, response.content == CONTENT) == (200, True)
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["etag"] == f'"{DIGEST}"'
    assert "immutable" in response.headers["cache-control"]


async def test_head_tells_the_length_and_sends_nothing(client: httpx2.AsyncClient) -> None:
    for asked, status, length in (("", 200, SIZE), ("bytes=5-9", 206, 5)):
        response = await get(client, asked, method="HEAD")
        assert (response.status_code, response.headers["content-length"], response.content) == (
            status,
            str(length),
            b"",
        )


async def test_an_empty_blob_is_served(client: httpx2.AsyncClient, backend: Backend) -> None:
    await backend.blobs.put(digest_of(b""), b"")
    response = await get(client, digest=digest_of(b""))
    assert (response.status_code, response.content) == (200, b"")
    assert (await get(client, "bytes=0-", digest=digest_of(b""))).status_code == 416


async def test_an_absent_blob_and_a_malformed_digest_are_told_apart(client: httpx2.AsyncClient) -> None:
    assert problem(await get(client, digest=digest_of(b"absent"))) == (404, "blob.missing")
    for digest in ("sha256:12", "sha256:" + "Z" * 64, "md5:1", "..%2f..%2fkeys", DIGEST + "%0A"):
        response = await get(client, digest=digest)
        assert response.status_code in (400, 404)


# ── the link, over real TLS ──────────────────────────────────────────────────────────────────────────


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
    config = uvicorn.Config(
        carrier_app(backend),
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
        for offset in (0, 1, 500_000, SIZE, SIZE + 5):
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
    root = msgspec.json.encode(
        TrustRoot(hub="h", ca_pem=certificates.ca_pem, hub_keys={HUB.key_id: HUB.public})
    )
    with misbehaving(certificates, body(root)) as url:
        assert fetch_trust_root(url, digest_of(root))[1] == root
        with pytest.raises(Untrusted):
            fetch_trust_root(url, digest_of(b"another"))
    with misbehaving(certificates, body(b"{}")) as url, pytest.raises(Untrusted):
        fetch_trust_root(url, digest_of(b"{}"))
    with misbehaving(None, lambda _: None) as url, pytest.raises(Unavailable):
        fetch_trust_root(url, digest_of(root))
