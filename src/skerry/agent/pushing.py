"""Takes what applications push over OTLP, and tells components that are started where to push.

Rules: each component of each release has a path of its own, which nobody else on the host can guess: so what is pushed
is labelled with where it comes from, and no application writes the figures of another. The paths stay the same when the
agent is started again, as long as the port is free.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from skerry.agent.recording import Recorder
from skerry.agent.services.host_service import NOTHING, Given
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Denied, Rejected, SkerryError
from skerry.ports.kept_documents import KeptDocuments
from skerry.ports.push_door import PushDoor
from skerry.telemetry.otlp import parse_otlp
from skerry.telemetry.pushed import PushReader

_log = structlog.get_logger()

DOCUMENT = "telemetry_push"
MAX_SOURCES = 256
MAX_SERIES = 200
MARK_BYTES = 16
METRICS_PATH, PREDICTIONS_PATH = "v1/metrics", "v1/predictions"


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Who pushes: a component of an application, as a release named it."""

    app: str
    component: str
    release: str


class _Door(msgspec.Struct, frozen=True):
    """What stays the same: where the door is, the secret of its paths, and whom they were given to."""

    port: int = 0
    secret: bytes = b""
    given: dict[str, Source] = {}


class Pushing:
    """`take` is called in threads, all else in the event loop."""

    def __init__(
        self, door: PushDoor, recorder: Recorder, store: KeptDocuments, now: Callable[[], datetime]
    ) -> None:
        self._door = door
        self._recorder = recorder
        self._store = store
        self._now = now
        self._readers: dict[str, PushReader] = {}
        self._since_ns = int(now().timestamp() * 1e9)
        self._open = self._tried = False
        self.predicted: Callable[[Source, bytes], None] | None = None
        self._state = _load(store)

    async def open(self) -> None:
        """Open the door once, at the port it had before if that is free. Without it applications are told of none."""
        if self._tried:
            return
        self._tried = True
        try:
            port = await self._door.open(
                self._state.port, {METRICS_PATH: self.take, PREDICTIONS_PATH: self.take_predictions}
            )
            self._save(port=port)
            self._open = True
        except SkerryError as error:
            _log.warning("otlp.closed", code=error.code, reason=error.message)

    async def close(self) -> None:
        """Close the door."""
        await self._door.close()

    def give(self, source: Source) -> Given:
        """Return the variables that OpenTelemetry's SDKs go by, for a component that is about to be started."""
        if not self._open:
            return NOTHING
        text = msgspec.json.encode(source)
        mark = hmac.new(self._state.secret, text, hashlib.sha256).hexdigest()[: 2 * MARK_BYTES]
        if mark not in self._state.given:
            given = dict(list(self._state.given.items())[-(MAX_SOURCES - 1) :])
            self._save(given={**given, mark: source})
        url = f"http://127.0.0.1:{self._state.port}/{mark}"
        return Given(
            env={
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{url}/{METRICS_PATH}",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
                "SKERRY_TELEMETRY_URL": url,
            }
        )

    def take(self, mark: str, body: bytes, json: bool) -> None:  # noqa: FBT001 (a port's)
        """Count what a component pushed.

        Raises:
            Denied: nobody was given that path (`otlp.unknown`).
            Rejected: it is no OTLP (`otlp.*`).
        """
        source = self._source(mark)
        points = parse_otlp(body, json=json)
        reader = self._readers.get(mark)
        if reader is None:
            where = {"app": source.app, "component": source.component, "release": source.release}
            reader = self._readers[mark] = PushReader(where, most=MAX_SERIES, since_ns=self._since_ns)
        before = reader.refused
        self._recorder.record(reader.read(points))
        if reader.refused > before:
            self._recorder.refuse(reader.refused - before, reader.worst)

    def take_predictions(self, mark: str, body: bytes, json: bool) -> None:  # noqa: FBT001 (a port's)
        """Count what a component's model answered, and what was true.

        Raises:
            Denied: nobody was given that path (`otlp.unknown`).
            Rejected: it is no body of predictions (`quality.malformed`).
            Unavailable: it cannot be kept now (`disk.full`).
        """
        source = self._source(mark)
        if not json or self.predicted is None:
            raise Rejected("quality.malformed", "predictions are JSON")
        self.predicted(source, body)

    def _source(self, mark: str) -> Source:
        source = self._state.given.get(mark)
        if source is None:
            raise Denied("otlp.unknown", "no component was told to push there")
        return source

    def _save(self, **changes: object) -> None:
        changed = msgspec.structs.replace(self._state, **changes)
        if changed != self._state:
            self._store.save({DOCUMENT: msgspec.json.encode(changed)})
            self._state = changed


def _load(store: KeptDocuments) -> _Door:
    try:
        found = msgspec.json.decode(store.load(DOCUMENT) or b"{}", type=_Door)
    except UNREADABLE:
        found = _Door()
    return found if found.secret else msgspec.structs.replace(found, secret=secrets.token_bytes(32))
