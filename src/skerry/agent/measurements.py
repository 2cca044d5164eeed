"""What was measured of applications, by minutes of event time: in memory for a minute, then in the host's store.

Rules: a power cut costs the last minute or so, never more. A sample that comes late belongs to the window that holds
its instant, however long ago that was stored or told, and that window is then told again. The store stays within its
bound (`skerry.telemetry.keeping`); what was given up before the hub had it is counted, and the count told.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.kit.errors import Unavailable
from skerry.kit.instants import from_epoch
from skerry.ports.agent_store import AgentStore, WindowRow
from skerry.spec.metrics import MetricWindow, Value
from skerry.spec.telemetry import MAX_WINDOWS_PER_BATCH
from skerry.telemetry.collecting import merge_values
from skerry.telemetry.keeping import MAX_KEPT, MINUTE_S, Kept, Series, State, plan_keeping, window_at

MAX_BYTES_PER_BATCH = 128 << 10
MAX_OPEN = 2000
DROPPED = "metrics_dropped"

_decoder: msgspec.json.Decoder[Value] = msgspec.json.Decoder(Value)
_name = tuple[Series, int]


class Telling(msgspec.Struct, frozen=True):
    """Windows to be told, and how many were given up untold so far."""

    rows: tuple[WindowRow, ...] = ()
    dropped: int = 0

    @property
    def windows(self) -> tuple[MetricWindow, ...]:
        """The windows as the hub takes them."""
        return tuple(map(_window, self.rows))


class Measurements:
    """`add` is for the event loop and never waits for the disk; all else blocks, and belongs into threads."""

    def __init__(self, store: AgentStore, now: Callable[[], datetime], *, most: int = MAX_KEPT) -> None:
        self._store = store
        self._now = now
        self._most = most
        self._open: dict[_name, Value] = {}
        self._turn = threading.Lock()
        self._disk = threading.Lock()
        self._dropped = int(store.load(DROPPED) or b"0")

    def add(self, series: Series, value: Value) -> None:
        """Count a value as of now."""
        name = (series, window_at(self._now().timestamp()))
        with self._turn:
            self._count(name, value)

    def flush(self, *, everything: bool = False) -> None:
        """Store the windows that have ended, or `everything`, and keep the store within its bound.

        Raises:
            Unavailable: the disk is full; nothing is lost but what there is no room for in memory.
        """
        now = int(self._now().timestamp())
        with self._disk:
            with self._turn:
                ended = [name for name in self._open if everything or not 0 <= now - name[1] < MINUTE_S]
                taken = {name: self._open.pop(name) for name in ended}
            try:
                if taken:
                    self._store_windows(taken)
                self._keep(now)
            except Unavailable:
                with self._turn:
                    for name, value in taken.items():
                        self._count(name, value)
                raise

    def windows(self, application: str, releases: Sequence[str]) -> list[MetricWindow]:
        """Return all that was measured of an application's releases, up to now."""
        with self._disk:
            rows = self._store.windows(application=application, releases=releases)
            with self._turn:
                mine = {
                    name: value
                    for name, value in self._open.items()
                    if name[0].application == application and name[0].release in releases
                }
        found = {_name_of(row): _window(row) for row in rows}
        covering = _cover(map(_kept, rows))
        for name, value in mine.items():
            kept = covering(name)
            if kept is None:
                row = WindowRow(*name[0], name[1], name[1] + MINUTE_S, "new", msgspec.json.encode(value))
                found[name] = _window(row)
            else:
                known = found[kept.series, kept.begin]
                merged = merge_values(known.value, value)
                found[kept.series, kept.begin] = msgspec.structs.replace(known, value=merged)
        return list(found.values())

    def next_telling(self) -> Telling:
        """Return the oldest windows that the hub may not have; they are in doubt from now on.

        Raises:
            Unavailable: the disk is full.
        """
        with self._disk:
            rows = self._store.windows(states=("new", "doubt"), limit=MAX_WINDOWS_PER_BATCH)
            room = MAX_BYTES_PER_BATCH
            fitting: list[WindowRow] = []
            for row in rows:
                room -= len(row.value) + 200
                if room < 0 and fitting:
                    break
                fitting.append(row)
            if fitting:
                self._store.mark_windows([row for row in fitting if row.state == "new"], "doubt")
            return Telling(tuple(fitting), self._dropped)

    def note_told(self, telling: Telling) -> None:
        """Note that the hub has these windows; one that changed in the meantime is told again."""
        with (
            self._disk,
            contextlib.suppress(Unavailable),
        ):  # on a full disk it is told again, and replaces itself
            self._store.mark_windows(telling.rows, "told")
            if telling.dropped:
                self._set_dropped(self._dropped - telling.dropped)

    def _count(self, name: _name, value: Value) -> None:
        if name in self._open:
            self._open[name] = merge_values(self._open[name], value)
        elif len(self._open) < MAX_OPEN:
            self._open[name] = value
        else:
            self._dropped += 1

    def _store_windows(self, taken: Mapping[_name, Value]) -> None:
        """Add values to the windows that are stored, or store them as new ones."""
        covering = _cover(map(_kept, self._store.window_names()))
        meets = {name: kept for name in taken if (kept := covering(name)) is not None}
        stored = self._load(meets.values())
        put: dict[_name, WindowRow] = {}
        for name, value in taken.items():
            kept = meets.get(name, Kept(name[0], name[1], name[1] + MINUTE_S, "new"))
            target = (kept.series, kept.begin)
            before = put.get(target) or stored.get(target)
            merged = merge_values(_decoder.decode(before.value), value) if before else value
            state: State = "new" if kept.state == "new" else "doubt"
            if kept.state == "told" and kept.end - kept.begin > MINUTE_S:
                # The hub may have the minutes of it, and would count them again: for this host alone, then.
                state, self._dropped = "told", self._dropped + 1
            put[target] = _row(kept._replace(state=state), merged)
        self._store.change_windows(list(put.values()))

    def _keep(self, now: int) -> None:
        plan = plan_keeping(map(_kept, self._store.window_names()), now=now, most=self._most)
        if not (plan.merge or plan.drop):
            return
        parts = [part for group in plan.merge.values() for part in group]
        stored = self._load(parts)
        put: list[WindowRow] = []
        for window, group in plan.merge.items():
            values = [_decoder.decode(stored[part.series, part.begin].value) for part in group]
            merged = values[0]
            for value in values[1:]:
                merged = merge_values(merged, value)
            put.append(_row(window, merged))
        if untold := sum(window.state != "told" for window in plan.drop):
            # Counted before they go: a power cut between the two counts some twice, and none too few.
            self._set_dropped(self._dropped + untold)
        # The first part may begin where the whole does: what is forgotten is forgotten first.
        self._store.change_windows(put, [_row(window, None) for window in (*parts, *plan.drop)])

    def _load(self, wanted: Iterable[Kept]) -> dict[_name, WindowRow]:
        series = {kept.series for kept in wanted}
        found: dict[_name, WindowRow] = {}
        for application, release in sorted({(one.application, one.release) for one in series}):
            rows = self._store.windows(application=application, releases=(release,))
            found |= {_name_of(row): row for row in rows if _name_of(row)[0] in series}
        return found

    def _set_dropped(self, dropped: int) -> None:
        self._store.save({DROPPED: str(dropped).encode()})
        self._dropped = dropped


def _cover(windows: Iterable[Kept]) -> Callable[[_name], Kept | None]:
    """Return what finds the stored window that holds a minute: the minute itself, or the hour or day it became."""
    by_series: dict[Series, list[Kept]] = {}
    for window in windows:
        by_series.setdefault(window.series, []).append(window)

    def find(name: _name) -> Kept | None:
        holding = [kept for kept in by_series.get(name[0], ()) if kept.begin <= name[1] < kept.end]
        return min(holding, key=lambda kept: kept.end - kept.begin, default=None)

    return find


def _kept(row: WindowRow) -> Kept:
    return Kept(_name_of(row)[0], row.begin, row.end, msgspec.convert(row.state, State))


def _name_of(row: WindowRow) -> _name:
    return Series(row.application, row.release, row.component, row.metric), row.begin


def _row(kept: Kept, value: Value | None) -> WindowRow:
    encoded = b"" if value is None else msgspec.json.encode(value)
    return WindowRow(*kept.series, kept.begin, kept.end, kept.state, encoded)


def _window(row: WindowRow) -> MetricWindow:
    return MetricWindow(
        application=row.application,
        release=row.release,
        component=row.component,
        metric=row.metric,
        begin=from_epoch(row.begin),
        end=from_epoch(row.end),
        value=_decoder.decode(row.value),
    )
