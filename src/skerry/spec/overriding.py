"""An admin's word that a rollout may begin although a policy is not satisfied."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part

OverrideReason = Annotated[str, Meta(max_length=1024, description="why, in up to 1024 characters")]


class Failure(Part, frozen=True, kw_only=True):
    """A requirement of a policy that a release does not satisfy, and why not."""

    policy: str
    requirement: str
    why: str


class Override(Part, frozen=True, kw_only=True):
    """Who let a rollout begin, when and why. It covers the failures there were then, and no others."""

    who: str
    at: datetime
    reason: OverrideReason
    failures: tuple[Failure, ...]

    def covers(self, failure: Failure) -> bool:
        """Tell whether this failure is among those that were overridden."""
        return any((f.policy, f.requirement) == (failure.policy, failure.requirement) for f in self.failures)
