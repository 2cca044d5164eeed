"""The one thread that writes to SQLite, and how it groups what many callers ask into one commit.

- A job is a callable on the connection. It runs in a savepoint of its own: when it raises, only its own
  changes go, and the caller gets what it raised.
- A caller gets its result after the commit of the whole group, so what was answered is durable.
- When the commit fails, or SQLite itself gives the transaction up (disk full, I/O error), the group fails.
- A group is what has queued up while the group before was committed: alone, a job waits for nobody.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from skerry.adapters.sqlite_files import translated
from skerry.kit.errors import Bug, Unavailable

T = TypeVar("T")


class _Job(Generic[T]):
    """A callable, how it went, and who waits for it."""

    __slots__ = ("call", "error", "future", "value")

    def __init__(self, call: Callable[[sa.Connection], T]) -> None:
        self.call = call
        self.future: Future[T] = Future()
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self, connection: sa.Connection) -> None:
        self.value = self.call(connection)

    def resolve(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)  # type: ignore[arg-type]  # None is a T when T is None


class Writer:
    """Runs jobs one after the other on one connection.

    `engine` must begin transactions with BEGIN IMMEDIATE. At most `queue_limit` jobs wait; then `submit`
    waits for room, and gives up after `patience_s`.
    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        place: str,
        batch_limit: int = 256,
        queue_limit: int = 4096,
        patience_s: float = 10.0,
    ) -> None:
        self._engine = engine
        self._place = place
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._patience_s = patience_s
        self._jobs: deque[_Job[object]] = deque()
        self._closing = False
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._thread = threading.Thread(target=self._loop, name="sql-writer", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[sa.Connection], T]) -> Future[T]:
        """Queue a job; the future is resolved after the commit.

        Raises:
            Unavailable: the queue stayed full (`database.busy`) or the writer is closed (`database.closed`).
        """
        if threading.current_thread() is self._thread:
            raise Bug("writer.nested", "a job cannot wait for another job of the same writer")
        job = _Job(call)
        with self._work:
            if not self._closing and len(self._jobs) >= self._queue_limit:
                self._room.wait_for(
                    lambda: self._closing or len(self._jobs) < self._queue_limit, self._patience_s
                )
            if self._closing:
                raise Unavailable("database.closed", f"the database {self._place} is closed")
            if len(self._jobs) >= self._queue_limit:
                raise Unavailable(
                    "database.busy", f"{self._queue_limit} changes wait for the database already"
                )
            self._jobs.append(job)  # type: ignore[arg-type]  # the queue never looks at T
            if len(self._jobs) == 1:  # otherwise the thread is awake, or woken, already
                self._work.notify()
        return job.future

    def call(self, call: Callable[[sa.Connection], T]) -> T:
        """Run a job and return its result after the commit; raises what the job raised."""
        return self.submit(call).result()

    def close(self) -> None:
        """Finish what is queued, then end the thread and close its connection."""
        with self._work:
            self._closing = True
            self._work.notify()
            self._room.notify_all()
        self._thread.join()

    def _loop(self) -> None:
        connection: sa.Connection | None = None
        while batch := self._take():
            try:
                if connection is None or connection.closed or connection.invalidated:
                    connection = self._engine.connect()
                self._run(connection, batch)
            except BaseException as error:  # whatever it was, nobody may wait for ever
                failure = self._translated(error)
                for job in batch:
                    job.error = failure
            for job in batch:
                job.resolve()
        if connection is not None:
            connection.close()
        self._engine.dispose()

    def _take(self) -> list[_Job[object]]:
        """Return the next group; empty when closed and all is done."""
        with self._work:
            while not self._jobs and not self._closing:
                self._work.wait()
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), self._batch_limit))]
            self._room.notify_all()
            return batch

    def _run(self, connection: sa.Connection, batch: list[_Job[object]]) -> None:
        """Run a group in one transaction; raises when none of it was committed."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            with connection.begin():
                for job in batch:
                    self._run_job(connection, driver, job)
        except BaseException:
            # To SQLAlchemy a commit that failed has ended the transaction; to SQLite it is still open.
            if driver.in_transaction:
                driver.rollback()
            raise

    def _run_job(self, connection: sa.Connection, driver: sqlite3.Connection, job: _Job[object]) -> None:
        # On the driver itself: SQLAlchemy's own savepoints cost more than a report does.
        driver.execute("SAVEPOINT job")
        try:
            job.run(connection)
            driver.execute("RELEASE job")
        except BaseException as error:
            if not driver.in_transaction:  # SQLite has rolled back everything, the earlier jobs as well
                raise
            driver.execute("ROLLBACK TO job")
            driver.execute("RELEASE job")
            job.error = self._translated(error)

    def _translated(self, error: BaseException) -> BaseException:
        return translate(error, self._place)


def translate(error: BaseException, place: str) -> BaseException:
    """Return the error for the caller: `Unavailable` when the database is to blame, else the same error."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    known = translated(original, place) if isinstance(original, sqlite3.Error) else None
    if known is not None:
        known.__cause__ = error
        return known
    return error
