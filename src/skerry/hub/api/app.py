"""The operator API as a Litestar app, and its OpenAPI document."""

from __future__ import annotations

import functools
from typing import cast

import msgspec
import structlog
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Receive, Scope, Send

from skerry.carrier.limits import TooMany
from skerry.hub.api import (
    audit,
    bindings,
    bundles,
    configurations,
    decisions,
    deltas,
    documents,
    downlinks,
    event_log,
    fleet,
    forecast,
    health,
    hosts,
    logs,
    metadata,
    names,
    operators,
    pki,
    policies,
    preview,
    recovery,
    relays,
    releases,
    routes,
    secrets,
    sinks,
    telemetry,
    topic_messages,
    volumes,
)
from skerry.hub.api.auth import TokenAuth, require_role
from skerry.hub.api.door import Door, add_safe_headers
from skerry.hub.api.openapi import Rendered
from skerry.hub.api.operators import ApiRequest
from skerry.hub.api.scope import Seen
from skerry.hub.api.served import SERVED, Served, served_by
from skerry.hub.services import Hub
from skerry.kit.errors import Bug, Denied, Missing, Rejected, SkerryError, Unauthenticated
from skerry.spec.api import ProblemDetails
from skerry.spec.problem_details import PROBLEM_MEDIA_TYPE, problem_of

_log = structlog.get_logger()

API_PATH = "/api/v1"
ERRORS = {
    status: ResponseSpec(
        ProblemDetails, description=text, media_type=PROBLEM_MEDIA_TYPE, generate_examples=False
    )
    for status, text in (
        (400, "The request is wrong; every problem is named."),
        (401, "No valid API token."),
        (403, "The token's role is too low."),
        (404, "There is no such thing."),
        (409, "The state has moved on, or is immutable."),
        (413, "The body is too large."),
        (422, "A digest does not hold."),
        (429, "Too many requests; Retry-After says when to ask again."),
        (503, "Not now; try again later."),
    )
}
AnyRequest = Request[object, object, State]


@get("/healthz", media_type=MediaType.TEXT, security=[{}])
async def healthz() -> str:
    """Say that the hub serves."""
    return "ok\n"


class OperatorApi:
    """The operator API over one hub: an ASGI application."""

    def __init__(self, hub: Hub) -> None:
        self.served = Served(hub, Door(hub.store, hub.clock))
        self._operations = operations()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        cast(dict[str, object], scope)[SERVED] = self.served
        await self._operations(scope, receive, send)


@functools.cache
def operations() -> Litestar:
    """Return all operations, for whichever hub a request comes with."""
    handlers = [
        *operators.HANDLERS,
        *audit.HANDLERS,
        *bindings.HANDLERS,
        *fleet.HANDLERS,
        *releases.HANDLERS,
        *metadata.HANDLERS,
        *documents.HANDLERS,
        *decisions.HANDLERS,
        *preview.HANDLERS,
        *deltas.HANDLERS,
        *volumes.HANDLERS,
        *topic_messages.HANDLERS,
        *downlinks.HANDLERS,
        *sinks.HANDLERS,
        *recovery.HANDLERS,
        *hosts.HANDLERS,
        *policies.HANDLERS,
        *configurations.HANDLERS,
        *relays.HANDLERS,
        *bundles.HANDLERS,
        *secrets.HANDLERS,
        *routes.HANDLERS,
        *names.HANDLERS,
        *pki.HANDLERS,
        *forecast.HANDLERS,
        *health.HANDLERS,
        *event_log.HANDLERS,
        *telemetry.HANDLERS,
        *logs.HANDLERS,
    ]
    for handler in handlers:
        handler.responses = ERRORS
    router = Router(
        path=API_PATH,
        route_handlers=handlers,
        guards=[require_role],
        middleware=[DefineMiddleware(TokenAuth)],
        dependencies={"seen": Provide(_seen_by, sync_to_thread=False)},
    )
    return Litestar(
        route_handlers=[router, healthz],
        dependencies={"hub": Provide(_hub_of, sync_to_thread=False)},
        exception_handlers={SkerryError: _answer, HTTPException: _answer_http, Exception: _answer_bug},
        openapi_config=OpenAPIConfig(
            title="Skerry hub",
            version="v1",  # of the interface; the hub's own is nobody's business who has no token
            description="The operator API of a Skerry hub.",
            path="/api",
            use_handler_docstrings=True,
            render_plugins=[Rendered("/openapi.json")],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
        ),
        before_send=[add_safe_headers],
        request_max_body_size=2 << 20,
        logging_config=None,
    )


def _hub_of(request: AnyRequest) -> Hub:
    return served_by(request).hub


def _seen_by(request: ApiRequest) -> Seen:
    return Seen(served_by(request).hub, request.user)


def _answer(_: AnyRequest, error: SkerryError) -> Response[bytes]:
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(
        msgspec.json.encode(problem_of(error)),
        status_code=error.http_status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers=headers,
    )


def _answer_http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Turn what the framework itself refuses into a problem document."""
    detail = str(error.detail)[:500]
    if error.extra:
        detail = "; ".join(_extra(item) for item in error.extra) if isinstance(error.extra, list) else detail
    family: type[SkerryError] = {404: Missing, 401: Unauthenticated, 403: Denied}.get(
        error.status_code, Rejected
    )
    problem = problem_of(family(f"http.{error.status_code}", detail))
    body = msgspec.json.encode(msgspec.structs.replace(problem, status=error.status_code))
    if error.status_code >= 500:
        return _answer_bug(request, error)
    return Response(
        body, status_code=error.status_code, media_type=PROBLEM_MEDIA_TYPE, headers=error.headers or {}
    )


def _extra(item: object) -> str:
    if isinstance(item, dict):
        item = cast(dict[str, object], item)
        key, message = item.get("key", ""), item.get("message", "")
        return f"{key}: {message}" if key else str(message)
    return str(item)


def _answer_bug(request: AnyRequest, error: Exception) -> Response[bytes]:
    _log.error("api.bug", path=request.url.path, exc_info=error)
    return _answer(request, Bug("internal", "an error of the hub; its log says more"))
