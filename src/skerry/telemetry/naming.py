"""Names and labels as they are kept: whatever an application sends, bounded and without control characters.

Rules: nothing is refused for its text: what is too long is cut, and what is no letter where one has to be becomes an
underscore; what would move a terminal's cursor becomes U+FFFD. How many series there may be is bounded, for each
source alone, and the name that most of the refused had is told.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterable

from skerry.telemetry.windows import Kind, Labels, SeriesKey

MAX_NAME = 127
MAX_LABELS = 16
MAX_VALUE = 128
MAX_REMEMBERED = 64

_name_re = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_no_name_re = re.compile(r"[^A-Za-z0-9_:]")
# Control characters of both sets, and what turns the direction of text or ends lines.
_control_re = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def clean_series(name: str, labels: Iterable[tuple[str, str]], kind: Kind) -> SeriesKey:
    """Return the key of a series, its name and labels made fit; of too many labels the first by name stay."""
    found: dict[str, str] = {}
    for label, value in labels:
        if value:
            found[clean_name(label)] = clean_value(value)
    kept: Labels = tuple(sorted(found.items())[:MAX_LABELS])
    return SeriesKey(clean_name(name), kept, kind)


def clean_name(text: str) -> str:
    """Return a name of letters, digits, `_` and `:`, 127 at most."""
    name = _no_name_re.sub("_", text[:MAX_NAME])
    if not name or name[0].isdigit():
        name = f"_{name}"[:MAX_NAME]
    return name


def clean_value(text: str) -> str:
    """Return a label's value of 128 characters at most, without control characters."""
    return _control_re.sub("\ufffd", text[:MAX_VALUE])


def is_clean(key: SeriesKey) -> bool:
    """Tell whether a key is one that `clean_series` could have made."""
    names = [name for name, _ in key.labels]
    return (
        len(key.labels) <= MAX_LABELS
        and names == sorted(set(names))
        and all(len(name) <= MAX_NAME and _name_re.fullmatch(name) for name in (key.name, *names))
        and all(value and clean_value(value) == value for _, value in key.labels)
    )


class SeriesRoom:
    """How many series a source may have; those that came first stay."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[SeriesKey] = set()
        self._refused: Tally[str] = Tally()
        self.refused = 0

    def admits(self, key: SeriesKey) -> bool:
        """Tell whether there is room for a series; count it as refused if there is none."""
        if key in self._known:
            return True
        if len(self._known) < self._most:
            self._known.add(key)
            return True
        self.refused += 1
        if key.name in self._refused or len(self._refused) < MAX_REMEMBERED:
            self._refused[key.name] += 1
        return False

    def forget(self, keys: Iterable[SeriesKey]) -> None:
        """Make room: these are not told any more."""
        self._known.difference_update(keys)

    @property
    def worst(self) -> str:
        """The name that most refused samples had; empty when none were."""
        return self._refused.most_common(1)[0][0] if self._refused else ""
