"""What is told about drift: by a host of itself, and by the hub of sites."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from skerry.spec.api_telemetry import CoverageView


class DriftBin(msgspec.Struct, frozen=True):
    """A range of values, or a class, and how many samples are in it: of the reference, and of what was seen."""

    name: str
    reference: int
    seen: int


class DriftView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a feature of a model is from the model's reference, and by what counts.

    `distance` is the Kolmogorov-Smirnov distance of numbers and the Jensen-Shannon distance of classes; `p` is how
    likely it is by chance alone. `as_of` is up to when samples were seen.
    """

    app: str
    release: str
    model: str
    feature: str
    kind: Literal["numbers", "classes"]
    verdict: Literal["steady", "drifted", "few-samples"]
    why: str
    psi: float
    distance: float
    p: float
    samples: int
    reference_samples: int
    as_of: datetime | None
    bins: tuple[DriftBin, ...] = ()


class HostDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What a host itself found, with no link needed: as of an instant, over what it saw since another."""

    at: datetime
    features: tuple[DriftView, ...] = ()


class DriftAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub found of an application between two instants of event time, and how many sites are in it."""

    app: str
    since: datetime
    until: datetime
    features: tuple[DriftView, ...]
    coverage: CoverageView
