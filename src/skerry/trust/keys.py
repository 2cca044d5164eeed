"""Ed25519 keys that sign and X25519 keys that open secrets.

A public key travels as base64 of its 32 raw bytes; its key id is the SHA-256 of those bytes in hexadecimal.
A private key is stored as PKCS#8 PEM and never leaves the machine that made it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from skerry.kit.errors import Untrusted


class SigningKey:
    """An Ed25519 key pair that signs documents."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = base64.b64encode(
            private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        ).decode()
        self.verifier = public_key(self.public)
        self.signer = CryptoSigner(private, self.verifier)

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a fresh key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read a key that `to_pem` wrote.

        Raises:
            Untrusted: it is not an Ed25519 private key.
        """
        private = _read_private(pem)
        if not isinstance(private, Ed25519PrivateKey):
            raise Untrusted("key.unreadable", "the signing key is damaged")
        return cls(private)

    def to_pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_id(self) -> str:
        """The key id of the public half."""
        return self.verifier.keyid

    def sign_raw(self, message: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature."""
        return self._private.sign(message)


def key_id(public: str) -> str:
    """Return the key id of a public key in base64."""
    return hashlib.sha256(_raw(public)).hexdigest()


def public_key(public: str) -> SSlibKey:
    """Return a verifier for an Ed25519 public key in base64.

    Raises:
        Untrusted: it is not 32 bytes of base64.
    """
    raw = _raw(public)
    return SSlibKey(hashlib.sha256(raw).hexdigest(), "ed25519", "ed25519", {"public": raw.hex()})


def new_sealing_key() -> tuple[bytes, str]:
    """Make an X25519 key; return (PKCS#8 PEM, public key in base64)."""
    private = X25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def sealing_public(pem: bytes) -> str:
    """Return the public half of a key that `new_sealing_key` made.

    Raises:
        Untrusted: it is not an X25519 private key.
    """
    private = _read_private(pem)
    if not isinstance(private, X25519PrivateKey):
        raise Untrusted("key.unreadable", "the sealing key is damaged")
    return base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _read_private(pem: bytes) -> object:
    """Return a private key of any kind, or None; why it is none is left out, as it might quote the key."""
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _raw(public: str) -> bytes:
    try:
        raw = base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise Untrusted("key.malformed", "not a public key: 32 bytes in base64 are expected")
    return raw
