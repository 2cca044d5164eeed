"""A relay's store in memory, and one that fails as planned."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from skerry.ports.relay_store import (
    Done,
    KeptMetrics,
    KeptReport,
    QueueSize,
    RelayStore,
    SignedKind,
    Taken,
    Taking,
)
from skerry.testing.faults import FaultPlan

_ROW_BYTES = 200


class MemoryRelayStore(RelayStore):
    """A relay's store in dictionaries, in the order in which things came."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._documents: dict[str, bytes] = {}
        self._reports: dict[tuple[str, int], KeptReport] = {}
        self._metrics: dict[tuple[str, int], KeptMetrics] = {}
        self._held: dict[str, int] = {}
        self._signed: dict[tuple[SignedKind, str], tuple[int, bytes]] = {}
        self._dropped = {"reports": 0, "metrics": 0}

    def load(self, key: str) -> bytes | None:
        with self._turn:
            return self._documents.get(key)

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        with self._turn:
            for key, value in documents.items():
                if value is None:
                    self._documents.pop(key, None)
                else:
                    self._documents[key] = value

    def take(self, takings: Sequence[Taking], *, limit_bytes: int) -> Sequence[Taken]:
        with self._turn:
            return [self._take(taking, limit_bytes) for taking in takings]

    def waiting_reports(self, limit: int, limit_bytes: int) -> Sequence[KeptReport]:
        with self._turn:
            ordered = sorted(self._reports.values(), key=lambda one: one.heartbeat)[:limit]
        return _within(ordered, limit_bytes)

    def reports_after(self, key: str, sequence: int, limit_bytes: int) -> Sequence[KeptReport]:
        with self._turn:
            ordered = [self._reports[at] for at in sorted(self._reports) if at > (key, sequence)]
        return _within(ordered, limit_bytes)

    def waiting_metrics(self, limit: int, limit_bytes: int) -> Sequence[KeptMetrics]:
        found: dict[str, KeptMetrics] = {}
        with self._turn:
            for one in list(self._metrics.values())[:limit]:
                if one.key in found:
                    continue
                limit_bytes -= _size(one)
                if limit_bytes < 0 and found:
                    break
                found[one.key] = one
        return list(found.values())

    def forget(self, done: Sequence[Done], *, given_up: bool = False) -> None:
        with self._turn:
            for one in done:
                reports = [at for at in self._reports if at[0] == one.key and at[1] <= one.reports]
                metrics = [at for at in self._metrics if at[0] == one.key and at[1] <= one.metrics]
                for at in reports:
                    del self._reports[at]
                for at in metrics:
                    del self._metrics[at]
                if given_up:
                    self._dropped["reports"] += len(reports)
                    self._dropped["metrics"] += len(metrics)

    def held(self) -> dict[str, int]:
        with self._turn:
            return dict(self._held)

    def let_go(self, key: str) -> None:
        with self._turn:
            for at in [at for at in self._reports if at[0] == key]:
                del self._reports[at]
            self._held.pop(key, None)

    def size(self) -> QueueSize:
        with self._turn:
            return QueueSize(
                reports=len(self._reports),
                metrics=len(self._metrics),
                used_bytes=self._used(),
                dropped_reports=self._dropped["reports"],
                dropped_metrics=self._dropped["metrics"],
                oldest_at=min(self._firsts(), default=None),
            )

    def put_signed(
        self, kind: SignedKind, name: str, generation: int, envelope: bytes, *, again: bool = False
    ) -> bool:
        with self._turn:
            if self._signed.get((kind, name), (0, b""))[0] >= generation + again:
                return False
            self._signed[kind, name] = (generation, envelope)
            return True

    def signed(self, kind: SignedKind, name: str) -> bytes | None:
        with self._turn:
            found = self._signed.get((kind, name))
        return None if found is None else found[1]

    def generations(self, kind: SignedKind) -> dict[str, int]:
        with self._turn:
            return {name: held[0] for (of, name), held in self._signed.items() if of == kind}

    def remove_signed(self, kind: SignedKind, names: Sequence[str]) -> None:
        with self._turn:
            for name in names:
                self._signed.pop((kind, name), None)

    def close(self) -> None:
        return

    def _firsts(self) -> Iterator[float]:
        yield from (one.taken_at for one in islice(self._reports.values(), 1))
        yield from (one.taken_at for one in islice(self._metrics.values(), 1))

    def _take(self, taking: Taking, limit: int) -> Taken:
        needed = sum(map(_size, taking.reports))
        if taking.reports and not self._make_room(needed, limit, heartbeats=True):
            return Taken(reports=False, metrics=False)
        for one in taking.reports:
            stale = [
                at
                for at, kept in self._reports.items()
                if at[0] == one.key and kept.heartbeat and at[1] < one.sequence
            ]
            for at in stale:
                del self._reports[at]
            self._reports.setdefault((one.key, one.sequence), one)
            self._held[one.key] = max(self._held.get(one.key, 0), one.sequence)
        if taking.metrics is None or not self._make_room(_size(taking.metrics), limit, heartbeats=False):
            return Taken(reports=True, metrics=False)
        self._metrics.setdefault((taking.metrics.key, taking.metrics.sequence), taking.metrics)
        return Taken(reports=True, metrics=True)

    def _make_room(self, needed: int, limit: int, *, heartbeats: bool) -> bool:
        while self._used() + needed > limit and self._metrics:
            del self._metrics[next(iter(self._metrics))]
            self._dropped["metrics"] += 1
        while self._used() + needed > limit and heartbeats:
            oldest = next((at for at, one in self._reports.items() if one.heartbeat), None)
            if oldest is None:
                break
            del self._reports[oldest]
            self._dropped["reports"] += 1
        return self._used() + needed <= limit

    def _used(self) -> int:
        return sum(map(_size, self._reports.values())) + sum(map(_size, self._metrics.values()))


class FaultyRelayStore(RelayStore):
    """A relay's store that fails as planned."""

    def __init__(self, inner: RelayStore, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    def load(self, key: str) -> bytes | None:
        with self._plan.around("load"):
            return self._inner.load(key)

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        with self._plan.around("save"):
            self._inner.save(documents)

    def take(self, takings: Sequence[Taking], *, limit_bytes: int) -> Sequence[Taken]:
        with self._plan.around("take"):
            return self._inner.take(takings, limit_bytes=limit_bytes)

    def waiting_reports(self, limit: int, limit_bytes: int) -> Sequence[KeptReport]:
        with self._plan.around("waiting_reports"):
            return self._inner.waiting_reports(limit, limit_bytes)

    def reports_after(self, key: str, sequence: int, limit_bytes: int) -> Sequence[KeptReport]:
        with self._plan.around("reports_after"):
            return self._inner.reports_after(key, sequence, limit_bytes)

    def waiting_metrics(self, limit: int, limit_bytes: int) -> Sequence[KeptMetrics]:
        with self._plan.around("waiting_metrics"):
            return self._inner.waiting_metrics(limit, limit_bytes)

    def forget(self, done: Sequence[Done], *, given_up: bool = False) -> None:
        with self._plan.around("forget"):
            self._inner.forget(done, given_up=given_up)

    def held(self) -> dict[str, int]:
        with self._plan.around("held"):
            return self._inner.held()

    def let_go(self, key: str) -> None:
        with self._plan.around("let_go"):
            self._inner.let_go(key)

    def size(self) -> QueueSize:
        return self._inner.size()

    def put_signed(
        self, kind: SignedKind, name: str, generation: int, envelope: bytes, *, again: bool = False
    ) -> bool:
        with self._plan.around("put_signed"):
            return self._inner.put_signed(kind, name, generation, envelope, again=again)

    def signed(self, kind: SignedKind, name: str) -> bytes | None:
        with self._plan.around("signed"):
            return self._inner.signed(kind, name)

    def generations(self, kind: SignedKind) -> dict[str, int]:
        with self._plan.around("generations"):
            return self._inner.generations(kind)

    def remove_signed(self, kind: SignedKind, names: Sequence[str]) -> None:
        with self._plan.around("remove_signed"):
            self._inner.remove_signed(kind, names)

    def close(self) -> None:
        self._inner.close()


def _size(one: KeptReport | KeptMetrics) -> int:
    more = len(one.report) if isinstance(one, KeptMetrics) else 0
    return len(one.envelope) + more + _ROW_BYTES


def _within(reports: Sequence[KeptReport], limit_bytes: int) -> list[KeptReport]:
    found: list[KeptReport] = []
    for one in reports:
        limit_bytes -= _size(one)
        if limit_bytes < 0 and found:
            break
        found.append(one)
    return found
