"""Answers questions about models: accuracy, calibration and drift, over the sites that the caller sees.

Rules: references come from the releases that were pushed, which are signed and immutable. Everything is computed from
counts that were merged over hosts, with the coverage and ages of every other answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from skerry.hub.telemetry_query import MAX_BY, TelemetryQueries, figure_view
from skerry.kit.editions import plain_release
from skerry.kit.errors import Rejected
from skerry.kit.instants import from_epoch
from skerry.ports.telemetry_store import SeriesRecord
from skerry.spec.api_quality import DriftAnswer, DriftView
from skerry.spec.api_telemetry import MetricsAnswer, TopAnswer, TopView
from skerry.spec.quality import Reference
from skerry.spec.release import Release
from skerry.spec.series import SeriesSelector
from skerry.telemetry.comparing import Seen, Whose, compare, whose
from skerry.telemetry.derived import DERIVED, DerivedQuestion, check_groups, derive, parse_derived
from skerry.telemetry.quality import CLASSES, LABELLED, PREDICTIONS, VALUES
from skerry.telemetry.query import Piece, figure_of

_Model = tuple[str, str, str]


class QualityQueries(TelemetryQueries):
    """Blocking; call it in a thread. It answers what `TelemetryQueries` answers, and what models do."""

    def query(self, text: str, by: Sequence[str], since_s: float) -> MetricsAnswer:
        """Answer a question, also one about the quality of models.

        Raises:
            Rejected: it is not understood, or models have no reference (`query.*`).
        """
        question = parse_derived(text, self._store.telemetry_names())
        if question is None:
            return super().query(text, by, since_s)
        if len(by) > MAX_BY:
            raise Rejected("query.malformed", f"group by {MAX_BY} labels at most")
        check_groups(question, by)
        since = self._since(since_s)
        chosen = self._chosen_of(question)
        references = _References(self)
        grouped: dict[tuple[str, ...], list[Piece]] = {}
        for piece in self._pieces(chosen, since):
            labels = self._all_labels(piece.site, piece.host, question.labels_of(piece.key))
            grouped.setdefault(tuple(labels.get(name, "") for name in by), []).append(piece)
        figures = [
            figure_of(group, pieces, derive(question, pieces, references.of))
            for group, pieces in sorted(grouped.items())
        ]
        if references.missing and not references.found:
            names = ", ".join(
                sorted({f"{one.model or '(no model)'} of {one.release}" for one in references.missing})
            )
            hint = "skerry model reference FILE makes one from predictions of when it was good"
            raise Rejected("query.no_reference", f"no reference to compare with: {names[:500]}", hint=hint)
        newest = self._expected(question.selector)
        self._age(newest, chosen)
        return MetricsAnswer(
            query=text,
            stat=question.name,
            since=from_epoch(since),
            until=from_epoch(self._now),
            figures=tuple(figure_view(figure, by) for figure in figures),
            coverage=self._coverage(newest, {piece.site for pieces in grouped.values() for piece in pieces}),
        )

    def drift(self, app: str, since_s: float) -> DriftAnswer:
        """Return how far every feature of an application's models is from its reference, with all counts.

        Raises:
            Rejected: the time cannot be asked about (`query.malformed`).
        """
        since = self._since(since_s)
        chosen = [
            one
            for one in self._store.telemetry_series(names=[VALUES, CLASSES])
            if one.site in self._labels and dict(one.key.labels).get("app") == app
        ]
        pieces = self._pieces(chosen, since)
        by_model: dict[Whose, list[Seen]] = {}
        for piece in pieces:
            if (of := whose(piece.key)) is not None:
                by_model.setdefault(of, []).append(Seen(piece.key, piece.value, piece.end))
        references = _References(self)
        views: list[DriftView] = []
        for of, seen in sorted(by_model.items(), key=lambda item: item[0]):
            if (reference := references.of(of)) is not None:
                views += compare(reference, of, seen)
        expected = {one.site: 0 for one in self._store.assignments() if one.application == app}
        newest = {site: 0 for site in expected if site in self._labels}
        self._age(newest, chosen)
        return DriftAnswer(
            app=app,
            since=from_epoch(since),
            until=from_epoch(self._now),
            features=tuple(views),
            coverage=self._coverage(newest, {piece.site for piece in pieces}),
        )

    def top_models(self, since_s: float) -> TopAnswer:
        """Return how many predictions each model made over all sites, how many were right, and how far it drifted."""
        since = self._since(since_s)
        chosen = [
            one
            for one in self._store.telemetry_series(names=[PREDICTIONS, LABELLED, VALUES, CLASSES])
            if one.site in self._labels
        ]
        by_model: dict[_Model, list[Piece]] = {}
        for piece in self._pieces(chosen, since):
            labels = dict(piece.key.labels)
            key = (labels.get("app", ""), labels.get("release", ""), labels.get("model", ""))
            by_model.setdefault(key, []).append(piece)
        references = _References(self)
        rows = [_row(key, pieces, references) for key, pieces in by_model.items()]
        newest: dict[str, int] = {}
        self._age(newest, [one for one in chosen if one.key.name == PREDICTIONS])
        inside = {piece.site for pieces in by_model.values() for piece in pieces}
        return TopAnswer(
            what="models",
            since=from_epoch(since),
            until=from_epoch(self._now),
            rows=tuple(sorted(rows, key=lambda row: (-(row.predictions or 0), row.name))),
            coverage=self._coverage(newest, inside),
        )

    def release(self, name: str) -> Release | None:
        """Return a release's document; None when it is not here any more."""
        record = self._store.release(name)
        return msgspec.json.decode(record.document, type=Release) if record else None

    def _chosen_of(self, question: DerivedQuestion) -> list[SeriesRecord]:
        return [
            one
            for one in self._store.telemetry_series(names=list(question.names))
            if one.site in self._labels
            and question.selector.selects(self._all_labels(one.site, one.host, question.labels_of(one.key)))
        ]

    def _age(self, newest: dict[str, int], chosen: Iterable[SeriesRecord]) -> None:
        for one in chosen:
            newest[one.site] = max(newest.get(one.site, 0), min(one.newest, self._now))


class _References:
    """The references of models, looked up once each; `missing` are those that have none."""

    def __init__(self, queries: QualityQueries) -> None:
        self._queries = queries
        self._releases: dict[str, Release | None] = {}
        self.found: dict[Whose, Reference] = {}
        self.missing: set[Whose] = set()

    def of(self, whose: Whose) -> Reference | None:
        """Return the reference of a model of a release, None when there is none."""
        if whose in self.found or whose in self.missing:
            return self.found.get(whose)
        name = plain_release(whose.release)
        if name not in self._releases:
            self._releases[name] = self._queries.release(name)
        release = self._releases[name]
        models = release.models if release else ()
        reference = next((one.spec.reference for one in models if one.metadata.name == whose.model), None)
        if reference is None:
            self.missing.add(whose)
            return None
        self.found[whose] = reference
        return reference


def _row(key: _Model, pieces: Sequence[Piece], references: _References) -> TopView:
    app, release, model = key
    figures = {
        name: derive(
            DerivedQuestion(SeriesSelector(name)),
            [one for one in pieces if one.key.name in names],
            references.of,
        )
        for name, names in DERIVED.items()
        if name in ("accuracy", "drift_psi")
    }
    made = [one for one in pieces if one.key.name == PREDICTIONS]
    whole = figure_of(key, made or pieces, None)
    return TopView(
        name=f"{model or '(no model)'} of {release or app}",
        cpu=None,
        memory_bytes=None,
        predictions=sum(one.value.count for one in made),
        labelled=sum(one.value.count for one in pieces if one.key.name == LABELLED),
        accuracy=figures["accuracy"],
        drift_psi=figures["drift_psi"],
        sites=whole.sites,
        hosts=whole.hosts,
        as_of=from_epoch(whole.as_of),
        oldest=from_epoch(whole.oldest),
    )
