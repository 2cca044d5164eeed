"""The carrier API as one Starlette app over a `CarrierBackend`.

Rules: a body is bounded before it is parsed; an error is a problem document; a blob is immutable and served by
ranges; who asks too often is told when to ask again; nothing else is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from skerry.carrier.limits import CarrierLimits, TooMany, address_of
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import parse_digest
from skerry.kit.errors import Bug, Missing, Rejected, SkerryError, Unauthenticated
from skerry.ports.carrier_backend import CarrierBackend
from skerry.spec.carrier import MAX_BODY_BYTES, DeltaRequest, EnrollRequest, KeyChangeRequest, SyncRequest
from skerry.spec.carrying import MAX_CARRY_BYTES, CarryRequest, RelayEnrollRequest
from skerry.spec.problem_details import PROBLEM_MEDIA_TYPE, problem_of
from skerry.trust.report import claimed_key
from skerry.trust.tokens import hash_secret

_log = structlog.get_logger()
_range_re = re.compile(r"^bytes=(\d{1,18})-(\d{0,18})$")
_encode = msgspec.json.encode

T = TypeVar("T")


def carrier_app(backend: CarrierBackend, *, limits: CarrierLimits | None = None) -> Starlette:
    """Return the app; mount it at the root, its paths begin with `/v1/`. Without `limits` all may ask as they like."""
    guard = partial(_guard, limits)
    exchange = partial(_exchange, guard)

    async def trust_root(request: Request) -> Response:
        with guard(request):
            content = await backend.trust_root(request.query_params.get("digest", "")[:80])
        return Response(content, media_type="application/json")

    async def metadata(request: Request) -> Response:
        token = _bearer(request)
        with guard(request, hash_secret(token)):
            backend.check_blob_token(token)
        content = await backend.metadata(request.path_params["name"])
        return Response(content, media_type="application/octet-stream")

    async def sync(request: Request) -> Response:
        body = await _read(request, SyncRequest)
        with guard(request, claimed_key(body.reports[0])):
            answer = await backend.sync(body, gone=partial(_cut, request))
        return Response(_encode(answer), media_type="application/json")

    async def deltas(request: Request) -> Response:
        token = _bearer(request)
        with guard(request, hash_secret(token)):
            host = backend.check_blob_token(token)
        if limits is not None:
            limits.take_deltas(host, hosts=backend.hosts_behind(host))
        answer = await backend.deltas(host, await _read(request, DeltaRequest))
        return Response(_encode(answer), media_type="application/json")

    async def blob(request: Request) -> Response:
        return await _serve_blob(request, backend)

    return Starlette(
        routes=[
            Route("/v1/sync", sync, methods=["POST"]),
            exchange("/v1/carry", CarryRequest, backend.carry, lambda body: claimed_key(body.relay)),
            exchange("/v1/enroll-relay", RelayEnrollRequest, backend.enroll_relay),
            Route("/v1/blobs/{digest}", blob, methods=["GET", "HEAD"]),
            Route("/v1/deltas", deltas, methods=["POST"]),
            exchange("/v1/enroll", EnrollRequest, backend.enroll),
            exchange("/v1/keys", KeyChangeRequest, backend.change_keys),
            Route("/v1/metadata/{name}", metadata, methods=["GET"]),
            Route("/v1/trust-root", trust_root, methods=["GET"]),
        ],
        exception_handlers={
            SkerryError: _answer_error,
            HTTPException: _answer_http,
            Exception: _answer_bug,
        },
    )


def _exchange(
    guard: Callable[..., AbstractContextManager[None]],
    path: str,
    kind: type[T],
    answer: Callable[[T], Awaitable[msgspec.Struct]],
    claim: Callable[[T], str] | None = None,
) -> Route:
    """Return the route of one message and its answer; `claim` is who the sender says it is."""
    max_bytes = MAX_CARRY_BYTES if kind is CarryRequest else MAX_BODY_BYTES

    async def endpoint(request: Request) -> Response:
        if claim is None:
            with guard(request):  # a stranger's body is read only when it may come now
                found = await answer(await _read(request, kind, max_bytes))
        else:
            body = await _read(request, kind, max_bytes)
            with guard(request, claim(body)):
                found = await answer(body)
        return Response(_encode(found), media_type="application/json")

    return Route(path, endpoint, methods=["POST"])


@contextmanager
def _guard(limits: CarrierLimits | None, request: Request, claim: str = "") -> Generator[None]:
    """Let a request in, if it may come now, and learn from how it ends."""
    if limits is None:
        yield
        return
    with limits.guard(address_of(request.client.host if request.client else None), claim):
        yield


async def _read(request: Request, kind: type[T], max_bytes: int = MAX_BODY_BYTES) -> T:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise Rejected("body.too_large", f"a body may have {max_bytes} bytes at most")
    except ClientDisconnect as error:
        raise Rejected("body.cut", "the body did not arrive whole") from error
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise Rejected("body.malformed", f"not a {kind.__name__}: {str(error)[:200]}") from error


async def _cut(request: Request) -> None:
    """Return when the connection of a request that has been read is cut."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("blob_token.absent", "a blob token is needed", hint="sync gives one")
    return token


async def _serve_blob(request: Request, backend: CarrierBackend) -> Response:
    backend.check_blob_token(_bearer(request))
    digest = parse_digest(request.path_params["digest"])
    size = await backend.blobs.size(digest)
    if size is None:
        raise Missing("blob.missing", f"there is no blob {digest}")
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "ETag": f'"{digest}"',
        "Content-Type": "application/octet-stream",
    }
    start, end, status = 0, size, 200
    if asked := request.headers.get("range"):
        match = _range_re.match(asked)
        # A range we do not understand is ignored, as RFC 9110 14.2 allows; one past the end is an error.
        if match:
            start, end, status = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size), 206
            if start >= size or end <= start:
                return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(
        backend.blobs.read(digest, start=start, end=end), status_code=status, headers=headers
    )


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, SkerryError)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(error.retry_after_s)
    body = _encode(problem_of(error))
    return Response(body, status_code=error.http_status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


async def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses, an unknown path or a wrong method, as a problem document, too."""
    assert isinstance(error, HTTPException)
    family: type[SkerryError] = Missing if error.status_code == 404 else Rejected
    problem = problem_of(
        family(f"http.{error.status_code}", f"{request.method} {request.url.path}: {error.detail}")
    )
    body = _encode(msgspec.structs.replace(problem, status=error.status_code))
    return Response(body, error.status_code, error.headers, media_type=PROBLEM_MEDIA_TYPE)


async def _answer_bug(request: Request, error: Exception) -> Response:
    _log.error("carrier.bug", path=request.url.path, exc_info=error)
    return await _answer_error(request, Bug("internal", "an error of the hub; its log says more"))
