"""What of an application's messages goes up: reduction by window, the rate, and when it is time. Pure.

Rules: a window begins with its first message and ends by the rule's length after it; what it comes to depends on the
messages alone, in their order. A message that is no number counts for a mean as one that cannot be read, not as 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.quantities import parse_duration
from skerry.spec.topics import UplinkPriority, UplinkSpec

BURST_S = 10.0
PRIORITIES: tuple[UplinkPriority, ...] = ("low", "normal", "high")
WAIT_S: Mapping[UplinkPriority, float] = {"low": 30.0, "normal": 2.0, "high": 0.0}
"""How long a message may wait for others to go up with it."""
FULL_BYTES = 128 << 10
MAX_NUMBER_BYTES = 4096


class Window(msgspec.Struct, frozen=True):
    """What came on one topic since `begin`, in seconds of the epoch. `numbers` of the messages are in `total`."""

    begin: float
    count: int = 0
    last: bytes = b""
    numbers: int = 0
    total: float = 0.0
    least: float = 0.0
    most: float = 0.0


class Reduced(msgspec.Struct, frozen=True):
    """The message that stands for a window; `unreadable` are those of a mean that are no numbers."""

    payload: bytes | None
    count: int
    unreadable: int = 0


class _Object(msgspec.Struct):
    value: float


_decode_number = msgspec.json.Decoder(float).decode
_decode_object = msgspec.json.Decoder(_Object).decode


def number_in(payload: bytes) -> float | None:
    """Return the number that a message is: alone in JSON, or the `value` of an object; None if it is none."""
    if len(payload) > MAX_NUMBER_BYTES:
        return None
    try:
        value = _decode_number(payload) if payload.lstrip()[:1] != b"{" else _decode_object(payload).value
    except (*UNREADABLE, OverflowError):
        return None
    return value if math.isfinite(value) else None


def add_message(window: Window | None, payload: bytes, *, at: float) -> Window:
    """Return the window with one more message; None is one that has not begun."""
    before = window or Window(at)
    number = number_in(payload)
    if number is None:
        return msgspec.structs.replace(before, count=before.count + 1, last=payload)
    return Window(
        begin=before.begin,
        count=before.count + 1,
        last=payload,
        numbers=before.numbers + 1,
        total=before.total + number,
        least=min(before.least, number) if before.numbers else number,
        most=max(before.most, number) if before.numbers else number,
    )


def is_over(window: Window, rule: UplinkSpec, *, now: float) -> bool:
    """Tell whether a window has ended. A clock that was set back ends it too, or it might last for ever."""
    return not window.begin <= now < window.begin + parse_duration(rule.window)


def reduce_window(window: Window, reduction: str) -> Reduced:
    """Return the message that stands for a window: `last`, `mean` or `count`.

    A mean is `{"mean", "min", "max", "count"}` of the numbers, a count `{"count"}`.
    """
    if reduction == "last":
        return Reduced(window.last, window.count)
    if reduction == "count":
        return Reduced(_json({"count": window.count}), window.count)
    unreadable = window.count - window.numbers
    if not window.numbers:
        return Reduced(None, 0, unreadable)
    # A sum of large numbers may leave what a double can hold; what JSON cannot say is not said.
    mean = window.total / window.numbers
    if not math.isfinite(mean):
        return Reduced(None, 0, window.count)
    figures = {"mean": mean, "min": window.least, "max": window.most, "count": window.numbers}
    return Reduced(_json(figures), window.numbers, unreadable)


def sample_of(reduction: str | None) -> int:
    """Return the n of `sample n`; 0 where nothing is sampled."""
    word, _, number = (reduction or "").partition(" ")
    return int(number) if word == "sample" else 0


class Bucket(msgspec.Struct, frozen=True):
    """What may go up at once: `level` messages at `at`, in seconds of any clock that does not go back."""

    level: float
    at: float


def take_one(bucket: Bucket | None, rate: float, *, now: float) -> tuple[Bucket, bool]:
    """Return the bucket after one more message, and whether it may go; None is one that is full."""
    most = max(1.0, rate * BURST_S)
    level = most if bucket is None else min(most, bucket.level + max(0.0, now - bucket.at) * rate)
    if level < 1.0:
        return Bucket(level, now), False
    return Bucket(level - 1.0, now), True


class Waiting(msgspec.Struct, frozen=True):
    """What waits in a queue: of each priority, how much and since when, in seconds of the epoch."""

    priority: UplinkPriority
    count: int
    size_bytes: int
    oldest: float


def is_due(waiting: Sequence[Waiting], *, now: float) -> bool:
    """Tell whether it is time to hand something up: enough is there, or something has waited for long enough."""
    if sum(one.size_bytes for one in waiting) >= FULL_BYTES:
        return True
    return any(not one.oldest <= now < one.oldest + WAIT_S[one.priority] for one in waiting)


def rank_of(priority: UplinkPriority) -> Literal[0, 1, 2]:
    """Return where a priority stands: what has the lowest is given up first."""
    return 0 if priority == "low" else 1 if priority == "normal" else 2


def _json(figures: Mapping[str, float]) -> bytes:
    return json.dumps(figures, separators=(",", ":")).encode()
