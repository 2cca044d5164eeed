"""The application's HTTP face, plain ASGI: `POST /infer`, `POST /reload`, `GET /healthz`, `GET /metrics`.

A model that was refused does not stop the application from starting: it answers `/healthz` with 503 and the
reason, so that whoever rolls out the release sees why it fails. Errors are problem documents (RFC 9457).

Readings run on the event loop itself: one takes well under a millisecond, less than handing it to a thread
would.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from meter_reader.metrics import CONTENT_TYPE as METRICS_TYPE
from meter_reader.metrics import Metrics
from meter_reader.model import DigitModel, ModelRefusedError, Reading
from meter_reader.picture import BadPictureError, Picture, parse_jpeg, parse_png, parse_raw, split_digits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 1024 * 1024
METHODS = {"/infer": "POST", "/reload": "POST", "/healthz": "GET", "/metrics": "GET"}
Load = Callable[[], DigitModel | ModelRefusedError]
log = logging.getLogger("meter_reader")


class RequestError(Exception):
    """A request that gets no reading: status, stable kind for the error counter, words for the sender."""

    def __init__(self, status: HTTPStatus, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail


class ClientGoneError(Exception):
    """The sender hung up before its body was complete: nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response on its way out."""

    status: HTTPStatus
    media_type: str
    body: bytes


class MeterReader:
    """The ASGI application.

    `model` is the loaded model, or the reason why it was refused; `load` loads the one that is there by then.
    """

    def __init__(self, model: DigitModel | ModelRefusedError, load: Load | None = None) -> None:
        self._model = model
        self._load = load
        self.metrics = Metrics()

    def use(self, model: DigitModel | ModelRefusedError) -> None:
        """Go over to another model, or to answering that it was refused; a request under way keeps its own."""
        self._model = model

    def read_picture(self, jpeg: bytes) -> dict[str, object]:
        """Return what a picture of a camera shows, for the message bus.

        Raises:
            BadPictureError: it shows no counter.
            ModelRefusedError: there is no model to read it with.
        """
        model = self._model
        if isinstance(model, ModelRefusedError):
            raise model
        started = time.perf_counter()
        reading = model.read(split_digits(parse_jpeg(jpeg)))
        self.metrics.latency_s.observe(time.perf_counter() - started)
        for score in reading.scores:
            self.metrics.score.observe(score)
        least = round(min(reading.scores), 6)
        return {
            "value": int(reading.digits),
            "digits": reading.digits,
            "score": least,
            "model": _model_facts(model),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is spoken here, not {scope['type']}")
        try:
            answer = await self._answer(scope, receive)
        except ClientGoneError:
            return
        headers = [
            (b"content-type", answer.media_type.encode("ascii")),
            (b"content-length", str(len(answer.body)).encode("ascii")),
        ]
        await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path, method = str(scope["path"]), str(scope["method"])
        wanted = METHODS.get(path)
        if wanted is None:
            return problem_answer(HTTPStatus.NOT_FOUND, f"there is no {path}")
        if method != wanted and not (method == "HEAD" and wanted == "GET"):
            return problem_answer(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {wanted}")
        if path == "/healthz":
            return self._health()
        if path == "/metrics":
            return self._metrics()
        if path == "/reload":
            return self._reload()
        return await self._infer(scope, receive)

    def _health(self) -> Answer:
        # Read once, here and below: a signal may bring another model between two lines.
        model = self._model
        if isinstance(model, ModelRefusedError):
            failing = {"status": "failing", "reason": str(model)}
            return json_answer(HTTPStatus.SERVICE_UNAVAILABLE, failing)
        return json_answer(HTTPStatus.OK, {"status": "ok", "model": _model_facts(model)})

    def _reload(self) -> Answer:
        """Take the model that is there now; if it is refused, keep the one in use and say so."""
        if self._load is None:
            return problem_answer(HTTPStatus.NOT_FOUND, "there is nothing to load a model from")
        model = self._load()
        if isinstance(model, ModelRefusedError):
            return problem_answer(HTTPStatus.CONFLICT, f"the model was refused: {model}")
        self.use(model)
        return Answer(HTTPStatus.NO_CONTENT, "text/plain", b"")

    def _metrics(self) -> Answer:
        facts = {"version": "", "variant": ""}
        model = self._model
        if isinstance(model, DigitModel):
            facts = _model_facts(model)
        return Answer(HTTPStatus.OK, METRICS_TYPE, self.metrics.render(**facts).encode("utf-8"))

    async def _infer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            body = await _read_body(receive)
            started = time.perf_counter()
            answer = self._read_counter(scope, body)
            self.metrics.latency_s.observe(time.perf_counter() - started)
        except RequestError as problem:
            self.metrics.errors[problem.kind] += 1
            answer = problem_answer(problem.status, problem.detail)
        except ClientGoneError:
            raise
        except Exception:
            log.exception("reading failed")
            self.metrics.errors["internal"] += 1
            answer = problem_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "the reading failed, the log says more")
        self.metrics.requests[str(int(answer.status))] += 1
        return answer

    def _read_counter(self, scope: Scope, body: bytes) -> Answer:
        model = self._model
        if isinstance(model, ModelRefusedError):
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", f"no usable model: {model}")
        try:
            reading = model.read(split_digits(_parse_picture(scope, body)))
        except BadPictureError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, "bad_request", str(error)) from error
        for score in reading.scores:
            self.metrics.score.observe(score)
        return json_answer(HTTPStatus.OK, _reading_facts(reading, model))


async def _read_body(receive: Receive) -> bytes:
    """Gather the body. What is beyond the limit is never kept, whatever the sender's headers claim."""
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size_bytes += len(part)
        if size_bytes > MAX_BODY_BYTES:
            detail = f"a body holds at most {MAX_BODY_BYTES} bytes"
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "bad_request", detail)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _parse_picture(scope: Scope, body: bytes) -> Picture:
    media_type = ""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media_type = value.decode("latin-1").partition(";")[0].strip().lower()
    if media_type == "image/png":
        return parse_png(body)
    if media_type == "image/jpeg":
        return parse_jpeg(body)
    if media_type == "application/octet-stream":
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        return parse_raw(body, _pixels(query, "width"), _pixels(query, "height"))
    detail = "content-type is image/png, image/jpeg, or application/octet-stream with width and height in the query"
    raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bad_request", detail)


def _pixels(query: dict[str, list[str]], name: str) -> int:
    text = query.get(name, [""])[0]
    # At most six figures: int() of a very long text is slow, and no counter is that wide.
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise BadPictureError(f"raw pixels need a whole number as {name} in the query")
    return int(text)


def _model_facts(model: DigitModel) -> dict[str, str]:
    return {"version": model.description.version, "variant": model.description.variant}


def _reading_facts(reading: Reading, model: DigitModel) -> dict[str, object]:
    return {
        "digits": reading.digits,
        "scores": [round(score, 6) for score in reading.scores],
        "model": _model_facts(model),
    }


def json_answer(status: HTTPStatus, content: object, media_type: str = "application/json") -> Answer:
    """An answer with a JSON body."""
    return Answer(status, media_type, json.dumps(content).encode("utf-8"))


def problem_answer(status: HTTPStatus, detail: str) -> Answer:
    """An answer with a problem document (RFC 9457)."""
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
    return json_answer(status, content, "application/problem+json")
