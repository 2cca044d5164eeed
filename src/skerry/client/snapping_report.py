"""What `release push --snap` did, as the command line shows it: per variant and file, with what was tried and why."""

from __future__ import annotations

import msgspec


class MetricChange(msgspec.Struct, frozen=True):
    """A metric of the exact files and of the snapped ones."""

    name: str
    exact: float
    snapped: float


class Attempt(msgspec.Struct, frozen=True):
    """One number of bits that was tried; `failure` says why not, and is empty for what was taken."""

    bits: int
    failure: str


class FileSnap(msgspec.Struct, frozen=True):
    """A file whose weights were to be snapped. Deltas are those from the file of the other release."""

    path: str
    full_bytes: int
    exact_delta_bytes: int
    snapped_delta_bytes: int | None = None
    tensors: int = 0
    words_changed: int = 0
    largest_error: float = 0.0


class VariantSnap(msgspec.Struct, frozen=True):
    """A variant of a model: snapped by `bits`, or pushed exact (0) for the reason in `why`."""

    model: str
    variant: str
    bits: int
    why: str
    metrics: tuple[MetricChange, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    files: tuple[FileSnap, ...] = ()


class SnapOutcome(msgspec.Struct, frozen=True):
    """What was snapped to which release; without variants, `why` says why there was nothing to snap."""

    release: str
    why: str = ""
    variants: tuple[VariantSnap, ...] = ()
