"""Judges what a relay may take of a bundle: desired states of sites below it, and what their hosts get.

As for a host, nothing of it counts before the hub's signature holds, by the relay's own root. A relay serves many
sites, so one bundle may have some that it takes and some that it refuses, each for its own reason. Rule: a site is
taken only if the relay's own RelayState lists it, and never an older generation than the one that is held.

What hosts judge for themselves is not judged for them: a timestamp older than one that has passed here is no reason to
refuse blobs, and whoever keeps it lets it replace no newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime

import msgspec

from skerry.kit.errors import Untrusted
from skerry.spec.bundle import BundleEntry, BundleManifest
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import ReleaseRef
from skerry.trust.bundle import BundleHead, Overlay, Small, assigned_to, check_dates, desired_of, doubts_of
from skerry.trust.metadata import Keep, Step, Trusted, desired_keys, refresh, run_steps

MAX_NAMED = 5


class RelayTaker(msgspec.Struct, frozen=True):
    """The relay that takes: what it trusts, the `sites` below it, and the generations that it has `held` of them.

    `pinned` is the root that its join token pinned; `kept` answers what it has kept of signed metadata.
    """

    hub: str
    pinned: bytes
    kept: Callable[[Step], bytes | None]
    sites: AbstractSet[str]
    held: Mapping[str, int]
    now: datetime


class SiteTaken(msgspec.Struct, frozen=True):
    """A site's DesiredState that a relay may take; `fresh` when it does not hold it yet."""

    envelope: JsonEnvelope
    generation: int
    fresh: bool


class RelayJudged(msgspec.Struct, frozen=True):
    """What a relay may take of a bundle.

    `refused` says of the other sites in it why not. `roots` are to be kept in this order. `doubts` says of releases why
    what is signed of them does not let hosts run them.
    """

    manifest: BundleManifest
    sites: Mapping[str, SiteTaken]
    refused: Mapping[str, str]
    roots: tuple[Keep, ...]
    trusted: Trusted
    doubts: Mapping[str, str]

    def entries(self) -> list[BundleEntry]:
        """Return the blobs and deltas for the hosts of the sites that are taken, in the order of the file."""
        hosts = (host for name in self.sites for host in self.manifest.sites[name].hosts.values())
        return [self.manifest.entries[place] for place in sorted({p for host in hosts for p in host.entries})]


def judge_for_relay(head: BundleHead, small: Small, taker: RelayTaker) -> RelayJudged:
    """Return what a relay may take of a bundle, by what it trusts. Nothing is kept by this.

    Raises:
        Untrusted: of another hub (`bundle.wrong_hub`), for no site below the relay (`bundle.wrong_site`), not signed by
            the hub (`envelope.*`), all of it older than what the relay has (`bundle.older`), expired
            (`bundle.expired`), dated ahead (`bundle.from_the_future`), or what is signed in it does not hold
            (`metadata.*`, `desired.*`).
    """
    claimed = head.claimed
    if claimed.hub != taker.hub:
        raise Untrusted("bundle.wrong_hub", "this bundle is of another hub than this relay's")
    refused = dict(_refused(claimed, taker))
    chosen = [name for name in claimed.sites if name not in refused]
    if not chosen:
        raise _nothing(refused, taker)
    # What it claims comes first, as far as it is a reason to refuse; nothing is taken before the signature holds.
    check_dates(claimed, taker.now)
    overlay = Overlay(small.metadata, taker.kept)
    trusted = run_steps(refresh(taker.pinned, now=taker.now), overlay.answer)
    roots = tuple(keep for keep in overlay.kept if keep.name.endswith(".root.json"))
    keys = desired_keys(trusted.root)
    manifest = head.verify(keys)
    sites: dict[str, SiteTaken] = {}
    releases: dict[str, ReleaseRef] = {}
    for name in chosen:
        generation = manifest.sites[name].generation
        desired = desired_of(small, keys, site=name, generation=generation, now=taker.now)
        fresh = generation > taker.held.get(name, 0)
        sites[name] = SiteTaken(small.desired[name], generation, fresh)
        for host in desired.hosts:
            releases |= assigned_to(desired, host)
    doubts = dict(doubts_of(trusted, releases, overlay))
    return RelayJudged(manifest, sites, refused, roots, trusted, doubts)


def _refused(claimed: BundleManifest, taker: RelayTaker) -> Iterator[tuple[str, str]]:
    """Yield the sites of a bundle that are not for this relay to take, and why."""
    for name, site in claimed.sites.items():
        held = taker.held.get(name, 0)
        if name not in taker.sites:
            yield name, "it is not below this relay"
        elif site.generation < held:
            yield name, f"generation {site.generation} is older than {held}, which this relay has"


def _nothing(refused: Mapping[str, str], taker: RelayTaker) -> Untrusted:
    older = [f"site {name}: {why}" for name, why in refused.items() if name in taker.sites]
    if older:
        return Untrusted("bundle.older", "; ".join(older[:MAX_NAMED]), hint="is there a newer bundle?")
    named = ", ".join(sorted(refused)[:MAX_NAMED])
    message = f"this bundle is for {named}, and none of its sites is below this relay"
    hint = "a relay knows a site once a host of it has come by it, and the hub has said so"
    return Untrusted("bundle.wrong_site", message, hint=hint)
