"""Draws digits as a counter shows them, and composes whole counters with their truth.

A cell is 32x32 pixels, the digit fills the middle 24x24 of it, light on dark. As on a real counter no digit
sits quite straight: it is off by a pixel, lit a little differently, and the camera adds noise.

Everything random comes from the generator a caller hands in, so the same seed draws the same pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from build_tools.digits import Digits

CELL_SIDE = 32
DIGIT_SIDE = 24
DIGITS_PER_COUNTER = 5
MAX_OFFSET = 1
NOISE = 6.0
COUNTERS_SEED = 7

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter's picture, the digits it shows, and their places in the data set."""

    picture: Pixels
    digits: str
    places: tuple[int, ...]


def draw_cell(digit: Values, rng: np.random.Generator) -> Pixels:
    """Draw one digit image (8x8, ink 0 to 16) into a cell."""
    small = Image.fromarray(np.asarray(np.clip(digit / 16 * 255, 0, 255), dtype=np.uint8))
    large = np.asarray(small.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    cell = np.zeros((CELL_SIDE, CELL_SIDE), dtype=np.float32)
    margin = (CELL_SIDE - DIGIT_SIDE) // 2
    down, right = (int(margin + off) for off in rng.integers(-MAX_OFFSET, MAX_OFFSET + 1, size=2))
    cell[down : down + DIGIT_SIDE, right : right + DIGIT_SIDE] = large * rng.uniform(0.8, 1.0)
    cell += rng.normal(8.0, NOISE, size=cell.shape)
    return np.asarray(np.clip(np.rint(cell), 0, 255), dtype=np.uint8)


def compose_counters(digits: Digits, rng: np.random.Generator) -> Iterator[Counter]:
    """Deal the digits, in random order, to counters.

    None is used twice; the few that do not fill a counter are left over.
    """
    order = rng.permutation(len(digits))
    for start in range(0, len(order) - DIGITS_PER_COUNTER + 1, DIGITS_PER_COUNTER):
        dealt = digits.pick(order[start : start + DIGITS_PER_COUNTER])
        yield Counter(
            picture=np.hstack([draw_cell(image[0], rng) for image in dealt.images]),
            digits="".join(str(label) for label in dealt.labels),
            places=tuple(int(place) for place in dealt.places),
        )


def compose_held_out(held_out: Digits) -> list[Counter]:
    """The counters everything is measured with."""
    return list(compose_counters(held_out, np.random.default_rng(COUNTERS_SEED)))


def encode_png(picture: Pixels) -> bytes:
    """The picture as a greyscale PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def write_counters(counters: list[Counter], directory: Path) -> list[Path]:
    """Write one PNG file per counter and `counters.json` with the truth; the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    truth: list[dict[str, object]] = []
    for number, counter in enumerate(counters):
        path = directory / f"counter-{number:03d}.png"
        path.write_bytes(encode_png(counter.picture))
        written.append(path)
        truth.append({"file": path.name, "digits": counter.digits, "places": counter.places})
    listing = directory / "counters.json"
    listing.write_text(
        json.dumps({"seed": COUNTERS_SEED, "counters": truth}, indent=1) + "\n", encoding="utf-8"
    )
    return [*written, listing]
