"""Rollouts that begin later: nothing is offered before, the hub looks in time, and hosts hear of what will come."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.carrier.notifier import Notifier
from skerry.hub.issuing import Issuer
from skerry.hub.leasing import Leases
from skerry.hub.loops.rollouts import RolloutLoop
from skerry.kit.canonical import encode_canonical
from skerry.ports.hub_store import RolloutRecord
from skerry.rollout.decide import decide_rollout, retry_rollout
from skerry.rollout.facts import Assign, HostFact, RolloutFact, SiteFact, WavePlan
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.desired import DESIRED_STATE_TYPE, Upcoming
from skerry.spec.hardware import Requirements
from skerry.spec.metadata import Metadata
from skerry.spec.parsing import parse_documents, parse_raw
from skerry.spec.problems import DocumentRejected
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.testing.waiting import eventually
from skerry.trust.envelope import sign_document
from tests.unit.release_records import record_of
from tests.unit.test_hub_placing import APP, SITE, Harbour, release

pytestmark = pytest.mark.rollout

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NEW, OLD = "reader@2", "reader@1"
SOON = timedelta(hours=2)


# ── the decision ─────────────────────────────────────────────────────────────────────────────────────


def waiting(begin_at: datetime, **states: str) -> RolloutFact:
    sites = {
        name: SiteProgress(state=state, why="", as_of=NOW, wave=0, previous=OLD)  # type: ignore[arg-type]
        for name, state in states.items()
    }
    waves = (WavePlan("all"),)
    return RolloutFact(name="second", release=NEW, waves=waves, sites=sites, begin_at=begin_at)


def sites(*names: str, refused: str = "", taken: str = "") -> list[SiteFact]:
    return [
        SiteFact(
            name,
            (HostFact(f"h-{name}", holds_offer=bool(refused), refused=refused, as_of=NOW),),
            assigned=NEW if refused else OLD,
            assigned_by="second" if refused else "first",
            taken_by=taken,
        )
        for name in names
    ]


@given(
    before_s=st.floats(0.001, 1e7),
    names=st.sets(st.sampled_from("abcd")),
    zone=st.sampled_from([UTC, timezone(timedelta(hours=9, minutes=30))]),
)
def test_before_it_begins_nothing_is_offered_and_then_everything(
    before_s: float, names: set[str], zone: timezone
) -> None:
    begin_at = NOW.astimezone(zone)
    rollout, fleet = waiting(begin_at), sites(*names)
    early = decide_rollout(rollout, fleet, now=NOW - timedelta(seconds=before_s))
    assert (early.effects, early.state, early.wake_at) == ((), "running", begin_at)
    assert {progress.state for progress in early.sites.values()} <= {"pending"}
    stored = msgspec.structs.replace(rollout, sites=early.sites)
    again = decide_rollout(stored, fleet, now=NOW - timedelta(seconds=before_s / 2))
    assert (again.effects, again.sites) == ((), early.sites), "waiting changes nothing"
    begun = decide_rollout(stored, fleet, now=NOW)
    assert set(begun.effects) == {Assign(name, NEW) for name in names}


def test_it_says_when_it_begins() -> None:
    begin_at = datetime(2026, 5, 10, 2, 0, tzinfo=timezone(timedelta(hours=2)))
    decision = decide_rollout(waiting(begin_at), sites("a"), now=NOW)
    assert decision.why == "begins at 2026-05-10 02:00:00 UTC+02:00"


@pytest.mark.rule("ROLLOUT-1")
def test_a_failure_halts_it_even_before_it_begins_again() -> None:
    rollout = waiting(NOW + SOON, a="applying", b="offered")
    fleet = [*sites("a", refused="crashed"), *sites("b")]
    fleet[1] = msgspec.structs.replace(fleet[1], assigned=NEW, assigned_by="second")
    decision = decide_rollout(rollout, fleet, now=NOW)
    assert decision.state in ("failed", "reverting")
    assert len(decision.effects) == 2, "taken back from both"
    assert decision.wake_at is None


def test_a_retry_before_it_begins_waits_as_well() -> None:
    failed = msgspec.structs.replace(waiting(NOW + SOON, a="failed"), state="failed")
    again = msgspec.structs.replace(failed, state="running", sites=retry_rollout(failed, NOW)[0])
    assert decide_rollout(again, sites("a"), now=NOW).effects == ()
    assert decide_rollout(again, sites("a"), now=NOW + SOON).effects == (Assign("a", NEW),)


def test_one_whose_sites_are_all_a_newer_ones_ends_without_waiting() -> None:
    decision = decide_rollout(waiting(NOW + SOON), sites("a", "b", taken="third"), now=NOW)
    assert (decision.state, decision.effects, decision.wake_at) == ("superseded", (), None)


# ── the document ─────────────────────────────────────────────────────────────────────────────────────


def document(begin_at: str) -> str:
    return (
        "apiVersion: skerry/v1\nkind: Rollout\nmetadata: {name: spring}\n"
        f"spec: {{release: reader@2, sites: '*', begin_at: {begin_at}, prefetch: true}}\n"
    )


@pytest.mark.parametrize("text", ("2026-05-10T02:00:00+02:00", "'2026-05-10T00:00:00Z'"))
def test_a_beginning_is_written_with_its_time_zone(text: str) -> None:
    (parsed,) = parse_documents(document(text))
    assert isinstance(parsed.document, Rollout)
    assert parsed.document.spec.begin_at == datetime(2026, 5, 10, tzinfo=UTC)
    stored = msgspec.json.decode(encode_canonical(parsed.document), type=Rollout)
    assert stored == parsed.document


@pytest.mark.parametrize("text", ("2026-05-10T02:00:00", "'2026-05-10T02:00'", "2026-05-10", "tonight", "7"))
def test_a_beginning_without_time_zone_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(DocumentRejected) as caught:
        parse_documents(document(text))
    assert [problem.path for problem in caught.value.problems] == ["spec.begin_at"]
    raw = {
        "apiVersion": "skerry/v1",
        "kind": "Rollout",
        "metadata": {"name": "spring"},
        "spec": {"release": NEW, "sites": "*", "begin_at": text.strip("'")},
    }
    with pytest.raises(DocumentRejected) as refused:
        parse_raw(raw)
    assert [problem.path for problem in refused.value.problems] == ["spec.begin_at"]


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────


class Later(Harbour):
    """A harbour with rollouts that begin later."""

    async def schedule(
        self, wanted: Release, name: str = "later", *, after: timedelta = SOON, prefetch: bool = True
    ) -> None:
        self.add(wanted, name, self.clock.now() + after, prefetch=prefetch)
        await self.loop.step()
        await self.loop.step()  # what is fetched ahead goes by what the first step stored

    def add(self, wanted: Release, name: str, begin_at: datetime, *, prefetch: bool) -> None:
        record = record_of(wanted, self.clock.now())
        if self.store.release(wanted.name) is None:
            self.store.add_release(record, self.audit())
        spec = RolloutSpec(release=wanted.name, sites="*", begin_at=begin_at, prefetch=prefetch)
        rollout = RolloutRecord(
            name=name,
            document=encode_canonical(Rollout(metadata=Metadata(name=name), spec=spec)),
            release=wanted.name,
            application=record.application,
            created_at=self.clock.now(),
            created_by="ann",
        )
        self.store.apply_documents(sites={}, rollouts=[rollout], audits=())

    async def run_everywhere(self, version: str, name: str) -> None:
        await self.roll_out(release(version), name)
        for host in self.keys:
            await self.say(host, "running", running=f"{APP}@{version}")
        assert (await self.progress(name))[0] == "succeeded"

    async def upcoming(self) -> dict[str, list[str]]:
        return {host: [up.release for up in found] for host, found in (await self.desired()).upcoming.items()}


@pytest.fixture
def harbour(tmp_path: Path) -> Later:
    return Later(tmp_path, hosts=2)


async def test_hosts_are_told_ahead_and_get_it_when_it_begins(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    before = await harbour.generation()
    await harbour.schedule(release("2"))
    desired = await harbour.desired()
    assert desired.generation == before + 1
    ahead = (Upcoming(application=APP, release=NEW),)
    assert desired.upcoming == {"edge-0": ahead, "edge-1": ahead}
    stored = harbour.store.release(NEW)
    assert stored is not None
    assert (desired.releases[NEW].digest, desired.releases[NEW].size_bytes) == (
        stored.digest,
        len(stored.document),
    )
    assert {each.release for given in desired.hosts.values() for each in given} == {OLD}
    assert (await harbour.progress("later"))[0] == "pending"

    harbour.clock.advance(SOON.total_seconds())
    assert (await harbour.progress("later"))[0] == "offered"
    desired = await harbour.desired()
    assert {each.release for given in desired.hosts.values() for each in given} == {NEW}
    assert desired.upcoming == {}
    assert desired.generation == before + 2, "one document says both"
    await harbour.loop.step()
    assert await harbour.generation() == before + 2


async def test_without_prefetch_hosts_hear_of_it_when_it_begins(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    before = await harbour.generation()
    await harbour.schedule(release("2"), prefetch=False)
    assert await harbour.generation() == before


async def test_nothing_new_makes_no_new_generation(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    await harbour.schedule(release("2"))
    generation = await harbour.generation()
    for _ in range(5):
        harbour.clock.advance(60)
        await harbour.hub.issuer.issue(SITE)
        await harbour.report("edge-0")
        await harbour.loop.step()
    assert await harbour.generation() == generation


async def test_a_hub_that_starts_again_goes_on_where_it_was(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    await harbour.schedule(release("2"))
    before = await harbour.desired()
    issuer = Issuer(harbour.store, harbour.hub.keys.key, harbour.clock, Notifier())
    issuer.additions = harbour.hub.issuer.additions
    leases = Leases(harbour.store, harbour.clock, "hub")
    loop = RolloutLoop(harbour.store, issuer, harbour.clock, harbour.hub.judge, leases)
    await issuer.renew_all()
    await issuer.mark_all()
    for _ in range(3):
        await loop.step()
    held = await issuer.issued(SITE)
    assert (held.generation, before.upcoming != {}) == (before.generation, True)


async def test_a_document_that_says_nothing_of_it_is_replaced(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    await harbour.schedule(release("2"))
    desired = await harbour.desired()
    silent = msgspec.structs.replace(desired, generation=desired.generation + 1, upcoming={})
    envelope = sign_document(silent, DESIRED_STATE_TYPE, harbour.hub.keys.key)
    harbour.store.issue_desired(SITE, silent.generation, msgspec.json.encode(envelope), silent.expires_at)
    harbour.hub.issuer.forget(SITE)
    assert await harbour.hub.issuer.issue(SITE)
    assert (await harbour.desired()).upcoming == desired.upcoming


async def test_a_rollout_that_is_removed_is_announced_no_more(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    await harbour.schedule(release("2"))
    assert await harbour.upcoming() != {}
    record = harbour.store.rollout("later")
    assert record is not None
    harbour.store.advance_rollout(msgspec.structs.replace(record, state="superseded"))
    await harbour.loop.step()
    desired = await harbour.desired()
    assert desired.upcoming == {}
    assert set(desired.releases) == {OLD}


async def test_where_nobody_has_the_application_all_hosts_fetch_it(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.schedule(release("2"))
    assert await harbour.upcoming() == {"edge-0": [NEW], "edge-1": [NEW]}
    assert await harbour.assigned() == []


async def test_hosts_that_have_the_application_fetch_its_next_release_and_no_others(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release("1", mode="one", standby=0))
    (host,) = await harbour.assigned()
    await harbour.schedule(release("2", mode="one", standby=0))
    assert await harbour.upcoming() == {host: [NEW]}


async def test_where_a_placement_decides_nobody_fetches_what_might_go_elsewhere(harbour: Later) -> None:
    await harbour.all_report_facts()
    other = release("1", application="other")
    await harbour.roll_out(other, "other")
    before = await harbour.generation()
    await harbour.schedule(release("2", mode="one"))
    await harbour.schedule(release("3", requires=Requirements(memory="1KiB")), "third")
    assert (await harbour.desired()).upcoming == {}
    assert await harbour.generation() == before


@pytest.mark.rule("ROLLOUT-1")
async def test_what_is_under_way_is_not_superseded_before_the_later_one_begins(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.run_everywhere("1", "first")
    await harbour.roll_out(release("2"), "second")
    await harbour.schedule(release("3"), "third")
    assert (await harbour.progress("second"))[0] == "offered"
    stored = harbour.store.release(NEW)
    assert stored is not None
    await harbour.say("edge-0", "running", running=OLD, refused={stored.digest: "crashed"})
    assert (await harbour.progress("second"))[0] == "failed"
    desired = await harbour.desired()
    assert {each.release for given in desired.hosts.values() for each in given} == {OLD}, "it was halted"


async def test_of_two_that_wait_each_has_its_turn(harbour: Later) -> None:
    await harbour.all_report_facts()
    await harbour.schedule(release("2"), "second", after=SOON)
    await harbour.schedule(release("3"), "third", after=2 * SOON)
    harbour.clock.advance(SOON.total_seconds())
    assert (await harbour.progress("second"))[0] == "offered"
    harbour.clock.advance(SOON.total_seconds())
    assert (await harbour.progress("third"))[0] == "offered"
    assert (await harbour.progress("second"))[0] == "superseded"


async def test_the_loop_looks_in_time(harbour: Later) -> None:
    """It rests for half a minute otherwise; what is waited for here begins a second after the hub looked first."""
    await harbour.all_report_facts()
    harbour.add(release("2"), "later", harbour.clock.now() + timedelta(seconds=1), prefetch=True)
    loop = asyncio.create_task(harbour.loop.run_forever())

    async def state(wanted: str) -> bool:
        harbour.clock.advance(0.05)  # the loop's own rests pass, too
        record = harbour.store.rollout("later")
        return (
            record is not None and record.sites.get(SITE) is not None and record.sites[SITE].state == wanted
        )

    try:
        await eventually(lambda: state("pending"))
        await eventually(lambda: state("offered"), limit_s=15)
    finally:
        loop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loop
