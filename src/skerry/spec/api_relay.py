"""The messages of the operator API that are about relays."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from skerry.spec.metadata import Part
from skerry.spec.relay import RelayView

RelayPresence = Literal["online", "silent", "never"]
"""`never`: nobody has enrolled as it, or it was not heard of since."""

Via = Annotated[str, Meta(max_length=512)]
"""Where the one who joins shall ask: the name of a relay, or an https address; empty for the usual way."""


class RelayTokenRequest(Part, frozen=True, kw_only=True):
    """Ask for a token with which a relay joins; `replace` lets it take the place of the keys that it has."""

    ttl_s: Annotated[float, Meta(gt=0, le=366 * 86400)] = 86400.0
    replace: bool = False
    via: Via = ""


class RelayTokenAnswer(Part, frozen=True, kw_only=True):
    """A token for one relay, shown this once. `hub` is the address in it."""

    token: str
    relay: str
    hub: str
    expires_at: datetime


class RelayStanding(Part, frozen=True, kw_only=True):
    """A relay: as written, and as seen. `view` is what it said of itself at `view_at`.

    `came_by` are the relays that its reports came by, and when last; one that dials the hub has none. `below` and
    `sites` are those that stand behind it.
    """

    name: str
    labels: dict[str, str]
    document: dict[str, Any]
    presence: RelayPresence
    enrolled_at: datetime | None = None
    last_seen_at: datetime | None = None
    generation_held: int = 0
    generation_wanted: int = 0
    clock_offset_s: float | None = None
    came_by: dict[str, datetime] = {}
    below: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    view: RelayView | None = None
    view_at: datetime | None = None


class Hop(Part, frozen=True, kw_only=True):
    """One on the way from the hub to a host. `upstream` is the address that it dials, where it has said so.

    It was last heard of at `heard_at`; `is_silent` when that is longer ago than it should be. `trouble` is what it
    says of itself.
    """

    kind: Literal["hub", "relay", "host"]
    name: str
    upstream: str = ""
    heard_at: datetime | None = None
    is_silent: bool = False
    trouble: str = ""


class HostPath(Part, frozen=True, kw_only=True):
    """The way of a host's blobs down, and of its reports up, the hub first; `broken` names the first silent one."""

    host: str
    hops: tuple[Hop, ...]
    broken: str = ""


class SitePath(Part, frozen=True, kw_only=True):
    """The ways of a site's hosts, and the relays that the site stands behind."""

    site: str
    relays: tuple[str, ...]
    hosts: tuple[HostPath, ...]
