"""Who a relay is: its name, upstream and keys, as files in the data directory.

`identity.json` is written last, so that a power cut while joining leaves a relay that has not joined. The keys are made
here and stay here: `keys/sign.pem` signs reports and blob tokens, `tls/server.key` is for the port; its certificate
comes with the RelayState.
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from skerry.carrier.hub_trust import HubTrust
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of
from skerry.kit.durable import write_file
from skerry.kit.errors import Missing, Rejected, Untrusted
from skerry.spec.carrier import TrustRoot
from skerry.trust.keys import SigningKey

REJOIN = "empty the data directory, and join again with a new token"


class Place(msgspec.Struct, frozen=True):
    """What enrolment fixed: the relay's name, where it dials, and the digest of the trust root.

    `upstreams` are all there are, in the order of preference, `upstream` the first of them; empty when that is all.
    """

    relay: str
    upstream: str
    root: str
    upstreams: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True):
    """A relay's identity, loaded and checked. `raw_root` are the bytes of its trust root."""

    place: Place
    key: SigningKey
    trust_root: TrustRoot
    raw_root: bytes
    trust: HubTrust
    tls_key: str


def load_place(data: Path) -> Place | None:
    """Return the place, or None when no relay has joined here.

    Raises:
        Rejected: the file is damaged (`relay.identity_damaged`).
    """
    try:
        return msgspec.json.decode((data / "identity.json").read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        path = data / "identity.json"
        hint = "join again with a new token"
        raise Rejected("relay.identity_damaged", f"{path} is damaged", hint=hint) from error


def save_place(data: Path, place: Place, trust_root: bytes) -> None:
    """Store what enrolment fixed, the place last."""
    write_file(data / "trust-root.json", trust_root)
    write_file(data / "identity.json", msgspec.json.encode(place))


def make_keys(data: Path) -> tuple[SigningKey, str]:
    """Return the signing key and the public key of the port (base64 of its DER), made at the first call."""
    for folder in ("keys", "tls"):
        (data / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    sign, tls = data / "keys" / "sign.pem", data / "tls" / "server.key"
    if not sign.exists():
        write_file(sign, SigningKey.generate().to_pem())
    if not tls.exists():
        write_file(tls, _new_tls_key())
    return SigningKey.from_pem(sign.read_bytes()), public_tls_key(tls.read_bytes())


def public_tls_key(pem: bytes) -> str:
    """Return the public half of a private key in PEM, as base64 of its DER.

    Raises:
        Rejected: it is none (`relay.identity_damaged`).
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        public = load_pem_private_key(pem, password=None).public_key()
    except (ValueError, TypeError):
        raise Rejected("relay.identity_damaged", "the key of the port is damaged", hint=REJOIN) from None
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def load_identity(data: Path) -> Identity:
    """Return the relay's identity.

    Raises:
        Missing: no relay has joined here (`relay.not_joined`), or its keys are not there (`relay.keys_lost`).
        Untrusted: the trust root is not the one that was pinned (`trust_root.mismatch`).
    """
    place = load_place(data)
    if place is None:
        hint = "run skerry relay join with the token that skerry relay token printed"
        raise Missing("relay.not_joined", f"no relay has joined in {data}", hint=hint)
    try:
        raw = (data / "trust-root.json").read_bytes()
        sign = (data / "keys" / "sign.pem").read_bytes()
        tls = (data / "tls" / "server.key").read_bytes()
    except FileNotFoundError as error:
        raise Missing("relay.keys_lost", f"{error.filename} is not there", hint=REJOIN) from error
    if digest_of(raw) != place.root:
        raise Untrusted("trust_root.mismatch", "the stored trust root was altered", hint=REJOIN)
    root = msgspec.json.decode(raw, type=TrustRoot)
    trust = HubTrust(root.root_bytes, data / "metadata")
    return Identity(place, SigningKey.from_pem(sign), root, raw, trust, public_tls_key(tls))


def _new_tls_key() -> bytes:
    """Return a private key for the port: ECDSA P-256, because every TLS client knows it."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
