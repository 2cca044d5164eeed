"""What every relay's store does: the one in SQLite, and the double in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.sqlite_relay_store import SqliteRelayStore
from skerry.kit.errors import Unavailable
from skerry.ports.relay_store import Done, KeptMetrics, KeptReport, RelayStore, Taken, Taking
from skerry.testing.memory_relay import MemoryRelayStore

MUCH = 1 << 30
Open = Callable[[], RelayStore]


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RelayStore:
    return (
        SqliteRelayStore.open(tmp_path / "relay.db")[0] if request.param == "sqlite" else MemoryRelayStore()
    )


def report(key: str, sequence: int, *, heartbeat: bool = False, size: int = 100) -> KeptReport:
    return KeptReport(key, sequence, heartbeat, b"r" * size, 1000.0 + sequence)


def metrics(key: str, sequence: int, *, size: int = 100) -> KeptMetrics:
    return KeptMetrics(key, sequence, b"m" * size, b"r" * 10, 1000.0 + sequence)


def take(
    store: RelayStore, *reports: KeptReport, limit: int = MUCH, batch: KeptMetrics | None = None
) -> Taken:
    key = reports[0].key if reports else batch.key if batch else ""
    return store.take([Taking(key, reports, batch)], limit_bytes=limit)[0]


def waiting(store: RelayStore) -> list[tuple[str, int]]:
    return [(one.key, one.sequence) for one in store.waiting_reports(100, MUCH)]


def test_what_was_taken_is_handed_out_in_order_until_it_is_forgotten(store: RelayStore) -> None:
    assert take(store, report("a", 1), report("a", 2), batch=metrics("a", 2)) == Taken(True, True)
    take(store, report("b", 7))
    assert waiting(store) == [("a", 1), ("a", 2), ("b", 7)]
    assert [(one.key, one.sequence) for one in store.waiting_metrics(10, MUCH)] == [("a", 2)]
    assert store.waiting_reports(10, MUCH)[0] == report("a", 1)
    assert store.waiting_metrics(10, MUCH)[0] == metrics("a", 2)
    store.forget([Done("a", reports=1), Done("c", reports=9)])
    assert waiting(store) == [("a", 2), ("b", 7)]
    store.forget([Done("a", reports=2, metrics=2)])
    assert (waiting(store), store.waiting_metrics(10, MUCH)) == ([("b", 7)], [])
    assert store.held() == {"a": 2, "b": 7}, "what has gone above stays known"


def test_all_that_waits_can_be_read_host_by_host_a_part_at_a_time(store: RelayStore) -> None:
    take(store, report("b", 7))
    take(store, report("a", 1), report("a", 2), report("a", 10, heartbeat=True))
    expected = [("a", 1), ("a", 2), ("a", 10), ("b", 7)]
    for limit in (1, 350, MUCH):
        found: list[tuple[str, int]] = []
        at = ("", 0)
        while page := store.reports_after(*at, limit):
            found += [(one.key, one.sequence) for one in page]
            at = found[-1]
        assert found == expected
    assert len(store.reports_after("", 0, 1)) == 1
    assert store.reports_after("a", 2, MUCH)[0] == report("a", 10, heartbeat=True)


def test_a_report_that_comes_again_stays_as_it_was(store: RelayStore) -> None:
    take(store, report("a", 1, size=10))
    before = store.size()
    take(store, report("a", 1, size=99))
    assert store.size() == before
    assert len(store.waiting_reports(10, MUCH)[0].envelope) == 10


def test_a_newer_report_takes_the_place_of_a_waiting_heartbeat_of_its_host_alone(store: RelayStore) -> None:
    take(store, report("a", 1, heartbeat=True))
    take(store, report("b", 1, heartbeat=True))
    take(store, report("a", 2, heartbeat=True))
    assert waiting(store) == [("b", 1), ("a", 2)]
    take(store, report("a", 3))
    assert waiting(store) == [("a", 3), ("b", 1)], "what tells something goes first"
    take(store, report("a", 4, heartbeat=True))
    assert waiting(store) == [("a", 3), ("b", 1), ("a", 4)]
    assert store.size().dropped_reports == 0


def test_batches_are_bounded_and_never_empty(store: RelayStore) -> None:
    take(store, *(report("a", number, size=1000) for number in range(1, 6)))
    assert len(store.waiting_reports(3, MUCH)) == 3
    assert len(store.waiting_reports(100, 2500)) == 2
    assert len(store.waiting_reports(100, 1)) == 1
    take(store, report("a", 6), batch=metrics("a", 6, size=5000))
    take(store, report("b", 6), batch=metrics("b", 6, size=5000))
    assert len(store.waiting_metrics(100, 1)) == 1


def test_metrics_are_handed_out_one_batch_per_host(store: RelayStore) -> None:
    for number in (1, 2):
        take(store, report("a", number), batch=metrics("a", number))
    assert [one.sequence for one in store.waiting_metrics(10, MUCH)] == [1]


def test_room_is_made_by_metrics_then_heartbeats_and_never_by_what_tells_something(store: RelayStore) -> None:
    size = 300  # 100 bytes, and what a row takes
    take(store, report("a", 1), batch=metrics("a", 1, size=90))
    take(store, report("b", 1, heartbeat=True))
    take(store, report("c", 1, heartbeat=True))
    limit = store.size().used_bytes
    assert limit == 4 * size
    assert take(store, report("d", 1), limit=limit).reports
    assert (store.size().metrics, store.size().dropped_metrics) == (0, 1)
    assert take(store, report("e", 1), limit=limit).reports
    assert ("b", 1) not in waiting(store)
    assert take(store, report("f", 1), limit=limit).reports
    assert not take(store, report("g", 1), limit=limit).reports, "nothing is left to go"
    assert waiting(store) == [("a", 1), ("d", 1), ("e", 1), ("f", 1)]
    assert store.size().dropped_reports == 2
    assert "g" not in store.held()


def test_metrics_displace_older_metrics_and_no_heartbeat(store: RelayStore) -> None:
    take(store, report("a", 1, heartbeat=True))
    take(store, report("b", 1), batch=metrics("b", 1))
    limit = store.size().used_bytes
    assert take(store, batch=metrics("a", 2), limit=limit) == Taken(True, True)
    assert [one.key for one in store.waiting_metrics(10, MUCH)] == ["a"]
    assert take(store, batch=metrics("a", 3, size=1 << 20), limit=limit) == Taken(True, False)
    assert [key for key, _ in waiting(store)] == ["b", "a"]


def test_a_host_that_is_let_go_begins_again_and_its_metrics_stay(store: RelayStore) -> None:
    take(store, report("a", 5), batch=metrics("a", 5))
    store.let_go("a")
    assert (waiting(store), store.held(), store.size().metrics) == ([], {}, 1)
    take(store, report("a", 2))
    assert (waiting(store), store.held()) == ([("a", 2)], {"a": 2})


def test_what_is_given_up_is_counted(store: RelayStore) -> None:
    take(store, report("a", 5), batch=metrics("a", 5))
    store.forget([Done("a", metrics=9)], given_up=True)
    assert (store.size().dropped_metrics, store.size().dropped_reports) == (1, 0)


@pytest.mark.rule("RELAY-4")
def test_an_older_generation_never_replaces_a_newer_one(store: RelayStore) -> None:
    assert store.put_signed("desired", "mill", 5, b"five")
    assert not store.put_signed("desired", "mill", 4, b"four")
    assert not store.put_signed("desired", "mill", 5, b"other")
    assert not store.put_signed("desired", "mill", 4, b"four", again=True)
    assert store.put_signed("desired", "mill", 5, b"five, for longer", again=True)
    assert store.signed("desired", "mill") == b"five, for longer"
    assert store.put_signed("desired", "mill", 5, b"five", again=True)
    assert store.put_signed("relay-state", "mill", 1, b"state")
    assert (store.signed("desired", "mill"), store.signed("relay-state", "mill")) == (b"five", b"state")
    assert (store.generations("desired"), store.generations("relay-state")) == ({"mill": 5}, {"mill": 1})
    store.remove_signed("desired", ["mill", "nobody"])
    assert (store.signed("desired", "mill"), store.generations("desired")) == (None, {})


def test_documents_are_kept_together(store: RelayStore) -> None:
    store.save({"one": b"1", "two": b"2"})
    store.save({"one": None, "two": b"22"})
    assert (store.load("one"), store.load("two")) == (None, b"22")


def test_the_age_of_the_oldest_is_known(store: RelayStore) -> None:
    assert store.size().oldest_at is None
    take(store, report("a", 5))
    take(store, report("b", 9))
    assert store.size().oldest_at == 1005.0


def test_all_is_there_after_a_restart(tmp_path: Path) -> None:
    store, fresh = SqliteRelayStore.open(tmp_path / "relay.db")
    take(store, report("a", 5), batch=metrics("a", 5))
    store.put_signed("desired", "mill", 5, b"five")
    size = store.size()
    store.close()
    again, fresh_again = SqliteRelayStore.open(tmp_path / "relay.db")
    assert (fresh, fresh_again) == (False, False)
    assert (again.size(), again.held(), again.signed("desired", "mill")) == (size, {"a": 5}, b"five")
    again.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    store, _ = SqliteRelayStore.open(tmp_path / "relay.db")
    take(store, *(report("a", number, size=5000) for number in range(1, 20)))
    store.close()
    content = bytearray((tmp_path / "relay.db").read_bytes())
    content[100:8192] = b"\xff" * 8092
    (tmp_path / "relay.db").write_bytes(content)
    again, set_aside = SqliteRelayStore.open(tmp_path / "relay.db")
    assert set_aside
    assert again.held() == {}
    assert (tmp_path / "relay.db.corrupt-1").exists()
    again.close()


def test_a_transaction_that_fails_leaves_the_counts_as_they_were(tmp_path: Path) -> None:
    store, _ = SqliteRelayStore.open(tmp_path / "relay.db")
    take(store, report("a", 1))
    before = store.size()
    store._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(Unavailable) as caught:
        take(store, *(report("a", number, size=10_000) for number in range(2, 40)))
    assert caught.value.code == "disk.full"
    assert store.size() == before
    assert store.held() == {"a": 1}
    store.close()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "forget", "let_go"]),
            st.sampled_from("ab"),
            st.integers(1, 6),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_both_stores_hold_the_same_after_anything(steps: list[tuple[str, str, int, bool]]) -> None:
    import sqlite3

    from skerry.adapters.sqlite_relay_store import _schema

    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in _schema:
        connection.execute(statement)
    stores: list[RelayStore] = [SqliteRelayStore(connection, "memory"), MemoryRelayStore()]
    for what, key, number, flag in steps:
        for store in stores:
            if what == "take":
                batch = metrics(key, number) if number % 2 else None
                take(store, report(key, number, heartbeat=flag), limit=1500, batch=batch)
            elif what == "forget":
                store.forget([Done(key, reports=number, metrics=number - 1)], given_up=flag)
            else:
                store.let_go(key)
    first, second = stores
    assert waiting(first) == waiting(second)
    assert first.size() == second.size()
    assert first.held() == second.held()
    assert first.waiting_metrics(10, MUCH) == second.waiting_metrics(10, MUCH)
    first.close()
