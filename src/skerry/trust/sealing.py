"""Secrets on their way and at rest: sealed to a host, or encrypted under a key of their own.

- Sealed to a host: HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305. Host, name, version
  and id are HPKE's `info`: what was sealed as one thing does not open as another.
- At rest: ChaCha20-Poly1305 under a random key that is used once, with what it is as associated data. That key is
  wrapped by whoever keeps the hub's key (`skerry.ports.key_encryption`).
"""

from __future__ import annotations

import base64
import binascii
import secrets

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Untrusted

KEY_BYTES = 32
NONCE_BYTES = 12
_INFO = b"skerry-secret-1\n"
_suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed value is: it opens for this host, under this name, as this version, and as nothing else."""

    host: str
    name: str
    version: int
    id: str


def seal_secret(value: bytes, public: str, binding: Binding) -> str:
    """Return a value sealed to a host's sealing key (base64 of 32 bytes), in base64. Never twice the same.

    Raises:
        Untrusted: that is no key that anything can be sealed to (`key.malformed`).
    """
    try:
        key = X25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        sealed = _suite.encrypt(value, key, info=_info(binding))
    except (ValueError, binascii.Error):
        raise Untrusted("key.malformed", f"the sealing key of {binding.host} is no X25519 key") from None
    return base64.b64encode(sealed).decode()


def open_secret(sealed: str, pem: bytes, binding: Binding) -> bytes:
    """Return the value that was sealed to the private key of a PEM, as what the binding says.

    Raises:
        Untrusted: it was sealed to another key, as something else, or altered (`secret.sealed_otherwise`).
    """
    try:
        private = load_pem_private_key(pem, password=None)
        if isinstance(private, X25519PrivateKey):
            return bytes(
                _suite.decrypt(base64.b64decode(sealed, validate=True), private, info=_info(binding))
            )
    except (ValueError, TypeError, binascii.Error, InvalidTag):
        pass  # why is left out, as it might quote the key
    message = f"secret {binding.name} {binding.version} does not open: it is not sealed to this host as that"
    raise Untrusted("secret.sealed_otherwise", message)


def encrypt_value(value: bytes, context: bytes) -> tuple[bytes, bytes]:
    """Return (a fresh key of 32 bytes, the value encrypted under it and bound to what it is)."""
    key = secrets.token_bytes(KEY_BYTES)
    return key, encrypt_with(key, value, context)


def encrypt_with(key: bytes, value: bytes, context: bytes) -> bytes:
    """Return a value encrypted under a key: a random nonce of 12 bytes, then the ciphertext."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, value, context)


def decrypt_with(key: bytes, encrypted: bytes, context: bytes) -> bytes:
    """Return what `encrypt_with` encrypted.

    Raises:
        Untrusted: the key is another one, or something was altered (`secret.damaged`).
    """
    try:
        return ChaCha20Poly1305(key).decrypt(encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise Untrusted("secret.damaged", "what is stored of a secret does not open") from None


def _info(binding: Binding) -> bytes:
    return _INFO + encode_canonical(binding)
