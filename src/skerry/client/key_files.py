"""Key files of publishers and of root ceremonies: made, and read.

A private key is PKCS#8 PEM, Ed25519 or ECDSA P-256, plain or encrypted with a passphrase; its public half is a
SubjectPublicKeyInfo PEM beside it, with `.pub` added to the name. Rules: a private key is 0600 from its first byte and
never overwritten; nothing of a key's content is in any error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import SSlibKey

from skerry.kit.durable import sync_directory, write_file
from skerry.kit.errors import Conflict, Rejected, Unavailable

KeyKind = Literal["ed25519", "ecdsa"]
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

PUBLIC_SUFFIX = ".pub"
_MAX_BYTES = 64 << 10


def make_key_pair(path: Path, kind: KeyKind = "ed25519", *, passphrase: str = "") -> SSlibKey:
    """Write a fresh private key to `path` and its public half beside it; return the public half.

    Raises:
        Conflict: one of the files is there already (`key.exists`).
        Unavailable: they cannot be written.
    """
    private: PrivateKey = (
        Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1())
    )
    public = public_path(path)
    for file in (path, public):
        if file.exists():
            hint = "choose another name; a key that was lost to an overwrite cannot be brought back"
            raise Conflict("key.exists", f"{file} is there already", hint=hint)
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    )
    _write_new(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_file(public, pem, mode=0o644)
    return SSlibKey.from_crypto(private.public_key())


def public_path(path: Path) -> Path:
    """Return where the public half of a private key's file is."""
    return path.with_name(path.name + PUBLIC_SUFFIX)


def read_public(path: Path) -> SSlibKey:
    """Return the public key of a PEM file.

    Raises:
        Rejected: there is none that can be used (`key.unreadable`, `key.private`, `key.kind`).
    """
    content = _read(path)
    if b"PRIVATE KEY" in content:
        hint = f"name its public half: {public_path(path)}"
        raise Rejected("key.private", f"{path} is a private key", hint=hint)
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        hint = "a public key as PEM (SubjectPublicKeyInfo), such as skerry publisher key writes"
        raise Rejected("key.unreadable", f"{path} is not a public key", hint=hint) from None
    if isinstance(public, Ed25519PublicKey) or _is_p256(public):
        return SSlibKey.from_crypto(public)
    raise _bad_kind(path)


def read_private(path: Path, ask_passphrase: Callable[[str], str]) -> PrivateKey:
    """Return the private key of a PEM file; `ask_passphrase` is called with what it is for, if there is need.

    Raises:
        Rejected: it cannot be used (`key.unreadable`, `key.kind`), or the passphrase is wrong (`key.passphrase`).
    """
    content = _read(path)
    encrypted = b"ENCRYPTED PRIVATE KEY" in content
    passphrase = ask_passphrase(f"Passphrase of {path}").encode() if encrypted else None
    try:
        private = load_pem_private_key(content, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the cause: it might quote the key.
        if encrypted:
            raise Rejected("key.passphrase", f"that is not the passphrase of {path}") from None
        hint = "a private key as PEM (PKCS#8), such as skerry publisher key writes"
        raise Rejected("key.unreadable", f"{path} is not a private key", hint=hint) from None
    if isinstance(private, Ed25519PrivateKey):
        return private
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return private
    raise _bad_kind(path)


def read_passphrase(path: Path) -> str:
    """Return the passphrase that a file holds: all of it but the end of the line.

    Raises:
        Rejected: there is none (`key.no_passphrase`).
    """
    try:
        text = _read(path).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise Rejected("key.no_passphrase", f"{path} does not hold a passphrase")
    return text


def _is_p256(public: object) -> bool:
    return isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1)


def _bad_kind(path: Path) -> Rejected:
    hint = "make one with skerry publisher key"
    return Rejected("key.kind", f"{path} is neither an Ed25519 nor an ECDSA P-256 key", hint=hint)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Rejected("key.unreadable", f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise Rejected("key.unreadable", f"{path} is too large to be a key")
    return content


def _write_new(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except FileExistsError:
        raise Conflict("key.exists", f"{path} is there already") from None
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot write {path}: {error.strerror}") from error
