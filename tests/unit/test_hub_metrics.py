"""The hub takes what hosts measured, once, from whom it is, and never at the cost of their reports."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.kit.canonical import encode_canonical
from skerry.ports.hub_store import AssignmentRecord, HubStore
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.application import Application, ApplicationSpec, Component
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.desired import DesiredState
from skerry.spec.gates import GateSpec
from skerry.spec.metadata import Metadata
from skerry.spec.metrics import MetricWindow, Rate
from skerry.spec.release import Release
from skerry.spec.report import Observed
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.spec.telemetry import METRICS_TYPE, MetricBatch
from skerry.trust.envelope import decode_document, sign_document
from skerry.trust.keys import SigningKey
from tests.contract.hub_records import rollout
from tests.unit.release_records import record_of
from tests.unit.test_hub_backend import Harbour, Member

pytestmark = pytest.mark.trust


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


def batch(
    host: Member,
    sequence: int,
    total: int,
    *,
    key: SigningKey | None = None,
    name: str = "",
    release: str = "meter@1",
) -> JsonEnvelope:
    begin = host.clock.now().replace(second=0, microsecond=0)
    window = MetricWindow(
        application="meter",
        release=release,
        component="main",
        metric="errors",
        begin=begin,
        end=begin + timedelta(minutes=1),
        value=Rate(bad=0, total=total),
    )
    made = MetricBatch(host=name or host.name, site=host.site, sequence=sequence, windows=(window,))
    return sign_document(made, METRICS_TYPE, key or host.key)


async def tell(harbour: Harbour, host: Member, sequence: int, metrics: JsonEnvelope | None) -> SyncAnswer:
    report = host.signed(sequence, observed=Observed(generation=sequence))
    return await harbour.backend.sync(SyncRequest(reports=(report,), metrics=metrics))


def totals(store: HubStore) -> list[int]:
    found = [one.window.value for one in store.metric_windows("meter", ("meter@1",))]
    return [value.total for value in found if isinstance(value, Rate)]


async def joined(harbour: Harbour) -> Member:
    host = Member(harbour.clock)
    await harbour.backend.enroll(host.request(harbour.token("secret")))
    return host


async def test_metrics_are_taken_and_confirmed_and_a_window_told_again_replaces_itself(
    harbour: Harbour,
) -> None:
    host = await joined(harbour)
    assert (await tell(harbour, host, 2, None)).metrics == 0
    assert (await tell(harbour, host, 3, batch(host, 3, 10))).metrics == 3
    assert (await tell(harbour, host, 4, batch(host, 4, 12))).metrics == 4
    assert totals(harbour.store) == [12]


async def test_a_request_that_is_handed_up_again_brings_no_older_figure_back(harbour: Harbour) -> None:
    host = await joined(harbour)
    old = batch(host, 2, 10)
    await tell(harbour, host, 2, old)
    await tell(harbour, host, 3, batch(host, 3, 12))
    assert (await tell(harbour, host, 2, old)).metrics == 2
    assert totals(harbour.store) == [12]
    assert (await tell(harbour, host, 4, old)).metrics == 0, "nor beside a newer report"
    assert totals(harbour.store) == [12]


async def test_metrics_that_were_overtaken_by_a_change_count_all_the_same(harbour: Harbour) -> None:
    host = await joined(harbour)
    await tell(harbour, host, 3, None)
    assert (await tell(harbour, host, 2, batch(host, 2, 10))).metrics == 2
    assert totals(harbour.store) == [10]


async def test_metrics_that_are_not_the_hosts_own_or_malformed_are_not_taken_and_its_report_is(
    harbour: Harbour,
) -> None:
    host = await joined(harbour)
    forged = batch(host, 2, 10, key=SigningKey.generate())
    others = batch(host, 3, 10, name="other")
    malformed = sign_document(host.report(4), METRICS_TYPE, host.key)
    for sequence, metrics in enumerate((forged, others, malformed, {"payload": 1}), start=2):
        answer = await tell(harbour, host, sequence, metrics)
        assert (answer.metrics, answer.acknowledged) == (0, sequence)
    record = harbour.store.host(host.name)
    assert record is not None
    assert record.generation_held == 0
    assert record.observed == Observed(generation=5)
    assert totals(harbour.store) == []


GATES = (GateSpec(metric="errors", kind="rate", max_increase="0.01"),)


async def test_gates_reach_the_host_with_the_release_they_are_for_and_never_with_the_one_before(
    harbour: Harbour,
) -> None:
    host = await joined(harbour)
    spec = RolloutSpec(release="meter@2", sites="*", gates=GATES)
    document = encode_canonical(Rollout(metadata=Metadata(name="spring"), spec=spec))
    record = rollout("spring", release="meter@2")
    progress = SiteProgress(state="offered", why="because")
    record = msgspec.structs.replace(
        record, document=document, sites=dict.fromkeys(("harbour", "a", "b"), progress)
    )
    for version in ("1", "2"):
        spec_of = ApplicationSpec(version=version, components=(Component(name="main", command=("serve",)),))
        made = Release(application=Application(metadata=Metadata(name="meter"), spec=spec_of))
        harbour.store.add_release(record_of(made, harbour.clock.now()), harbour.audit())
    harbour.store.apply_documents(sites={}, rollouts=[record], audits=())
    for release, gates, judges in (("meter@2", GATES, 4), ("meter@1", (), 1)):
        given = AssignmentRecord(site="harbour", application="meter", release=release, rollout="spring")
        stored = harbour.store.rollout("spring")
        assert stored is not None
        harbour.store.advance_rollout(stored, assign=[given])
        await harbour.hub.issuer.issue("harbour")
        issued = await harbour.hub.issuer.issued("harbour")
        assert issued.envelope is not None
        desired = decode_document(base64.b64decode(issued.envelope["payload"]), DesiredState)
        (assignment,) = desired.hosts[host.name]
        assert (assignment.release, assignment.gates, assignment.judges) == (release, gates, judges)


async def test_the_hub_keeps_no_more_than_it_has_room_for_and_refuses_nothing(harbour: Harbour) -> None:
    host, room = await joined(harbour), harbour.backend.windows
    room.keep, room.slack = 20, 5
    spec = RolloutSpec(release="meter@2", sites="*")
    record = msgspec.structs.replace(
        rollout("spring", release="meter@2", previous="meter@1"),
        document=encode_canonical(Rollout(metadata=Metadata(name="spring"), spec=spec)),
    )
    harbour.store.apply_documents(sites={}, rollouts=[record], audits=())

    def kept(release: str) -> int:
        return len(harbour.store.metric_windows("meter", (release,)))

    sequence, most = 2, 0
    for release, minutes in (("meter@1", 10), ("meter@0", 30), ("meter@2", 15)):
        for _ in range(minutes):
            harbour.clock.advance(60.0)
            told = await tell(harbour, host, sequence, batch(host, sequence, 10, release=release))
            assert told.metrics == sequence, "it is taken whatever there is"
            sequence += 1
            await settled(harbour)
            most = max(most, sum(map(kept, ("meter@0", "meter@1", "meter@2"))))
    assert most <= room.keep + room.slack
    assert kept("meter@0") <= room.slack, "nobody judges by it"
    assert kept("meter@2") == 15, "what came last is there"
    await room.trim()
    assert kept("meter@0") + kept("meter@1") + kept("meter@2") == 20
    harbour.clock.advance(15 * 86400.0)
    await room.trim()
    assert kept("meter@2") == 0


async def settled(harbour: Harbour) -> None:
    """Wait until the hub has made room."""
    trimming = harbour.backend.windows._trimming
    if trimming is not None:
        await trimming
