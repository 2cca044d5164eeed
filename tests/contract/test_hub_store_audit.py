"""The audit in the hub's store: one chain, moved in the transaction of what it is about, whole after any crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from skerry.adapters.sql import migrations
from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Missing
from skerry.ports.authorities import AuthorityRecord
from skerry.ports.deciding import DecisionRecord, Turn
from skerry.ports.hub_store import HubStore
from skerry.trust.chain import AuditCheck, ChainHead, digest_entry
from tests.contract.crashing import SITES
from tests.contract.hub_records import HOUR, NOW, audit, populate, rollout
from tests.contract.killed import run_and_kill


@pytest.fixture(params=("memory", "file"))
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    yield opened
    opened.close()


def flaws(store: HubStore, *anchors: ChainHead) -> list[tuple[str, int]]:
    check = AuditCheck(store.audit_head(), anchors)
    after = 0
    while page := store.audit_entries(after, 7):
        check.add(page)
        after = page[-1].number
    return [(flaw.code, flaw.number) for flaw in check.conclude()]


def test_entries_are_numbered_and_linked_and_the_head_is_the_newest(store: HubStore) -> None:
    assert (store.audit_head(), flaws(store)) == (ChainHead(), [])
    for number in range(20):
        store.add_audit(msgspec.structs.replace(audit(str(number)), why="because", decision="spring#1"))
    entries = store.audit_entries(0, 100)
    assert [entry.number for entry in entries] == list(range(1, 21))
    assert (entries[0].why, entries[0].decision, entries[0].at) == ("because", "spring#1", NOW)
    assert store.audit_head() == ChainHead(20, digest_entry(entries[-1]))
    assert [entry.number for entry in store.audit_entries(18, 5)] == [19, 20]
    assert flaws(store, ChainHead(3, entries[3].previous)) == []


@pytest.mark.rule("AUDIT-3")
def test_forgetting_the_oldest_is_an_entry_and_leaves_a_whole_chain(store: HubStore) -> None:
    for number in range(25):
        store.add_audit(audit(str(number)))
    old, kept = store.audit_entries(3, 1)[0].previous, store.audit_head()
    for _ in range(3):
        store.trim(keep_events=0, keep_audits=20)
    assert [entry.number for entry in store.audit_entries(0, 100)] == list(range(7, 27)), "once"
    assert flaws(store, kept) == []
    assert flaws(store, ChainHead(3, old)) == [("out-of-reach", 3)]
    store.trim(keep_events=0, keep_audits=0)
    assert [entry.action for entry in store.audit_entries(0, 100)] == ["audit.trim"]
    assert flaws(store) == []


def test_a_change_that_is_refused_leaves_no_entry_and_the_next_one_follows(store: HubStore) -> None:
    store.add_audit(audit("before"))
    with pytest.raises(Missing):
        store.remove_site("nowhere", audit("never"))
    store.add_audit(audit("after"))
    assert [entry.action for entry in store.audit_entries(0, 9)] == ["before", "after"]
    assert flaws(store) == []


def test_decisions_of_rollouts_and_certificates_are_entries_of_their_own(store: HubStore) -> None:
    populate(store, hosts=("cam-1",))
    store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    lease = store.take_lease("r1", "me", token=0, now=NOW, until=NOW + HOUR)
    assert lease is not None
    decision = DecisionRecord(rollout="r1", at=NOW, state="running", why="wave 1 begins", inputs="sha256:00")
    store.advance_rollout(rollout("r1"), turn=Turn(lease=lease, decision=decision))
    store.add_authority(
        AuthorityRecord(
            serial="aa",
            host="cam-1",
            site="berlin",
            key="bb",
            issuer="",
            chain="",
            issued_at=NOW,
            not_after=NOW + HOUR,
        )
    )
    decided, issued = store.audit_entries(0, 100)[-2:]
    assert (decided.who, decided.action, decided.subject) == ("hub", "rollout.decide", "rollout:r1")
    assert (decided.why, decided.decision, decided.outcome) == ("wave 1 begins", "r1#1", "running")
    assert (issued.who, issued.action, issued.subject) == ("hub", "pki.issue", "host:cam-1/authority:aa")
    assert flaws(store) == []


@pytest.mark.rule("AUDIT-1")
@pytest.mark.parametrize(
    ("tampering", "found"),
    (
        ("UPDATE audits SET who = 'bob' WHERE id = 5", [("altered", 6)]),
        ("UPDATE audits SET who = 'bob' WHERE id = 9", [("head", 9)]),
        ("DELETE FROM audits WHERE id = 5", [("gap", 6)]),
        ("DELETE FROM audits WHERE id <= 5", [("cut", 6)]),
        ("DELETE FROM audits WHERE id > 5", [("truncated", 9)]),
        (
            "UPDATE audits SET previous = 'sha256:' || hex(zeroblob(32)) WHERE id = 6",
            [("altered", 6), ("altered", 7)],
        ),
    ),
)
def test_a_database_that_was_changed_by_hand_is_found_out(
    tmp_path: Path, tampering: str, found: list[tuple[str, int]]
) -> None:
    path = tmp_path / "hub.db"
    store = SqlHubStore.open(path)
    for number in range(9):
        store.add_audit(audit(str(number)))
    store.close()
    raw = sqlite3.connect(path)
    raw.executescript(tampering)
    raw.close()
    store = SqlHubStore.open(path)
    assert flaws(store) == found
    store.close()


@pytest.mark.rule("AUDIT-1")
@pytest.mark.parametrize("linger_s", (0.0, 0.1, 0.3))
def test_the_chain_is_whole_after_a_kill_and_has_every_change_that_was_told(
    tmp_path: Path, linger_s: float
) -> None:
    path = tmp_path / "hub.db"
    told: dict[str, int] = {}
    for line in run_and_kill("audit", path, lines=30, linger_s=linger_s):
        name, number = line.split()
        told[name] = int(number)
    store = SqlHubStore.open(path)
    assert flaws(store) == []
    newest = {site.name: int(site.document) for site in store.sites()}
    assert all(told[name] <= newest[name] for name in SITES if name in told)
    actions = [entry.action for entry in store.audit_entries(0, 1000)]
    assert "never" not in actions
    numbers = [action.split() for action in actions if action.startswith("put")]
    last = {name: int(number) for _, name, number in numbers}
    assert all(newest[name] == number for name, number in last.items()), "a change and its entry go together"
    store.add_audit(audit("after"))
    assert flaws(store) == []
    store.close()


def test_entries_of_an_older_version_become_the_beginning_of_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    engine = sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=StaticPool
    )
    with engine.begin() as connection:
        migrations.take_steps(connection, "0018")
    engine.dispose()
    raw = sqlite3.connect(path)
    add = "INSERT INTO audits (id, at, who, action, subject, outcome) VALUES (?, ?, ?, ?, ?, ?)"
    told = [
        (3, 1_700_000_000_000_000, "ann", "site.remove", 'site:zürich "a"', "done"),
        (4, 1_700_000_000_000_001, "ann", "login", "token:1", "denied"),
        (9, 1_700_000_000_120_000, "b\nob\x7f\u2028", "x\\y/z", "\t<&>\x01", "done"),
    ]
    raw.executemany(add, told)
    raw.commit()
    raw.close()
    store = SqlHubStore.open(path)
    found = store.audit_entries(0, 9)
    assert [entry.number for entry in found] == [1, 2, 3]
    assert [(one.who, one.action, one.subject, one.outcome) for one in found] == [row[2:] for row in told]
    assert flaws(store) == []
    store.add_audit(audit("next"))
    assert flaws(store, ChainHead(3, digest_entry(found[-1]))) == []
    store.close()
