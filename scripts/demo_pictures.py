"""Sends real pictures of counters to sites: a survey of how well each reads, and steady traffic that is counted.

Rules: every picture is one HTTP request to the endpoint that the host states; what is not answered with digits
counts as failed, whatever the reason.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from skerry.testing.fleet import AgentProcess

APPLICATION = "meter-reader"
COMPONENT = "reader"

_TIMEOUT_S = 2.0
_PAUSE_S = 0.1
_RETRY_S = 5.0


@dataclass(frozen=True)
class Picture:
    """A counter nobody trained on, and what it shows."""

    name: str
    truth: str
    content: bytes


@dataclass(frozen=True)
class Reading:
    """One answer of the application."""

    digits: str
    version: str
    variant: str


@dataclass(frozen=True)
class Survey:
    """How one site read all pictures."""

    version: str
    variant: str
    readings: tuple[str, ...]
    counters_right: int
    digits_right: int
    digits: int

    @property
    def counters_text(self) -> str:
        """Return how many whole counters were read rightly, for people."""
        return f"{self.counters_right}/{len(self.readings)}"

    @property
    def digits_share(self) -> float:
        """Return the share of single digits read rightly."""
        return self.digits_right / self.digits


def load_pictures(folder: Path) -> tuple[Picture, ...]:
    """Return the counters that the example's build composed of held-out digits."""
    index = json.loads((folder / "counters.json").read_text(encoding="utf-8"))
    return tuple(
        Picture(entry["file"].removesuffix(".png"), entry["digits"], (folder / entry["file"]).read_bytes())
        for entry in index["counters"]
    )


def read(agent: AgentProcess, picture: Picture) -> Reading | None:
    """Return what a site reads on a picture; None when it does not answer with digits."""
    endpoint = agent.endpoint(APPLICATION, COMPONENT)
    if not endpoint:
        return None
    connection = http.client.HTTPConnection(endpoint, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", "/infer", picture.content, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return None
        found: dict[str, Any] = json.loads(body)
        return Reading(found["digits"], found["model"]["version"], found["model"]["variant"])
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def survey(agent: AgentProcess, pictures: Iterable[Picture]) -> Survey:
    """Let a site read all pictures, and compare with the truth.

    Raises:
        AssertionError: it does not answer, or the model changed while it was asked.
    """
    readings: list[Reading] = []
    counters_right = digits_right = digits = 0
    for picture in pictures:
        reading = _read_patiently(agent, picture)
        readings.append(reading)
        counters_right += reading.digits == picture.truth
        digits_right += sum(a == b for a, b in zip(reading.digits, picture.truth, strict=False))
        digits += len(picture.truth)
    models = {(reading.version, reading.variant) for reading in readings}
    assert len(models) == 1, f"{agent.name} answered with several models: {sorted(models)}"
    version, variant = models.pop()
    return Survey(version, variant, tuple(r.digits for r in readings), counters_right, digits_right, digits)


def _read_patiently(agent: AgentProcess, picture: Picture) -> Reading:
    limit = time.monotonic() + _RETRY_S
    while (reading := read(agent, picture)) is None:
        assert time.monotonic() < limit, f"{agent.name} does not answer on {picture.name}"
        time.sleep(_PAUSE_S)
    return reading


@dataclass
class Tally:
    """What a site's traffic met. `gap_s` is the longest time between two answers."""

    answered: Counter[str] = field(default_factory=Counter[str])
    failed: int = 0
    gap_s: float = 0.0
    answered_at: float = 0.0

    @property
    def total(self) -> int:
        """Return how many requests were sent."""
        return self.answered.total() + self.failed

    def note(self, reading: Reading | None, at: float) -> None:
        """Count a request that ended at an instant of the monotonic clock."""
        if reading is None:
            self.failed += 1
            return
        self.gap_s = max(self.gap_s, at - self.answered_at)
        self.answered[reading.version] += 1
        self.answered_at = at

    def __str__(self) -> str:
        by = ", ".join(f"{count} with {version}" for version, count in sorted(self.answered.items()))
        return f"{self.answered.total()} of {self.total} requests answered ({by or 'none'})"


class Traffic:
    """Steady requests to each site, some ten a second, for as long as the `with` lasts."""

    def __init__(self, agents: Mapping[str, AgentProcess], pictures: tuple[Picture, ...]) -> None:
        now = time.monotonic()
        self.tallies = {site: Tally(answered_at=now) for site in agents}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(agent, pictures, self.tallies[site]), daemon=True)
            for site, agent in agents.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def total(self) -> Tally:
        """Return the figures of all sites together; the gap is the longest at any one site."""
        together = Tally()
        for tally in self.tallies.values():
            together.answered.update(tally.answered)
            together.failed += tally.failed
            together.gap_s = max(together.gap_s, tally.gap_s)
        return together

    def _send(self, agent: AgentProcess, pictures: tuple[Picture, ...], tally: Tally) -> None:
        number = 0
        while not self._stop.is_set():
            reading = read(agent, pictures[number % len(pictures)])
            tally.note(reading, time.monotonic())
            number += 1
            self._stop.wait(_PAUSE_S)
