"""The sealed form of a backup: a head that says how the key is found, then chunks that hold in their order only.

Each chunk is AES-256-GCM under a key that is made for this file alone and bound to every byte of its head. The
nonce is the chunk's number and whether it is the last one (the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizár, 2015), so that what was cut off, moved, doubled or added does not open. docs/internals/backup.md has it
byte by byte. Nothing is spent on a passphrase before the head's bounds have been checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.errors import Denied, Rejected, Untrusted
from skerry.spec.backup import BackupLock, PassphraseLock, RecipientLock

FAMILY = b"skerry-backup-"
MAGIC = FAMILY + b"1\n"
MAX_HEAD_BYTES = 4096
CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
SALT_BYTES = 16
KEY_BYTES = 32
MIN_PASSPHRASE = 12

_INFO = b"skerry-backup-1"
_suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Opening(msgspec.Struct, frozen=True):
    """What opens a backup: a passphrase, or an X25519 private key as PKCS#8 PEM."""

    passphrase: str = ""
    identity_pem: bytes = b""


class Lock(msgspec.Struct, frozen=True):
    """What a backup is to be locked with: a passphrase, or an X25519 public key in base64."""

    passphrase: str = ""
    recipient: str = ""


def check_passphrase(passphrase: str) -> str:
    """Return a passphrase that may lock a backup.

    Raises:
        Rejected: it is too short to withstand guessing (`backup.short_passphrase`).
    """
    if len(passphrase) < MIN_PASSPHRASE:
        message = f"a backup's passphrase has at least {MIN_PASSPHRASE} characters"
        raise Rejected("backup.short_passphrase", message, hint="take several random words")
    return passphrase


def passphrase_lock(salt: bytes, *, log_n: int = 17) -> PassphraseLock:
    """Return a lock for a fresh salt of 16 bytes; the default takes 128 MiB and some tenths of a second."""
    return PassphraseLock(salt=base64.b64encode(salt).decode(), log_n=log_n, r=8, p=1)


def recipient_lock(public: str, file_key: bytes) -> RecipientLock:
    """Return a lock that holds a fresh key of 32 bytes, sealed to a public key in base64.

    Raises:
        Rejected: it is no public key (`backup.bad_recipient`).
    """
    raw = _unbase64(public)
    if raw is None or len(raw) != KEY_BYTES:
        raise Rejected("backup.bad_recipient", "a recipient is an X25519 public key: 32 bytes in base64")
    sealed = _suite.encrypt(file_key, X25519PublicKey.from_public_bytes(raw), info=_INFO)
    return RecipientLock(
        key_id=hashlib.sha256(raw).hexdigest(), sealed=base64.b64encode(bytes(sealed)).decode()
    )


def encode_head(lock: BackupLock) -> bytes:
    """Return the first bytes of a backup: magic, length, and the lock as canonical JSON."""
    body = encode_canonical(lock)
    return MAGIC + len(body).to_bytes(2, "big") + body


def head_length(start: bytes) -> int:
    """Return how many bytes the head has, given the magic and the two bytes after it.

    Raises:
        Rejected: these are no backup (`backup.foreign`), or one of a newer version (`backup.newer`).
        Untrusted: the head is malformed (`backup.altered`).
    """
    if not start.startswith(FAMILY):
        raise Rejected("backup.foreign", "this file is no backup of a hub")
    if not start.startswith(MAGIC):
        known = start[len(FAMILY) : len(MAGIC) - 1]
        if known.isdigit() and len(start) >= len(MAGIC):
            hint = "restore it with the version that made it, or a newer one"
            raise Rejected("backup.newer", f"this backup has format {known.decode()}, known is 1", hint=hint)
        raise altered("its beginning is damaged")
    size = int.from_bytes(start[len(MAGIC) : len(MAGIC) + 2], "big")
    if len(start) < len(MAGIC) + 2 or not 1 <= size <= MAX_HEAD_BYTES:
        raise altered("its head is damaged")
    return len(MAGIC) + 2 + size


def parse_head(head: bytes) -> BackupLock:
    """Return the lock of a whole head.

    Raises:
        Untrusted: it is malformed, or asks for more memory or time than any backup does (`backup.altered`).
    """
    try:
        return msgspec.json.decode(head[len(MAGIC) + 2 :], type=PassphraseLock | RecipientLock)
    except UNREADABLE as error:
        raise altered(f"its head is not one that any version writes: {error}") from error


def passphrase_key(lock: PassphraseLock, passphrase: str) -> bytes:
    """Return the file's key from a passphrase; costs what the lock says."""
    salt = _unbase64(lock.salt)
    if salt is None or len(salt) != SALT_BYTES:
        raise altered("its salt is damaged")
    kdf = Scrypt(salt=salt, length=KEY_BYTES, n=1 << lock.log_n, r=lock.r, p=lock.p)
    return kdf.derive(passphrase.encode())


def open_lock(lock: BackupLock, opening: Opening) -> bytes:
    """Return the file's key.

    Raises:
        Rejected: the lock needs the other kind of opening (`backup.needs_passphrase`, `backup.needs_identity`).
        Denied: the identity is not the one it was sealed to (`backup.locked`).
    """
    if isinstance(lock, PassphraseLock):
        if not opening.passphrase:
            hint = "give it with --passphrase-file or --passphrase-stdin"
            raise Rejected("backup.needs_passphrase", "this backup is locked with a passphrase", hint=hint)
        return passphrase_key(lock, opening.passphrase)
    if not opening.identity_pem:
        message = f"this backup is sealed to the key {lock.key_id[:16]}"
        raise Rejected("backup.needs_identity", message, hint="give its private half with --identity-file")
    return _unseal(lock, opening.identity_pem)


class ChunkCipher:
    """Seals or opens the chunks of one backup, in order, each once. `key` is the file's key, `head` its whole head."""

    def __init__(self, key: bytes, head: bytes) -> None:
        derived = HKDF(SHA256(), KEY_BYTES, salt=hashlib.sha256(head).digest(), info=_INFO).derive(key)
        self._cipher = AESGCM(derived)
        self._number = 0

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        """Return the next chunk sealed, 16 bytes longer."""
        return self._cipher.encrypt(self._nonce(last=last), chunk, None)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """Return the next chunk.

        Raises:
            Denied: the first chunk does not open: the key is wrong, or the beginning was altered (`backup.locked`).
            Untrusted: another one does not (`backup.altered`).
        """
        first = self._number == 0
        try:
            chunk = self._cipher.decrypt(self._nonce(last=last), sealed, None)
        except (InvalidTag, ValueError):
            if first:
                raise locked() from None
            raise altered(f"chunk {self._number} of it does not hold, or its end is missing") from None
        if not chunk and not first:
            raise altered("there is something after its end")
        return chunk

    def _nonce(self, *, last: bool) -> bytes:
        nonce = self._number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
        self._number += 1
        return nonce


def altered(what: str) -> Untrusted:
    """Return the error for a backup that is not as it was written."""
    return Untrusted("backup.altered", f"the backup was altered or cut off: {what}", hint="take another copy")


def locked() -> Denied:
    """Return the error for a wrong key, which looks the same as an altered beginning."""
    return Denied(
        "backup.locked",
        "the backup does not open",
        hint="the passphrase or identity is another one, or the file was altered",
    )


def _unseal(lock: RecipientLock, pem: bytes) -> bytes:
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # why it is none is left out, as it might quote the key
        private = None
    if not isinstance(private, X25519PrivateKey):
        raise Rejected("backup.bad_identity", "the identity file holds no X25519 private key")
    sealed = _unbase64(lock.sealed)
    if sealed is None:
        raise altered("its sealed key is damaged")
    try:
        key = bytes(_suite.decrypt(sealed, private, info=_INFO))
    except (InvalidTag, ValueError):
        raise locked() from None
    if len(key) != KEY_BYTES:
        raise altered("its sealed key is damaged")
    return key


def _unbase64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
