"""What the carrier app refuses, and what it serves."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx2
import msgspec
import pytest

from skerry.carrier.app import carrier_app
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Denied, Rejected, SkerryError, Unauthenticated, Unavailable, Untrusted
from skerry.spec.carrier import (
    MAX_BODY_BYTES,
    MAX_DELTA_QUESTIONS,
    DeltaAnswer,
    SyncAnswer,
)
from tests.unit.carrier_backend import (
    CONTENT,
    DELTAS,
    DIGEST,
    ENROLL,
    FOREIGN,
    GOOD,
    OLD,
    QUESTIONS,
    REQUEST,
    Backend,
)

pytestmark = pytest.mark.delivery


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


BAD_TOKENS = pytest.mark.parametrize(
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


@pytest.mark.trust
@BAD_TOKENS
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


# ── deltas ───────────────────────────────────────────────────────────────────────────────────────────────


async def ask(client: httpx2.AsyncClient, body: bytes, *, header: str = f"bearer {GOOD}") -> httpx2.Response:
    return await client.post("/v1/deltas", content=body, headers={"Authorization": header})


async def test_a_question_for_deltas_goes_through_with_the_host_that_asks(
    client: httpx2.AsyncClient, backend: Backend
) -> None:
    backend.delta_answer = DELTAS
    answer = await ask(client, msgspec.json.encode(QUESTIONS))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert msgspec.json.decode(answer.content, type=DeltaAnswer) == DELTAS
    assert backend.questions == [("edge", QUESTIONS)]
    assert problem(await client.get("/v1/deltas")) == (405, "http.405")


@pytest.mark.trust
@BAD_TOKENS
async def test_no_question_for_deltas_is_answered_without_a_good_token(
    client: httpx2.AsyncClient, backend: Backend, header: str | None, status: int, code: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    for body in (msgspec.json.encode(QUESTIONS), b"{", b""):
        response = await client.post("/v1/deltas", content=body, headers=headers)
        assert problem(response) == (status, code)
    assert backend.questions == []


def questions(count: int = 1, bases: object = ((),), **more: object) -> bytes:
    asked = {"target": DIGEST, "bases": bases, **more}
    return msgspec.json.encode({"wanted": [asked] * count})


MALFORMED_QUESTIONS = {
    "nothing": b"",
    "no JSON": b"{",
    "another type": b"[]",
    "no list": b"{}",
    "an unknown field": questions(more=1),
    "too many": questions(MAX_DELTA_QUESTIONS + 1),
    "no base at all": questions(bases=()),
    "too many alternatives": questions(bases=((),) * 5),
    "too many joined": questions(bases=((DIGEST,) * 9,)),
    "no digest": questions(target="sha256:12"),
    "a path for a digest": questions(bases=(("../../keys",),)),
    "joined in one text": questions(bases=((f"{DIGEST}+{DIGEST}",),)),
    "a base that is no list": questions(bases=(DIGEST,)),
    "deep nesting": b'{"wanted":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
}


@pytest.mark.parametrize("body", MALFORMED_QUESTIONS.values(), ids=list(MALFORMED_QUESTIONS))
async def test_a_malformed_question_for_deltas_is_refused(
    client: httpx2.AsyncClient, backend: Backend, body: bytes
) -> None:
    assert problem(await ask(client, body)) == (400, "body.malformed")
    assert backend.questions == []


async def test_the_largest_question_is_taken_and_a_larger_body_is_not(
    client: httpx2.AsyncClient, backend: Backend
) -> None:
    largest = questions(MAX_DELTA_QUESTIONS, bases=((DIGEST,) * 8, ()))
    assert len(largest) < MAX_BODY_BYTES
    assert (await ask(client, largest)).status_code == 200
    assert len(backend.questions[0][1].wanted) == MAX_DELTA_QUESTIONS
    assert problem(await ask(client, b" " * (MAX_BODY_BYTES + 1))) == (400, "body.too_large")
    assert len(backend.questions) == 1
