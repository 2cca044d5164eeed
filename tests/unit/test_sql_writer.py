"""The one writer: savepoints, grouped commits, and who gets which error."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import StaticPool

from skerry.adapters.sql.database import open_file
from skerry.adapters.sql.writer import Writer
from skerry.kit.errors import Bug, Unavailable


class Desk:
    """A writer on a file with one table, that counts its commits and can be held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=StaticPool)
        event.listen(self.engine, "begin", self._begin)
        event.listen(self.engine, "commit", self._commit)
        self.writer = Writer(self.engine, place="the test", batch_limit=10, queue_limit=20, patience_s=0.2)
        self.writer.call(lambda c: c.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY)").rowcount)
        self.writer.call(
            lambda c: (
                c.exec_driver_sql(
                    "CREATE TABLE u (n INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
                ).rowcount
            )
        )
        self.commits = 0

    def hold(self) -> Callable[[], None]:
        """Keep the writer busy until the returned function is called."""
        started, released = threading.Event(), threading.Event()

        def wait(_: sa.Connection) -> bool:
            started.set()
            return released.wait(10)

        self.writer.submit(wait)
        assert started.wait(10)
        return released.set

    def rows(self) -> list[int]:
        connection = sqlite3.connect(self.path)
        rows = [int(row[0]) for row in connection.execute("SELECT n FROM t ORDER BY n")]
        connection.close()
        return rows

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.1)
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _begin(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _commit(self, connection: sa.Connection) -> None:
        self.commits += 1


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "test.db")
    yield made
    made.writer.close()


def insert(number: int) -> Callable[[sa.Connection], int]:
    def job(connection: sa.Connection) -> int:
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", (number,))
        return number

    return job


def test_jobs_that_queue_up_share_one_commit(desk: Desk) -> None:
    release = desk.hold()
    futures = [desk.writer.submit(insert(number)) for number in range(10)]
    assert not any(future.done() for future in futures)
    release()
    assert [future.result(10) for future in futures] == list(range(10))
    assert desk.commits == 2, "one for the job that held the writer, one for all others"


def test_a_group_is_no_larger_than_its_limit(desk: Desk) -> None:
    release = desk.hold()
    futures = [desk.writer.submit(insert(number)) for number in range(15)]
    release()
    assert [future.result(10) for future in futures] == list(range(15))
    assert desk.commits == 3


def test_a_job_that_raises_takes_only_its_own_changes_along(desk: Desk) -> None:
    def insert_and_raise(connection: sa.Connection) -> None:
        insert(100)(connection)
        raise KeyError("mine")

    release = desk.hold()
    before, broken, after = (
        desk.writer.submit(insert(1)),
        desk.writer.submit(insert_and_raise),
        desk.writer.submit(insert(2)),
    )
    release()
    assert (before.result(10), after.result(10)) == (1, 2)
    with pytest.raises(KeyError):
        broken.result(10)
    assert desk.rows() == [1, 2]
    assert desk.commits == 2


def test_a_statement_that_fails_is_the_jobs_own_error(desk: Desk) -> None:
    desk.writer.call(insert(1))
    with pytest.raises(exc.IntegrityError):
        desk.writer.call(insert(1))
    assert desk.writer.call(insert(2)) == 2


def test_a_commit_that_fails_fails_the_whole_group_and_the_next_one_works(desk: Desk) -> None:
    def break_the_commit(connection: sa.Connection) -> None:
        connection.exec_driver_sql("INSERT INTO u VALUES (999)")  # deferred: noticed by the commit

    release = desk.hold()
    futures: list[Future[int] | Future[None]] = [
        desk.writer.submit(insert(1)),
        desk.writer.submit(break_the_commit),
        desk.writer.submit(insert(2)),
    ]
    release()
    for future in futures:
        with pytest.raises(exc.IntegrityError):
            future.result(10)
    assert desk.rows() == []
    assert desk.writer.call(insert(3)) == 3


def test_when_the_transaction_is_lost_nobody_is_told_that_it_was_kept(desk: Desk) -> None:
    def lose(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")  # as SQLite does by itself on some I/O errors
        raise sqlite3.OperationalError("disk I/O error")

    release = desk.hold()
    futures: list[Future[int] | Future[None]] = [
        desk.writer.submit(insert(1)),
        desk.writer.submit(lose),
        desk.writer.submit(insert(2)),
    ]
    release()
    for future in futures:
        with pytest.raises(Unavailable):
            future.result(10)
    assert desk.rows() == []
    assert desk.writer.call(insert(3)) == 3


def test_a_locked_database_is_unavailable_and_later_free_again(desk: Desk) -> None:
    other = sqlite3.connect(desk.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        desk.writer.call(insert(1))
    assert caught.value.code == "database.locked"
    other.execute("ROLLBACK")
    other.close()
    assert desk.writer.call(insert(1)) == 1


def test_a_full_queue_is_unavailable_and_a_waiting_caller_gets_in_when_there_is_room(desk: Desk) -> None:
    release = desk.hold()
    futures = [desk.writer.submit(insert(number)) for number in range(20)]
    with pytest.raises(Unavailable) as caught:
        desk.writer.submit(insert(20))
    assert caught.value.code == "database.busy"
    threading.Timer(0.05, release).start()
    futures.append(desk.writer.submit(insert(21)))
    assert [future.result(10) for future in futures] == [*range(20), 21]


def test_closing_finishes_what_is_queued_and_refuses_what_comes_later(desk: Desk) -> None:
    release = desk.hold()
    futures = [desk.writer.submit(insert(number)) for number in range(15)]
    threading.Timer(0.05, release).start()
    desk.writer.close()
    assert [future.result(0) for future in futures] == list(range(15))
    assert desk.rows() == list(range(15))
    with pytest.raises(Unavailable):
        desk.writer.submit(insert(99))


def test_a_job_cannot_wait_for_another(desk: Desk) -> None:
    with pytest.raises(Bug):
        desk.writer.call(lambda _: desk.writer.call(insert(1)))


def test_many_callers_at_a_time_all_get_their_own_results(desk: Desk) -> None:
    results: dict[int, int] = {}

    def work(first: int) -> None:
        for number in range(first, first + 50):
            results[number] = desk.writer.call(insert(number))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 1000, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number for number in range(1000)}
    assert desk.rows() == list(range(1000))
    assert desk.commits < 1000


@pytest.mark.parametrize(
    ("pragma", "value"), (("synchronous", 2), ("journal_mode", "wal"), ("foreign_keys", 1))
)
def test_the_hubs_connections_are_durable_and_keep_references(
    tmp_path: Path, pragma: str, value: object
) -> None:
    database = open_file(tmp_path / "hub.db")

    def ask(connection: sa.Connection) -> object:
        return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()

    assert database.write(ask) == value
    assert database.read(ask) == value
    database.close()
