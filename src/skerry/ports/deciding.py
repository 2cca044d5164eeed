"""Deciding: who decides a rollout, and what was decided. A part of the hub's store; rules as `skerry.ports.hub_store`.

Several replicas of a hub may share one store. A rollout is decided by whoever holds its lease; the lease's token rises
whenever somebody else takes it, so that whoever held it before, and was asleep meanwhile, can change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.spec.api_rollout import EffectView


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who decides a rollout, until when, and the number of its turn: it only ever rises."""

    rollout: str
    holder: str
    token: int
    expires_at: datetime


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that changed something. `inputs` is the digest of all that went into it.

    `number` counts a rollout's decisions from 1; the store gives it.
    """

    rollout: str
    at: datetime
    state: str
    why: str
    inputs: str
    effects: tuple[EffectView, ...] = ()
    number: int = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """Under which lease a decision is stored, and what is remembered of it, if anything."""

    lease: Lease
    decision: DecisionRecord | None = None


class Deciding(Protocol):
    """Leases of rollouts, and their decisions; these come with `advance_rollout`."""

    def lease(self, rollout: str) -> Lease | None:
        """Return the newest lease of a rollout, expired or not."""
        ...

    def take_lease(
        self, rollout: str, holder: str, *, token: int, now: datetime, until: datetime
    ) -> Lease | None:
        """Take or prolong a lease; None when somebody else holds it at `now`, or there is no such rollout.

        A holder that names the `token` it has keeps it; else the token rises. A lease that ends later than any that is
        taken at `now` can (twice as far ahead as `until`) is of a clock that was wrong, and counts as expired.
        """
        ...

    def end_leases(self, holder: str, now: datetime) -> None:
        """Let others take what a holder has: its leases end at `now`, and their tokens rise."""
        ...

    def decisions(self, rollout: str, *, limit: int) -> Sequence[DecisionRecord]:
        """Return the newest decisions of a rollout, newest first. The first ones and the newest are kept."""
        ...
