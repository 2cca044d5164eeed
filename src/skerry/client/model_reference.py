"""Makes a model's reference from predictions of when it was good: rows of CSV, or objects of JSON lines.

Rules: every column is a feature, `score` and `class` the prediction's own. A column all of whose values are numbers is
one of numbers, unless it is stated to be of classes; empty values are left out. What is unlike numbers and has more
different values than classes may be is no feature, and is refused: an identifier says nothing of a distribution.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Missing, Rejected
from skerry.spec.quality import CLASS, MAX_FEATURES, SCORE, Reference, ReferenceDistribution
from skerry.telemetry.drift import reference_of_classes, reference_of_numbers

MAX_ROWS = 2_000_000
MAX_LINE = 1 << 20
MAX_DIFFERENT = 500


def make_reference(
    file: Path, *, columns: Collection[str] = (), classes: Collection[str] = (), bins: int = 20
) -> Reference:
    """Return the reference that a file's columns (all if none are named) make.

    Raises:
        Missing: the file, or a column, is not there (`reference.missing`).
        Rejected: the file cannot be read, or no reference can be made of it (`reference.*`).
    """
    found = _columns(file, {_named(name) for name in columns})
    for name in sorted({_named(name) for name in (*columns, *classes)} - found.keys()):
        raise Missing(
            "reference.missing", f"{file} has no column {name}", hint=f"it has {', '.join(sorted(found))}"
        )
    if not found or len(found) > MAX_FEATURES + 2:
        hint = "name some with --column"
        raise Rejected("reference.features", f"{len(found)} columns; expected 1 to {MAX_FEATURES}", hint=hint)
    return Reference(
        features={
            name: _distribution(name, values, name in classes, bins) for name, values in sorted(found.items())
        }
    )


def _distribution(name: str, values: list[str], of_classes: bool, bins: int) -> ReferenceDistribution:  # noqa: FBT001
    numbers = None if of_classes or name == CLASS else _numbers(values)
    if numbers is not None:
        return reference_of_numbers(numbers, bins=bins)
    if name == SCORE:
        raise Rejected(
            "reference.score", "scores are numbers", hint="leave the column out, or name it otherwise"
        )
    if len(set(values)) > MAX_DIFFERENT:
        hint = "leave it out: name the others with --column"
        raise Rejected(
            "reference.classes", f"column {name} has {len(set(values))} different texts", hint=hint
        )
    return reference_of_classes(values)


def _numbers(values: Iterable[str]) -> list[float] | None:
    try:
        found = [float(value) for value in values]
    except ValueError:
        return None
    return found if all(math.isfinite(value) for value in found) else None


def _columns(file: Path, wanted: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(_rows(file, lines)):
                if number >= MAX_ROWS:
                    raise Rejected(
                        "reference.size", f"{file} has more than {MAX_ROWS} rows", hint="take a sample"
                    )
                for name, value in row.items():
                    text = "" if value is None else str(value).strip()
                    if text and (not wanted or _named(name) in wanted):
                        found.setdefault(_named(name), []).append(text)
    except FileNotFoundError as error:
        raise Missing("reference.missing", f"there is no file {file}") from error
    except (OSError, csv.Error, *UNREADABLE) as error:
        raise Rejected("reference.unreadable", f"{file} cannot be read: {error}") from error
    return found


def _rows(file: Path, lines: TextIO) -> Iterator[Mapping[str, object]]:
    if file.suffix not in (".jsonl", ".ndjson"):
        yield from csv.DictReader(lines)
        return
    while line := lines.readline(MAX_LINE):
        if not line.strip():
            continue
        said: object = msgspec.json.decode(line)
        if not isinstance(said, dict):
            raise Rejected("reference.unreadable", f"{file} has lines that are no objects")
        yield msgspec.convert(said, dict[str, object])


def _named(name: str) -> str:
    """Return a column's name as the SDK tells features: whatever else is in it becomes an underscore."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name[:63])
    return kept if kept[:1].isalpha() or kept.startswith("_") else f"_{kept}"[:63]
