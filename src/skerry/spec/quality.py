"""What a model was like when it was judged good: distributions of its features, scores and classes, and what is drift.

A `Reference` is a part of a Model, so it is signed and travels with every release of it. Rules: features named `score`
and `class` are the prediction's own; a distribution is one of numbers (edges and counts) or one of classes.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Duration, Part
from skerry.spec.metrics import Count, Finite

MAX_FEATURES = 32
MAX_EDGES = 64
MAX_CLASSES = 20
"""More classes than these are counted as `OTHER`."""
OTHER = "other"
SCORE, CLASS = "score", "class"

FeatureName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$",
        description="a feature's name: letters, digits and _ . -, 63 at most",
    ),
]
ClassName = Annotated[str, Meta(min_length=1, max_length=64)]


class ReferenceDistribution(Part, frozen=True, kw_only=True):
    """Samples of one feature: `edges` rise, and `counts` has one more: how many were at most each edge, and above all.

    For a feature of classes `classes` says how many were of each, and nothing else is given.
    """

    edges: Annotated[tuple[Finite, ...], Meta(max_length=MAX_EDGES)] = ()
    counts: Annotated[tuple[Count, ...], Meta(max_length=MAX_EDGES + 1)] = ()
    classes: Annotated[dict[ClassName, Count], Meta(max_length=MAX_CLASSES + 1)] = {}

    @property
    def total(self) -> int:
        """How many samples."""
        return sum(self.counts) + sum(self.classes.values())


class DriftLimits(Part, frozen=True, kw_only=True):
    """From where on a distribution has drifted; any one of them suffices.

    `psi` is the population stability index, `ks` the largest difference between the shares of samples up to any value
    (numbers alone), `js` the Jensen-Shannon distance to base 2, from 0 to 1 (classes alone). With fewer than
    `min_samples` samples nothing is decided.
    """

    psi: Annotated[float, Meta(gt=0, le=100)] = 0.25
    ks: Annotated[float, Meta(gt=0, le=1)] = 0.2
    js: Annotated[float, Meta(gt=0, le=1)] = 0.2
    min_samples: Annotated[int, Meta(ge=10, le=1_000_000)] = 200


class Reference(Part, frozen=True, kw_only=True):
    """Distributions by feature, what is drift, and over how long a time what is seen is compared with them."""

    features: Annotated[dict[FeatureName, ReferenceDistribution], Meta(min_length=1, max_length=MAX_FEATURES)]
    limits: DriftLimits = DriftLimits()
    window: Duration = "1d"
