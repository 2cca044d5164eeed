"""Figures that are made of a model's counts: accuracy, precision, recall, calibration error and drift.

Rules: they come from merged counts, never from other figures. What nothing is known of, or too little, has no value. A
series that is called so goes before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from skerry.kit.errors import Rejected
from skerry.spec.quality import Reference
from skerry.spec.series import SeriesSelector, parse_series
from skerry.telemetry.comparing import Seen, Whose, drift_between, whose
from skerry.telemetry.quality import CALIBRATION, CLASSES, LABELLED, VALUES, calibration_error, right_share
from skerry.telemetry.query import MAX_QUERY, Piece
from skerry.telemetry.windows import Counter, SeriesKey

DERIVED: Mapping[str, tuple[str, ...]] = {
    "accuracy": (LABELLED,),
    "precision": (LABELLED,),
    "recall": (LABELLED,),
    "calibration_error": (CALIBRATION,),
    "drift_psi": (VALUES, CLASSES),
    "drift_ks": (VALUES,),
    "drift_js": (CLASSES,),
}
"""By name, the series that they are made of."""
_BY_CLASS = ("precision", "recall")

ReferenceOf = Callable[[Whose], Reference | None]


class DerivedQuestion(msgspec.Struct, frozen=True):
    """One of `DERIVED`, and matchers of labels."""

    selector: SeriesSelector

    @property
    def name(self) -> str:
        """Which figure."""
        return self.selector.name

    @property
    def names(self) -> tuple[str, ...]:
        """The series that it is made of."""
        return DERIVED[self.name]

    def labels_of(self, key: SeriesKey) -> dict[str, str]:
        """Return a series' labels as the question has them: of recall, `class` is what was true."""
        labels = dict(key.labels)
        if self.name == "recall":
            labels["class"] = labels.pop("truth", "")
        return labels


def parse_derived(text: str, names: Iterable[str]) -> DerivedQuestion | None:
    """Return what a text asks if it is one of these figures, and there is no series of that name.

    Raises:
        Rejected: it is not understood (`query.malformed`).
    """
    name = text.strip()[:MAX_QUERY].partition("{")[0].strip()
    if name not in DERIVED or name in set(names):
        return None
    if len(text) > MAX_QUERY:
        raise Rejected("query.malformed", f"a question has {MAX_QUERY} characters at most")
    try:
        return DerivedQuestion(parse_series(text.strip()))
    except ValueError as error:
        raise Rejected("query.malformed", str(error), hint="""such as accuracy{app="reader"}""") from error


def check_groups(question: DerivedQuestion, by: Sequence[str]) -> None:
    """Check that what is asked can be told in these groups.

    Raises:
        Rejected: precision and recall are of a class, which is not named (`query.class`).
    """
    named = "class" in by or any(one.label == "class" for one in question.selector.matchers)
    if question.name in _BY_CLASS and not named:
        hint = f"""ask by class: {question.name} --by class, or {question.name}{{class="NAME"}}"""
        raise Rejected("query.class", f"{question.name} is that of a class", hint=hint)


def derive(question: DerivedQuestion, pieces: Sequence[Piece], reference_of: ReferenceOf) -> float | None:
    """Return the figure of the pieces of one group; of several features the largest drift. None: nothing is known.

    What has fewer samples than the reference's limits ask for is left out.
    """
    if question.name == "calibration_error":
        return calibration_error(
            (labels.get("bin", ""), labels.get("right") == "yes", piece.value.count, piece.value.increase)
            for piece in pieces
            if isinstance(piece.value, Counter)
            for labels in (dict(piece.key.labels),)
        )
    if question.names == (LABELLED,):
        return right_share(
            (dict(piece.key.labels).get("right") == "yes", piece.value.count) for piece in pieces
        )
    return max(_drifts(question.name, pieces, reference_of), default=None)


def _drifts(name: str, pieces: Sequence[Piece], reference_of: ReferenceOf) -> Iterable[float]:
    grouped: dict[tuple[Whose, str], list[Seen]] = {}
    for piece in pieces:
        of = whose(piece.key)
        if of is not None:
            feature = dict(piece.key.labels).get("feature", "")
            grouped.setdefault((of, feature), []).append(Seen(piece.key, piece.value, piece.end))
    for (of, feature), seen in grouped.items():
        reference = reference_of(of)
        if reference is None or feature not in reference.features:
            continue
        found = drift_between(reference, feature, seen)
        wanted = {"drift_ks": "numbers", "drift_js": "classes"}.get(name, found.kind)
        if found.kind == wanted and found.verdict != "few-samples":
            yield found.psi if name == "drift_psi" else found.distance
