"""Checks of a model's reference: each distribution one of numbers or of classes, with enough in it to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from skerry.kit.quantities import parse_duration
from skerry.spec.problems import Problem
from skerry.spec.quality import CLASS, SCORE, Reference, ReferenceDistribution

MIN_WINDOW_S, MAX_WINDOW_S = 3600.0, 7 * 86_400.0
_hint = "skerry model reference FILE makes one"


def check_reference(path: str, reference: Reference) -> Iterator[Problem]:
    """Yield what is wrong with a model's reference."""
    if not MIN_WINDOW_S <= parse_duration(reference.window) <= MAX_WINDOW_S:
        yield Problem(f"{path}.window", f"expected 1h to 7d, got {reference.window}", "such as 1d")
    for name, distribution in reference.features.items():
        where = f"{path}.features.{name}"
        yield from _check_distribution(where, distribution)
        if name == SCORE and distribution.classes:
            yield Problem(f"{where}.classes", "scores are numbers", "give edges and counts")
        if name == CLASS and distribution.counts:
            yield Problem(f"{where}.counts", "classes are not numbers", "give classes")


def _check_distribution(path: str, distribution: ReferenceDistribution) -> Iterator[Problem]:
    edges, counts, classes = distribution.edges, distribution.counts, distribution.classes
    if bool(classes) == bool(edges or counts):
        yield Problem(path, "expected either edges and counts, or classes", _hint)
        return
    if not distribution.total:
        yield Problem(path, "has no samples, so nothing can be compared with it", _hint)
    if classes:
        return
    if not edges or len(counts) != len(edges) + 1:
        message = f"expected one count more than edges, got {len(counts)} and {len(edges)}"
        yield Problem(f"{path}.counts", message, "the last one counts what is above all edges")
    if any(one >= other for one, other in pairwise(edges)):
        yield Problem(f"{path}.edges", "expected edges that rise", _hint)
