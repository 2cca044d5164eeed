"""Answers questions about what hosts measured, over the sites that the caller sees, with coverage and ages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.kit.errors import Rejected
from skerry.kit.instants import from_epoch
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore, SiteRecord
from skerry.ports.telemetry_store import Chunk, ChunkName, SeriesRecord
from skerry.spec.api_telemetry import (
    CoverageView,
    FigureView,
    HostTelemetryView,
    MetricsAnswer,
    MetricView,
    TopAnswer,
    TopView,
)
from skerry.spec.series import SeriesSelector
from skerry.spec.site import Site
from skerry.telemetry.query import (
    Figure,
    Piece,
    Question,
    answer_question,
    check_stat,
    cover,
    parse_question,
)
from skerry.telemetry.received import missing
from skerry.telemetry.windows import WindowValue, merge_all

MAX_BY = 8
MAX_RANGE_S = 400 * 86_400
CPU, MEMORY, TOTAL = "skerry_host_cpu_busy", "skerry_host_memory_used_bytes", "skerry_host_memory_bytes"
COMPONENT_CPU = "skerry_component_cpu_seconds"
COMPONENT_MEMORY, RESTARTS = "skerry_component_memory_bytes", "skerry_component_restarts"


class TelemetryQueries:
    """Blocking; call it in a thread. `sites` are those that the caller sees and asks about."""

    def __init__(self, store: HubStore, clock: Clock, sites: Sequence[SiteRecord]) -> None:
        self._store = store
        self._now = int(clock.now().timestamp())
        self._labels = {site.name: labels_of(site) for site in sites}

    def query(self, text: str, by: Sequence[str], since_s: float) -> MetricsAnswer:
        """Answer a question for each group of series that share the values of the labels `by`.

        Raises:
            Rejected: it is not understood (`query.*`).
        """
        if len(by) > MAX_BY:
            raise Rejected("query.malformed", f"group by {MAX_BY} labels at most")
        question = parse_question(text, self._store.telemetry_names())
        since = self._since(since_s)
        chosen = self._chosen(question)
        if chosen and question.stat:
            check_stat(question, chosen[0].key.kind)
        grouped: dict[tuple[str, ...], list[Piece]] = {}
        for piece in self._pieces(chosen, since):
            labels = self._all_labels(piece.site, piece.host, dict(piece.key.labels))
            grouped.setdefault(tuple(labels.get(name, "") for name in by), []).append(piece)
        figures = answer_question(question, grouped)
        newest = self._expected(question.selector)
        for one in chosen:
            newest[one.site] = max(newest.get(one.site, 0), min(one.newest, self._now))
        inside = {piece.site for pieces in grouped.values() for piece in pieces}
        return MetricsAnswer(
            query=text,
            stat=check_stat(question, chosen[0].key.kind) if chosen else question.stat,
            since=from_epoch(since),
            until=from_epoch(self._now),
            figures=tuple(figure_view(figure, by) for figure in figures),
            coverage=self._coverage(newest, inside),
        )

    def names(self) -> list[MetricView]:
        """Return what there is to ask about, by name."""
        found: dict[str, list[SeriesRecord]] = {}
        for one in self._store.telemetry_series():
            if one.site in self._labels:
                found.setdefault(one.key.name, []).append(one)
        return [
            MetricView(
                name=name,
                kind=series[0].key.kind,
                series=len(series),
                sites=len({one.site for one in series}),
                labels=tuple(sorted({label for one in series for label, _ in one.key.labels})),
                as_of=from_epoch(max(one.newest for one in series)),
            )
            for name, series in sorted(found.items())
        ]

    def top_sites(self, since_s: float) -> TopAnswer:
        """Return what the hosts of each site take, the busiest first; sites that told nothing are listed as well."""
        figures = {
            name: self._by(name, stat, since_s, lambda piece: piece.site)
            for name, stat in ((CPU, "mean"), (MEMORY, "last"), (TOTAL, "last"))
        }
        rows: list[TopView] = []
        for site in self._labels:
            cpu, used, total = (figures[name].get(site) for name in (CPU, MEMORY, TOTAL))
            share = used.value / total.value if used and total and used.value and total.value else None
            rows.append(_top(site, [cpu, used, total], cpu=_told(cpu), memory=_told(used), share=share))
        return self._answer("sites", rows, since_s, dict.fromkeys(self._labels, 0), CPU)

    def top_apps(self, since_s: float) -> TopAnswer:
        """Return what the components of each application take, over all sites, the busiest first."""

        def app(piece: Piece) -> str:
            return dict(piece.key.labels).get("app", "")

        figures = {
            name: self._by(name, stat, since_s, app)
            for name, stat in ((COMPONENT_CPU, "rate"), (COMPONENT_MEMORY, "last"), (RESTARTS, "total"))
        }
        rows: list[TopView] = []
        for name in sorted({name for of in figures.values() for name in of}):
            cpu, memory, restarts = (
                figures[one].get(name) for one in (COMPONENT_CPU, COMPONENT_MEMORY, RESTARTS)
            )
            rows.append(
                _top(
                    name,
                    [cpu, memory, restarts],
                    cpu=_told(cpu),
                    memory=_told(memory),
                    restarts=_told(restarts),
                )
            )
        expected = {one.site: 0 for one in self._store.assignments() if one.site in self._labels}
        return self._answer("apps", rows, since_s, expected, COMPONENT_CPU)

    def hosts(self) -> list[HostTelemetryView]:
        """Return how far each host has told, and what of it is missing."""
        return [
            HostTelemetryView(
                host=one.host,
                site=one.site,
                received_at=one.received_at,
                newest=from_epoch(one.newest) if one.newest else None,
                losses=one.streams[-1].losses,
                missing_batches=sum(missing(stream.received) for stream in one.streams),
                ignored=sum(stream.ignored for stream in one.streams),
            )
            for one in self._store.telemetry_hosts()
            if one.site in self._labels and one.streams
        ]

    def _since(self, since_s: float) -> int:
        if not 0 < since_s <= MAX_RANGE_S:
            raise Rejected("query.malformed", "ask about 400 days at most, and more than nothing")
        return (self._now - int(since_s)) // 60 * 60

    def _chosen(self, question: Question) -> list[SeriesRecord]:
        return [
            one
            for one in self._store.telemetry_series(names=[question.selector.name])
            if one.site in self._labels
            and question.selects(one.key, self._all_labels(one.site, one.host, dict(one.key.labels)))
        ]

    def _all_labels(self, site: str, host: str, labels: Mapping[str, str]) -> dict[str, str]:
        """Return a series' labels, with its site's own, and where it comes from, which nothing overrides."""
        return {**self._labels[site], **labels, "site": site, "host": host}

    def _pieces(self, chosen: Sequence[SeriesRecord], since: int) -> list[Piece]:
        """Return what was measured of each series since an instant; those without anything are left out."""
        chunks: dict[str, list[tuple[ChunkName, Chunk]]] = {}
        until = self._now + 86_400
        for name, chunk in self._store.telemetry_range([one.id for one in chosen], since, until).items():
            chunks.setdefault(name.series, []).append((name, chunk))
        found = (self._piece(one, chunks.get(one.id, []), since) for one in chosen)
        return [piece for piece in found if piece is not None]

    def _piece(
        self, series: SeriesRecord, chunks: Sequence[tuple[ChunkName, Chunk]], since: int
    ) -> Piece | None:
        values: list[tuple[int, WindowValue]] = []
        covered = 0
        for name, chunk in chunks:
            if not chunk.windows:
                values.append((name.begin, chunk.total))
                covered += chunk.count * name.resolution_s
            for begin, value in chunk.windows.items():
                if begin >= since:
                    values.append((begin, value))
                    covered += name.resolution_s
        ordered = [value for _, value in sorted(values, key=lambda one: one[0])]
        total = merge_all(ordered)
        if total is None:
            return None
        end = min(series.newest, self._now)
        return Piece(series.site, series.host, series.key, total, ordered[-1], covered, end)

    def _expected(self, selector: SeriesSelector) -> dict[str, int]:
        """Return the sites that an answer should have: those that the application is for, or else all."""
        asked = {one.label: one.value for one in selector.matchers if one.operator == "="}
        sites = list(self._labels)
        if "app" in asked:
            sites = [
                one.site
                for one in self._store.assignments()
                if one.application == asked["app"] and one.site in self._labels
            ]
        found = [
            site
            for site in sites
            if all(
                matcher.holds({**self._labels[site], "site": site}.get(matcher.label, ""))
                for matcher in selector.matchers
                if matcher.label == "site" or matcher.label in self._labels[site]
            )
        ]
        return dict.fromkeys(found, 0)

    def _coverage(self, newest: Mapping[str, int], inside: Iterable[str]) -> CoverageView:
        found = cover(newest, inside, now=self._now)
        told = [end for end in newest.values() if end]
        return CoverageView(
            sites=found.sites,
            of=found.of,
            stale=found.stale,
            as_of=_instant(max(told, default=0)),
            oldest=_instant(min(told, default=0)),
        )

    def _by(self, name: str, stat: str, since_s: float, group: Callable[[Piece], str]) -> dict[str, Figure]:
        question = msgspec.structs.replace(parse_question(name, [name]), stat=stat)
        grouped: dict[tuple[str, ...], list[Piece]] = {}
        for piece in self._pieces(self._chosen(question), self._since(since_s)):
            grouped.setdefault((group(piece),), []).append(piece)
        if stat == "last":
            # Of several series the sum: what all hosts, or all components, have in use.
            return {key[0]: _summed(question, key, pieces) for key, pieces in grouped.items()}
        return {figure.group[0]: figure for figure in answer_question(question, grouped)}

    def _answer(
        self, what: str, rows: list[TopView], since_s: float, expected: dict[str, int], name: str
    ) -> TopAnswer:
        inside: set[str] = set()
        for one in self._store.telemetry_series(names=[name]):
            if one.site in self._labels:
                expected[one.site] = max(expected.get(one.site, 0), min(one.newest, self._now))
                inside |= {one.site} if one.newest > self._since(since_s) else set()
        return TopAnswer(
            what=what,
            since=from_epoch(self._since(since_s)),
            until=from_epoch(self._now),
            rows=tuple(
                sorted(rows, key=lambda row: (-(row.cpu or 0.0), -(row.memory_bytes or 0.0), row.name))
            ),
            coverage=self._coverage(expected, inside),
        )


def labels_of(site: SiteRecord) -> dict[str, str]:
    """Return the labels that a site's document gives it."""
    return dict(msgspec.json.decode(site.document, type=Site).metadata.labels)


def _summed(question: Question, key: tuple[str, ...], pieces: Sequence[Piece]) -> Figure:
    (figure,) = answer_question(question, {key: pieces})
    value = None if figure.value is None else figure.value * len(pieces)
    return msgspec.structs.replace(figure, value=value)


def _top(
    name: str,
    figures: Sequence[Figure | None],
    *,
    cpu: float | None,
    memory: float | None,
    share: float | None = None,
    restarts: float | None = None,
) -> TopView:
    found = [figure for figure in figures if figure is not None]
    return TopView(
        name=name,
        cpu=cpu,
        memory_bytes=memory,
        memory_share=share,
        restarts=restarts,
        sites=max((figure.sites for figure in found), default=0),
        hosts=max((figure.hosts for figure in found), default=0),
        as_of=_instant(max((figure.as_of for figure in found), default=0)),
        oldest=_instant(min((figure.oldest for figure in found), default=0)),
    )


def figure_view(figure: Figure, by: Sequence[str]) -> FigureView:
    """Return a figure with its group by name of the labels."""
    return FigureView(
        group=dict(zip(by, figure.group, strict=True)),
        value=figure.value,
        samples=figure.samples,
        sites=figure.sites,
        hosts=figure.hosts,
        as_of=from_epoch(figure.as_of),
        oldest=from_epoch(figure.oldest),
    )


def _told(figure: Figure | None) -> float | None:
    return figure.value if figure is not None else None


def _instant(second: int) -> datetime | None:
    return from_epoch(second) if second else None
