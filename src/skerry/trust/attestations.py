"""Attestations: in-toto statements in DSSE envelopes, and whether a key signed one.

Sources: the in-toto attestation framework (Statement v0.1 and v1) and the DSSE specification. Rules: a statement must
name the release, or a file that it pins, by SHA-256; a key's id in the envelope is a hint, and proves nothing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Meta
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature, SSlibKey

from skerry.kit.errors import Untrusted
from skerry.spec.policy import PEM_HEAD
from skerry.trust.evidence_formats import Summary, Unfit, decode_as
from skerry.trust.keys import public_key

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
MAX_SUBJECTS = 10_000
MIN_RSA_BITS = 2048


class _Signature(msgspec.Struct):
    sig: Annotated[str, Meta(min_length=1, max_length=8192)]


class _Envelope(msgspec.Struct):
    payload: str
    payload_type: str = msgspec.field(name="payloadType")
    signatures: Annotated[list[_Signature], Meta(min_length=1, max_length=16)]


class _Subject(msgspec.Struct):
    digest: dict[str, str]


class _Statement(msgspec.Struct):
    type: str = msgspec.field(name="_type")
    subject: Annotated[list[_Subject], Meta(min_length=1, max_length=MAX_SUBJECTS)]
    predicate_type: Annotated[str, Meta(min_length=1, max_length=128)] = msgspec.field(name="predicateType")


def read_attestation(content: bytes, release: str, files: frozenset[str]) -> Summary:
    """Return predicate type and subjects of an attestation of the release of that digest, or of files it pins.

    Raises:
        Unfit: it is no attestation, or speaks of something else.
    """
    envelope = decode_as(content, _Envelope, "a DSSE envelope")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Unfit(
            "payloadType", f"{envelope.payload_type[:80]!r} is no attestation", f"{PAYLOAD_TYPE} is read"
        )
    statement = decode_as(_payload(envelope), _Statement, "an in-toto statement")
    if statement.type not in STATEMENTS:
        raise Unfit("payload._type", f"unknown statement {statement.type[:80]!r}", f"{STATEMENTS[0]} is read")
    named = {f"sha256:{subject.digest.get('sha256', '').lower()}" for subject in statement.subject}
    if release not in named and not named & files:
        hint = f"name the release's own digest, {release}, or that of a file or image it pins"
        raise Unfit("payload.subject", "no subject is this release, nor a file that it pins", hint)
    return Summary(
        "in-toto",
        {
            "predicate_type": statement.predicate_type,
            "about": "release" if release in named else "files",
            "subjects": len(statement.subject),
            "signatures": len(envelope.signatures),
        },
    )


def read_attestation_key(text: str) -> Key:
    """Return the verifier of a public key: 32 bytes of Ed25519 in base64, or PEM of Ed25519, ECDSA or RSA.

    Raises:
        Untrusted: it is none of these (`key.malformed`).
    """
    text = text.strip()
    if not text.startswith(PEM_HEAD):
        return public_key(text)
    try:
        key = load_pem_public_key(text.encode())
        if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            raise Untrusted("key.malformed", f"an RSA key of {key.key_size} bits is too short")
        if isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
            return SSlibKey.from_crypto(key)
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise Untrusted("key.malformed", "not a public key of Ed25519, ECDSA or RSA")


def is_signed_by(content: bytes, key: Key) -> bool:
    """Tell whether one of an attestation's signatures is this key's."""
    try:
        envelope = decode_as(content, _Envelope, "a DSSE envelope")
        signed = Envelope(_payload(envelope), envelope.payload_type, {}).pae()
    except Unfit:
        return False
    return any(_verifies(one, signed, key) for one in envelope.signatures)


def _verifies(signature: _Signature, signed: bytes, key: Key) -> bool:
    try:
        key.verify_signature(Signature(key.keyid, _decode(signature.sig).hex()), signed)
    except (UnverifiedSignatureError, VerificationError, ValueError):
        return False
    return True


def _payload(envelope: _Envelope) -> bytes:
    try:
        return _decode(envelope.payload)
    except ValueError:
        raise Unfit("payload", "not base64") from None


def _decode(text: str) -> bytes:
    """Return the bytes of base64 in either alphabet, as DSSE allows."""
    try:
        return base64.b64decode(text, altchars=b"-_" if "-" in text or "_" in text else None, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
