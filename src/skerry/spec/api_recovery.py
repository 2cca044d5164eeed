"""The messages of the operator API about sites that are ahead of the hub."""

from __future__ import annotations

from datetime import datetime

from skerry.spec.metadata import Part


class HeldView(Part, frozen=True, kw_only=True):
    """Why nothing is issued to a site: `host` reported a generation that the hub has no record of.

    `running` is by application what hosts that are ahead run, `unknown` those of these releases that the hub lacks,
    `untold` the hosts that have not said yet what they run.
    """

    since: datetime
    host: str
    generation_seen: int
    generation_known: int
    running: dict[str, str] = {}
    unknown: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


class ReleasedView(Part, frozen=True, kw_only=True):
    """A site goes on: what is assigned to it, the generation it was issued, and the rollouts that leave it alone."""

    site: str
    generation: int
    assignments: dict[str, str]
    left_rollouts: tuple[str, ...] = ()
