"""The model releases of the example: how each is trained, and what is wrong with the broken one.

1.0.0 learns little with a small network, 1.1.0 more with a convolutional one, so that an update shows in the
figures. 1.2.0 is 1.1.0 after a botched export: its last layer lost two of the ten digits. Sizes and rates
were chosen with a part of the training digits set aside, never with held-out digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from build_tools.counters import draw_cell
from build_tools.digits import Digits
from build_tools.network import Array, Conv3x3, Course, Dense, Flatten, Layer, MaxPool2x2, Relu, train
from meter_reader.picture import split_digits

INPUT_SCALE = 1 / 16
CLASSES = 10
VERSIONS = ("1.0.0", "1.1.0")
BROKEN_VERSION = "1.2.0"
CALIBRATION_COUNT = 400


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a version learns from: training digits, and how often each is also drawn as on a counter."""

    digits: int
    drawings: int
    course: Course
    seed: int


RECIPES = {
    "1.0.0": Recipe(digits=200, drawings=2, course=Course(epochs=40, batch=32, rate=5e-3), seed=100),
    "1.1.0": Recipe(digits=1200, drawings=6, course=Course(epochs=8, batch=64, rate=5e-3), seed=110),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and the digits it has learnt from."""

    layers: list[Layer]
    learnt_from: Digits


def train_version(version: str, training: Digits) -> Trained:
    """Train one version from training digits; the same digits give the same weights."""
    recipe = RECIPES[version]
    rng = np.random.default_rng(recipe.seed)
    digits = training.pick(slice(recipe.digits))
    images = np.concatenate([digits.images, *(draw_all(digits, rng) for _ in range(recipe.drawings))])
    labels = np.tile(digits.labels, recipe.drawings + 1)
    layers = _small_network(rng) if version == "1.0.0" else _convolutional_network(rng)
    train(layers, images * np.float32(INPUT_SCALE), labels, course=recipe.course, rng=rng)
    return Trained(layers, digits)


def draw_all(digits: Digits, rng: np.random.Generator) -> Array:
    """The digits as the application cuts them from a counter's picture: shifted, dimmed and noisy."""
    return np.concatenate([split_digits(draw_cell(image[0], rng)) for image in digits.images])


def calibration_images(learnt_from: Digits) -> Array:
    """Images for the quantiser, out of those a version has learnt from."""
    digits = learnt_from.pick(slice(CALIBRATION_COUNT))
    return np.concatenate([digits.images, draw_all(digits, np.random.default_rng(0))])


def break_layers(layers: list[Layer]) -> list[Layer]:
    """The same network without the outputs for 8 and 9."""
    last = layers[-1]
    weight, bias = last.parameters
    head = Dense(len(weight), CLASSES - 2, np.random.default_rng(0))
    head.parameters = [weight[:, : CLASSES - 2], bias[: CLASSES - 2]]
    return [*layers[:-1], head]


def _small_network(rng: np.random.Generator) -> list[Layer]:
    return [Flatten(), Dense(64, 24, rng), Relu(), Dense(24, CLASSES, rng)]


def _convolutional_network(rng: np.random.Generator) -> list[Layer]:
    return [
        Conv3x3(1, 8, rng),
        Relu(),
        MaxPool2x2(),
        Conv3x3(8, 24, rng),
        Relu(),
        MaxPool2x2(),
        Flatten(),
        Dense(24 * 2 * 2, 64, rng),
        Relu(),
        Dense(64, CLASSES, rng),
    ]
