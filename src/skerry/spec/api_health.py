"""How a site is, in one word with its reasons, over the operator API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Part

HealthWord = Literal["ok", "expected-silent", "degraded", "failing", "silent"]
"""From the best to the worst. `silent` is the worst: nothing is known of a site that should be heard of."""

MAX_REASONS = 100


class HealthReason(Part, frozen=True, kw_only=True):
    """Why a site is no better than `word`. `as_of` is when what it says was last heard; None is never.

    `code` is stable: programs go by it, people by `message`.
    """

    code: str
    word: HealthWord
    message: str
    host: str = ""
    application: str = ""
    as_of: datetime | None = None


class HealthView(Part, frozen=True, kw_only=True):
    """The worst word of all reasons, and the reasons, the worst first; none where all is well.

    `as_of` is when the site was last heard of. `left_out` counts reasons beyond the first hundred.
    """

    word: HealthWord
    reasons: Annotated[tuple[HealthReason, ...], Meta(max_length=MAX_REASONS)] = ()
    left_out: int = 0
    as_of: datetime | None = None


class SiteHealth(Part, frozen=True, kw_only=True):
    """The health of a site."""

    site: str
    labels: dict[str, str] = {}
    health: HealthView
