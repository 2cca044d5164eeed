"""Writes the model directories of all versions and variants, and measures them on held-out digits.

Layout: `<version>/<variant>/model.onnx` and `model.json`. A `model.json` tells the application what it must
know (version, variant, known digits for the self-check) and people what they may ask (input, output,
training, held-out figures).

Figures come from the application's own code reading the written files, not from the network in memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from build_tools.counters import Counter, compose_held_out
from build_tools.digits import SPLIT_SEED, Digits, load_split
from build_tools.graph import make_graph, quantize_graph, save_graph
from build_tools.network import Layer, run, softmax
from build_tools.recipes import (
    BROKEN_VERSION,
    CLASSES,
    INPUT_SCALE,
    RECIPES,
    VERSIONS,
    Trained,
    break_layers,
    calibration_images,
    train_version,
)
from meter_reader.model import DigitModel, load_model
from meter_reader.picture import split_digits

VARIANTS = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares read rightly: plain held-out digits, digits on counters, and whole counters."""

    digits: float
    counter_digits: float
    counters: float


Report = dict[str, dict[str, Figures]]


def build_models(out: Path) -> Report:
    """Train, quantise, measure and write everything; the figures by version and variant."""
    split = load_split()
    counters = compose_held_out(split.held_out)
    report: Report = {}
    # One thread: with more, sums are split by the number of cores, and the last bits of the weights with
    # them.
    with threadpool_limits(limits=1):
        trained = {version: train_version(version, split.training) for version in VERSIONS}
    for version in VERSIONS:
        write_version(out / version, version, trained[version])
        report[version] = {}
        for variant in VARIANTS:
            directory = out / version / variant
            report[version][variant] = measure(load_model(directory), split.held_out, counters)
            _note_figures(
                directory / "model.json", report[version][variant], len(split.held_out), len(counters)
            )
    botched = trained["1.1.0"]
    write_version(out / BROKEN_VERSION, BROKEN_VERSION, botched, exported=break_layers(botched.layers))
    return report


def write_version(
    directory: Path, version: str, trained: Trained, *, exported: list[Layer] | None = None
) -> None:
    """Write both variants of a version.

    `exported` are the layers to write, where they are not the trained ones.
    """
    fp32, int8 = directory / "fp32" / "model.onnx", directory / "int8" / "model.onnx"
    save_graph(make_graph(exported or trained.layers, input_scale=INPUT_SCALE), fp32)
    quantize_graph(fp32, int8, calibration_images(trained.learnt_from))
    for variant in VARIANTS:
        description = describe(version, variant, trained)
        _write_json(directory / variant / "model.json", description)


def describe(version: str, variant: str, trained: Trained) -> dict[str, Any]:
    """What `model.json` says before anything is measured."""
    recipe = RECIPES.get(version, RECIPES["1.1.0"])
    known = known_digits(trained)
    return {
        "name": "digits",
        "version": version,
        "variant": variant,
        "input": {"name": "image", "type": "float32", "shape": ["N", 1, 8, 8], "range": [0, 16]},
        "output": {"name": "scores", "type": "float32", "shape": ["N", CLASSES]},
        "training": {
            "data": "scikit-learn load_digits",
            "split_seed": SPLIT_SEED,
            "digits": len(trained.learnt_from),
            "drawings_per_digit": recipe.drawings,
            "seed": recipe.seed,
        },
        "self_check": {
            "digits": "".join(str(label) for label in known.labels),
            "images": [image.astype(int).ravel().tolist() for image in known.images],
        },
    }


def known_digits(trained: Trained) -> Digits:
    """One training digit of each kind: the one the network is surest of, so that int8 agrees anywhere."""
    digits = trained.learnt_from
    scores = softmax(run(trained.layers, digits.images * np.float32(INPUT_SCALE)))
    sure = [int(np.where(digits.labels == kind, scores[:, kind], -1).argmax()) for kind in range(CLASSES)]
    return digits.pick(np.array(sure))


def measure(model: DigitModel, held_out: Digits, counters: list[Counter]) -> Figures:
    """Let the application's model read held-out digits and counters."""
    plain = model.read(held_out.images).digits
    read = [model.read(split_digits(counter.picture)).digits for counter in counters]
    wanted = [counter.digits for counter in counters]
    return Figures(
        digits=_share(plain, "".join(str(label) for label in held_out.labels)),
        counter_digits=_share("".join(read), "".join(wanted)),
        counters=_share(read, wanted),
    )


def _share(read: str | list[str], wanted: str | list[str]) -> float:
    right = sum(one == other for one, other in zip(read, wanted, strict=True))
    return round(right / len(wanted), 4)


def _note_figures(path: Path, figures: Figures, digits: int, counters: int) -> None:
    description = json.loads(path.read_text(encoding="utf-8"))
    description["held_out"] = {"digits": digits, "counters": counters, "read_rightly": asdict(figures)}
    _write_json(path, description)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
