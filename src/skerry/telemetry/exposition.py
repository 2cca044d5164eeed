"""Reads what an application tells of itself in Prometheus' text format 0.0.4, or in OpenMetrics' text format.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/.

Rules: only series of wanted names are read; comments, times and exemplars are passed over, and so is every other line,
right or wrong. Sizes are bounded, and the work grows with the size alone, whatever the application sends.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from skerry.kit.errors import Rejected
from skerry.spec.series import unescape

MAX_BYTES = 4 << 20
MAX_SERIES = 5000
MAX_LABELS = 64
MAX_LINE_BYTES = 16 << 10

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted."""

_line_re = re.compile(rb"[^\r\n]+")
_name_re = re.compile(rb"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)")
_label_re = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\\n]|\\.)*)"[ \t]*(,|(?=\}))')
_value_re = re.compile(r"[ \t]+([^ \t#]{1,64})(?:[ \t]|$)")


class Exposition(msgspec.Struct, frozen=True):
    """The values of all series read, by name and labels."""

    series: Mapping[str, Mapping[Labels, float]] = {}

    def of(self, name: str) -> Mapping[Labels, float]:
        """Return the series of a name."""
        return self.series.get(name, {})


def parse_exposition(content: bytes, wanted: AbstractSet[str]) -> Exposition:
    """Return the series of the wanted names; of one that is told twice the later counts.

    Raises:
        Rejected: it is too large (`metrics.too_large`), or a line of a wanted name is malformed (`metrics.malformed`).
    """
    if len(content) > MAX_BYTES:
        raise Rejected(
            "metrics.too_large", f"more than {MAX_BYTES >> 20} MiB of metrics", size_bytes=len(content)
        )
    names = {name.encode(): name for name in wanted}
    series: dict[str, dict[Labels, float]] = {}
    count = 0
    for found in _line_re.finditer(content):
        line = found[0]
        if line.startswith(b"#"):
            if line.rstrip() == b"# EOF":
                break
            continue
        named = _name_re.match(line)
        name = names.get(named[1]) if named else None
        if named is None or name is None:
            continue
        labels, value = _parse_sample(line, named.end(), name)
        of_name = series.setdefault(name, {})
        count += labels not in of_name
        if count > MAX_SERIES:
            raise Rejected("metrics.too_large", f"more than {MAX_SERIES} series of the wanted metrics")
        of_name[labels] = value
    return Exposition(series)


def _parse_sample(line: bytes, place: int, name: str) -> tuple[Labels, float]:
    if len(line) > MAX_LINE_BYTES:
        raise _malformed(name, "a line is too long")
    text = line[place:].decode(errors="replace")
    labels: dict[str, str] = {}
    at = 0
    if text.lstrip(" \t").startswith("{"):
        at = text.index("{") + 1
        while (found := _label_re.match(text, at)) is not None:
            labels[found[1]] = unescape(found[2])
            at = found.end()
        end = text.find("}", at)
        if end < 0 or text[at:end].strip(" \t") or len(labels) > MAX_LABELS:
            raise _malformed(name, "the labels are malformed")
        at = end + 1
        text = text if text[at : at + 1] in (" ", "\t") else text[:at] + " " + text[at:]
    return tuple(sorted(labels.items())), _parse_value(text, at, name)


def _parse_value(text: str, at: int, name: str) -> float:
    found = _value_re.match(text, at)
    if found is not None and "_" not in found[1]:  # Python's digits may have underscores
        with contextlib.suppress(ValueError):
            return float(found[1])
    raise _malformed(name, "a value is no number")


def _malformed(name: str, what: str) -> Rejected:
    return Rejected("metrics.malformed", f"{name}: {what}")
