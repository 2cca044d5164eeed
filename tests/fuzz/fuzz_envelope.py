"""Signed envelopes: a payload only when the right key signed it, and only as the type that is expected.

Each input is taken as an envelope, and as the payload of one that is rightly signed.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope

from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Untrusted
from skerry.trust.envelope import sign_document, verify_document, verify_payload
from skerry.trust.keys import SigningKey
from tests.fuzz.target import Broken, Target

_TYPE = "application/vnd.skerry.fuzz+json"
_CODES = ("envelope.", "document.")


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document of every sort of field."""

    number: int
    text: str = ""
    parts: list[dict[str, str | int | None]] = []


def _key(seed: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32))


_KEY, _OTHER_KEY = _key(1), _key(2)
_SIGNED = Note(7, "signed", [{"a": 1, "b": None}])


def run(data: bytes) -> None:
    """Take an input as an envelope, and as a payload."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if isinstance(value, dict):
        _verify(cast("dict[str, Any]", value))
    if note := _verify(_signed(data)):
        again = encode_canonical(note)
        if msgspec.json.decode(again, type=Note) != note:
            raise Broken("a document changes when it is written again")


def _verify(envelope: dict[str, Any]) -> Note | None:
    try:
        note = verify_document(envelope, _TYPE, Note, [_KEY.verifier])
    except Untrusted as refused:
        if not refused.code.startswith(_CODES):
            raise Broken(f"refused as {refused.code}") from refused
        return None
    payload = verify_payload(envelope, _TYPE, [_KEY.verifier])
    if msgspec.json.decode(payload, type=Note) != note:
        raise Broken("the document is not the payload")
    return note


def _signed(payload: bytes) -> dict[str, Any]:
    envelope = Envelope(payload, _TYPE, {})
    envelope.sign(_KEY.signer)
    return cast("dict[str, Any]", envelope.to_dict())


def seeds() -> list[bytes]:
    """Return envelopes: right ones, of other types and keys, and payloads by themselves."""
    envelopes = [
        sign_document(_SIGNED, _TYPE, _KEY),
        sign_document(_SIGNED, _TYPE, _OTHER_KEY),
        sign_document(_SIGNED, "text/plain", _KEY),
    ]
    both = {**envelopes[0], "signatures": [*envelopes[1]["signatures"], *envelopes[0]["signatures"]]}
    return [msgspec.json.encode(one) for one in (*envelopes, both)] + [
        encode_canonical(_SIGNED),
        b'{"number": 1e5}',
    ]


TARGET = Target(
    run,
    seeds,
    tokens=(
        b'"payload"',
        b'"payloadType"',
        b'"signatures"',
        b'"keyid"',
        b'"sig"',
        b"null",
        b"[]",
        b"{}",
        b'"number"',
    ),
    max_bytes=4096,
)
