"""Who a host is: its name, site, upstream and keys, as files in the data directory.

Files, not rows of the database: when the database is lost, the host still knows who it is and who to trust.
Its keys are in files, too (see `keys`). Every file is written beside and renamed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from skerry.agent.keys import KeyFiles
from skerry.carrier.hub_trust import HubTrust
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of
from skerry.kit.durable import write_file
from skerry.kit.errors import Missing, Rejected, Untrusted
from skerry.ports.key_guard import KeyGuard
from skerry.spec.carrier import TrustRoot
from skerry.trust.keys import SigningKey


class Place(msgspec.Struct, frozen=True):
    """What enrolment fixed: names, the upstream's address, and the digest of the trust root.

    `upstreams` are all there are, in the order of preference, `upstream` the first of them; empty when that is all.
    """

    host: str
    site: str
    upstream: str
    root: str
    upstreams: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True):
    """A host's identity, loaded and checked. `trust` is what it knows of its hub."""

    place: Place
    key: SigningKey
    trust_root: TrustRoot
    trust: HubTrust


def save_place(data: Path, place: Place, trust_root: bytes) -> None:
    """Store what enrolment fixed; the place last, so that a power cut leaves the host not enrolled."""
    write_file(data / "trust-root.json", trust_root)
    write_place(data, place)


def write_place(data: Path, place: Place) -> None:
    """Store another place beside the trust root that is there."""
    write_file(data / "identity.json", msgspec.json.encode(place))


def load_place(data: Path) -> Place | None:
    """Return the place, or None when the host has not joined a site.

    Raises:
        Rejected: the file is damaged (`agent.identity_damaged`).
    """
    try:
        return msgspec.json.decode((data / "identity.json").read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        path = data / "identity.json"
        raise Rejected(
            "agent.identity_damaged", f"{path} is damaged", hint="join again with a new token"
        ) from error


def load_trust_root(data: Path, place: Place) -> TrustRoot:
    """Return the trust root that a place pins.

    Raises:
        Untrusted: the stored one is another (`trust_root.mismatch`).
    """
    raw = (data / "trust-root.json").read_bytes()
    if digest_of(raw) != place.root:
        hint = "join again with a new token"
        raise Untrusted("trust_root.mismatch", "the stored trust root was altered", hint=hint)
    return msgspec.json.decode(raw, type=TrustRoot)


def load_identity(data: Path, guard: KeyGuard | None = None) -> Identity:
    """Return the host's identity; `guard` opens keys that it has sealed.

    Raises:
        Missing: the host has not joined a site (`agent.not_joined`), or its keys are not there (`agent.keys_lost`).
        Untrusted: the trust root is not the one that was pinned (`trust_root.mismatch`), or this machine does not
            open the keys (`key.foreign`).
        Unavailable: what opens the keys does not answer (`key.guard_away`).
    """
    place = load_place(data)
    if place is None:
        hint = "run skerry agent join with the token that skerry site token printed"
        raise Missing("agent.not_joined", f"no host has joined a site in {data}", hint=hint)
    root = load_trust_root(data, place)
    key = KeyFiles(data, guard).load()
    return Identity(place, key, root, HubTrust(root.root_bytes, data / "metadata"))
