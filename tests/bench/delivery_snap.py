"""What a delta costs when the new weights were snapped to the old ones, and what that does to the model.

Accuracy is that of the digits with noise that no training saw, strong enough for mistakes. `python -m
tests.bench.delivery_snap FOLDER` measures alone; the models are made below FOLDER unless they are there.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.snapping import Snapper, SnapReport
from skerry.delivery.tensors import find_tensors
from skerry.delivery.words import choose_words
from tests.bench.delivery_weights import (
    WIDTH,
    Floats,
    WeightPair,
    Weights,
    _windows,
    init_cnn,
    init_transformer,
    load_digits_data,
    make_weight_pairs,
    softmax,
)
from tests.bench.figure import Figure

GOAL = 0.25
# What the evaluation of a model would state: as in docs/how-to/smaller-model-updates.md.
WORSE_BY = 0.002
NOISE, DRAWS = 0.35, 10
SHOWN = (
    ("bytes_ratio_vs_gzip_snapped_fp32", ("fp32",), 14),
    ("bytes_ratio_vs_gzip_snapped_18_bits_fp32", ("fp32",), 18),
    ("bytes_ratio_vs_gzip_snapped_18_bits_16bit", ("fp16", "bf16"), 18),
)


class Outcome(NamedTuple):
    """A snapped pair: bytes of the delta by those of the new file by gzip, and the accuracy before and after."""

    name: str
    ratio: float
    before: float
    after: float
    report: SnapReport

    def __str__(self) -> str:
        return f"{self.name} {self.ratio:.3f} ({self.before:.4f} to {self.after:.4f})"


def snap_figures(cache: Path) -> Iterator[Figure]:
    """Measure the fine-tuned pairs.

    Raises:
        RuntimeError: a model became worse than its tolerance.
    """
    pairs = [pair for pair in make_weight_pairs(cache) if pair.name.endswith(("sgd", "adam"))]
    for name, kinds, bits in SHOWN:
        outcomes = [snapped(pair, bits) for pair in pairs if pair.kind in kinds]
        for outcome in outcomes:
            print(f"bench: {bits} bits: {outcome}", file=sys.stderr)
        worst = max(outcome.before - outcome.after for outcome in outcomes)
        if worst > WORSE_BY and bits == 14:
            raise RuntimeError(f"snapped by {bits} bits a model is worse by {worst:.4f}")
        mean = math.exp(sum(math.log(outcome.ratio) for outcome in outcomes) / len(outcomes))
        bound = f"no weight off by more than 2^{bits - 23}"
        wanted = f"goal {GOAL}; " if bits == 14 else ""
        shown = ", ".join(map(str, outcomes))
        yield Figure(name, mean, "", f"{wanted}{bound}, accuracy worse by {worst:.4f} at most; {shown}")


def snapped(pair: WeightPair, bits: int) -> Outcome:
    """Snap a pair, and measure the delta and what the model still knows."""
    sizes: list[int] = []
    with pair.old.open("rb") as base, pair.new.open("rb") as target:
        snapper = Snapper(base, target, bits=bits)
        content = b"".join(snapper.pieces())
        encode_delta(
            base=base,
            target=io.BytesIO(content),
            sink=lambda piece: sizes.append(len(piece)),
            words=choose_words(),
        )
    packed = subprocess.run(
        ["gzip", "-6", "-n", "-c", pair.new], check=True, capture_output=True, timeout=600
    ).stdout
    before, after = (accuracy_of(pair, held) for held in (pair.new.read_bytes(), content))
    name = f"{pair.name} {pair.kind}"
    return Outcome(name, sum(sizes) / len(packed), before, after, snapper.report())


def accuracy_of(pair: WeightPair, content: bytes) -> float:
    """Return the share of noisy digits that a model's file knows."""
    is_cnn = pair.name.startswith("cnn")
    weights = weights_of(content, (init_cnn if is_cnn else init_transformer)(np.random.default_rng(7)))
    images, classes = load_digits_data()
    rng, right = np.random.default_rng(99), 0
    for _ in range(DRAWS):
        x = (images + NOISE * rng.standard_normal(images.shape)).astype(np.float32)
        logits = cnn_logits(weights, x) if is_cnn else transformer_logits(weights, x)
        right += int((logits.argmax(axis=1) == classes).sum())
    return right / (DRAWS * len(classes))


def weights_of(content: bytes, like: Weights) -> Weights:
    """Return the weights of a file, in the shapes of others."""
    found: Weights = {}
    for tensor in find_tensors(io.BytesIO(content), len(content)):
        part = content[tensor.offset :][: tensor.size]
        values: Floats
        if tensor.kind == "bf16":
            values = (np.frombuffer(part, "<u2").astype("<u4") << np.uint32(16)).view("<f4")
        else:
            values = np.frombuffer(part, "<f2" if tensor.kind == "f16" else "<f4").astype(np.float32)
        found[tensor.name] = values.reshape(like[tensor.name].shape)
    return found


def cnn_logits(w: Weights, x: Floats) -> Floats:
    """Return what the CNN says of images."""
    h1 = np.maximum(_windows(x[..., None]) @ w["conv1.weight"] + w["conv1.bias"], 0)
    h2 = np.maximum(_windows(h1) @ w["conv2.weight"] + w["conv2.bias"], 0).reshape(len(x), -1)
    h3 = np.maximum(h2 @ w["fc1.weight"] + w["fc1.bias"], 0)
    logits: Floats = h3 @ w["head.weight"] + w["head.bias"]
    return logits


def transformer_logits(w: Weights, x: Floats) -> Floats:
    """Return what the transformer says of images."""
    h: Any = x @ w["embed.weight"] + w["embed.position"]
    for block in range(2):
        at = f"blocks.{block}."
        q, k, v = (h @ w[f"{at}{name}.weight"] for name in "qkv")
        h = h + softmax(q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(WIDTH))) @ v @ w[f"{at}o.weight"]
        h = h + np.maximum(h @ w[f"{at}up.weight"], 0) @ w[f"{at}down.weight"]
    logits: Floats = h.reshape(len(x), -1) @ w["head.weight"]
    return logits


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for figure in snap_figures(Path(sys.argv[1])):
        print(f"{figure.name} {figure.value:.4f} {figure.unit} {figure.peer}")
