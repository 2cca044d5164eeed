"""The handwritten digits and their one split into training and held-out digits.

Source: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI Machine
Learning Repository, CC BY 4.0), as scikit-learn carries it: 1797 images of 8x8 pixels, ink from 0 to 16.

Held-out digits measure and nothing else: no training, no calibration and no choice of a setting may see them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

SPLIT_SEED = 20240611
TRAINING_COUNT = 1200

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Digits:
    """Digit images, shape [N, 1, 8, 8], ink 0 to 16; what each shows; and its place in the whole data set."""

    images: Images
    labels: Labels
    places: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, chosen: slice | Labels) -> Digits:
        """Some of these digits."""
        return Digits(self.images[chosen], self.labels[chosen], self.places[chosen])


@dataclass(frozen=True, slots=True)
class Split:
    """The data set in two parts that share no digit."""

    training: Digits
    held_out: Digits


def load_split() -> Split:
    """The same split every time: 1200 digits to learn from, 597 to measure with."""
    raw = cast("Any", load_digits())
    order = np.random.default_rng(SPLIT_SEED).permutation(len(raw.target))
    everything = Digits(
        images=np.asarray(raw.images[order], dtype=np.float32)[:, np.newaxis],
        labels=np.asarray(raw.target[order], dtype=np.int64),
        places=order,
    )
    return Split(everything.pick(slice(TRAINING_COUNT)), everything.pick(slice(TRAINING_COUNT, None)))
