"""What happened at hosts and at the hub as one log: every entry once, however late, and only to who may see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.sql.store import SqlHubStore
from skerry.cli.events import entry_line
from skerry.cli.main import run
from skerry.hub.api.app import API_PATH
from skerry.hub.event_log import Cursor, LogFilter, newest_page, next_page, parse_cursor
from skerry.kit.errors import Rejected
from skerry.ports.hub_store import AppliedReport, Audit
from skerry.spec.api_events import LogEntry, LogPage
from skerry.spec.report import Event
from skerry.testing.waiting import eventually
from tests.contract.hub_records import NOW, populate
from tests.unit.cli_session import logged_in_hub
from tests.unit.test_hub_secrets import Vaulted

pytestmark = pytest.mark.telemetry

EVERYTHING = LogFilter(hub=True)
MINUTE = timedelta(minutes=1)


def apply(store: SqlHubStore, sequence: int, *events: Event, host: str = "cam-1", late: int = 0) -> None:
    at = NOW + sequence * MINUTE
    store.apply_reports(
        [
            AppliedReport(
                host=host,
                site="berlin",
                sequence=sequence,
                seen_at=at + late * MINUTE,
                sent_at=at,
                clock_offset_s=0.0,
                generation=1,
                events=events,
            )
        ]
    )


def event(kind: str, minute: int, application: str = "") -> Event:
    return Event(at=NOW + minute * MINUTE, kind=kind, application=application)


def audited(store: SqlHubStore, action: str, minute: int, subject: str = "site:berlin") -> None:
    store.add_audit(Audit(at=NOW + minute * MINUTE, who="ann", action=action, subject=subject))


def said(page: LogPage) -> list[str]:
    return [entry.kind for entry in page.entries]


@pytest.fixture
def store() -> SqlHubStore:
    made = SqlHubStore.open(None)
    populate(made, hosts=("cam-1", "cam-2"))
    made.trim(keep_events=0, keep_audits=0)
    return made


def test_events_of_hosts_and_what_was_done_at_the_hub_are_merged_by_their_time(store: SqlHubStore) -> None:
    apply(store, 2, event("release.offered", 2, "reader"))
    audited(store, "rollout.pause", 3)
    apply(store, 9, event("release.kept", 1, "reader"), late=5)
    page = newest_page(store, EVERYTHING, 10)
    assert said(page)[-3:] == ["release.kept", "release.offered", "rollout.pause"]
    late = page.entries[-3]
    assert (late.at, late.arrived_at) == (NOW + MINUTE, NOW + 14 * MINUTE)
    assert said(newest_page(store, LogFilter(application="reader"), 10)) == [
        "release.kept",
        "release.offered",
    ]
    assert said(newest_page(store, LogFilter(kind="release"), 1)) == ["release.kept"], "what arrived last"
    assert said(newest_page(store, LogFilter(kind="rollout.pause", site="berlin", hub=True), 9)) == [
        "rollout.pause"
    ]
    assert said(newest_page(store, LogFilter(host="cam-2", hub=True), 9)) == []
    assert said(newest_page(store, LogFilter(sites=frozenset({"paris"})), 9)) == []


@pytest.mark.rule("AUDIT-5")
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=20),
    st.integers(1, 4),
    st.integers(0, 20),
)
def test_page_after_page_every_entry_comes_once_whatever_arrives_meanwhile(
    steps: Sequence[tuple[bool, int]], limit: int, before: int
) -> None:
    store = SqlHubStore.open(None)
    populate(store, hosts=("cam-1",))
    names: list[str] = []

    def write(number: int, hub: bool, late: int) -> None:
        names.append(f"step.{number}")
        if hub:
            audited(store, names[-1], number - late)
        else:
            apply(store, number + 2, event(names[-1], number), late=-late)

    for number, (hub, late) in enumerate(steps[:before]):
        write(number, hub, late)
    wanted = LogFilter(kind="step", hub=True)
    got: list[str] = []
    page = next_page(store, wanted, Cursor(), limit)
    left = list(enumerate(steps))[before:]
    while True:
        assert len(page.entries) <= limit
        got += said(page)
        if left:
            number, (hub, late) = left.pop(0)
            write(number, hub, late)
        elif not page.more and not page.entries:
            break
        page = next_page(store, wanted, parse_cursor(page.cursor), limit)
    assert sorted(got) == sorted(names)
    store.close()


def test_from_the_newest_on_what_comes_later_is_found(store: SqlHubStore) -> None:
    apply(store, 2, event("one", 2))
    page = newest_page(store, LogFilter(host="cam-1"), 10)
    apply(store, 2, event("other", 2), host="cam-2")
    apply(store, 3, event("two", 3))
    assert said(next_page(store, LogFilter(host="cam-1"), parse_cursor(page.cursor), 10)) == ["two"]


@pytest.mark.parametrize("text", ("", "1", "1.", "a.b", "-1.2", "1.2.3", "9" * 30 + ".1", "1.2\n"))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        parse_cursor(text)


# ── the API ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Vaulted]:
    made = Vaulted(tmp_path)
    yield made
    made.hub.store.close()


def happens(world: Vaulted, sequence: int, kind: str) -> None:
    now = world.clock.now()
    world.hub.store.apply_reports(
        [
            AppliedReport(
                host="edge-1",
                site="harbour",
                sequence=sequence,
                seen_at=now,
                sent_at=now,
                generation=1,
                clock_offset_s=0.0,
                events=(Event(at=now, kind=kind),),
            )
        ]
    )


async def asked(world: Vaulted, who: str, **body: Any) -> LogPage:
    answer = await world.ask(who, f"{API_PATH}/log", "POST", json=body)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=LogPage)


@pytest.mark.rule("AUDIT-5")
async def test_what_operators_did_is_shown_to_admins_alone(world: Vaulted) -> None:
    happens(world, 2, "agent.started")
    page = await asked(world, "viewer")
    assert ({entry.source for entry in page.entries}, page.hub) == ({"host"}, False)
    page = await asked(world, "admin")
    assert ({entry.source for entry in page.entries}, page.hub) == ({"host", "hub"}, True)
    assert (await world.ask("viewer", f"{API_PATH}/log", "POST", json={"after": "x"})).status_code == 400


async def test_who_follows_is_answered_when_something_happens(world: Vaulted) -> None:
    happens(world, 2, "agent.started")
    page = await asked(world, "viewer")
    waiting = asyncio.create_task(asked(world, "viewer", after=page.cursor, wait_s=25))
    happens(world, 3, "release.kept")

    async def answered() -> bool:
        world.clock.advance(1.0)
        return waiting.done()

    await eventually(answered)
    assert [entry.kind for entry in (await waiting).entries] == ["release.kept"]
    assert said(await asked(world, "viewer", since_s=3600))[-1] == "release.kept"
    world.clock.advance(7200)
    assert said(await asked(world, "viewer", since_s=3600)) == []


# ── the command ─────────────────────────────────────────────────────────────────────────────────────


def test_a_late_event_says_how_late_and_what_was_done_says_by_whom() -> None:
    late = LogEntry(
        source="host",
        at=NOW,
        arrived_at=NOW + 180 * MINUTE,
        kind="release.kept",
        host="edge",
        application="reader",
    )
    assert entry_line(late).endswith("  edge/reader  release.kept  (arrived 3h later)")
    done = LogEntry(
        source="hub",
        at=NOW,
        arrived_at=NOW,
        kind="rollout.decide",
        message="wave 1",
        who="hub",
        subject="rollout:r",
        outcome="running",
        decision="r#1",
    )
    assert entry_line(done).endswith("  rollout:r  rollout.decide running by hub, r#1: wave 1")


def test_events_are_printed_in_order_one_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = LogEntry(source="host", at=NOW, arrived_at=NOW, kind="release.kept", host="edge")
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views["/log"] = LogPage(entries=(entry,), cursor="1.1")
        assert (
            run(["events", "--site", "zurich", "--app", "reader", "--kind", "release", "--since", "6h"]) == 0
        )
        assert hub.requests == ["POST /log"]
        sent = msgspec.json.decode(hub.bodies["/log"])
    assert sent == {"site": "zurich", "application": "reader", "kind": "release", "since_s": 21600}
    assert capsys.readouterr().out.endswith("  edge  release.kept\n")
