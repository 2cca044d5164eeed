"""Sizes, durations, rates and processor shares as people write them: `512MiB`, `1.5s`, `64KiB/s`, `250m`."""

from __future__ import annotations

import re

SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
RATE_PATTERN = r"^(unlimited|0|[0-9]+(\.[0-9]+)?((B|kB|KB|MB|GB|KiB|MiB|GiB)/s|(bit|kbit|Mbit|Gbit)/s))$"
CPU_PATTERN = r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$"

_size_units = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_duration_units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_bit_units = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
_size_re = re.compile(r"([0-9.]+)([A-Za-z]+)")
_duration_re = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def parse_size(text: str) -> int:
    """Return bytes for a text of `SIZE_PATTERN`; ValueError otherwise."""
    if not re.match(SIZE_PATTERN, text):
        raise ValueError(f"not a size: {text!r} (write 512MiB or 2GB)")
    match = _size_re.match(text)
    assert match is not None
    return int(float(match[1]) * _size_units[match[2]])


def parse_duration(text: str) -> float:
    """Return seconds for a text of `DURATION_PATTERN`, such as `90s` or `1h30m`; ValueError otherwise."""
    if not re.match(DURATION_PATTERN, text):
        raise ValueError(f"not a duration: {text!r} (write 500ms, 90s or 1h30m)")
    return sum(float(value) * _duration_units[unit] for value, unit in _duration_re.findall(text))


def parse_rate(text: str) -> int | None:
    """Return bytes per second for `64KiB/s`, `512kbit/s` or `0`, None for `unlimited`; ValueError otherwise."""
    if not re.match(RATE_PATTERN, text):
        raise ValueError(f"not a rate: {text!r} (write 64KiB/s, 512kbit/s, unlimited or 0)")
    if text in ("unlimited", "0"):
        return None if text == "unlimited" else 0
    size = text.removesuffix("/s")
    match = _size_re.match(size)
    assert match is not None
    bits = _bit_units.get(match[2])
    return parse_size(size) if bits is None else int(float(match[1]) * bits / 8)


def parse_cpu(text: str) -> float:
    """Return processors for `2`, `0.5` or `250m`; ValueError otherwise."""
    if not re.match(CPU_PATTERN, text):
        raise ValueError(f"not a processor share: {text!r} (write 2, 0.5 or 250m)")
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def format_size(size_bytes: float) -> str:
    """Return a size for people, such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Return a duration for people, in at most two units, such as `3m 20s` or `2d 4h`."""
    whole = int(seconds)
    if whole < 1:
        return f"{seconds * 1000:.0f}ms"
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
