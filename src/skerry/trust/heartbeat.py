"""Heartbeats: small signed datagrams by which the hosts of a site tell each other that they live and what they run.

A datagram is `SKH1`, the first 8 bytes of the sender's key id, the 64 bytes of an Ed25519 signature, and JSON of
1,124 bytes at the most; the signature is over `skerry heartbeat v1`, a line feed, and the JSON. The JSON is
decoded only after the signature holds. Fields that are not known are passed over, so that hosts of different
versions go on hearing each other.

A heartbeat is for one neighbour. It names the sender's session (random, one for each start of the agent), a
counter that rises with each datagram of the session, and the newest session and counter that the sender has
heard from that neighbour. Freshness (`judge_freshness`):

- Within a session only higher counters are taken.
- A new session is taken only when it repeats a counter that this host sent a moment ago: a recording cannot.
- A session that was left is never taken again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Untrusted
from skerry.spec.names import NamesPart
from skerry.trust.keys import SigningKey

MAX_DATAGRAM_BYTES = 1200
TAG_BYTES = 8

_MAGIC = b"SKH1"
_SIGNATURE_BYTES = 64
_HEAD_BYTES = len(_MAGIC) + TAG_BYTES + _SIGNATURE_BYTES
_CONTEXT = b"skerry heartbeat v1\n"

_Text = Annotated[str, Meta(max_length=256)]
_Number = Annotated[int, Meta(ge=0, le=1 << 53)]


class Word(msgspec.Struct, frozen=True, array_like=True):
    """What the sender says of one application; `knows` is the newest claim of the receiver that it has heard of."""

    says: Literal["out", "able", "claim", "run"]
    rank: _Number
    claim: _Number = 0
    knows: _Number = 0


class SharingDoor(msgspec.Struct, frozen=True, array_like=True):
    """Where the sender shares blobs: a TCP port of the host of `address`, and the SHA-256 of its certificate."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    pin: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One heartbeat. `address` is where the sender listens; `heard_*` is what it last heard from the receiver.

    `door` is absent where the sender shares no blobs, `names` where it says nothing of names now.
    """

    site: _Text
    host: _Text
    to: _Text
    session: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
    counter: Annotated[int, Meta(ge=1, le=1 << 53)]
    generation: _Number = 0
    address: _Text = ""
    heard_session: _Text = ""
    heard_counter: _Number = 0
    words: Annotated[dict[_Text, Word], Meta(max_length=64)] = {}
    door: SharingDoor | None = None
    names: NamesPart | None = None


class Verifier(msgspec.Struct, frozen=True):
    """A neighbour that is listened to."""

    host: str
    key: Key


def key_tag(key_id: str) -> bytes:
    """Return what a datagram carries of its sender's key id, to find the key with."""
    return bytes.fromhex(key_id)[:TAG_BYTES]


def sign_heartbeat(heartbeat: Heartbeat, key: SigningKey) -> bytes | None:
    """Return the datagram, or None when it would be too large: say less in it."""
    payload = msgspec.json.encode(heartbeat)
    if _HEAD_BYTES + len(payload) > MAX_DATAGRAM_BYTES:
        return None
    return _MAGIC + key_tag(key.key_id) + key.sign_raw(_CONTEXT + payload) + payload


def verify_heartbeat(
    datagram: bytes, verifiers: Mapping[bytes, Verifier], *, site: str, host: str
) -> Heartbeat:
    """Return the heartbeat of a datagram for this host; its freshness is still to be judged.

    `verifiers` maps the tag of a key to who holds it.

    Raises:
        Untrusted: too large (`heartbeat.too_large`), not a heartbeat (`heartbeat.malformed`), of nobody known here
            (`heartbeat.unknown_key`), altered (`heartbeat.bad_signature`), or signed for another site, sender
            or receiver (`heartbeat.misdirected`).
    """
    if len(datagram) > MAX_DATAGRAM_BYTES:
        raise Untrusted("heartbeat.too_large", f"a datagram of {len(datagram)} bytes is no heartbeat")
    if len(datagram) <= _HEAD_BYTES or not datagram.startswith(_MAGIC):
        raise Untrusted("heartbeat.malformed", "not a heartbeat")
    start = len(_MAGIC) + TAG_BYTES
    verifier = verifiers.get(datagram[len(_MAGIC) : start])
    if verifier is None:
        raise Untrusted("heartbeat.unknown_key", "no neighbour has this key")
    payload = datagram[_HEAD_BYTES:]
    signature = Signature(verifier.key.keyid, datagram[start:_HEAD_BYTES].hex())
    try:
        verifier.key.verify_signature(signature, _CONTEXT + payload)
    except (UnverifiedSignatureError, VerificationError):
        raise Untrusted("heartbeat.bad_signature", f"{verifier.host} did not sign this") from None
    try:
        heartbeat = msgspec.json.decode(payload, type=Heartbeat)
    except UNREADABLE:
        raise Untrusted("heartbeat.malformed", f"{verifier.host} signed what is no heartbeat") from None
    if (heartbeat.site, heartbeat.host, heartbeat.to) != (site, verifier.host, host):
        raise Untrusted("heartbeat.misdirected", f"{verifier.host} signed this for another one")
    return heartbeat


Freshness = Literal["next", "first", "unproven", "replayed"]


def judge_freshness(
    heartbeat: Heartbeat, *, session: str, counter: int, left: Collection[str], proven: bool
) -> Freshness:
    """Return whether a verified heartbeat is news.

    `session` and `counter` are the newest taken from its sender, `left` the sessions that were taken before that.
    `proven` says that the heartbeat repeats a counter which this host sent to its sender a moment ago.
    `next` and `first` (of a session) are to be taken; who is `unproven` is to be answered, so that it can prove itself.
    """
    if heartbeat.session == session:
        return "next" if heartbeat.counter > counter else "replayed"
    if heartbeat.session in left:
        return "replayed"
    return "first" if proven else "unproven"
