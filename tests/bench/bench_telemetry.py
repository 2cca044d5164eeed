"""What measuring costs: bytes for each series on disk, on the link and at the hub, and how fast the hub takes them in.

Series are random walks (gauges) and counts (counters), a fifth of those on disk are distributions of 100 samples a
minute: what is calmer takes less.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.sqlite_telemetry_buffer import SqliteTelemetryBuffer
from skerry.agent.recording import Recorder
from skerry.hub.telemetry_ingest import TelemetryIngest
from skerry.hub.telemetry_query import TelemetryQueries
from skerry.kit.canonical import encode_canonical
from skerry.ports.hub_store import HubStore
from skerry.spec.metadata import Metadata
from skerry.spec.site import Site
from skerry.spec.telemetry import TelemetryBatch
from skerry.telemetry.blocks import Block, encode_block
from skerry.telemetry.naming import clean_series
from skerry.telemetry.sketch import sketch_of
from skerry.telemetry.windows import (
    Counter,
    Distribution,
    SeriesKey,
    WindowValue,
    gauge_of,
    merge_all,
)
from skerry.testing.clock import SimulatedClock
from skerry.trust.keys import SigningKey
from skerry.trust.report import sign_batch
from tests.bench.figure import Figure

BEGIN = datetime(2026, 5, 4, tzinfo=UTC)
MIB = 1 << 20
HOSTS, SERIES, HOURS = 50, 20, 6


def figures() -> Iterator[Figure]:
    """Yield the figures."""
    with tempfile.TemporaryDirectory() as folder:
        yield _buffer(Path(folder))
        yield from _link()
        yield from _hub(Path(folder))


class Walks:
    """Some series that go their way, minute by minute."""

    def __init__(self, count: int, distributions: int = 0) -> None:
        self._chance = random.Random(7)
        kinds = ["distribution"] * distributions + ["gauge", "counter"] * count
        labels = [("app", "reader"), ("component", "main"), ("release", "reader@1.5.0")]
        self._keys = [
            clean_series(f"reader_value_{number}", labels, "distribution" if kind == "distribution" else kind)  # type: ignore[arg-type]
            for number, kind in enumerate(kinds[:count])
        ]
        self._levels = dict.fromkeys(self._keys, 50.0)

    def minute(self) -> dict[SeriesKey, WindowValue]:
        """Return the next minute of each series."""
        return {key: self._value(key) for key in self._keys}

    def block(self, begin: int, minutes: int) -> Block:
        """Return the next minutes of all series."""
        series: dict[SeriesKey, dict[int, WindowValue]] = {key: {} for key in self._keys}
        for minute in range(minutes):
            for key, value in self.minute().items():
                series[key][begin + 60 * minute] = value
        return Block(60, series)

    def _value(self, key: SeriesKey) -> WindowValue:
        chance = self._chance
        if key.kind == "counter":
            return Counter(6, float(chance.randint(80, 120)))
        if key.kind == "distribution":
            return Distribution(sketch_of(chance.lognormvariate(-3, 0.5) for _ in range(100)))
        samples: list[WindowValue] = []
        for _ in range(6):
            self._levels[key] += chance.gauss(0, 0.5)
            samples.append(gauge_of(self._levels[key]))
        merged = merge_all(samples)
        assert merged is not None
        return merged


def _buffer(folder: Path) -> Figure:
    """Fill a host's buffer for three days, which are alike, and tell what thirty take."""
    at = BEGIN
    file = folder / "telemetry.db"
    recorder = Recorder(SqliteTelemetryBuffer.open(file), lambda: at)
    walks, days = Walks(100, 20), 3
    for _ in range(days * 1440):
        recorder.record(walks.minute())
        at += timedelta(minutes=1)
        recorder.flush()
    used = recorder.view().used_bytes
    recorder.close()
    size = file.stat().st_size
    text = f"100 series, 20 of them distributions; the file {size * 30 / days / MIB:.0f} MiB; bound 64 MiB"
    return Figure("buffer_30_days_100_series_mib", round(used * 30 / days / MIB, 1), "MiB", text)


def _link() -> Iterator[Figure]:
    """Count what batches of 20 series take in a request, every ten minutes and every hour."""
    key = SigningKey.generate()
    for minutes in (10, 60):
        block = encode_block(Walks(SERIES).block(int(BEGIN.timestamp()), minutes))
        batch = TelemetryBatch(
            host="edge-1", site="harbour", sequence=1 << 40, stream="0" * 16, number=4000, block=block
        )
        size = len(msgspec.json.encode(sign_batch(batch, key)))
        a_day = size * 1440 / minutes
        text = f"{size:,} B a batch, {a_day * 30 / 1e6:.1f} MB for 20 series and 30 days, report and TLS not counted"
        yield Figure(f"link_bytes_per_series_day_every_{minutes}m", round(a_day / SERIES), "B", text)


def _hub(folder: Path) -> Iterator[Figure]:
    store, clock = SqlHubStore.open(folder / "hub.db"), SimulatedClock(BEGIN + timedelta(hours=HOURS))
    ingest = TelemetryIngest(store, clock)
    document = encode_canonical(Site(metadata=Metadata(name="harbour")))
    store.apply_documents(sites={"harbour": document}, rollouts=(), audits=())
    begin = int(BEGIN.timestamp())
    batches = [
        TelemetryBatch(
            host="-",
            site="-",
            sequence=1,
            stream="s",
            number=hour + 1,
            block=encode_block(Walks(SERIES).block(begin + 3600 * hour, 60)),
        )
        for hour in range(HOURS)
    ]
    started, cpu = time.perf_counter(), time.process_time()
    for host in range(HOSTS):
        for batch in batches:
            ingest._take(f"edge-{host}", "harbour", batch)
    took, used = time.perf_counter() - started, time.process_time() - cpu
    windows = HOSTS * HOURS * SERIES * 60
    text = f"20 series an hour a batch; {windows / used:,.0f}/s of CPU time; raw samples at 10 s are 6 times as many"
    yield Figure("ingest_windows_per_s", round(windows / took), "1/s", text)
    yield Figure(
        "hub_bytes_per_window", round(store.telemetry_bytes() / windows, 2), "B", "one minute of a series"
    )
    yield _query(store, clock)
    store.close()


def _query(store: HubStore, clock: SimulatedClock) -> Figure:
    queries = TelemetryQueries(store, clock, store.sites())
    started = time.perf_counter()
    queries.query("reader_value_0_mean", ["site"], HOURS * 3600)
    took = time.perf_counter() - started
    return Figure(
        "query_50_series_6h_ms", round(took * 1000), "ms", f"{HOSTS} series of {HOURS} h at one minute"
    )
