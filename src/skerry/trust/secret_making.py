"""Makes values of secrets that nobody chooses: random text, and pairs of keys."""

from __future__ import annotations

import base64
import secrets
import string

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from skerry.spec.secret import Making

_CHARACTERS = {
    "alphanumeric": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "digits": string.digits,
}


class MadeValue(msgspec.Struct, frozen=True):
    """A value in clear, and of a pair of keys the public half: base64 of its SubjectPublicKeyInfo (RFC 5280) in DER."""

    value: bytes
    public: str = ""

    def __repr__(self) -> str:
        return "MadeValue(...)"


def make_value(making: Making) -> MadeValue:
    """Return a fresh value: text of the wanted length, or a private key as PKCS#8 PEM with its public half."""
    if making.kind == "random":
        characters = _CHARACTERS.get(making.alphabet)
        if characters is None:
            return MadeValue(secrets.token_urlsafe(making.length).encode())
        return MadeValue("".join(secrets.choice(characters) for _ in range(making.length)).encode())
    private = (
        Ed25519PrivateKey.generate()
        if making.algorithm == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return MadeValue(pem, base64.b64encode(public).decode())
