"""The hub takes what hosts measured once, however late it comes, and says how whole its answers are."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from skerry.agent.recording import Recorder
from skerry.hub.telemetry_exposition import write_exposition
from skerry.hub.telemetry_query import TelemetryQueries
from skerry.hub.telemetry_room import KEEP_S, TelemetryRoom
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected, Untrusted
from skerry.ports.hub_store import AssignmentRecord
from skerry.spec.api_telemetry import FigureView, MetricsAnswer
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.metadata import Metadata
from skerry.spec.site import Site, SiteSpec
from skerry.spec.telemetry import Losses, TelemetryBatch
from skerry.telemetry.blocks import Block, encode_block
from skerry.telemetry.naming import clean_series
from skerry.telemetry.sketch import relative_error, sketch_of
from skerry.telemetry.windows import (
    Counter,
    Distribution,
    SeriesKey,
    WindowValue,
    gauge_of,
)
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer
from skerry.trust.report import sign_batch, verify_metrics
from tests.contract.hub_records import rollout
from tests.unit.test_hub_backend import Harbour, Member

READER = [("app", "reader"), ("release", "reader@1.0.0")]
CALLS = clean_series("calls", READER, "counter")
SECONDS = clean_series("seconds", READER, "distribution")
BUSY = clean_series("skerry_host_cpu_busy", (), "gauge")
HOUR_S, DAY_S = 3600.0, 86_400.0


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


class Measuring:
    """A host that records what it is told, and hands all of it up when there is a link."""

    def __init__(self, harbour: Harbour, member: Member, *, most_bytes: int = 1 << 20) -> None:
        self.harbour = harbour
        self.member = member
        self.buffer = MemoryTelemetryBuffer(f"stream of {member.name}")
        self.recorder = Recorder(self.buffer, harbour.clock.now, most_bytes=most_bytes)
        self.sequence = 1

    def measure(self, values: dict[SeriesKey, WindowValue]) -> None:
        self.recorder.record(values)

    async def send(self, batch: TelemetryBatch, *, sequence: int = 0) -> SyncAnswer:
        """Hand up a batch beside a fresh report."""
        self.sequence += 1
        member = self.member
        named = msgspec.structs.replace(
            batch, host=member.name, site=member.site, sequence=sequence or self.sequence
        )
        request = SyncRequest(reports=(member.signed(self.sequence),), metrics=sign_batch(named, member.key))
        return await self.harbour.backend.sync(request)

    async def tell(self, *, times: int = 1) -> None:
        """Hand up all there is, each batch several times."""
        self.recorder.flush(everything=True)
        while (batch := self.recorder.next_batch()) is not None:
            for _ in range(times):
                answer = await self.send(batch)
                assert answer.metrics == self.sequence
            self.recorder.note_taken(batch.number)


async def measuring(harbour: Harbour, name: str = "edge", site: str = "harbour", **how: int) -> Measuring:
    return Measuring(harbour, await harbour.join(name, site), **how)


def ask(harbour: Harbour, query: str, by: str = "", since_s: float = HOUR_S) -> MetricsAnswer:
    queries = TelemetryQueries(harbour.store, harbour.hub.clock, harbour.store.sites())
    return queries.query(query, [name for name in by.split(",") if name], since_s)


def figure(harbour: Harbour, query: str, since_s: float = HOUR_S) -> FigureView:
    (found,) = ask(harbour, query, since_s=since_s).figures
    return found


def batch_of(number: int, block: Block, *, losses: Losses | None = None) -> TelemetryBatch:
    return TelemetryBatch(
        host="-",
        site="-",
        sequence=1,
        stream="s",
        number=number,
        block=encode_block(block),
        losses=losses or Losses(),
    )


def minute_block(harbour: Harbour, value: float, *, ago_s: int = 60, key: SeriesKey = CALLS) -> Block:
    begin = int(harbour.clock.now().timestamp()) // 60 * 60 - ago_s // 60 * 60
    return Block(60, {key: {begin: Counter(1, value)}})


@pytest.mark.rule("TELEMETRY-1")
async def test_a_host_cut_off_for_thirty_days_that_sends_all_twice_ends_with_the_figures_of_its_twin(
    harbour: Harbour,
) -> None:
    cut = await measuring(harbour, "cut", "harbour", most_bytes=34_000)
    twin = await measuring(harbour, "twin", "airport")
    chance = random.Random(11)
    samples: list[float] = []
    for step in range(30 * 24 * 2):
        latencies = [chance.lognormvariate(-3, 0.5) for _ in range(3)]
        samples += latencies
        values: dict[SeriesKey, WindowValue] = {
            CALLS: Counter(1, float(chance.randrange(50))),
            SECONDS: Distribution(sketch_of(latencies)),
            BUSY: gauge_of(chance.random()),
        }
        for host in (cut, twin):
            host.measure(values)
            if step % 6 == 0:
                host.recorder.flush()
        harbour.clock.advance(1800)
        if step % 48 == 0:
            await twin.tell(times=2)
    await twin.tell(times=2)
    coarse = {one.resolution_s for one in cut.buffer.kept()}
    await cut.tell(times=2)
    assert cut.recorder.losses().dropped == {}
    assert max(coarse) > 60
    for query, exact in (
        ("calls_total", True),
        ("calls_count", True),
        ("seconds_count", True),
        ("seconds_p50", True),
        ("seconds_p99", True),
        ("skerry_host_cpu_busy_count", True),
        ("skerry_host_cpu_busy_mean", False),
        ("skerry_host_cpu_busy_max", True),
    ):
        answer = ask(harbour, query, "site", 31 * DAY_S)
        one, other = (found.value for found in answer.figures)
        assert one is not None
        assert other is not None
        assert one == other if exact else math.isclose(one, other, rel_tol=1e-3), query
        assert len({found.samples for found in answer.figures}) == 1
    ranked = sorted(samples)[math.ceil(0.99 * len(samples)) - 1]
    p99 = figure(harbour, 'seconds_p99{site="harbour"}', 31 * DAY_S).value
    assert p99 == pytest.approx(ranked, rel=relative_error(5))


@pytest.mark.rule("TELEMETRY-1")
async def test_batches_count_once_in_whatever_order_and_under_whichever_report(harbour: Harbour) -> None:
    host = await measuring(harbour)
    batches = [batch_of(number, minute_block(harbour, 2.0**number)) for number in range(1, 6)]
    order = [*batches, *batches]
    random.Random(2).shuffle(order)
    for batch in order:
        await host.send(batch)
    assert figure(harbour, "calls_total").value == 2 + 4 + 8 + 16 + 32


async def test_late_windows_are_added_to_the_hour_in_which_they_happened(harbour: Harbour) -> None:
    host = await measuring(harbour)
    await host.send(batch_of(1, minute_block(harbour, 1.0)))
    await host.send(batch_of(2, minute_block(harbour, 5.0, ago_s=5 * 3600)))
    assert figure(harbour, "calls_total").value == 1
    assert figure(harbour, "calls_total", 6 * HOUR_S).value == 6


@pytest.mark.rule("TELEMETRY-2")
async def test_what_a_host_gave_up_and_what_was_lost_on_the_way_is_told(harbour: Harbour) -> None:
    host = await measuring(harbour)
    losses = Losses(dropped={"metrics": 7}, refused=3, worst="requests")
    await host.send(batch_of(4, minute_block(harbour, 1.0), losses=losses))
    await host.send(batch_of(2, minute_block(harbour, 1.0)))
    queries = TelemetryQueries(harbour.store, harbour.hub.clock, harbour.store.sites())
    (view,) = queries.hosts()
    assert (view.host, view.losses, view.missing_batches) == ("edge", losses, 2)


@pytest.mark.rule("TELEMETRY-2")
async def test_windows_of_a_time_that_cannot_be_are_not_taken_and_counted(harbour: Harbour) -> None:
    host = await measuring(harbour)
    await host.send(batch_of(1, minute_block(harbour, 1.0, ago_s=-3 * 86_400)))
    assert ask_hosts(harbour) == [(1, 0)]


async def test_a_batch_that_is_no_block_is_taken_once_so_that_those_behind_it_come(harbour: Harbour) -> None:
    host = await measuring(harbour)
    broken = msgspec.structs.replace(batch_of(1, minute_block(harbour, 1.0)), block=b"nothing")
    assert (await host.send(broken)).metrics == host.sequence
    await host.send(batch_of(2, minute_block(harbour, 3.0)))
    assert figure(harbour, "calls_total").value == 3


async def test_a_buffer_that_began_anew_is_counted_beside_the_one_before(harbour: Harbour) -> None:
    host = await measuring(harbour)
    await host.send(batch_of(1, minute_block(harbour, 1.0)))
    other = msgspec.structs.replace(batch_of(1, minute_block(harbour, 2.0)), stream="another")
    await host.send(other)
    await host.send(other)
    assert figure(harbour, "calls_total").value == 3


@pytest.mark.trust
async def test_a_batch_of_somebody_else_or_of_another_report_is_refused(harbour: Harbour) -> None:
    host, other = await measuring(harbour), await measuring(harbour, "other")
    batch = batch_of(1, minute_block(harbour, 1.0))
    named = msgspec.structs.replace(batch, host="edge", site="harbour", sequence=7)
    report = host.member.report(7)
    key = host.member.key.verifier
    assert verify_metrics(sign_batch(named, host.member.key), key, report) == named
    with pytest.raises(Untrusted, match="no trusted key"):
        verify_metrics(sign_batch(named, other.member.key), key, report)
    with pytest.raises(Untrusted, match="not of the report"):
        verify_metrics(sign_batch(named, host.member.key), key, host.member.report(8))
    assert (await host.send(batch, sequence=99)).metrics == 0


@pytest.mark.rule("TELEMETRY-3")
async def test_an_answer_says_how_many_sites_are_in_it_and_how_old_they_are(harbour: Harbour) -> None:
    near, far = await measuring(harbour), await measuring(harbour, "far", "airport")
    harbour.change("empty")
    await far.send(batch_of(1, minute_block(harbour, 5.0)))
    harbour.clock.advance(3 * HOUR_S)
    await near.send(batch_of(1, minute_block(harbour, 7.0)))
    recent, whole = ask(harbour, "calls_total"), ask(harbour, "calls_total", "site", 6 * HOUR_S)
    assert (recent.coverage.sites, recent.coverage.of, recent.coverage.stale) == (1, 3, 2)
    assert (whole.coverage.sites, whole.coverage.of, whole.coverage.stale) == (2, 3, 2)
    assert [found.group for found in whole.figures] == [{"site": "airport"}, {"site": "harbour"}]
    old, new = whole.figures
    assert new.as_of - old.as_of == timedelta(hours=3)
    assert (whole.coverage.as_of, whole.coverage.oldest) == (new.as_of, old.as_of)
    assert all(found.samples == 1 for found in whole.figures)


@pytest.mark.rule("TELEMETRY-3")
async def test_of_an_application_only_the_sites_that_it_is_for_are_expected(harbour: Harbour) -> None:
    host = await measuring(harbour)
    assignment = AssignmentRecord(
        site="airport", application="reader", release="reader@1.0.0", rollout="r", attempt=1
    )
    harbour.change("empty")
    await host.send(batch_of(1, minute_block(harbour, 1.0)))
    assigned(harbour, assignment)
    found = ask(harbour, 'calls_total{app="reader"}').coverage
    assert (found.sites, found.of) == (1, 2)


async def test_questions_go_by_labels_of_series_and_of_sites(harbour: Harbour) -> None:
    document = Site(metadata=Metadata(name="harbour", labels={"region": "north"}), spec=SiteSpec())
    harbour.store.apply_documents(sites={"harbour": encode_canonical(document)}, rollouts=(), audits=())
    host, other = await measuring(harbour), await measuring(harbour, "other", "airport")
    await host.send(batch_of(1, minute_block(harbour, 1.0)))
    await other.send(batch_of(1, minute_block(harbour, 2.0)))
    assert figure(harbour, 'calls_total{region="north"}').value == 1
    assert figure(harbour, 'calls_total{host!="edge"}').value == 2
    assert figure(harbour, 'calls_total{release=~"reader@.*"}').value == 3
    groups = [found.group for found in ask(harbour, "calls_total", "region,app").figures]
    assert groups == [{"region": "", "app": "reader"}, {"region": "north", "app": "reader"}]


async def test_a_rate_is_told_over_the_time_that_was_measured(harbour: Harbour) -> None:
    host = await measuring(harbour)
    await host.send(batch_of(1, minute_block(harbour, 120.0)))
    assert figure(harbour, "calls_rate", 6 * HOUR_S).value == 2.0
    assert figure(harbour, "calls").value == 2.0


@pytest.mark.parametrize(
    ("query", "code"),
    (
        ("", "query.malformed"),
        ("calls{", "query.malformed"),
        ("x" * 600, "query.malformed"),
        ("nothing", "query.unknown"),
        ("calls_p95", "query.no_such_stat"),
        ("calls_mean", "query.no_such_stat"),
    ),
)
async def test_a_question_that_cannot_be_answered_says_why(harbour: Harbour, query: str, code: str) -> None:
    host = await measuring(harbour)
    await host.send(batch_of(1, minute_block(harbour, 1.0)))
    with pytest.raises(Rejected) as refused:
        ask(harbour, query)
    assert refused.value.code == code


async def test_the_busiest_sites_and_applications_come_first(harbour: Harbour) -> None:
    near, far = await measuring(harbour), await measuring(harbour, "far", "airport")
    cpu = clean_series("skerry_component_cpu_seconds", READER, "counter")
    memory = clean_series("skerry_component_memory_bytes", READER, "gauge")
    near.measure({BUSY: gauge_of(0.2), cpu: Counter(1, 30.0), memory: gauge_of(1000.0)})
    far.measure({BUSY: gauge_of(0.9), cpu: Counter(1, 60.0), memory: gauge_of(500.0)})
    await near.tell()
    await far.tell()
    queries = TelemetryQueries(harbour.store, harbour.hub.clock, harbour.store.sites())
    sites, apps = queries.top_sites(HOUR_S), queries.top_apps(HOUR_S)
    assert [(row.name, row.cpu) for row in sites.rows] == [("airport", 0.9), ("harbour", 0.2)]
    assert sites.coverage.sites == 2
    (row,) = apps.rows
    assert (row.name, row.cpu, row.memory_bytes, row.sites) == ("reader", 1.5, 1500.0, 2)


async def test_a_prometheus_reads_what_the_fleet_measured_with_its_labels_and_ages(harbour: Harbour) -> None:
    host, odd = await measuring(harbour), await measuring(harbour, "odd", "airport")
    strange = clean_series("queue", [("app", 'a"b\\c')], "gauge")
    host.measure({CALLS: Counter(1, 120.0), SECONDS: Distribution(sketch_of([0.1, 0.1]))})
    odd.measure({strange: gauge_of(4.0)})
    harbour.clock.advance(60)
    await host.tell()
    await odd.tell()
    queries = TelemetryQueries(harbour.store, harbour.hub.clock, harbour.store.sites())
    text = write_exposition(queries, kept_bytes=5)
    found = {
        (sample.name, *sorted(sample.labels.values())): sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    calls = found["calls_per_second", "harbour", "reader", "reader@1.0.0"]
    assert calls.value == 2.0
    assert calls.timestamp == harbour.clock.now().timestamp()
    assert found["queue", 'a"b\\c', "airport"].value == 4.0
    assert found["seconds", "0.95", "harbour", "reader", "reader@1.0.0"].value == pytest.approx(
        0.1, rel=0.011
    )
    assert found["skerry_sites", "all"].value == 2
    assert found["process_resident_memory_bytes",].value > 0
    assert found["skerry_hub_telemetry_bytes",].value == 5


async def test_old_minutes_become_longer_and_no_count_changes_until_they_go(harbour: Harbour) -> None:
    host = await measuring(harbour)
    for _ in range(300):
        host.measure({CALLS: Counter(1, 1.0), SECONDS: Distribution(sketch_of([0.1]))})
        host.recorder.flush()
        harbour.clock.advance(60)
    await host.tell()
    room = TelemetryRoom(harbour.store, harbour.hub.clock)
    before = harbour.store.telemetry_bytes()
    for age_s in (KEEP_S[60] + 2 * DAY_S, KEEP_S[600]):
        harbour.clock.advance(age_s)
        await room.trim()
        found = figure(harbour, "calls_total", 300 * DAY_S)
        assert (found.value, found.samples) == (300.0, 300)
        assert figure(harbour, "seconds_count", 300 * DAY_S).value == 300
    assert harbour.store.telemetry_bytes() < before / 4
    harbour.clock.advance(KEEP_S[3600] + 12 * DAY_S)
    await room.trim()
    assert (harbour.store.telemetry_bytes(), harbour.store.telemetry_names()) == (0, {})


async def test_when_there_is_no_room_time_moves_on_faster(harbour: Harbour) -> None:
    host = await measuring(harbour)
    await host.send(batch_of(1, minute_block(harbour, 1.0)))
    harbour.clock.advance(300 * DAY_S)
    room = TelemetryRoom(harbour.store, harbour.hub.clock, most_bytes=1)
    await room.trim()
    assert harbour.store.telemetry_bytes() == 0


async def test_a_host_has_no_more_series_than_there_is_room_for(harbour: Harbour) -> None:
    host = await measuring(harbour)
    begin = int(harbour.clock.now().timestamp()) // 60 * 60 - 60
    for number in range(11):
        series = {
            clean_series("bomb", [("user", f"{number}-{user}")], "counter"): {begin: Counter(1, 1.0)}
            for user in range(500)
        }
        await host.send(batch_of(number + 1, Block(60, series)))
    assert harbour.store.telemetry_names() == {"bomb": 5000}
    assert ask_hosts(harbour) == [(500, 0)]


def ask_hosts(harbour: Harbour) -> list[tuple[int, int]]:
    queries = TelemetryQueries(harbour.store, harbour.hub.clock, harbour.store.sites())
    return [(view.ignored, view.missing_batches) for view in queries.hosts()]


def assigned(harbour: Harbour, record: AssignmentRecord) -> None:
    """Have a site run an application."""
    harbour.store.apply_documents(sites={}, rollouts=(rollout(record.rollout),), audits=())
    stored = harbour.store.rollout(record.rollout)
    assert stored is not None
    harbour.store.advance_rollout(stored, assign=[record])
