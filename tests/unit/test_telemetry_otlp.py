"""What OpenTelemetry's SDK and Prometheus' client library tell is counted as it happened, and nothing else is taken."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import threading
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.exposition import choose_encoder

from skerry.adapters.otlp_door import MAX_BODY_BYTES, OtlpDoor
from skerry.agent.pushing import MAX_SERIES, Pushing, Source
from skerry.agent.recording import Recorder
from skerry.kit.errors import Denied, Rejected
from skerry.telemetry import windows
from skerry.telemetry.blocks import decode_block
from skerry.telemetry.otlp import Buckets, Point, parse_otlp
from skerry.telemetry.pushed import PushReader
from skerry.telemetry.scraping import Scraper
from skerry.telemetry.sketch import quantile
from skerry.telemetry.windows import Counter, Distribution, SeriesKey, WindowValue
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer

SOURCE = Source("reader", "main", "reader@1.0.0")
WHERE = {"app": "reader", "component": "main", "release": "reader@1.0.0"}


class World:
    """A host whose door is open."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.recorder = Recorder(MemoryTelemetryBuffer(), self.clock.now)
        self.store = MemoryAgentStore()
        self.pushing = self.started()

    def started(self) -> Pushing:
        return Pushing(OtlpDoor(), self.recorder, self.store, self.clock.now)

    @property
    def endpoint(self) -> str:
        return self.pushing.give(SOURCE).env["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]

    def told(self) -> dict[SeriesKey, WindowValue]:
        """Return all that was recorded, by series."""
        self.recorder.flush(everything=True)
        batch = self.recorder.next_batch()
        if batch is None:
            return {}
        self.recorder.note_taken(batch.number)
        series = decode_block(batch.block).series
        return {
            key: merged
            for key, of in series.items()
            if (merged := windows.merge_all(of.values())) is not None
        }

    async def post(self, body: bytes, *, path: str = "", **headers: str) -> int:
        place = path or self.endpoint.removeprefix("http://").partition("/")[2]
        address = self.endpoint.removeprefix("http://").partition("/")[0]
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await asyncio.to_thread(_post, address, f"/{place.lstrip('/')}", body, sent)


def _post(address: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.pushing.open()
    yield made
    await made.pushing.close()


def value(found: dict[SeriesKey, WindowValue], name: str, **labels: str) -> WindowValue:
    wanted = {**WHERE, **labels}
    (one,) = [value for key, value in found.items() if key.name == name and dict(key.labels) == wanted]
    return one


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


async def test_an_application_of_the_real_sdk_is_counted_in_all_its_instruments(world: World) -> None:
    endpoint = world.endpoint

    def application() -> None:
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=endpoint), export_interval_millis=3_600_000
        )
        view = View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())
        provider = MeterProvider([reader], views=[view])
        meter = provider.get_meter("reader")
        calls, size = meter.create_counter("calls"), meter.create_histogram("size")
        seconds = meter.create_histogram("seconds", explicit_bucket_boundaries_advisory=[0.1, 0.5, 1.0])
        meter.create_observable_gauge("queue", [lambda _: [Observation(3.5, {"lane": "left"})]])
        waiting = meter.create_up_down_counter("waiting")
        for _ in range(2):
            calls.add(5, {"status": "200"})
            waiting.add(2)
            for number in range(1, 101):
                size.record(number)
                seconds.record(number / 100)
            provider.force_flush()
        provider.shutdown()

    await asyncio.to_thread(application)
    found = world.told()
    assert value(found, "calls", status="200") == Counter(3, 10.0)
    queue, waiting = value(found, "queue", lane="left"), value(found, "waiting")
    assert isinstance(queue, windows.Gauge)
    assert isinstance(waiting, windows.Gauge)
    assert (queue.last, waiting.last) == (3.5, 4.0)
    size, seconds = value(found, "size"), value(found, "seconds")
    assert isinstance(size, Distribution)
    assert isinstance(seconds, Distribution)
    assert (size.count, seconds.count) == (200, 200)
    assert quantile(size.sketch, 0.5) == pytest.approx(50, rel=0.03)
    assert quantile(seconds.sketch, 0.5) == pytest.approx(0.5, rel=0.011)


async def test_json_and_compressed_bodies_say_the_same(world: World) -> None:
    body = msgspec.json.encode(request("calls", 5))
    assert await world.post(body) == 200
    later = msgspec.json.encode(request("calls", 8))
    assert await world.post(gzip.compress(later), Content_Encoding="gzip") == 200
    found = world.told()
    assert value(found, "calls", lane="left") == Counter(2, 8.0)


def request(name: str, value: float, start: str = "4000000000000000000") -> dict[str, object]:
    point = {
        "attributes": [{"key": "lane", "value": {"stringValue": "left"}}],
        "startTimeUnixNano": start,
        "timeUnixNano": start,
        "asInt": str(int(value)),
    }
    total = {"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": True}
    metric = {"name": name, "sum": total}
    return {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"metrics": [metric]}]}]}


@pytest.mark.rule("TELEMETRY-6")
async def test_what_is_no_otlp_too_large_or_from_nobody_is_refused_and_the_door_stays_open(
    world: World,
) -> None:
    good = msgspec.json.encode(request("calls", 5))
    assert await world.post(b"\x00nothing") == 400
    assert await world.post(b'{"resourceMetrics": "many"}') == 400
    assert await world.post(b'{"resourceMetrics": [7]}') == 400
    assert await world.post(b"\xff" * 50, Content_Type="application/x-protobuf") == 400
    assert await world.post(good, Content_Type="text/plain") == 415
    assert await world.post(good, Content_Encoding="br") == 415
    assert await world.post(good, path="/guess/v1/metrics") == 403
    assert await world.post(good, path="/guess/v1/traces") == 404
    assert await world.post(good, Content_Length=str(MAX_BODY_BYTES + 1)) == 413
    assert await world.post(good, Transfer_Encoding="chunked", Content_Length="x") == 411
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    assert await world.post(bomb, Content_Encoding="gzip") == 413
    assert await world.post(good) == 200


@pytest.mark.rule("TELEMETRY-6")
async def test_a_bomb_of_series_is_bounded_counted_and_named(world: World) -> None:
    metrics = [
        {"name": f"bomb\x1b[31m{number}", "gauge": {"dataPoints": [{"asDouble": 1.0}]}}
        for number in range(MAX_SERIES + 50)
    ]
    body = msgspec.json.encode({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
    assert await world.post(body) == 200
    found = world.told()
    assert len(found) == MAX_SERIES
    assert all("\x1b" not in key.name for key in found)
    assert world.recorder.losses().refused == 50


async def test_paths_outlive_the_agent_and_are_those_of_a_component_and_release_alone(world: World) -> None:
    first = world.endpoint
    other = world.pushing.give(Source("reader", "main", "reader@2.0.0")).env
    assert first not in other.values()
    await world.pushing.close()
    world.pushing = world.started()
    with pytest.raises(Denied):
        world.pushing.take("guess", b"{}", json=True)
    mark = first.split("/")[3]
    world.pushing.take(mark, msgspec.json.encode(request("calls", 5)), json=True)
    await world.pushing.open()
    assert world.endpoint == first
    assert value(world.told(), "calls", lane="left") == Counter(1, 5.0)


def test_a_point_of_before_we_listened_sets_the_beginning_and_one_that_fell_begins_anew() -> None:
    reader = PushReader({}, most=10, since_ns=100)

    def read(amount: float, start: int, *, delta: bool = False) -> list[WindowValue]:
        point = Point(name="calls", kind="counter", start=start, value=amount, delta=delta)
        return list(reader.read([point]).values())

    assert read(50, 10) == [Counter(1, 0.0)]
    assert read(60, 10) == [Counter(1, 10.0)]
    assert read(4, 200) == [Counter(1, 4.0)]
    assert read(3, 200) == [Counter(1, 3.0)]
    assert read(7, 0, delta=True) == [Counter(1, 7.0)]
    assert PushReader({}, most=10, since_ns=100).read(
        [Point(name="calls", kind="counter", start=150, value=5.0)]
    )


def test_histograms_count_from_one_point_to_the_next_also_when_buckets_became_coarser() -> None:
    reader = PushReader({}, most=10, since_ns=0)

    def count(point: Point) -> int:
        return sum(value.count for value in reader.read([point]).values())

    explicit = Point(name="a", kind="histogram", start=1, bounds=(1.0, 2.0), counts=(1, 2, 3))
    assert count(explicit) == 6
    assert count(msgspec.structs.replace(explicit, counts=(2, 2, 5))) == 3
    assert count(msgspec.structs.replace(explicit, counts=(1, 0, 0))) == 1
    assert count(msgspec.structs.replace(explicit, counts=(1, 0))) == 0
    fine = Point(
        name="b", kind="exponential", start=1, scale=3, zeros=1, positive=Buckets(4, (1, 1, 0, 2)),
        negative=Buckets(0, (1,)),
    )  # fmt: skip
    assert count(fine) == 6
    coarse = msgspec.structs.replace(fine, scale=2, zeros=2, positive=Buckets(2, (3, 4)))
    assert count(coarse) == 1 + 3
    fewer = msgspec.structs.replace(coarse, positive=Buckets(2, (1,)))
    assert count(fewer) == 4


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_be_refused_or_be_points(body: bytes) -> None:
    for json in (True, False):
        try:
            assert isinstance(parse_otlp(body, json=json), list)
        except Rejected as error:
            assert error.code.startswith("otlp.")  # noqa: PT017


@given(st.binary(max_size=40), st.integers(0, 400), st.binary(max_size=3))
def test_damaged_requests_are_refused_or_are_points(tail: bytes, place: int, mark: bytes) -> None:
    whole = ExportMetricsServiceRequest()
    metric = whole.resource_metrics.add().scope_metrics.add().metrics.add()
    metric.name = "seconds"
    point = metric.histogram.data_points.add()
    point.bucket_counts.extend([1, 2, 3])
    point.explicit_bounds.extend([0.1, 0.5])
    body = bytearray(whole.SerializeToString() + tail)
    body[place % len(body) : place % len(body) + len(mark)] = mark
    try:
        PushReader({}, most=5, since_ns=0).read(parse_otlp(bytes(body), json=False))
    except Rejected as error:
        assert error.code.startswith("otlp.")  # noqa: PT017


@pytest.mark.parametrize("accept", ("text/plain", "application/openmetrics-text; version=1.0.0"))
def test_an_application_of_the_real_prometheus_client_is_counted(accept: str) -> None:
    registry = CollectorRegistry()
    calls = PrometheusCounter("calls", "Calls.", ["status"], registry=registry)
    queue = Gauge("queue", "Waiting.", registry=registry)
    seconds = Histogram("seconds", "Took.", buckets=(0.1, 0.5, 1.0), registry=registry)

    write, _ = choose_encoder(accept)
    scraper = Scraper(["*"], WHERE, most=50)
    calls.labels("200").inc(100)
    scraper.read(write(registry))
    calls.labels("200").inc(5)
    calls.labels("500").inc(2)
    queue.set(7)
    for number in range(1, 101):
        seconds.observe(number / 100)
    found = scraper.read(write(registry))
    assert value(found, "calls_total", status="200") == Counter(1, 5.0)
    assert value(found, "calls_total", status="500") == Counter(1, 2.0)
    took = value(found, "seconds")
    assert isinstance(took, Distribution)
    assert took.count == 100
    assert quantile(took.sketch, 0.5) == pytest.approx(0.5, rel=0.011)
