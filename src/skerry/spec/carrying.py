"""The messages between a relay and what is above it: what hosts handed over, and what is there for them.

A relay asks in the name of everything below it, so that one connection serves any number of hosts. Nothing here is
believed for having come from a relay: reports and desired states are signed by those who made them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.carrier import MAX_SYNC_REPORTS, JsonEnvelope
from skerry.spec.metadata import Name, Part
from skerry.spec.relay import MAX_RELAYS_BELOW, MAX_SITES_BELOW, Count

MAX_CARRIED = 500
MAX_CARRY_BYTES = 4 << 20
"""What the body of a CarryRequest may have; longer ones are sent in parts."""
MAX_DESIRED = 200

KeyId = Annotated[str, Meta(min_length=1, max_length=128)]


class RelayEnrollRequest(Part, frozen=True, kw_only=True):
    """A relay asks to be the one that a token names. `proof` is its RelayReport 1, signed by the new key."""

    secret: Annotated[str, Meta(max_length=256)]
    relay: Name
    sign_key: Annotated[str, Meta(max_length=64)]
    proof: JsonEnvelope


class RelayEnrollAnswer(Part, frozen=True, kw_only=True):
    """The relay is known by this key now. Enrolling the same key again gives the same answer.

    `state` is its RelayState envelope, with the certificate of the `tls_key` that the proof names.
    """

    relay: str
    state: JsonEnvelope


class Carried(Part, frozen=True, kw_only=True):
    """What a host handed over at one time: reports in rising order, and the metrics made for the last of them.

    `key` is the key id that the host signs with. `age_s` is for how long relays have held the last report, by their own
    clocks. `there` tells that the host waits for news now, at this relay or one below.
    """

    key: KeyId
    reports: Annotated[tuple[JsonEnvelope, ...], Meta(max_length=MAX_SYNC_REPORTS)] = ()
    metrics: JsonEnvelope | None = None
    age_s: Annotated[float, Meta(ge=0)] = 0.0
    there: bool = False
    want_token: bool = False


class CarryRequest(Part, frozen=True, kw_only=True):
    """What a relay tells and asks. `relay` is a fresh RelayReport envelope of its own, `below` of those below.

    `held` is by site which generation of its DesiredState the relay holds, 0 for none; `states` is the same by relay
    for RelayStates, its own among them. It waits up to `wait_s` for anything newer, and for answers to hosts.
    `want_token` asks for a token to read blobs with.
    """

    relay: JsonEnvelope
    below: Annotated[tuple[JsonEnvelope, ...], Meta(max_length=MAX_RELAYS_BELOW)] = ()
    hosts: Annotated[tuple[Carried, ...], Meta(max_length=MAX_CARRIED)] = ()
    held: Annotated[dict[Name, Count], Meta(max_length=MAX_SITES_BELOW)] = {}
    states: Annotated[dict[Name, Count], Meta(max_length=MAX_RELAYS_BELOW)] = {}
    wait_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    want_token: bool = False


class HostAnswer(Part, frozen=True, kw_only=True):
    """What the hub has said of a host's reports, as `SyncAnswer` says it to a host that dials the hub itself.

    `held` is up to which sequence a relay above keeps the reports on its disk. `time` answers one report alone.
    `problem` is a problem document's code and `detail` its message, when the hub refuses the host.
    """

    key: KeyId
    acknowledged: Count = 0
    held: Count = 0
    newest: Annotated[str, Meta(max_length=96)] = ""
    tell_all: bool = False
    metrics: Count = 0
    time: JsonEnvelope | None = None
    blob_token: Annotated[str, Meta(max_length=2048)] = ""
    problem: Annotated[str, Meta(max_length=64)] = ""
    detail: Annotated[str, Meta(max_length=1024)] = ""


class CarryAnswer(Part, frozen=True, kw_only=True):
    """What is new for the relay and those below. `time` is a HubTime envelope for the relay when its clock is off.

    `acknowledged` is the sequence of the relay's newest report that the hub has. `desired` are at most `MAX_DESIRED`
    envelopes at a time; `more` tells that it pays to ask again at once.
    """

    acknowledged: Count = 0
    below: Annotated[dict[Name, Count], Meta(max_length=MAX_RELAYS_BELOW)] = {}
    hosts: Annotated[tuple[HostAnswer, ...], Meta(max_length=2 * MAX_CARRIED)] = ()
    desired: Annotated[tuple[JsonEnvelope, ...], Meta(max_length=MAX_DESIRED)] = ()
    states: Annotated[tuple[JsonEnvelope, ...], Meta(max_length=MAX_RELAYS_BELOW)] = ()
    blob_token: Annotated[str, Meta(max_length=2048)] = ""
    time: JsonEnvelope | None = None
    more: bool = False
