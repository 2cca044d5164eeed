"""Join tokens and blob tokens: short texts that carry a right.

A join token is `skerry-join.` and base64url of its JSON. Its secret is checked by the hub; its root digest
is what the host trusts before anything else.

A blob token is `base64url(JSON).base64url(signature)`, signed by the hub's key, and checked by whoever holds
the hub's public keys: a relay needs no link to do so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime

import msgspec
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature

from skerry.kit.errors import Denied, Rejected
from skerry.spec.carrier import JoinToken
from skerry.trust.keys import SigningKey

_JOIN_PREFIX = "skerry-join."
_BLOB_CONTEXT = b"skerry blob token v1\n"


class BlobClaims(msgspec.Struct, frozen=True):
    """Who may read blobs until when; `key` names the key that signed."""

    host: str
    site: str
    expires_at: datetime
    key: str


def hash_secret(secret: str) -> str:
    """Return what a store keeps of a random secret of 256 bits: its SHA-256 in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def encode_join_token(token: JoinToken) -> str:
    """Return a join token as text."""
    return _JOIN_PREFIX + _b64(msgspec.json.encode(token))


def parse_join_token(text: str) -> JoinToken:
    """Return the join token of a text.

    Raises:
        Rejected: it is not a whole join token (`join.malformed`). The text is not repeated: it is a secret.
    """
    text = text.strip()
    try:
        if not text.startswith(_JOIN_PREFIX) or len(text) > 4096:
            raise ValueError
        return msgspec.json.decode(_unb64(text.removeprefix(_JOIN_PREFIX)), type=JoinToken)
    except (ValueError, msgspec.DecodeError):
        hint = "copy the whole line that skerry site token printed, beginning with skerry-join."
        raise Rejected("join.malformed", "this is not a join token", hint=hint) from None


def issue_blob_token(host: str, site: str, expires_at: datetime, key: SigningKey) -> str:
    """Return a token that lets a host read blobs."""
    claims = msgspec.json.encode(BlobClaims(host, site, expires_at, key.key_id))
    return f"{_b64(claims)}.{_b64(key.sign_raw(_BLOB_CONTEXT + claims))}"


def verify_blob_token(text: str, keys: Mapping[str, Key], now: datetime) -> BlobClaims:
    """Return the claims of a blob token.

    Raises:
        Denied: malformed or not signed by a known key (`blob_token.invalid`), or expired (`blob_token.expired`).
    """
    try:
        head, _, tail = text.partition(".")
        payload = _unb64(head)
        claims = msgspec.json.decode(payload, type=BlobClaims)
        signature = Signature(claims.key, _unb64(tail).hex())
        keys[claims.key].verify_signature(signature, _BLOB_CONTEXT + payload)
    except (ValueError, KeyError, msgspec.DecodeError, UnverifiedSignatureError, VerificationError):
        raise Denied("blob_token.invalid", "this is not a valid blob token") from None
    if now > claims.expires_at:
        raise Denied("blob_token.expired", "the blob token has expired", hint="sync again for a fresh one")
    return claims


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
