"""What a host saw of its models' features lately, and whether that is still like their references.

Rules: it needs no link and outlives a restart; a power cut costs the ten minutes before it, of this view alone: what
the hub is told is kept apart. What is kept is hours, of features that a reference has, within a bound.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime

import msgspec

from skerry.agent.predicting import Running
from skerry.agent.pushing import Source
from skerry.kit.errors import Rejected
from skerry.kit.instants import from_epoch
from skerry.kit.quantities import parse_duration
from skerry.ports.kept_documents import KeptDocuments
from skerry.spec.api_quality import DriftView, HostDrift
from skerry.spec.quality import Reference
from skerry.telemetry.blocks import Block, decode_block, encode_block
from skerry.telemetry.comparing import Seen, Whose, compare, whose
from skerry.telemetry.quality import Quantities
from skerry.telemetry.windows import HOUR_S, SeriesKey, WindowValue, merge_all, merge_two

DOCUMENT = "drift_seen"
MAX_SERIES = 1000
KEEP_S = 7 * 86_400


class Drifting:
    """`add` is called in threads; so is all else."""

    def __init__(self, store: KeptDocuments) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._seen: dict[SeriesKey, dict[int, WindowValue]] = _load(store)
        self._changed = False

    def add(self, quantities: Quantities) -> None:
        """Count what was counted elsewhere."""
        with self._turn:
            for minute, values in quantities.items():
                for key, value in values.items():
                    if whose(key) is None or (key not in self._seen and len(self._seen) >= MAX_SERIES):
                        continue
                    of = self._seen.setdefault(key, {})
                    begin = minute // HOUR_S * HOUR_S
                    before = of.get(begin)
                    of[begin] = value if before is None else merge_two(before, value)
                    self._changed = True

    def look(self, running: Mapping[Source, Running], now: datetime) -> HostDrift:
        """Return how far the features of what runs are from their references."""
        second = int(now.timestamp())
        references: dict[Whose, Reference] = {
            Whose(source.app, one.release, model): reference
            for source, one in running.items()
            for model, reference in one.references.items()
        }
        views: list[DriftView] = []
        for of, reference in sorted(references.items(), key=lambda item: item[0]):
            since = second - int(parse_duration(reference.window))
            views += compare(reference, of, self._lately(of, since, second))
        return HostDrift(at=from_epoch(second), features=tuple(views))

    def save(self, now: datetime) -> None:
        """Make durable what was seen, if anything was, and forget what is old.

        Raises:
            Unavailable: the disk is full.
        """
        oldest = int(now.timestamp()) - KEEP_S
        with self._turn:
            for key, windows in list(self._seen.items()):
                self._seen[key] = {
                    begin: value for begin, value in windows.items() if begin + HOUR_S > oldest
                }
                if not self._seen[key]:
                    del self._seen[key]
            if not self._changed:
                return
            content = encode_block(Block(HOUR_S, {key: dict(of) for key, of in self._seen.items()}))
            self._changed = False
        try:
            self._store.save({DOCUMENT: content})
        except BaseException:
            self._changed = True
            raise

    def _lately(self, of: Whose, since: int, now: int) -> list[Seen]:
        found: list[Seen] = []
        with self._turn:
            for key, windows in self._seen.items():
                if whose(key) != of:
                    continue
                within = [begin for begin in sorted(windows) if begin + HOUR_S > since]
                total = merge_all(windows[begin] for begin in within)
                if total is not None:
                    found.append(Seen(key, total, min(within[-1] + HOUR_S, now)))
        return found


def _load(store: KeptDocuments) -> dict[SeriesKey, dict[int, WindowValue]]:
    content = store.load(DOCUMENT)
    if content is None:
        return {}
    try:
        return {key: dict(of) for key, of in decode_block(content).series.items()}
    except Rejected:
        return {}


def drifted(found: HostDrift) -> dict[tuple[str, str, str, str], DriftView]:
    """Return what has drifted, by application, release, model and feature."""
    return {
        (one.app, one.release, one.model, one.feature): one
        for one in found.features
        if one.verdict == "drifted"
    }


def encode(found: HostDrift) -> bytes:
    """Return it as JSON, for the file that people at the host read."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1)
