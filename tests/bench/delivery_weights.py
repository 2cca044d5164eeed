"""Models before and after a fine-tuning: digits learned by a small CNN and a small transformer, in numpy, seeded.

Each is trained on clean digits, then goes on with a lower rate on digits with noise, by SGD with momentum or by Adam,
wholly or in its last layer only; or low-rank updates are merged into its weights (LoRA), as safetensors or ONNX.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Weights = dict[str, Floats]
_BATCH = 64


class WeightPair(NamedTuple):
    """Two files, the number type they are of and how the second came from the first."""

    name: str
    kind: str
    old: Path
    new: Path


def load_digits_data() -> tuple[Floats, NDArray[np.int64]]:
    """Return images of 8 x 8 in 0..1, and their classes."""
    from sklearn.datasets import load_digits

    digits = cast(Any, load_digits())
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def softmax(x: Floats) -> Floats:
    """Return the softmax over the last axis."""
    shifted: Floats = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Floats = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


def _windows(x: Floats) -> Floats:
    """Return the 3 x 3 neighbourhoods of (n, h, w, c) as (n, h, w, 9 c)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return np.concatenate(
        [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1
    )


def _scatter(g: Floats, channels: int) -> Floats:
    """Undo `_windows` for gradients."""
    n, height, width, _ = g.shape
    out = np.zeros((n, height + 2, width + 2, channels), np.float32)
    for index in range(9):
        i, j = divmod(index, 3)
        out[:, i : i + height, j : j + width] += g[..., index * channels : (index + 1) * channels]
    return out[:, 1:-1, 1:-1]


def init_cnn(rng: np.random.Generator) -> Weights:
    """Return a CNN's weights: two convolutions, two dense layers."""

    def he(rows: int, columns: int) -> Floats:
        drawn: Floats = (rng.standard_normal((rows, columns)) * np.sqrt(2 / rows)).astype(np.float32)
        return drawn

    return {
        "conv1.weight": he(9, 32), "conv1.bias": np.zeros(32, np.float32),
        "conv2.weight": he(288, 64), "conv2.bias": np.zeros(64, np.float32),
        "fc1.weight": he(4096, 256), "fc1.bias": np.zeros(256, np.float32),
        "head.weight": he(256, 10), "head.bias": np.zeros(10, np.float32),
    }  # fmt: skip


def cnn_gradients(w: Weights, x: Floats, y: NDArray[np.int64]) -> Weights:
    """Return the gradients of the cross entropy of a batch."""
    n = len(x)
    a0 = _windows(x[..., None])
    z1 = a0 @ w["conv1.weight"] + w["conv1.bias"]
    h1 = np.maximum(z1, 0)
    a1 = _windows(h1)
    z2 = a1 @ w["conv2.weight"] + w["conv2.bias"]
    h2 = np.maximum(z2, 0).reshape(n, -1)
    z3 = h2 @ w["fc1.weight"] + w["fc1.bias"]
    h3 = np.maximum(z3, 0)
    p = softmax(h3 @ w["head.weight"] + w["head.bias"])
    p[np.arange(n), y] -= 1
    d4 = p / n
    d3 = (d4 @ w["head.weight"].T) * (z3 > 0)
    d2 = (d3 @ w["fc1.weight"].T).reshape(z2.shape) * (z2 > 0)
    d1 = _scatter(d2 @ w["conv2.weight"].T, 32) * (z1 > 0)
    return {
        "head.weight": h3.T @ d4, "head.bias": d4.sum(0),
        "fc1.weight": h2.T @ d3, "fc1.bias": d3.sum(0),
        "conv2.weight": a1.reshape(-1, 288).T @ d2.reshape(-1, 64), "conv2.bias": d2.sum((0, 1, 2)),
        "conv1.weight": a0.reshape(-1, 9).T @ d1.reshape(-1, 32), "conv1.bias": d1.sum((0, 1, 2)),
    }  # fmt: skip


WIDTH = 128


def init_transformer(rng: np.random.Generator) -> Weights:
    """Return the weights of two blocks of one-headed attention over the rows of the image, without norms."""

    def some(rows: int, columns: int) -> Floats:
        drawn: Floats = (rng.standard_normal((rows, columns)) / np.sqrt(rows) * 0.7).astype(np.float32)
        return drawn

    weights = {"embed.weight": some(8, WIDTH), "embed.position": some(8, WIDTH)}
    for block in range(2):
        for name in ("q", "k", "v", "o"):
            weights[f"blocks.{block}.{name}.weight"] = some(WIDTH, WIDTH)
        weights[f"blocks.{block}.up.weight"] = some(WIDTH, 4 * WIDTH)
        weights[f"blocks.{block}.down.weight"] = some(4 * WIDTH, WIDTH)
    weights["head.weight"] = some(8 * WIDTH, 10)
    return weights


def transformer_gradients(w: Weights, x: Floats, y: NDArray[np.int64]) -> Weights:
    """Return the gradients of the cross entropy of a batch."""
    n = len(x)
    grads: Weights = {}
    h = x @ w["embed.weight"] + w["embed.position"]
    tape: list[tuple[Any, ...]] = []
    scale = np.float32(1 / np.sqrt(WIDTH))
    for b in range(2):
        q, k, v = (h @ w[f"blocks.{b}.{m}.weight"] for m in "qkv")
        a = softmax(q @ k.transpose(0, 2, 1) * scale)
        m = a @ v
        h2 = h + m @ w[f"blocks.{b}.o.weight"]
        u = h2 @ w[f"blocks.{b}.up.weight"]
        r = np.maximum(u, 0)
        tape.append((h, q, k, v, a, m, h2, u, r))
        h = h2 + r @ w[f"blocks.{b}.down.weight"]
    flat = h.reshape(n, -1)
    p = softmax(flat @ w["head.weight"])
    p[np.arange(n), y] -= 1
    p /= n
    grads["head.weight"] = flat.T @ p
    d = (p @ w["head.weight"].T).reshape(h.shape)
    for b in (1, 0):
        h, q, k, v, a, m, h2, u, r = tape[b]
        t = f"blocks.{b}."
        grads[t + "down.weight"] = np.einsum("nsi,nsj->ij", r, d)
        du = (d @ w[t + "down.weight"].T) * (u > 0)
        grads[t + "up.weight"] = np.einsum("nsi,nsj->ij", h2, du)
        d = d + du @ w[t + "up.weight"].T
        grads[t + "o.weight"] = np.einsum("nsi,nsj->ij", m, d)
        dm = d @ w[t + "o.weight"].T
        da = dm @ v.transpose(0, 2, 1)
        dv = a.transpose(0, 2, 1) @ dm
        ds = a * (da - (da * a).sum(-1, keepdims=True)) * scale
        dq, dk = ds @ k, ds.transpose(0, 2, 1) @ q
        for name, g in (("q", dq), ("k", dk), ("v", dv)):
            grads[f"{t}{name}.weight"] = np.einsum("nsi,nsj->ij", h, g)
            d = d + g @ w[f"{t}{name}.weight"].T
    grads["embed.position"] = d.sum(0)
    grads["embed.weight"] = np.einsum("nsi,nsj->ij", x, d)
    return grads


Gradients = Callable[[Weights, Floats, NDArray[np.int64]], Weights]


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """How a network is trained; `only` names what may change, everything if it is empty."""

    epochs: int
    rate: float
    adam: bool
    noise: float = 0.0
    only: tuple[str, ...] = ()
    seed: int = 0


def train(weights: Weights, gradients: Gradients, course: Course) -> Weights:
    """Return the weights after a course."""
    images, classes = load_digits_data()
    rng = np.random.default_rng(course.seed)
    w = {name: value.copy() for name, value in weights.items()}
    first = {name: np.zeros_like(value) for name, value in w.items()}
    second = {name: np.zeros_like(value) for name, value in w.items()}
    step = 0
    for _ in range(course.epochs):
        order = rng.permutation(len(images))
        for at in range(0, len(order) - _BATCH + 1, _BATCH):
            step += 1
            batch = order[at : at + _BATCH]
            x = images[batch] + course.noise * rng.standard_normal((len(batch), 8, 8), dtype=np.float32)
            for name, g in gradients(w, x.astype(np.float32), classes[batch]).items():
                if course.only and name not in course.only:
                    continue
                if course.adam:
                    first[name] = 0.9 * first[name] + 0.1 * g
                    second[name] = 0.999 * second[name] + 0.001 * g * g
                    change = (first[name] / (1 - 0.9**step)) / (
                        np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                    )
                else:
                    first[name] = 0.9 * first[name] + g
                    change = first[name]
                w[name] = (w[name] - course.rate * change).astype(np.float32)
    return w


def merge_lora(weights: Weights, *, rank: int = 4, seed: int = 5) -> Weights:
    """Return the weights with random low-rank updates merged into the query and value matrices."""
    rng = np.random.default_rng(seed)
    merged = dict(weights)
    for name in weights:
        if name.endswith((".q.weight", ".v.weight")):
            rows, columns = weights[name].shape
            update = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
            merged[name] = (weights[name] + 2e-3 * update).astype(np.float32)
    return merged


def encode_kind(value: Floats, kind: str) -> tuple[str, bytes]:
    """Return a tensor as safetensors takes it."""
    if kind == "fp32":
        return "F32", value.astype("<f4").tobytes()
    if kind == "fp16":
        return "F16", value.astype("<f2").tobytes()
    if kind == "bf16":
        bits = value.astype("<f4").view("<u4")
        return "BF16", ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    scale = float(np.abs(value).max()) / 127 or 1.0
    return "I8", np.clip(np.round(value / scale), -127, 127).astype("i1").tobytes()


def write_safetensors(path: Path, weights: Weights, kind: str) -> None:
    """Write weights as safetensors."""
    header: dict[str, object] = {}
    parts: list[bytes] = []
    at = 0
    for name, value in weights.items():
        dtype, content = encode_kind(value, kind)
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + len(content)]}
        parts.append(content)
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def write_onnx(path: Path, weights: Weights, kind: str) -> None:
    """Write weights as the initialisers of an ONNX graph."""
    import onnx
    from onnx import TensorProto, helper

    kinds = {
        "fp32": TensorProto.FLOAT,
        "fp16": TensorProto.FLOAT16,
        "bf16": TensorProto.BFLOAT16,
        "int8": TensorProto.INT8,
    }
    tensors = [
        helper.make_tensor(name, kinds[kind], value.shape, encode_kind(value, kind)[1], raw=True)
        for name, value in weights.items()
    ]
    graph = helper.make_graph([], "digits", [], [], initializer=tensors)
    onnx.save(helper.make_model(graph), path)


def make_weight_pairs(cache: Path) -> list[WeightPair]:
    """Return all pairs, made below `cache` unless they are there."""
    pairs: list[WeightPair] = []
    for model, init, gradients in (
        ("cnn", init_cnn, cnn_gradients),
        ("transformer", init_transformer, transformer_gradients),
    ):
        makers = _tunings(init, gradients)
        for name, kinds in (
            ("sgd", ("fp32", "fp16", "bf16", "int8")), ("adam", ("fp32", "fp16", "bf16", "int8")),
            ("head", ("fp32",)), ("lora", ("fp16",)),
        ):  # fmt: skip
            if name == "lora" and model == "cnn":
                continue
            for kind in kinds:
                suffix, write = ("onnx", write_onnx) if model == "cnn" else ("safetensors", write_safetensors)
                old, new = (cache / f"{model}-{kind}{part}.{suffix}" for part in ("", f"-{name}"))
                if not old.exists():
                    write(old, makers("old"), kind)
                if not new.exists():
                    write(new, makers(name), kind)
                pairs.append(WeightPair(f"{model}-{name}", kind, old, new))
    return pairs


def _tunings(
    init: Callable[[np.random.Generator], Weights], gradients: Gradients
) -> Callable[[str], Weights]:
    made: dict[str, Weights] = {}

    def make(name: str) -> Weights:
        if name not in made:
            if name == "old":
                fresh = init(np.random.default_rng(7))
                made[name] = train(fresh, gradients, Course(epochs=12, rate=1e-3, adam=True))
            elif name == "lora":
                made[name] = merge_lora(make("old"))
            else:
                only = ("head.weight", "head.bias") if name == "head" else ()
                adam = name == "adam"
                rate = 3e-4 if adam else 1e-2
                course = Course(epochs=5, rate=rate, adam=adam, noise=0.1, only=only, seed=3)
                made[name] = train(make("old"), gradients, course)
        return made[name]

    return make
