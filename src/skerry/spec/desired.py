"""DesiredState (hub -> site): what every host of one site shall run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import DigestText, Part

DESIRED_STATE_TYPE = "application/vnd.skerry.desired-state+json"


class ReleaseRef(Part, frozen=True, kw_only=True):
    """Where a release's document is found: by digest, among the blobs."""

    digest: DigestText
    size_bytes: Annotated[int, Meta(ge=1)]


class HealthPolicy(Part, frozen=True, kw_only=True):
    """When a host keeps a release: ready within `deadline_s`, then ready for `soak_s` without a break."""

    deadline_s: float = 300.0
    soak_s: float = 30.0


class Assignment(Part, frozen=True, kw_only=True):
    """One application on one host.

    `attempt` rises when a person asks to try a release again that a host has refused.
    """

    application: str
    release: str
    rollout: str = ""
    attempt: int = 1
    health: HealthPolicy = HealthPolicy()


class DesiredState(Part, frozen=True, kw_only=True, tag_field="type", tag="desired-state"):
    """The whole of what a site shall be.

    `generation` rises strictly; a host refuses a lower one. After `expires_at` a host takes the document no
    more, but what it has taken it keeps running for ever. A host that `hosts` does not name keeps what it
    runs; one that is named runs exactly what is listed.
    """

    site: str
    generation: Annotated[int, Meta(ge=1)]
    issued_at: datetime
    expires_at: datetime
    hosts: dict[str, tuple[Assignment, ...]] = {}
    releases: dict[str, ReleaseRef] = {}
    variables: dict[str, str] = {}
