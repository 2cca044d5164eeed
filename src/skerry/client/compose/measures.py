"""Sizes, durations and signals as Compose writes them, as Skerry writes them.

Formats: Compose specification, "Specifying byte values" and "Specifying durations"; units of bytes are powers
of 1024 whatever they are called.
"""

from __future__ import annotations

import re
from typing import get_args

from skerry.spec.application import Signal

_size_re = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_duration_re = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")
_powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_size_units = ("B", "KiB", "MiB", "GiB", "TiB")
_duration_us = {
    "ns": 0.001,
    "us": 1,
    "µs": 1,
    "ms": 1000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
}
_signal_numbers = {"1": "HUP", "2": "INT", "3": "QUIT", "10": "USR1", "12": "USR2", "15": "TERM"}


def convert_size(text: str) -> str:
    """Return `512m`, `1.5gb` or `1048576` as `512MiB`, `1536MiB`, `1MiB`; ValueError for anything else."""
    match = _size_re.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'not a size: "{text[:40]}"')
    size_bytes = int(float(match[1]) * 1024 ** _powers[match[2].lower()])
    if size_bytes <= 0:
        raise ValueError("a size of nothing")
    unit = 0
    while unit < len(_size_units) - 1 and size_bytes % 1024 == 0:
        size_bytes //= 1024
        unit += 1
    return f"{size_bytes}{_size_units[unit]}"


def parse_span(text: str) -> float:
    """Return the seconds of `1m30s`, `500ms` or `40us`; ValueError for anything else."""
    text = text.strip()
    parts = _duration_re.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(parts) > 16:
        raise ValueError(f'not a duration: "{text[:40]}"')
    return sum(float(number) * _duration_us[unit] for number, unit in parts) / 1_000_000


def format_span(seconds: float) -> str:
    """Return seconds as a duration of Skerry's documents: `90s` is `1m30s`, and nothing is below a millisecond."""
    milliseconds = max(1, round(seconds * 1000))
    if milliseconds % 1000:
        return f"{milliseconds}ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.3f}s"
    whole, text = milliseconds // 1000, ""
    for unit, length in (("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        text += f"{count}{unit}" if count else ""
    return text


def convert_signal(text: str) -> str:
    """Return `SIGTERM`, `TERM` or `15` as `TERM`; ValueError for a signal that no component is ended with."""
    name = _signal_numbers.get(text.strip(), text.strip().upper().removeprefix("SIG"))
    if name not in get_args(Signal):
        raise ValueError(f'not a signal a component can be ended with: "{text[:40]}"')
    return name


def convert_name(text: str) -> str:
    """Return the nearest name that documents accept; empty where nothing of the text can stay."""
    return re.sub(r"[^a-z0-9-]+", "-", text[:256].lower()).strip("-")[:63].strip("-")
