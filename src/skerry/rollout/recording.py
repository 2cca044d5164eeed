"""Decisions with all that went into them, as values and as lines of a file, so that they can be made once more.

A line is the canonical JSON of a `Recorded`. A decision that is made again from what was recorded is the one that was
recorded, unless the code decides otherwise now: that is what a replay finds out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected
from skerry.rollout.decide import decide_rollout
from skerry.rollout.facts import Assign, Decision, RolloutFact, SiteFact
from skerry.spec.api_rollout import EffectView

NAMED = 10
"""How many sites of an effect are named."""

Recorder = Callable[[RolloutFact, Sequence[SiteFact], datetime, Decision], None]

_encoder = msgspec.json.Encoder(order="sorted")


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and all that went into it."""

    rollout: RolloutFact
    fleet: tuple[SiteFact, ...]
    now: datetime
    decision: Decision

    def decide(self) -> Decision:
        """Decide once more."""
        return decide_rollout(self.rollout, self.fleet, now=self.now)


def inputs_digest(rollout: RolloutFact, fleet: Sequence[SiteFact], now: datetime) -> str:
    """Return the digest of what goes into a decision; in which order the sites are listed does not matter."""
    content = hashlib.sha256(_encode((rollout, now)))
    for site in sorted(fleet, key=lambda site: site.name):
        content.update(_encode(site))
    return f"sha256:{content.hexdigest()}"


def decision_digest(decision: Decision) -> str:
    """Return the digest of all that a decision says."""
    return f"sha256:{hashlib.sha256(_encode(decision)).hexdigest()}"


def summarise_effects(decision: Decision) -> tuple[EffectView, ...]:
    """Return what a decision does in short: for each release, how many sites get it, and the first of them."""
    sites: dict[str, list[str]] = {}
    for effect in decision.effects:
        release = effect.release if isinstance(effect, Assign) else ""
        sites.setdefault(release, []).append(effect.site)
    return tuple(
        EffectView(release=release, sites=len(names), named=tuple(sorted(names)[:NAMED]))
        for release, names in sorted(sites.items())
    )


def encode_recorded(recorded: Recorded) -> bytes:
    """Return the line of a file of recordings."""
    return _encode(recorded) + b"\n"


def parse_recorded(content: bytes) -> Iterator[Recorded]:
    """Yield the decisions of a file of recordings. A last line that was cut off by a crash is left out.

    Raises:
        Rejected: a line is no recorded decision (`recording.malformed`).
    """
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            yield msgspec.json.decode(line, type=Recorded)
        except UNREADABLE as error:
            raise Rejected(
                "recording.malformed", f"line {number} is no recorded decision: {error}"
            ) from error


def _encode(value: object) -> bytes:
    """Return a value's JSON with sorted keys; those of verdicts are numbers, which are sorted as what is written."""
    return _encoder.encode(msgspec.to_builtins(value, str_keys=True))
