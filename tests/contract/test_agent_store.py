"""What every AgentStore keeps: documents together or not at all, reports in order, sent ones unchanged."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.kit.errors import Conflict, Unavailable
from skerry.ports.agent_store import AgentStore, QueuedReport, WindowRow
from skerry.testing.faults import FaultPlan, FaultyAgentStore, PowerCut
from skerry.testing.memory import MemoryAgentStore
from tests.contract.killed import run_and_kill
from tests.contract.tiny_disk import fill, tiny_disk

KINDS: dict[str, Callable[[Path], AgentStore]] = {
    "sqlite": lambda path: SqliteAgentStore.open(path / "deep" / "agent.db")[0],
    "memory": lambda _: MemoryAgentStore(),
    "faulty": lambda _: FaultyAgentStore(MemoryAgentStore(), FaultPlan()),
}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentStore]:
    made = KINDS[str(request.param)](tmp_path)
    yield made
    made.close()


def queue(store: AgentStore, *sequences: int) -> None:
    for sequence in sequences:
        store.put_report(QueuedReport(sequence, b"report %d" % sequence))


def put_many(store: AgentStore, count: int) -> None:
    for number in range(count):
        store.put_report(QueuedReport(number, b"x" * 5000))


def sequences(store: AgentStore) -> list[int]:
    return [report.sequence for report in store.reports(1000)]


def test_documents_come_back_are_replaced_and_removed(store: AgentStore) -> None:
    assert store.load("a") is None
    store.save({"a": b"1", "b": b"\x00\xff", "c": b""})
    store.save({"a": b"2", "b": None, "nothing": None})
    assert (store.load("a"), store.load("b"), store.load("c")) == (b"2", None, b"")


def test_documents_of_which_one_cannot_be_stored_leave_all_as_they_were(tmp_path: Path) -> None:
    store, _ = SqliteAgentStore.open(tmp_path / "agent.db")
    store.save({"a": b"old"})
    with pytest.raises(sqlite3.Error):
        store.save({"a": b"new", "b": cast("bytes", object())})
    assert (store.load("a"), store.load("b")) == (b"old", None)
    store.close()


def test_reports_come_oldest_first(store: AgentStore) -> None:
    queue(store, 3, 1, 2)
    assert store.reports(2) == [QueuedReport(1, b"report 1"), QueuedReport(2, b"report 2")]
    assert sequences(store) == [1, 2, 3]
    assert store.reports(0) == []
    assert [report.sequence for report in store.reports(1, above=1)] == [2]
    assert store.reports(9, above=3) == []


def test_a_report_can_be_replaced_until_it_was_sent(store: AgentStore) -> None:
    queue(store, 1, 2)
    store.put_report(QueuedReport(2, b"newer"))
    store.mark_sent(1)
    assert store.reports(9) == [QueuedReport(1, b"report 1", sent=True), QueuedReport(2, b"newer")]
    with pytest.raises(Conflict):
        store.put_report(QueuedReport(1, b"changed"))
    store.mark_sent(2)
    with pytest.raises(Conflict):
        store.put_report(QueuedReport(2, b"changed"))
    assert [report.envelope for report in store.reports(9)] == [b"report 1", b"newer"]


def test_acknowledged_reports_are_forgotten(store: AgentStore) -> None:
    queue(store, 1, 2, 3)
    store.mark_sent(3)
    store.acknowledge(2)
    assert store.reports(9) == [QueuedReport(3, b"report 3", sent=True)]
    store.acknowledge(2)
    store.acknowledge(99)
    assert sequences(store) == []


@pytest.mark.parametrize(("keep", "left"), ((9, [1, 2, 4, 8]), (4, [1, 2, 4, 8]), (1, [8]), (0, [])))
def test_the_newest_reports_are_kept(store: AgentStore, keep: int, left: list[int]) -> None:
    queue(store, 1, 2, 4, 8)
    assert store.drop_oldest(keep) == 4 - len(left)
    assert sequences(store) == left


def window(begin: int, state: str = "new", *, release: str = "a@1", value: bytes = b"1") -> WindowRow:
    return WindowRow("a", release, "main", "errors", begin, begin + 60, state, value)


def test_windows_are_replaced_and_forgotten_together_and_come_oldest_first(store: AgentStore) -> None:
    store.change_windows([window(120), window(0), window(60, release="a@2")])
    store.change_windows([window(0, "doubt", value=b"2")], [window(0), window(120)])
    assert store.windows() == [window(0, "doubt", value=b"2"), window(60, release="a@2")]
    assert store.window_names() == [window(0, "doubt", value=b""), window(60, release="a@2", value=b"")]
    assert store.windows(application="b") == []
    assert store.windows(application="a", releases=("a@2", "a@3")) == [window(60, release="a@2")]
    assert store.windows(states=("doubt", "told")) == [window(0, "doubt", value=b"2")]
    assert store.windows(limit=1) == [window(0, "doubt", value=b"2")]


def test_only_a_window_that_is_still_the_same_changes_its_state(store: AgentStore) -> None:
    store.change_windows([window(0), window(60)])
    store.mark_windows([window(0), window(60, value=b"0"), window(600)], "told")
    assert [row.state for row in store.windows()] == ["told", "new"]


def test_a_file_of_before_there_were_windows_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store, _ = SqliteAgentStore.open(path)
    store.save({"a": b"1"})
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE windows; DROP TABLE events; PRAGMA user_version = 1;")
    store, set_aside = SqliteAgentStore.open(path)
    store.change_windows([window(0)])
    assert (store.load("a"), store.windows(), set_aside) == (b"1", [window(0)], False)
    store.close()


def test_many_threads_may_use_it_at_a_time(store: AgentStore) -> None:
    def work(first: int) -> None:
        queue(store, *range(first, first + 50))
        store.save({str(first): b"x"})

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sequences(store) == list(range(200))
    assert all(store.load(str(first)) == b"x" for first in range(0, 200, 50))


def test_what_was_stored_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store, set_aside = SqliteAgentStore.open(path)
    assert not set_aside
    store.save({"a": b"1"})
    queue(store, 1)
    store.mark_sent(1)
    store.close()
    again, set_aside = SqliteAgentStore.open(path)
    assert not set_aside
    assert again.load("a") == b"1"
    assert again.reports(9) == [QueuedReport(1, b"report 1", sent=True)]
    again.close()


@pytest.mark.parametrize("linger_s", (0.0, 0.05, 0.2))
def test_after_a_kill_all_acknowledged_is_there_and_documents_are_whole(
    tmp_path: Path, linger_s: float
) -> None:
    last = int(run_and_kill("agent", tmp_path / "agent.db", lines=10, linger_s=linger_s)[-1])
    store, set_aside = SqliteAgentStore.open(tmp_path / "agent.db")
    assert not set_aside
    assert store.load("a") == store.load("b"), "documents are stored together"
    assert last <= int(store.load("a") or 0) <= last + 1
    assert sequences(store)[:last] == list(range(1, last + 1))
    store.close()


@pytest.mark.parametrize("damage", ("pages", "text", "cut"))
def test_a_damaged_file_is_set_aside_and_the_agent_begins_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "agent.db"
    for number in (1, 2):
        store, _ = SqliteAgentStore.open(path)
        store.save({str(key): b"x" * 3000 for key in range(100)})
        store.close()
        content = bytearray(path.read_bytes())
        if damage == "pages":
            for page in range(1, len(content) // 4096):
                content[page * 4096 : page * 4096 + 100] = b"\xa5" * 100
        elif damage == "cut":
            del content[20_000:]
        else:
            content[:] = b"no database " * 1000
        path.write_bytes(content)
        new, set_aside = SqliteAgentStore.open(path)
        assert set_aside
        assert new.load("1") is None
        new.save({"works": b"again"})
        new.close()
        assert Path(f"{path}.corrupt-{number}").read_bytes() == content
        again, set_aside = SqliteAgentStore.open(path)
        assert (again.load("works"), set_aside) == (b"again", False)
        again.close()


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", size_bytes=2 << 20) as disk:
        store, _ = SqliteAgentStore.open(disk / "agent.db")
        store.save({"a": b"old", "b": b"old"})
        ballast = fill(disk)
        with pytest.raises(Unavailable) as caught:
            put_many(store, 1000)
        assert caught.value.code == "disk.full"
        with pytest.raises(Unavailable):
            store.save({"a": b"new", "b": b"x" * 100_000})
        assert (store.load("a"), store.load("b")) == (b"old", b"old")
        kept = sequences(store)
        ballast.unlink()
        store.save({"a": b"new", "b": b"new"})
        store.close()
        again, set_aside = SqliteAgentStore.open(disk / "agent.db")
        assert (again.load("a"), again.load("b"), set_aside) == (b"new", b"new", False)
        assert sequences(again) == kept
        again.close()


@pytest.mark.parametrize("killed", (True, False))
def test_a_host_with_a_full_disk_starts_with_what_it_remembers(tmp_path: Path, killed: bool) -> None:
    with tiny_disk(tmp_path / "disk", size_bytes=3 << 20) as disk:
        if killed:
            run_and_kill("agent", disk / "agent.db", lines=3, linger_s=0.0)
        else:
            store, _ = SqliteAgentStore.open(disk / "agent.db")
            store.save({"a": b"1"})
            store.close()
        ballast = fill(disk)
        full, set_aside = SqliteAgentStore.open(disk / "agent.db")
        assert not set_aside
        assert int(full.load("a") or 0) >= 1
        ballast.unlink()
        full.save({"a": b"9999"})
        full.close()


def test_a_database_that_another_process_holds_is_unavailable_and_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store, _ = SqliteAgentStore.open(path, patience_s=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        store.save({"a": b"1"})
    assert caught.value.code == "database.locked"
    other.execute("ROLLBACK")
    other.close()
    store.save({"a": b"1"})
    store.close()


def test_planned_faults_fall_before_or_after_the_effect() -> None:
    plan = FaultPlan().fail("save", Unavailable("disk.full", "full"), nth=2)
    plan.fail("save", Unavailable("disk.full", "full"), nth=3, when="after")
    store = FaultyAgentStore(MemoryAgentStore(), plan)
    store.save({"a": b"1"})
    for expected in (b"1", b"3"):
        with pytest.raises(Unavailable):
            store.save({"a": b"2" if expected == b"1" else b"3"})
        assert store.load("a") == expected
    store.save({"a": b"4"})
    assert store.load("a") == b"4"
    assert (plan.calls("save"), plan.calls()) == (4, 7)


def test_after_a_power_cut_nothing_runs_until_power_is_back() -> None:
    plan = FaultPlan()
    inner = MemoryAgentStore()
    store = FaultyAgentStore(inner, plan)
    store.save({"a": b"1"})
    plan.kill(nth=2)
    assert store.load("a") == b"1"
    for _ in range(2):
        with pytest.raises(PowerCut):
            store.save({"a": b"2"})
    with pytest.raises(PowerCut):
        store.load("a")
    plan.restore_power()
    assert store.load("a") == b"1"
