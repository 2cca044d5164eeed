"""Who a host is: its name, site, upstream and keys, as files in the data directory.

Files, not rows of the database: when the database is lost, the host still knows who it is and who to trust.
Private keys have mode 0600, and the directory 0700. Every file is written beside and renamed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from securesystemslib.signer import Key

from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of
from skerry.kit.durable import write_file
from skerry.kit.errors import Missing, Rejected, Untrusted
from skerry.spec.carrier import TrustRoot
from skerry.trust.keys import SigningKey, new_sealing_key, public_key, sealing_public


class Place(msgspec.Struct, frozen=True):
    """What enrolment fixed: names, the upstream's address, and the digest of the trust root."""

    host: str
    site: str
    upstream: str
    root: str


class Identity(msgspec.Struct, frozen=True):
    """A host's identity, loaded and checked."""

    place: Place
    key: SigningKey
    trust_root: TrustRoot
    hub_keys: tuple[Key, ...]


def make_keys(data: Path) -> tuple[SigningKey, str]:
    """Return the host's signing key and public sealing key, made at the first call and then kept."""
    keys = data / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    sign, seal = keys / "sign.pem", keys / "seal.pem"
    if not sign.exists():
        write_file(sign, SigningKey.generate().to_pem())
    if not seal.exists():
        write_file(seal, new_sealing_key()[0])
    return SigningKey.from_pem(sign.read_bytes()), sealing_public(seal.read_bytes())


def save_place(data: Path, place: Place, trust_root: bytes) -> None:
    """Store what enrolment fixed; the place last, so that a power cut leaves the host not enrolled."""
    write_file(data / "trust-root.json", trust_root)
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


def load_identity(data: Path) -> Identity:
    """Return the host's identity.

    Raises:
        Missing: the host has not joined a site (`agent.not_joined`).
        Untrusted: the trust root is not the one that was pinned (`trust_root.mismatch`).
    """
    place = load_place(data)
    if place is None:
        hint = "run skerry agent join with the token that skerry site token printed"
        raise Missing("agent.not_joined", f"no host has joined a site in {data}", hint=hint)
    raw = (data / "trust-root.json").read_bytes()
    if digest_of(raw) != place.root:
        raise Untrusted(
            "trust_root.mismatch", "the stored trust root was altered", hint="join again with a new token"
        )
    root = msgspec.json.decode(raw, type=TrustRoot)
    key = SigningKey.from_pem((data / "keys" / "sign.pem").read_bytes())
    return Identity(place, key, root, tuple(public_key(public) for public in root.hub_keys.values()))
