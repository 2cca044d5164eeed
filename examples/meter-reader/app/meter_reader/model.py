"""The model of a site: loading it, refusing a broken one, reading digits with it.

A model directory holds `model.onnx` and `model.json`. The graph takes `image`, float32 [N, 1, 8, 8] with ink
from 0 to 16, and gives `scores`, float32 [N, 10], each row adding up to one.

A model is used only after it has proven itself on this very machine: its shapes are the wanted ones, and it
reads the few known digits that its description carries. A file may be a perfect ONNX file and still be the
wrong model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnxruntime

from meter_reader.picture import DIGIT_SIDE, DigitImages

CLASSES = 10
Scores = npt.NDArray[np.float32]


class ModelRefusedError(Exception):
    """The model directory holds no model this application can trust; the text says why."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What `model.json` says: version, variant, and known digit images with the digits they show."""

    version: str
    variant: str
    known_images: DigitImages
    known_digits: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The digits of one counter and, for each, the model's score for it (0 to 1)."""

    digits: str
    scores: tuple[float, ...]


class DigitModel:
    """A model that has passed its self-check."""

    def __init__(self, description: ModelDescription, session: Any) -> None:
        self.description = description
        self._session = session

    def read(self, images: DigitImages) -> Reading:
        """Read digit images, shape [N, 1, 8, 8], ink from 0 to 16."""
        scores = _run(self._session, images)
        best = scores.argmax(axis=1)
        return Reading(
            digits="".join(str(digit) for digit in best),
            scores=tuple(float(row[digit]) for row, digit in zip(scores, best, strict=True)),
        )


def load_model(directory: Path) -> DigitModel:
    """Load a model directory and let the model prove itself.

    Raises:
        ModelRefusedError: a file is missing or unreadable, a shape is wrong, or a known digit is misread.
    """
    description = load_description(directory / "model.json")
    model = DigitModel(description, _open_session(directory / "model.onnx"))
    reading = model.read(description.known_images)
    if reading.digits != description.known_digits:
        raise ModelRefusedError(f"the self-check read {reading.digits}, wanted {description.known_digits}")
    return model


def load_description(path: Path) -> ModelDescription:
    """Read `model.json`.

    Raises:
        ModelRefusedError: the file is missing or lacks what is needed.
    """
    try:
        raw = json.loads(path.read_bytes())
        check = raw["self_check"]
        images = np.array(check["images"], dtype=np.float32)
        description = ModelDescription(
            version=str(raw["version"]),
            variant=str(raw["variant"]),
            known_images=images.reshape(-1, 1, DIGIT_SIDE, DIGIT_SIDE),
            known_digits=str(check["digits"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefusedError(f"model.json is unusable: {type(error).__name__}: {error}") from error
    if len(description.known_images) != len(description.known_digits) or not description.known_digits:
        raise ModelRefusedError("model.json is unusable: self_check needs as many images as digits")
    return description


def _open_session(path: Path) -> Any:
    options = cast("Any", onnxruntime.SessionOptions())
    # Sites are small and counters come one at a time: an arena would hold memory, more threads would only
    # wait.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no root but Exception
        raise ModelRefusedError(f"model.onnx cannot be loaded: {error}") from error


def _run(session: Any, images: DigitImages) -> Scores:
    try:
        scores = np.asarray(session.run(["scores"], {"image": images})[0], dtype=np.float32)
    except Exception as error:  # as above
        raise ModelRefusedError(f"the model does not run: {error}") from error
    if scores.shape != (len(images), CLASSES):
        wanted = [len(images), CLASSES]
        raise ModelRefusedError(f"output 'scores' has shape {list(scores.shape)}, wanted {wanted}")
    if not np.isfinite(scores).all():
        raise ModelRefusedError("output 'scores' is not finite")
    return scores
