"""What policies say of a release, and who let a rollout begin in spite of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.api import JsonDocument
from skerry.spec.metadata import Part
from skerry.spec.overriding import Failure
from skerry.spec.policy import Enforce


class PolicyView(Part, frozen=True, kw_only=True):
    """A policy as written, and who wrote it last."""

    name: str
    document: JsonDocument
    applications: tuple[str, ...]
    require: tuple[str, ...]
    enforce: Enforce
    changed_at: datetime
    changed_by: str


class RequirementResult(Part, frozen=True, kw_only=True):
    """Whether a release satisfies one requirement, and why, in words."""

    requirement: str
    satisfied: bool
    why: str


class PolicyResult(Part, frozen=True, kw_only=True):
    """What one policy says of a release, requirement by requirement."""

    policy: str
    enforce: Enforce
    satisfied: bool
    requirements: tuple[RequirementResult, ...]


class PolicyDecision(Part, frozen=True, kw_only=True):
    """What the policies for a release's application say of it; `satisfied` when none that blocks lacks anything."""

    release: str
    satisfied: bool
    policies: Annotated[tuple[PolicyResult, ...], Meta(max_length=10_000)] = ()

    def failures(self, enforce: Enforce) -> Iterator[Failure]:
        """Yield what is lacking, of the policies that are enforced this way."""
        for result in self.policies:
            if result.enforce == enforce:
                for one in result.requirements:
                    if not one.satisfied:
                        yield Failure(policy=result.policy, requirement=one.requirement, why=one.why)
