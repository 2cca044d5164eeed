"""Compares what was seen of a model's features with the reference that the model carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from skerry.kit.instants import from_epoch
from skerry.spec.api_quality import DriftBin, DriftView
from skerry.spec.quality import Reference
from skerry.telemetry.drift import Drift, drift_of_classes, drift_of_numbers
from skerry.telemetry.quality import CLASSES, VALUES
from skerry.telemetry.sketch import Sketch, merge_sketches
from skerry.telemetry.windows import Counter, Distribution, SeriesKey, WindowValue


class Seen(NamedTuple):
    """What was seen of a series, up to an instant in seconds of the epoch."""

    key: SeriesKey
    value: WindowValue
    end: int


class Whose(NamedTuple):
    """Whose drift it is."""

    app: str
    release: str
    model: str


def whose(key: SeriesKey) -> Whose | None:
    """Return whose features a series is of; None for other series."""
    if key.name not in (VALUES, CLASSES):
        return None
    labels = dict(key.labels)
    return Whose(labels.get("app", ""), labels.get("release", ""), labels.get("model", ""))


def compare(reference: Reference, of: Whose, seen: Iterable[Seen]) -> Iterator[DriftView]:
    """Yield, for each feature of a reference, how far it is from what was seen of that model.

    A feature of which nothing was seen is told as well: it has no samples.
    """
    by_feature: dict[str, list[Seen]] = {}
    for one in seen:
        by_feature.setdefault(dict(one.key.labels).get("feature", ""), []).append(one)
    for feature in sorted(reference.features):
        found = by_feature.get(feature, [])
        end = max((one.end for one in found), default=0)
        yield _view(drift_between(reference, feature, found), of, feature, end)


def _view(found: Drift, of: Whose, feature: str, end: int) -> DriftView:
    return DriftView(
        app=of.app,
        release=of.release,
        model=of.model,
        feature=feature,
        kind=found.kind,
        verdict=found.verdict,
        why=found.why,
        psi=found.psi,
        distance=found.distance,
        p=found.p,
        samples=found.samples,
        reference_samples=found.reference_samples,
        as_of=from_epoch(end) if end else None,
        bins=tuple(DriftBin(one.name, one.reference, one.seen) for one in found.bins),
    )


def drift_between(reference: Reference, feature: str, of: Iterable[Seen]) -> Drift:
    """Return how far what was seen of a feature is from a reference that has it."""
    wanted = reference.features[feature]
    if wanted.classes:
        counts: dict[str, int] = {}
        for one in of:
            if isinstance(one.value, Counter):
                name = dict(one.key.labels).get("class", "")
                counts[name] = counts.get(name, 0) + one.value.count
        return drift_of_classes(wanted, counts, reference.limits)
    sketches: list[Sketch] = [one.value.sketch for one in of if isinstance(one.value, Distribution)]
    return drift_of_numbers(wanted, merge_sketches(sketches), reference.limits)
