"""Reads what OpenTelemetry's SDKs send: ExportMetricsServiceRequest of OTLP 1, as protobuf or as JSON.

Sources: https://opentelemetry.io/docs/specs/otlp/ and opentelemetry/proto/metrics/v1/metrics.proto of
https://github.com/open-telemetry/opentelemetry-proto; the wire of protobuf:
https://protobuf.dev/programming-guides/encoding/.

Rules: of a request only what becomes figures is read, fields by number or name, unknown ones passed over. What is no
OTLP raises; it is never guessed at. Summaries have no distribution that could be merged, and are left out. Work and
memory grow with the size of the request alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected

MAX_POINTS = 20_000
MAX_LABELS = 64
DELTA = 1
STRANGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error, msgspec.MsgspecError,
)  # fmt: skip
"""What reading of a shape that nobody promised raises."""

Attributes = tuple[tuple[str, str], ...]
_Fields = Mapping[int, list[int | bytes]]


class Buckets(msgspec.Struct, frozen=True):
    """One half of an exponential histogram."""

    offset: int = 0
    counts: tuple[int, ...] = ()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What a data point says. A `sum` that is not monotonic is a gauge.

    `delta`: since the last time, else since `start`. `bounds` and `counts` are those of a histogram; `scale`, `zeros`,
    `positive` and `negative` those of an exponential one.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram", "exponential"]
    attributes: Attributes = ()
    start: int = 0
    delta: bool = False
    value: float = 0.0
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    scale: int = 0
    zeros: int = 0
    positive: Buckets = Buckets()
    negative: Buckets = Buckets()


def parse_otlp(body: bytes, *, json: bool) -> list[Point]:
    """Return the data points of a request.

    Raises:
        Rejected: it is no such request, or has more points than are taken (`otlp.malformed`, `otlp.too_large`).
    """
    found: list[Point] = []
    try:
        for point in _json_points(body) if json else _wire_points(body):
            found.append(point)
            if len(found) > MAX_POINTS:
                raise Rejected("otlp.too_large", f"more than {MAX_POINTS} data points")
    except STRANGE as error:
        raise Rejected("otlp.malformed", f"not a request of OTLP: {str(error)[:200]}") from error
    return found


def _wire_points(body: bytes) -> Iterator[Point]:
    for resource in _messages(_fields(body), 1):
        for scope in _messages(_fields(resource), 2):
            for raw in _messages(_fields(scope), 2):
                metric = _fields(raw)
                name = _text(metric, 1)
                for data in _messages(metric, 5):
                    yield from (_number(name, _fields(p), "gauge") for p in _messages(_fields(data), 1))
                for data in _messages(metric, 7):
                    yield from _sum(name, _fields(data))
                for data in _messages(metric, 9):
                    fields = _fields(data)
                    delta = _int(fields, 2) == DELTA
                    yield from (_histogram(name, _fields(p), delta) for p in _messages(fields, 1))
                for data in _messages(metric, 10):
                    fields = _fields(data)
                    delta = _int(fields, 2) == DELTA
                    yield from (_exponential(name, _fields(p), delta) for p in _messages(fields, 1))


def _sum(name: str, fields: _Fields) -> Iterator[Point]:
    kind: Literal["gauge", "counter"] = "counter" if _int(fields, 3) else "gauge"
    delta = _int(fields, 2) == DELTA
    for raw in _messages(fields, 1):
        yield msgspec.structs.replace(_number(name, _fields(raw), kind), delta=delta)


def _number(name: str, fields: _Fields, kind: Literal["gauge", "counter"]) -> Point:
    value = float(_signed(_fixed(fields, 6))) if 6 in fields else _double(_fixed(fields, 4))
    return Point(
        name=name, kind=kind, attributes=_attributes(fields, 7), start=_fixed(fields, 2), value=value
    )


def _histogram(name: str, fields: _Fields, delta: bool) -> Point:  # noqa: FBT001
    return Point(
        name=name,
        kind="histogram",
        attributes=_attributes(fields, 9),
        start=_fixed(fields, 2),
        delta=delta,
        counts=tuple(_packed_fixed(fields, 6)),
        bounds=tuple(map(_double, _packed_fixed(fields, 7))),
    )


def _exponential(name: str, fields: _Fields, delta: bool) -> Point:  # noqa: FBT001
    return Point(
        name=name,
        kind="exponential",
        attributes=_attributes(fields, 1),
        start=_fixed(fields, 2),
        delta=delta,
        scale=_zigzag(_int(fields, 6)),
        zeros=_fixed(fields, 7),
        positive=_buckets(fields, 8),
        negative=_buckets(fields, 9),
    )


def _buckets(fields: _Fields, number: int) -> Buckets:
    for raw in _messages(fields, number):
        found = _fields(raw)
        return Buckets(_zigzag(_int(found, 1)), tuple(_packed_varints(found, 2)))
    return Buckets()


def _attributes(fields: _Fields, number: int) -> Attributes:
    found: list[tuple[str, str]] = []
    for raw in _messages(fields, number):
        pair = _fields(raw)
        for value in _messages(pair, 2):
            text = _any_value(_fields(value))
            if text is not None and len(found) < MAX_LABELS:
                found.append((_text(pair, 1), text))
    return tuple(found)


def _any_value(fields: _Fields) -> str | None:
    """Return a plain value as text; None for lists, maps and bytes."""
    if 1 in fields:
        return _text(fields, 1)
    if 2 in fields:
        return "true" if _int(fields, 2) else "false"
    if 3 in fields:
        return str(_signed(_int(fields, 3)))
    return repr(_double(_fixed(fields, 4))) if 4 in fields else None


def _fields(body: bytes) -> _Fields:
    """Return the fields of a message by number: whole numbers, or the bytes of all else."""
    found: dict[int, list[int | bytes]] = {}
    place = 0
    while place < len(body):
        tag, place = _varint(body, place)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, place = _varint(body, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, place = int.from_bytes(body[place : place + size], "little"), place + size
        elif wire == 2:
            size, place = _varint(body, place)
            value, place = body[place : place + size], place + size
        else:
            raise ValueError(f"wire type {wire}")
        if place > len(body) or not number:
            raise ValueError("a field that is cut off")
        found.setdefault(number, []).append(value)
    return found


def _varint(body: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        part = body[place]
        place += 1
        value |= (part & 127) << shift
        if part < 128:
            return value & (1 << 64) - 1, place
        shift += 7
        if shift > 63:
            raise ValueError("a number that is too long")


def _messages(fields: _Fields, number: int) -> Iterator[bytes]:
    for value in fields.get(number, ()):
        if not isinstance(value, bytes):
            raise ValueError(f"field {number} is no message")  # noqa: TRY004
        yield value


def _text(fields: _Fields, number: int) -> str:
    return b"".join(list(_messages(fields, number))[-1:]).decode()


def _int(fields: _Fields, number: int) -> int:
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")  # noqa: TRY004
    return value


_fixed = _int


def _packed_fixed(fields: _Fields, number: int) -> Iterator[int]:
    for value in fields.get(number, ()):
        if isinstance(value, int):
            yield value
        else:
            yield from (one for (one,) in struct.iter_unpack("<Q", value))


def _packed_varints(fields: _Fields, number: int) -> Iterator[int]:
    for value in fields.get(number, ()):
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            one, place = _varint(value, place)
            yield one


def _double(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _json_points(body: bytes) -> Iterator[Point]:
    try:
        request: Any = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise ValueError(f"no JSON: {error}") from error
    for resource in _list(request, "resourceMetrics"):
        for scope in _list(resource, "scopeMetrics"):
            for metric in _list(scope, "metrics"):
                yield from _json_metric(metric)


def _json_metric(metric: Mapping[str, Any]) -> Iterator[Point]:
    name = str(metric.get("name", ""))
    kinds: Sequence[tuple[str, Literal["gauge", "counter", "histogram", "exponential"]]] = (
        ("gauge", "gauge"),
        ("sum", "counter"),
        ("histogram", "histogram"),
        ("exponentialHistogram", "exponential"),
    )
    for key, kind in kinds:
        data: Mapping[str, Any] = metric.get(key) or {}
        delta = data.get("aggregationTemporality") in (DELTA, "AGGREGATION_TEMPORALITY_DELTA")
        for point in _list(data, "dataPoints"):
            value = point.get("asInt", point.get("asDouble", 0.0))
            yield Point(
                name=name,
                kind="gauge" if kind == "counter" and not data.get("isMonotonic") else kind,
                attributes=tuple(_json_attributes(point)),
                start=int(point.get("startTimeUnixNano", 0)),
                delta=delta,
                value=float(value),
                bounds=tuple(map(float, point.get("explicitBounds", ()))),
                counts=tuple(map(int, point.get("bucketCounts", ()))),
                scale=int(point.get("scale", 0)),
                zeros=int(point.get("zeroCount", 0)),
                positive=_json_buckets(point.get("positive") or {}),
                negative=_json_buckets(point.get("negative") or {}),
            )


def _json_attributes(point: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for pair in _list(point, "attributes")[:MAX_LABELS]:
        value: Mapping[str, Any] = pair.get("value") or {}
        for kind in ("stringValue", "intValue", "doubleValue"):
            if kind in value:
                yield str(pair["key"]), str(value[kind])
        if "boolValue" in value:
            yield str(pair["key"]), "true" if value["boolValue"] else "false"


def _json_buckets(said: Mapping[str, Any]) -> Buckets:
    return Buckets(int(said.get("offset", 0)), tuple(map(int, said.get("bucketCounts", ()))))


def _list(value: Any, key: str) -> list[Any]:
    return msgspec.convert(value.get(key) or [], list[Any])
