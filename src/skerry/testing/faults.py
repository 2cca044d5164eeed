"""Faults on command: the n-th call of a method fails, before or after it had its effect.

- A call that fails `before` has changed nothing; one that fails `after` has done everything, and its caller
  does not know: the two sides of every crash.
- A power cut is a BaseException, so that no `except Exception` survives it. After it every call fails the
  same way, because nothing runs without power, until `restore_power`.
- Calls are counted per method from 1, and under `*` over all methods: cut the power at `*` 1, 2, 3, ... to
  try a crash at each step.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from skerry.ports.agent_store import MAX_KEPT_EVENTS, AgentStore, KeptEvent, QueuedReport, WindowRow
from skerry.ports.blobs import Blobs, LocalBlobs

When = Literal["before", "after"]
ANY = "*"


class PowerCut(BaseException):
    """The machine is off."""


class Fault(msgspec.Struct, frozen=True):
    """The call to meet, and what it raises."""

    method: str
    nth: int
    when: When
    error: BaseException


class FaultPlan:
    """Which calls fail. One plan may serve several doubles; they then count together."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = list(faults)
        self._calls: Counter[str] = Counter()
        self._off: PowerCut | None = None
        self._turn = threading.Lock()

    def fail(self, method: str, error: BaseException, *, nth: int = 1, when: When = "before") -> FaultPlan:
        """Let the n-th call from now on of a method, or of any (`*`), raise `error`; returns the plan."""
        with self._turn:
            self._faults.append(Fault(method, self._calls[method] + nth, when, error))
        return self

    def kill(self, method: str = ANY, *, nth: int = 1, when: When = "before") -> FaultPlan:
        """Cut the power at the n-th call from now on; returns the plan."""
        return self.fail(method, PowerCut(f"power cut {when} call {nth} of {method}"), nth=nth, when=when)

    def restore_power(self) -> None:
        """Let calls through again after a power cut."""
        self._off = None

    def calls(self, method: str = ANY) -> int:
        """Return how many calls there were."""
        return self._calls[method]

    @contextmanager
    def around(self, method: str) -> Generator[None]:
        """Count a call and raise what is planned for it, before or after the body."""
        with self._turn:
            if self._off is not None:
                raise self._off
            self._calls[method] += 1
            self._calls[ANY] += 1
            due = [fault for fault in self._faults if self._calls[fault.method] == fault.nth]
            met = [fault for fault in due if fault.method in (method, ANY)]
        self._raise("before", met)
        yield
        self._raise("after", met)

    def _raise(self, when: When, met: Sequence[Fault]) -> None:
        for fault in met:
            if fault.when == when:
                if isinstance(fault.error, PowerCut):
                    self._off = fault.error
                raise fault.error


class FaultyAgentStore(AgentStore):
    """An agent's store that fails as planned."""

    def __init__(self, inner: AgentStore, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    def load(self, key: str) -> bytes | None:
        with self._plan.around("load"):
            return self._inner.load(key)

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        with self._plan.around("save"):
            self._inner.save(documents)

    def put_report(self, report: QueuedReport, *, events: Sequence[KeptEvent] = ()) -> None:
        with self._plan.around("put_report"):
            self._inner.put_report(report, events=events)

    def kept_events(self, limit: int = MAX_KEPT_EVENTS) -> Sequence[KeptEvent]:
        with self._plan.around("kept_events"):
            return self._inner.kept_events(limit)

    def reports(self, limit: int, *, above: int = -1) -> Sequence[QueuedReport]:
        with self._plan.around("reports"):
            return self._inner.reports(limit, above=above)

    def mark_sent(self, up_to: int) -> None:
        with self._plan.around("mark_sent"):
            self._inner.mark_sent(up_to)

    def acknowledge(self, up_to: int) -> None:
        with self._plan.around("acknowledge"):
            self._inner.acknowledge(up_to)

    def drop_oldest(self, keep: int) -> int:
        with self._plan.around("drop_oldest"):
            return self._inner.drop_oldest(keep)

    def change_windows(self, put: Sequence[WindowRow], remove: Sequence[WindowRow] = ()) -> None:
        with self._plan.around("change_windows"):
            self._inner.change_windows(put, remove)

    def window_names(self) -> Sequence[WindowRow]:
        with self._plan.around("window_names"):
            return self._inner.window_names()

    def windows(
        self,
        *,
        application: str = "",
        releases: Sequence[str] = (),
        states: Sequence[str] = (),
        limit: int = 10_000,
    ) -> Sequence[WindowRow]:
        with self._plan.around("windows"):
            return self._inner.windows(application=application, releases=releases, states=states, limit=limit)

    def mark_windows(self, windows: Sequence[WindowRow], state: str) -> None:
        with self._plan.around("mark_windows"):
            self._inner.mark_windows(windows, state)

    def close(self) -> None:
        self._inner.close()


class FaultyLocalBlobs(LocalBlobs):
    """Local blobs that fail as planned; `has`, `path`, `partial_size` and `digests` never fail.

    A chunk that `append` takes counts as a call of `chunk`: fail one of these to lose a connection, or the
    power, in the middle of a blob.
    """

    def __init__(self, inner: LocalBlobs, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    def has(self, digest: str) -> bool:
        return self._inner.has(digest)

    def path(self, digest: str) -> Path:
        return self._inner.path(digest)

    def partial_size(self, digest: str) -> int:
        return self._inner.partial_size(digest)

    def read_part(self, digest: str, offset: int, size: int) -> bytes:
        with self._plan.around("read_part"):
            return self._inner.read_part(digest, offset, size)

    def append(self, digest: str, chunks: Iterable[bytes], *, offset: int, limit: int) -> int:
        with self._plan.around("append"):
            return self._inner.append(digest, self._faulty(chunks), offset=offset, limit=limit)

    def finish(self, digest: str) -> Path:
        with self._plan.around("finish"):
            return self._inner.finish(digest)

    def put(self, digest: str, content: bytes) -> Path:
        with self._plan.around("put"):
            return self._inner.put(digest, content)

    def adopt(self, digest: str, file: Path) -> Path:
        with self._plan.around("adopt"):
            return self._inner.adopt(digest, file)

    def make_by_delta(self, digest: str, size_bytes: int, *, base: Sequence[str], delta: str) -> Path:
        with self._plan.around("make_by_delta"):
            return self._inner.make_by_delta(digest, size_bytes, base=base, delta=delta)

    def sweep(self, keep: AbstractSet[str], *, older_than_s: float) -> int:
        with self._plan.around("sweep"):
            return self._inner.sweep(keep, older_than_s=older_than_s)

    def verify(self, digest: str) -> bool:
        with self._plan.around("verify"):
            return self._inner.verify(digest)

    def remove(self, digest: str) -> None:
        with self._plan.around("remove"):
            self._inner.remove(digest)

    def digests(self) -> frozenset[str]:
        return self._inner.digests()

    def _faulty(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            with self._plan.around("chunk"):
                yield chunk


class FaultyBlobs(Blobs):
    """The hub's blobs, failing as planned."""

    def __init__(self, inner: Blobs, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    async def size(self, digest: str) -> int | None:
        with self._plan.around("size"):
            return await self._inner.size(digest)

    async def put(self, digest: str, content: bytes) -> None:
        with self._plan.around("put"):
            await self._inner.put(digest, content)

    async def adopt(self, digest: str, file: Path) -> None:
        with self._plan.around("adopt"):
            await self._inner.adopt(digest, file)

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with self._plan.around("read"):
            async for chunk in self._inner.read(digest, start=start, end=end):
                yield chunk

    async def remove(self, digest: str) -> None:
        with self._plan.around("remove"):
            await self._inner.remove(digest)

    def file(self, digest: str) -> Path | None:
        return self._inner.file(digest)
