"""Backups: refused, or read. Each input is taken as a whole file, and as the content of a rightly sealed one."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from skerry.adapters.backup_archive import ArchiveReader, ArchiveWriter
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import SkerryError
from skerry.spec.backup import BackupEntry, BackupManifest
from skerry.trust.backup import CHUNK_BYTES, ChunkCipher, Opening, encode_head, recipient_lock
from skerry.trust.keys import sealing_public
from tests.fuzz.target import Broken, Target

_PEM = X25519PrivateKey.from_private_bytes(bytes(range(32))).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
_KEY = bytes(32)
_LOCK = recipient_lock(sealing_public(_PEM), _KEY)
_MANIFEST = BackupManifest(
    made_at=datetime(2026, 3, 1, tzinfo=UTC),
    hub="0123",
    version="1",
    sites={"zurich": 7},
    hosts=1,
    releases=("a@1",),
    blobs=0,
    size_bytes=3,
    whole=True,
)


def run(data: bytes) -> None:
    """Take an input as a file, and as the content of one."""
    _read(data)
    _read(_sealed(data))


def _read(file: bytes) -> None:
    try:
        # A private key, no passphrase: a head that asks for scrypt is refused before it costs anything.
        reader = ArchiveReader(io.BytesIO(file), Opening(identity_pem=_PEM))
        size = sum(len(chunk) for _, chunks in reader.entries() for chunk in chunks)
    except SkerryError as refused:
        if not refused.code.startswith("backup."):
            raise Broken(f"refused as {refused.code}") from refused
        return
    if size > len(file):
        raise Broken("more came out than was in it")


def _sealed(content: bytes) -> bytes:
    head = encode_head(_LOCK)
    cipher = ChunkCipher(_KEY, head)
    parts = [content[at : at + CHUNK_BYTES] for at in range(0, max(1, len(content)), CHUNK_BYTES)]
    return head + b"".join(cipher.seal(part, last=part is parts[-1]) for part in parts)


def _content(files: dict[str, bytes]) -> bytes:
    parts: list[bytes] = []
    for value, body in (
        (_MANIFEST, b""),
        *((BackupEntry(path=path, size_bytes=len(body)), body) for path, body in files.items()),
    ):
        encoded = encode_canonical(value)
        parts += [len(encoded).to_bytes(4, "big"), encoded, body]
    return b"".join([*parts, bytes(4)])


def seeds() -> list[bytes]:
    """Return a whole backup, and contents by themselves."""
    file = io.BytesIO()
    writer = ArchiveWriter(file, _LOCK, _KEY)
    writer.put_manifest(_MANIFEST)
    writer.put_entry(BackupEntry(path="hub.db", size_bytes=3), [b"abc"])
    writer.finish()
    return [file.getvalue(), _content({}), _content({"hub.db": b"abc", "keys/hub.pem": b""})]


TARGET = Target(
    run,
    seeds,
    tokens=(
        b"skerry-backup-1\n",
        b'"lock"',
        b'"passphrase"',
        b'"recipient"',
        b'"path"',
        b'"size_bytes"',
        bytes(4),
    ),
    max_bytes=4096,
)
