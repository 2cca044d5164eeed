"""Sites that are ahead of their hub: found by what hosts report, held, and let go on by a person alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.hub.issuing import VALID_FOR, Issuer
from skerry.hub.recovering import MOST_AHEAD, Running, adopted, find_running, is_lost, left_by, refuse_unready
from skerry.hub.restoring import begin_restored
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Missing
from skerry.ports.hub_store import (
    AssignmentRecord,
    HostRecord,
    RecoveryRecord,
    ReleaseRecord,
    RolloutRecord,
)
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.backup import RestoreMark
from skerry.spec.report import ApplicationView, Event, Observed
from skerry.testing.clock import settle
from tests.unit.test_hub_backend import Harbour, Member

pytestmark = [pytest.mark.trust]

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


def seen(*releases: str, generation: int) -> Observed:
    views = {name.partition("@")[0]: ApplicationView(phase="running", release=name) for name in releases}
    return Observed(generation=generation, applications=views)


async def known(harbour: Harbour, site: str = "harbour") -> int:
    return (await harbour.hub.issuer.issued(site)).generation


async def report(harbour: Harbour, member: Member, sequence: int, generation: int, **more: Any) -> int | None:
    """Return the generation that a host is handed, None for nothing."""
    answer = await harbour.sync(member.signed(sequence, generation=generation, **more))
    return None if answer.desired is None else harbour.read(answer).generation


def be_restored(harbour: Harbour, *, minutes: float = 0.0) -> RestoreMark:
    """Do to the database what a restore does; the hub's parts are made anew over it."""
    now = harbour.clock.now() + timedelta(minutes=minutes)
    mark = RestoreMark(restored_at=now, made_at=now, base=int(now.timestamp()))
    begin_restored(harbour.store, mark, revoke_tokens=False)
    restart(harbour)
    return mark


def restart(harbour: Harbour) -> None:
    """Forget all that is in the memory of the hub."""
    hub = harbour.hub
    fresh = Issuer(harbour.store, hub.keys.key, harbour.clock, harbour.notifier)
    hub.issuer.recovering = fresh.recovering
    hub.issuer._issued.clear()
    hub.backend.hearing._hosts.clear()
    hub.backend.hearing._reload_at = 0.0


# ── what is lost ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("BACKUP-2")
@given(
    backup=st.integers(0, 50),
    lost=st.integers(0, 50),
    gap=st.integers(1, 1000),
    issued=st.integers(0, 50),
    held=st.integers(0, 2000),
)
def test_of_all_generations_exactly_those_are_lost_that_the_database_did_not_issue(
    backup: int, lost: int, gap: int, issued: int, held: int
) -> None:
    base = backup + lost + gap
    stored = base + issued if issued else backup
    record = RecoveryRecord(site="a", known=backup, base=base)
    own = {*range(backup + 1), *(range(base + 1, stored + 1) if issued else ())}
    assert is_lost(record, held, stored) == (held not in own)
    assert is_lost(None, held, stored) == (held > stored)


# ── found and held ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("BACKUP-2")
@pytest.mark.parametrize("restored", (False, True))
async def test_a_site_that_is_ahead_is_held_and_hears_nothing_whatever_changes(
    harbour: Harbour, restored: bool
) -> None:
    edge, other = await harbour.join(), await harbour.join("other")
    if restored:
        be_restored(harbour)
    before = await known(harbour)
    assert await report(harbour, edge, 10, before + 3) is None
    harbour.change("harbour", greeting="hello")
    assert not await harbour.hub.issuer.issue("harbour")
    harbour.clock.advance(VALID_FOR.total_seconds())
    await harbour.hub.issuer.renew_all()
    assert await known(harbour) == before
    # Not even those who lag behind: a held site is left as it is.
    assert await report(harbour, other, 10, before - 1) is None
    restart(harbour)
    assert await report(harbour, edge, 11, before + 3) is None
    held = harbour.hub.issuer.recovering.held("harbour")
    assert held is not None
    assert (held.seen, held.host) == (before + 3, "edge")
    holds = [entry for entry in harbour.store.audits(100) if entry.action == "site.hold"]
    assert [(entry.who, entry.subject) for entry in holds] == [("host:edge", "site:harbour")]
    # Another site goes on as usual.
    harbour.change("airport", greeting="hello")
    await harbour.join("plane", "airport")
    assert await known(harbour, "airport") > 0


@pytest.mark.rule("BACKUP-2")
async def test_a_late_host_of_the_lost_time_is_not_handed_what_was_issued_since(harbour: Harbour) -> None:
    edge, late = await harbour.join(), await harbour.join("late")
    before = await known(harbour)
    mark = be_restored(harbour)
    assert await report(harbour, edge, 10, before) is None
    harbour.change("harbour", greeting="new")
    await harbour.hub.issuer.issue("harbour")
    assert await known(harbour) == mark.base + 1, "the lost numbers are left out"
    assert await report(harbour, edge, 11, before) == mark.base + 1
    assert await report(harbour, late, 10, before + 40) is None
    assert harbour.hub.issuer.recovering.held("harbour") is not None


@pytest.mark.rule("BACKUP-2")
async def test_a_queue_of_events_does_not_hide_what_a_host_holds(harbour: Harbour) -> None:
    edge = await harbour.join()
    before = await known(harbour)
    be_restored(harbour)
    harbour.change("harbour", greeting="new")
    await harbour.hub.issuer.issue("harbour")
    event = Event(at=harbour.clock.now(), kind="test.happened")
    assert await report(harbour, edge, 10, 0, events=(event,)) is None
    assert await report(harbour, edge, 11, before + 2) is None


async def test_who_waits_at_a_site_that_becomes_held_is_handed_nothing(harbour: Harbour) -> None:
    edge, ahead = await harbour.join(), await harbour.join("ahead")
    waiting = await harbour.wait(edge, 10)
    before = await known(harbour)
    assert await report(harbour, ahead, 10, before + 5) is None
    harbour.notifier.notify("harbour")
    await settle()
    assert (await waiting).desired is None


async def test_a_number_beyond_reason_holds_nothing(harbour: Harbour) -> None:
    edge = await harbour.join()
    limit = int(harbour.clock.now().timestamp()) + MOST_AHEAD
    assert await report(harbour, edge, 10, limit + 1) is None
    assert harbour.hub.issuer.recovering.held("harbour") is None
    assert await report(harbour, edge, 11, limit) is None
    assert harbour.hub.issuer.recovering.held("harbour") is not None


# ── let go on ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("BACKUP-2")
@pytest.mark.parametrize("restored", (False, True))
async def test_what_a_person_decides_is_issued_above_all_that_was_seen_even_if_nothing_changed(
    harbour: Harbour, restored: bool
) -> None:
    edge, other = await harbour.join(), await harbour.join("other")
    if restored:
        be_restored(harbour)
    before = await known(harbour)
    await report(harbour, edge, 10, before + 3)
    await report(harbour, other, 10, before + 7)
    base = await harbour.hub.issuer.recovering.settle("harbour", harbour.audit(), stored=before)
    restart(harbour)  # it ended between the decision and the issuing
    await harbour.hub.issuer.mark_all()
    await harbour.hub.issuer.issue_marked()
    after = await known(harbour)
    assert after == base + 1 > before + 7
    assert await report(harbour, edge, 11, before + 3) == after
    assert await report(harbour, other, 11, before + 7) == after
    assert not await harbour.hub.issuer.issue("harbour"), "once"
    with pytest.raises(Conflict):
        await harbour.hub.issuer.recovering.settle("harbour", harbour.audit(), stored=after)
    # One who turns up above even that has the site held once more.
    assert await report(harbour, edge, 12, after + 1) is None
    assert harbour.hub.issuer.recovering.held("harbour") is not None


async def test_a_second_restore_of_the_same_backup_uses_no_number_twice(harbour: Harbour) -> None:
    edge = await harbour.join()
    before = await known(harbour)
    first = be_restored(harbour)
    harbour.clock.advance(3600.0)
    second = be_restored(harbour)
    harbour.clock.advance(1.0)
    harbour.change("harbour", greeting="new")
    await harbour.hub.issuer.issue("harbour")
    assert await known(harbour) == second.base + 1
    assert await report(harbour, edge, 10, first.base + 1) is None
    assert harbour.hub.issuer.recovering.held("harbour") is not None
    assert before < first.base


# ── reports from before ──────────────────────────────────────────────────────────────────────────────────


async def test_a_report_from_before_the_restore_tells_what_happened_and_gets_nothing(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    before = await known(harbour)
    event = Event(at=harbour.clock.now(), kind="test.happened")
    kept = edge.signed(10, generation=before - 1, events=(event,), observed=seen("a@9", generation=9))
    harbour.clock.advance(600.0)
    be_restored(harbour)
    harbour.clock.advance(60.0)
    answer = await harbour.sync(kept, want_token=True)
    assert (answer.acknowledged, answer.desired, answer.blob_token) == (10, None, "")
    assert answer.time is not None, "a host whose clock is behind learns the time"
    host = harbour.store.host("edge")
    assert host is not None
    assert host.observed is None
    assert host.last_seen_at is not None and host.last_seen_at < harbour.clock.now() - timedelta(minutes=10)
    assert [record.event for record in harbour.store.events()] == [event]
    answer = await harbour.sync(edge.signed(11, generation=before - 1), want_token=True)
    assert answer.desired is not None and answer.blob_token


# ── what runs there ──────────────────────────────────────────────────────────────────────────────────────


def host(name: str, generation: int, *releases: str, told: bool = True) -> HostRecord:
    observed = seen(*releases, generation=generation if told else generation - 1)
    return HostRecord(
        name=name,
        site="a",
        sign_key="",
        seal_key="",
        enrolled_at=NOW,
        generation_held=generation,
        observed=observed,
    )


def release(name: str) -> ReleaseRecord:
    application, _, version = name.partition("@")
    return ReleaseRecord(
        name=name,
        application=application,
        version=version,
        digest=digest_of(name.encode()),
        document=b"{}",
        size_bytes=1,
        created_at=NOW,
        created_by="ann",
    )


HELD = RecoveryRecord(site="a", known=5, base=100, seen=9, host="h1", held_since=NOW)


def test_the_newest_generation_says_what_runs_and_hosts_that_are_not_ahead_do_not_count() -> None:
    hosts = [host("h1", 9, "m@2", "n@1"), host("h2", 8, "m@1"), host("h3", 8, "m@1"), host("h4", 5, "o@1")]
    running = find_running(HELD, 5, hosts, [release("m@1"), release("m@2")])
    assert running == Running({"m": "m@2", "n": "n@1"}, ("n@1",), ())
    with pytest.raises(Missing) as caught:
        refuse_unready("a", running)
    assert "n@1" in caught.value.message


def test_a_release_that_a_host_names_by_its_digest_is_known() -> None:
    digest = release("m@1").digest
    view = ApplicationView(phase="running", release=digest)
    told = msgspec.structs.replace(host("h1", 9), observed=Observed(generation=9, applications={"m": view}))
    assert find_running(HELD, 5, [told], [release("m@1")]).releases == {"m": "m@1"}


def test_a_host_that_has_not_told_what_it_runs_now_is_waited_for() -> None:
    running = find_running(HELD, 5, [host("h1", 9, "m@1", told=False)], [release("m@1")])
    assert running == Running({}, (), ("h1",))
    with pytest.raises(Conflict) as caught:
        refuse_unready("a", running)
    assert caught.value.code == "site.untold"


def test_adopting_keeps_what_is_the_same_and_takes_away_what_nobody_has() -> None:
    before = [
        AssignmentRecord(site="a", application=name, release=f"{name}@1", rollout="r", attempt=4)
        for name in ("gone", "m", "n", "o")
    ]
    hosts = [host("h1", 9, "m@2", "n@1", "p@1"), host("h2", 5, "o@1")]
    running = find_running(HELD, 5, hosts, [])
    found = {record.application: record for record in adopted("a", running, before, hosts)}
    assert set(found) == {"m", "n", "o", "p"}
    assert found["m"] == AssignmentRecord(site="a", application="m", release="m@2", rollout="", attempt=5)
    assert (found["n"], found["o"]) == (before[2], before[3])
    assert found["p"].attempt == 1


def test_a_rollout_leaves_an_adopted_site_only_where_it_was_not_done() -> None:
    record = RolloutRecord(
        name="r",
        document=b"{}",
        release="m@1",
        application="m",
        created_at=NOW,
        created_by="ann",
        sites={
            "a": SiteProgress(state="offered", why="queued"),
            "b": SiteProgress(state="offered", why="queued"),
            "c": SiteProgress(state="succeeded", why="runs"),
        },
    )
    left = left_by(record, "a", "why", NOW)
    assert left is not None
    assert [left.sites[name].state for name in "abc"] == ["superseded", "offered", "succeeded"]
    assert left_by(record, "c", "why", NOW) is None
    assert left_by(record, "d", "why", NOW) is None


async def test_no_rollout_concludes_anything_from_a_held_site(harbour: Harbour) -> None:
    edge = await harbour.join()
    await report(harbour, edge, 10, await known(harbour) + 3)
    where = harbour.hub.issuer.where("harbour", "m")
    assert where is not None and where.placement is not None
    assert (where.hosts, where.placement.hosts, where.placement.why) == (frozenset(), (), ())


async def test_a_removed_site_is_not_held_when_it_comes_back(harbour: Harbour) -> None:
    edge = await harbour.join()
    await report(harbour, edge, 10, await known(harbour) + 3)
    harbour.store.remove_host("edge", harbour.audit())
    harbour.store.remove_site("harbour", harbour.audit())
    harbour.hub.issuer.forget("harbour")
    harbour.change("harbour")
    assert harbour.hub.issuer.recovering.held("harbour") is None
    assert harbour.store.recoveries() == []
    with pytest.raises(Conflict):
        harbour.store.put_recovery(msgspec.structs.replace(HELD, site="nowhere"))
