"""From the pages of an application's endpoint to what happened in between, for all series that are kept.

Rules: a page says of each name whether it is a counter, a gauge or a histogram (`# TYPE`); without that, what ends in
`_total` is a counter and all else a gauge. Of a summary its sum and count are counters, its quantiles are nothing that
could be merged, and left out. Series beyond the bound are refused and counted; the parts of a histogram are one series.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from skerry.spec.series import parse_series
from skerry.telemetry.exposition import Exposition, Labels, parse_exposition
from skerry.telemetry.naming import SeriesRoom, clean_series
from skerry.telemetry.sketch import sketch_of_buckets
from skerry.telemetry.windows import (
    Counter,
    CounterReader,
    Distribution,
    Kind,
    SeriesKey,
    WindowValue,
    gauge_of,
)

EVERYTHING = "*"
MAX_NAMES = 2000

_type_re = re.compile(rb"^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]{0,126}) ([a-z]{1,16})\s*$", re.MULTILINE)
_name_re = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]{0,126})[ \t{]", re.MULTILINE)


class Scraper:
    """Reads the pages of one life of an instance. `where` are labels of where it runs, which nothing overrides."""

    def __init__(self, keep: Sequence[str], where: Mapping[str, str], *, most: int) -> None:
        self._everything = EVERYTHING in keep
        self._selectors = tuple(parse_series(text) for text in keep if text != EVERYTHING)
        self._where = dict(where)
        self._counters = CounterReader()
        self._room = SeriesRoom(most)

    @property
    def refused(self) -> int:
        """How many samples were refused."""
        return self._room.refused

    @property
    def worst(self) -> str:
        """The name that most of the refused had."""
        return self._room.worst

    def read(self, page: bytes) -> dict[SeriesKey, WindowValue]:
        """Return what happened since the page before, and what gauges show now.

        Raises:
            Rejected: the page is too large, or a line of it malformed (`metrics.*`).
        """
        kinds = {name.decode(): kind.decode() for name, kind in _type_re.findall(page)[:MAX_NAMES]}
        exposition = parse_exposition(page, self._wanted(page))
        gauges: dict[SeriesKey, WindowValue] = {}
        counters: dict[SeriesKey, float] = {}
        buckets: dict[SeriesKey, dict[float, SeriesKey]] = {}
        for name, family, kind in _parts(exposition, kinds):
            for labels, value in exposition.of(name).items():
                if not math.isfinite(value) or not self._keeps(family, labels):
                    continue
                if kind == "gauge":
                    self._put_gauge(gauges, name, labels, value)
                elif kind == "counter":
                    key = self._key(name, labels, "counter")
                    if self._room.admits(key):
                        counters[key] = value
                else:
                    self._put_bucket(counters, buckets, family, labels, value)
        added = self._counters.added(counters)
        found = gauges
        inner = {key for of in buckets.values() for key in of.values()}
        for key, increase in added.items():
            if key not in inner:
                found[key] = Counter(1, increase)
        for key, of in buckets.items():
            upto = {bound: round(added.get(part, 0.0)) for bound, part in of.items()}
            sketch = sketch_of_buckets(upto)
            if sketch.count:
                found[key] = Distribution(sketch)
        return found

    def _wanted(self, page: bytes) -> frozenset[str]:
        """Return the names of the lines to be read: of one selector they may be several."""
        if self._everything:
            names = {found.decode() for found in _name_re.findall(page)}
        else:
            names = {
                f"{selector.name}{suffix}"
                for selector in self._selectors
                for suffix in ("", "_total", "_bucket", "_sum", "_count")
            }
        return frozenset(sorted(names)[:MAX_NAMES])

    def _keeps(self, family: str, labels: Labels) -> bool:
        names = (family, family.removesuffix("_total"))
        return self._everything or any(
            selector.name in names and selector.selects(dict(labels)) for selector in self._selectors
        )

    def _key(self, name: str, labels: Iterable[tuple[str, str]], kind: Kind) -> SeriesKey:
        # As Prometheus does: what an application says of itself gives way to where it runs.
        own = {(f"exported_{label}" if label in self._where else label): value for label, value in labels}
        return clean_series(name, {**own, **self._where}.items(), kind)

    def _put_gauge(
        self, gauges: dict[SeriesKey, WindowValue], name: str, labels: Labels, value: float
    ) -> None:
        key = self._key(name, labels, "gauge")
        if self._room.admits(key):
            gauges[key] = gauge_of(value)

    def _put_bucket(
        self,
        counters: dict[SeriesKey, float],
        buckets: dict[SeriesKey, dict[float, SeriesKey]],
        family: str,
        labels: Labels,
        value: float,
    ) -> None:
        said = dict(labels)
        try:
            bound = float(said.pop("le", ""))
        except ValueError:
            return
        key = self._key(family, said.items(), "distribution")
        if not math.isnan(bound) and self._room.admits(key):
            part = SeriesKey(f"{family}_bucket", (*key.labels, ("le", repr(bound))), "counter")
            buckets.setdefault(key, {})[bound] = part
            counters[part] = value


def _parts(exposition: Exposition, kinds: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield each name that was read, the name that a selector gives it, and gauge, counter or bucket."""
    for name in sorted(exposition.series):
        for suffix in ("_bucket", "_sum", "_count"):
            family = name.removesuffix(suffix)
            kind = kinds.get(family, "") if family != name else ""
            if kind in ("histogram", "summary"):
                # The count of a histogram is in its sketch already.
                if suffix == "_bucket" and kind == "histogram":
                    yield name, family, "bucket"
                elif suffix == "_sum" or kind == "summary":
                    yield name, family, "counter"
                break
        else:
            family = name.removesuffix("_total")
            kind = kinds.get(name) or kinds.get(family, "")
            if kind == "counter" or (not kind and name.endswith("_total")):
                # A selector may name it as OpenMetrics does, without the suffix, or as it stands there.
                yield name, name, "counter"
            elif kind not in ("summary", "histogram", "gaugehistogram"):
                yield name, name, "gauge"
