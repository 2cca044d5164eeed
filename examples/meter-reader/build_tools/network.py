"""Small neural networks in plain numpy: layers that learn, and the training loop.

A network is a list of layers. Every layer keeps what its backward pass needs from its last forward pass.
Batches have the shape [N, channels, height, width] before `Flatten` and [N, features] after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Layer(Protocol):
    """One step of a network, with the parameters it learns and their last gradients, in the same order."""

    parameters: list[Array]
    gradients: list[Array]

    def forward(self, x: Array) -> Array: ...

    def backward(self, grad: Array) -> Array: ...


class Dense:
    """Every output from every input: x @ weight + bias, weight of shape [inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        weight = _he_normal((inputs, outputs), inputs, rng)
        self.parameters = [weight, np.zeros(outputs, dtype=np.float32)]
        self.gradients = [np.zeros_like(each) for each in self.parameters]
        self._x = weight

    def forward(self, x: Array) -> Array:
        self._x = x
        return np.asarray(x @ self.parameters[0] + self.parameters[1], dtype=np.float32)

    def backward(self, grad: Array) -> Array:
        self.gradients = [self._x.T @ grad, grad.sum(axis=0)]
        return grad @ self.parameters[0].T


class Conv3x3:
    """Convolution over 3x3 pixels with zeros beyond the edge, weight of shape [outputs, inputs, 3, 3]."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        weight = _he_normal((outputs, inputs, 3, 3), inputs * 9, rng)
        self.parameters = [weight, np.zeros(outputs, dtype=np.float32)]
        self.gradients = [np.zeros_like(each) for each in self.parameters]
        self._inputs = inputs
        self._patches = weight

    def forward(self, x: Array) -> Array:
        weight, bias = self.parameters
        count, _, height, width = x.shape
        self._patches = _patches3x3(x)
        y = self._patches @ weight.reshape(len(weight), -1).T + bias
        return np.ascontiguousarray(y.reshape(count, height, width, -1).transpose(0, 3, 1, 2))

    def backward(self, grad: Array) -> Array:
        weight = self.parameters[0]
        count, outputs, height, width = grad.shape
        flat = grad.transpose(0, 2, 3, 1).reshape(-1, outputs)
        self.gradients = [(flat.T @ self._patches).reshape(weight.shape), flat.sum(axis=0)]
        # The way back is a convolution too, with each filter turned by half a turn and the channels swapped.
        turned = np.flip(weight, axis=(2, 3)).transpose(1, 0, 2, 3).reshape(self._inputs, -1)
        back = _patches3x3(grad) @ turned.T
        return np.ascontiguousarray(back.reshape(count, height, width, -1).transpose(0, 3, 1, 2))


class Relu:
    """Nothing below zero."""

    def __init__(self) -> None:
        self.parameters: list[Array] = []
        self.gradients: list[Array] = []
        self._open: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def forward(self, x: Array) -> Array:
        self._open = x > 0
        return np.asarray(np.where(self._open, x, 0), dtype=np.float32)

    def backward(self, grad: Array) -> Array:
        return np.asarray(np.where(self._open, grad, 0), dtype=np.float32)


class MaxPool2x2:
    """The largest of each 2x2 pixels; height and width must be even."""

    def __init__(self) -> None:
        self.parameters: list[Array] = []
        self.gradients: list[Array] = []
        self._winners: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def forward(self, x: Array) -> Array:
        count, channels, height, width = x.shape
        tiles = x.reshape(count, channels, height // 2, 2, width // 2, 2)
        top: Array = tiles.max(axis=(3, 5), keepdims=True)
        self._winners = tiles == top
        return top.reshape(count, channels, height // 2, width // 2)

    def backward(self, grad: Array) -> Array:
        count, channels, height, width = grad.shape
        # Equal pixels share the gradient, so that its sum stays what it was.
        shares = self._winners / self._winners.sum(axis=(3, 5), keepdims=True, dtype=np.float32)
        spread: Array = grad[:, :, :, np.newaxis, :, np.newaxis] * shares.astype(np.float32)
        return spread.reshape(count, channels, height * 2, width * 2)


class Flatten:
    """Channels and pixels as one row of features."""

    def __init__(self) -> None:
        self.parameters: list[Array] = []
        self.gradients: list[Array] = []
        self._shape: tuple[int, ...] = ()

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self._shape)


class Adam:
    """Adam (Kingma and Ba, 2015, algorithm 1) with its usual decay rates."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._means = [np.zeros_like(each) for layer in layers for each in layer.parameters]
        self._squares = [np.zeros_like(each) for each in self._means]
        self._steps = 0

    def step(self, rate: float) -> None:
        """Move every parameter against its last gradient."""
        self._steps += 1
        scaled_rate = rate * (1 - 0.999**self._steps) ** 0.5 / (1 - 0.9**self._steps)
        pairs = [
            pair for layer in self._layers for pair in zip(layer.parameters, layer.gradients, strict=True)
        ]
        for (parameter, gradient), mean, square in zip(pairs, self._means, self._squares, strict=True):
            mean[...] += np.float32(0.1) * (gradient - mean)
            square[...] += np.float32(0.001) * (gradient * gradient - square)
            parameter[...] -= np.float32(scaled_rate) * mean / (np.sqrt(square) + np.float32(1e-8))


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast to learn; the rate falls to nothing along half a cosine."""

    epochs: int
    batch: int = 64
    rate: float = 2e-3


def train(
    layers: Sequence[Layer],
    images: Array,
    labels: Labels,
    *,
    course: Course,
    rng: np.random.Generator,
) -> None:
    """Teach the layers to tell the labels from the images; `rng` orders the batches."""
    adam = Adam(layers)
    total_steps = course.epochs * -(-len(images) // course.batch)
    for done, chosen in enumerate(_batches(len(images), course, rng)):
        grad = softmax(run(layers, images[chosen]))
        grad[np.arange(len(chosen)), labels[chosen]] -= 1
        grad /= np.float32(len(chosen))
        for layer in reversed(layers):
            grad = layer.backward(grad)
        adam.step(course.rate * 0.5 * (1 + float(np.cos(np.pi * done / total_steps))))


def run(layers: Sequence[Layer], x: Array) -> Array:
    """The output of the last layer, before any softmax."""
    for layer in layers:
        x = layer.forward(x)
    return x


def softmax(x: Array) -> Array:
    """Rows of scores that add up to one."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def _batches(count: int, course: Course, rng: np.random.Generator) -> Iterator[Labels]:
    for _ in range(course.epochs):
        order = rng.permutation(count)
        for start in range(0, count, course.batch):
            yield order[start : start + course.batch]


def _patches3x3(x: Array) -> Array:
    """The 3x3 surroundings of every pixel as rows, shape [N * height * width, channels * 9]."""
    channels = x.shape[1]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * 9)


def _he_normal(shape: tuple[int, ...], inputs: int, rng: np.random.Generator) -> Array:
    """Start values whose spread keeps signals alive through ReLU (He et al., 2015)."""
    return np.asarray(rng.standard_normal(shape) * (2 / inputs) ** 0.5, dtype=np.float32)
