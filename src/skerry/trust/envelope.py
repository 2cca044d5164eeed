"""DSSE envelopes: a payload, its type, and signatures over both.

Source: the DSSE specification (secure-systems-lab/dsse), by securesystemslib. The payload is decoded only
after the signature holds, and only as the type that the caller expects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import Key

from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.errors import Untrusted
from skerry.trust.keys import SigningKey

MAX_PAYLOAD_BYTES = 4 << 20

T = TypeVar("T", bound=msgspec.Struct)


def sign_document(document: msgspec.Struct, payload_type: str, key: SigningKey) -> dict[str, Any]:
    """Return the envelope, as JSON, of a document's canonical JSON."""
    return sign_payload(encode_canonical(document), payload_type, key)


def sign_payload(payload: bytes, payload_type: str, key: SigningKey) -> dict[str, Any]:
    """Return the envelope, as JSON, of some bytes."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(key.signer)
    return cast(dict[str, Any], envelope.to_dict())


def verify_payload(envelope: dict[str, Any], payload_type: str, keys: Iterable[Key]) -> bytes:
    """Return the payload when one of `keys` signed it as `payload_type`.

    Raises:
        Untrusted: malformed (`envelope.malformed`), too large (`envelope.too_large`), of another type
            (`envelope.wrong_type`) or not signed by any of the keys (`envelope.bad_signature`).
    """
    try:
        given: list[dict[str, Any]] = envelope["signatures"]
        if not isinstance(envelope["payload"], str) or not 1 <= len(given) <= 16:
            raise ValueError
        # A copy of each signature: securesystemslib rewrites the mappings it is given.
        parsed = Envelope.from_dict({**envelope, "signatures": [dict(signature) for signature in given]})
    except (KeyError, TypeError, ValueError, AttributeError, FormatError) as error:
        raise Untrusted("envelope.malformed", "not a signed envelope") from error
    if len(parsed.payload) > MAX_PAYLOAD_BYTES:
        raise Untrusted("envelope.too_large", f"a payload of {len(parsed.payload)} bytes is refused")
    if parsed.payload_type != payload_type:
        message = f"the envelope holds {str(parsed.payload_type)[:100]!r}, expected {payload_type!r}"
        raise Untrusted("envelope.wrong_type", message)
    try:
        parsed.verify(list(keys), 1)
    except (VerificationError, ValueError, KeyError, TypeError) as error:
        raise Untrusted("envelope.bad_signature", "no trusted key signed this document") from error
    return parsed.payload


def verify_document(envelope: dict[str, Any], payload_type: str, kind: type[T], keys: Iterable[Key]) -> T:
    """Return the document of an envelope that one of `keys` signed.

    Raises:
        Untrusted: as `verify_payload`, or the payload is not a `kind` (`document.malformed`).
    """
    payload = verify_payload(envelope, payload_type, keys)
    return decode_document(payload, kind)


def decode_document(payload: bytes, kind: type[T]) -> T:
    """Decode a payload that is trusted by its signature or digest.

    Raises:
        Untrusted: it is not a `kind` (`document.malformed`).
    """
    try:
        return msgspec.json.decode(payload, type=kind)
    except UNREADABLE as error:
        raise Untrusted("document.malformed", f"not a {kind.__name__}: {str(error)[:200]}") from error
