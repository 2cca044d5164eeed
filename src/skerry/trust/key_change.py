"""The document with which a host changes its keys: signed by the key it had and by the key it will have.

The old signature says that the host wants it; the new one, that it holds the new private key. Both stand in one
envelope, so that whoever carries it can neither split nor mix them.
"""

from __future__ import annotations

from typing import Any

from skerry.kit.errors import Untrusted
from skerry.spec.carrier import KEY_CHANGE_TYPE, KeyChange
from skerry.trust.envelope import decode_document, sign_document, verify_payload
from skerry.trust.keys import SigningKey, public_key


def sign_key_change(change: KeyChange, old: SigningKey, new: SigningKey) -> dict[str, Any]:
    """Return the envelope of a change with both signatures; the old key's is the first."""
    envelope = sign_document(change, KEY_CHANGE_TYPE, old)
    second = sign_document(change, KEY_CHANGE_TYPE, new)
    return {**envelope, "signatures": [*envelope["signatures"], *second["signatures"]]}


def claimed_keys(envelope: dict[str, Any]) -> tuple[str, str]:
    """Return the ids of the old and the new key that an envelope claims. Believe nothing: they only pick the host.

    Raises:
        Untrusted: there are not two signatures (`envelope.malformed`).
    """
    match envelope:
        case {"signatures": [{"keyid": str(old)}, {"keyid": str(new)}]} if len(old) + len(new) <= 256:
            return old, new
        case _:
            raise Untrusted("envelope.malformed", "not a change of keys with two signatures")


def verify_key_change(envelope: dict[str, Any], known: str) -> KeyChange:
    """Return the change of an envelope; `known` is the host's public signing key as it is known now.

    It is the old key, or, when the change was made already, the new one.

    Raises:
        Untrusted: not signed by both keys it names (`envelope.*`), about keys of which `known` is none
            (`key_change.foreign`), or no change (`key_change.same`).
    """
    # Signed by the known key first: nothing of a stranger's document is read.
    payload = verify_payload(envelope, KEY_CHANGE_TYPE, [public_key(known)])
    change = decode_document(payload, KeyChange)
    if known not in (change.old_key, change.sign_key):
        raise Untrusted("key_change.foreign", "the change of keys is not about the key that signed it")
    if change.old_key == change.sign_key:
        raise Untrusted("key_change.same", "the new key is the old one")
    for key in (change.old_key, change.sign_key):
        verify_payload(envelope, KEY_CHANGE_TYPE, [public_key(key)])
    public_key(change.seal_key)  # refuses what is no key; secrets will be sealed to it
    return change
