"""What an application hands its host about its model's answers: predictions, and what turned out to be true.

`POST {SKERRY_TELEMETRY_URL}/v1/predictions` with a `PredictionsBody` as JSON (docs/internals/quality.md).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part
from skerry.spec.metrics import Finite
from skerry.spec.quality import FeatureName

MAX_PER_BODY = 5000
MAX_AGE_S = 86_400.0

PredictionId = Annotated[str, Meta(min_length=1, max_length=128)]
ClassText = Annotated[str, Meta(max_length=256)]


class PredictionBody(Part, frozen=True, kw_only=True):
    """One answer of a model, `age_s` seconds ago.

    `id` is needed for a label to find it later; a second prediction of the same id does not count. `model` may be left
    out by a component that mounts one model. A feature is a number or, as a text, a class.
    """

    id: Annotated[str, Meta(max_length=128)] = ""
    age_s: Annotated[float, Meta(ge=0, le=MAX_AGE_S)] = 0.0
    model: Annotated[str, Meta(max_length=63)] = ""
    label: ClassText = ""
    score: Finite | None = None
    features: Annotated[dict[FeatureName, Finite | ClassText], Meta(max_length=64)] = {}


class LabelBody(Part, frozen=True, kw_only=True):
    """What was true of a prediction. It may come before the prediction; of several the first one counts."""

    id: PredictionId
    truth: Annotated[str, Meta(min_length=1, max_length=256)]


class PredictionsBody(Part, frozen=True, kw_only=True):
    """Predictions and labels. A body whose `batch` came before is answered in the same way, and not counted again."""

    batch: Annotated[str, Meta(max_length=64)] = ""
    predictions: Annotated[tuple[PredictionBody, ...], Meta(max_length=MAX_PER_BODY)] = ()
    labels: Annotated[tuple[LabelBody, ...], Meta(max_length=MAX_PER_BODY)] = ()
