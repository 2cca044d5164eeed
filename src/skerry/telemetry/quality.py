"""From predictions and the labels that come later to windows of series, and from these to accuracy and calibration.

| series | kind | labels besides app, component, release, model, variant |
|---|---|---|
| `skerry_predictions` | counter | |
| `skerry_prediction_values` | distribution | `feature` (numbers, and `score`) |
| `skerry_prediction_classes` | counter | `feature` (classes, and `class`), `class` |
| `skerry_predictions_labelled` | counter | `class` (predicted), `truth`, `right` |
| `skerry_prediction_calibration` | counter, of scores | `bin` (a tenth, 0 to 9), `right` |

Rules: everything counts in the minute in which the prediction was made, whenever its label comes. Counts are whole, so
they merge exactly. How many features and classes there are is bounded; classes beyond that count as `other`.
Source of the calibration error: M. Naeini, G. Cooper, M. Hauskrecht, Obtaining Well Calibrated Probabilities Using
Bayesian Binning, AAAI 2015 (expected calibration error, ten bins of equal width).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from skerry.spec.quality import CLASS, MAX_CLASSES, MAX_FEATURES, OTHER, SCORE
from skerry.telemetry.naming import clean_series, clean_value
from skerry.telemetry.sketch import sketch_of
from skerry.telemetry.windows import MINUTE_S, Counter, Distribution, SeriesKey, WindowValue

PREDICTIONS = "skerry_predictions"
VALUES, CLASSES = "skerry_prediction_values", "skerry_prediction_classes"
LABELLED, CALIBRATION = "skerry_predictions_labelled", "skerry_prediction_calibration"
BINS = 10
MAX_CLASS = 64

Quantities = dict[int, dict[SeriesKey, WindowValue]]
"""By the minute that they count in, in seconds of the epoch."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Whose predictions they are."""

    app: str
    component: str
    release: str
    model: str = ""
    variant: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its series."""
        found = {name: getattr(self, name) for name in ("app", "component", "release", "model", "variant")}
        return {name: str(value) for name, value in found.items()}


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered at an instant, in whole seconds of the epoch. Without a class it has an empty `label`."""

    origin: Origin
    at: int
    label: str = ""
    score: float | None = None
    features: Mapping[str, float | str] = {}


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction and what was true."""

    origin: Origin
    at: int
    label: str
    score: float | None
    truth: str


class ClassRoom:
    """Which features and classes of an origin are told apart; those that were stated, or came first, stay."""

    def __init__(self, stated: Mapping[str, Iterable[str]] = {}) -> None:
        self._classes: dict[str, set[str]] = {name: set(classes) for name, classes in stated.items()}
        self._features: set[str] = {SCORE, CLASS, *stated}
        self.refused = 0

    def admits(self, feature: str) -> bool:
        """Tell whether there is room for a feature; count a sample of it as refused if there is none."""
        if feature in self._features or len(self._features) < MAX_FEATURES + 2:
            self._features.add(feature)
            return True
        self.refused += 1
        return False

    def class_of(self, feature: str, name: str) -> str:
        """Return what a class of a feature counts as."""
        known = self._classes.setdefault(feature, set())
        text = clean_value(name[:MAX_CLASS])
        if text != OTHER and (text in known or len(known) < MAX_CLASSES):
            known.add(text)
            return text
        return OTHER


def count_predictions(predictions: Iterable[Prediction], room: ClassRoom) -> Quantities:
    """Return what predictions of one origin come to."""
    sums: dict[int, dict[SeriesKey, float]] = {}
    samples: dict[int, dict[SeriesKey, list[float]]] = {}
    for one in predictions:
        labels = one.origin.labels
        minute = one.at // MINUTE_S * MINUTE_S
        added = sums.setdefault(minute, {})
        _add(added, clean_series(PREDICTIONS, labels.items(), "counter"))
        values: dict[str, float | str] = {
            name: value for name, value in one.features.items() if name not in (SCORE, CLASS)
        }
        room.refused += len(one.features) - len(values)  # the prediction's own have no other of their name
        if one.score is not None:
            values[SCORE] = one.score
        if one.label:
            values[CLASS] = one.label
        for feature, value in values.items():
            if value == "" or not room.admits(feature):
                continue
            if isinstance(value, str):
                of = {**labels, "feature": feature, "class": room.class_of(feature, value)}
                _add(added, clean_series(CLASSES, of.items(), "counter"))
            elif math.isfinite(value):
                key = clean_series(VALUES, {**labels, "feature": feature}.items(), "distribution")
                samples.setdefault(minute, {}).setdefault(key, []).append(value)
    found: Quantities = {
        minute: {key: Counter(int(count), count) for key, count in of.items()} for minute, of in sums.items()
    }
    for minute, by_key in samples.items():
        found[minute].update({key: Distribution(sketch_of(of)) for key, of in by_key.items()})
    return found


def count_joined(joined: Iterable[Joined], room: ClassRoom) -> Quantities:
    """Return what predictions of one origin whose labels came come to: how often which class was which."""
    found: Quantities = {}
    for one in joined:
        if not one.label:
            continue  # no class was predicted: it is neither right nor wrong
        labels = one.origin.labels
        of = found.setdefault(one.at // MINUTE_S * MINUTE_S, {})
        truth = room.class_of(CLASS, one.truth)
        guess = room.class_of(CLASS, one.label)
        # Told apart by the texts themselves: two classes that both count as `other` are not the same.
        right = "yes" if one.label == one.truth else "no"
        _count(of, LABELLED, {**labels, "class": guess, "truth": truth, "right": right}, 1.0)
        if one.score is not None and 0 <= one.score <= 1:
            place = str(min(int(one.score * BINS), BINS - 1))
            _count(of, CALIBRATION, {**labels, "bin": place, "right": right}, one.score)
    return found


def right_share(counts: Iterable[tuple[bool, int]]) -> float | None:
    """Return the share of the right ones, of (right, count); None of none."""
    all_of_them = list(counts)
    total = sum(count for _, count in all_of_them)
    return sum(count for right, count in all_of_them if right) / total if total else None


def calibration_error(counts: Iterable[tuple[str, bool, int, float]]) -> float | None:
    """Return the expected calibration error of (bin, right, count, sum of scores); None of none."""
    bins: dict[str, list[float]] = {}
    for place, right, count, scores in counts:
        of = bins.setdefault(place, [0.0, 0.0, 0.0])
        of[0] += count
        of[1] += count if right else 0
        of[2] += scores
    total = math.fsum(of[0] for of in bins.values())
    return math.fsum(abs(of[1] - of[2]) for of in bins.values()) / total if total else None


def _add(sums: dict[SeriesKey, float], key: SeriesKey) -> None:
    sums[key] = sums.get(key, 0.0) + 1.0


def _count(of: dict[SeriesKey, WindowValue], name: str, labels: Mapping[str, str], value: float) -> None:
    key = clean_series(name, labels.items(), "counter")
    before = of.get(key)
    count, total = (before.count, before.increase) if isinstance(before, Counter) else (0, 0.0)
    of[key] = Counter(count + 1, total + value)
