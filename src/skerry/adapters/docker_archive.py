"""The stream of one image in the form of `docker save`, made from its blobs as it is sent.

Form (Docker image specification v1.2, "combined image JSON + filesystem changeset format"): a tar of
`manifest.json`, the configuration and the layers; the manifest comes last in what Docker writes, but every
engine takes it first.

Rules:
- Nothing is written to disk, and at most one piece of a layer is in memory.
- Each blob is read once, and what is read is what is checked: size and digest, while it goes by.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from skerry.kit.digests import hex_of
from skerry.kit.errors import Unavailable, Untrusted
from skerry.ports.images import ImageParts

_CHUNK_BYTES = 256 << 10
_BLOCK_BYTES = 512
# A configuration is small; engines read it whole.
_CONFIG_LIMIT_BYTES = 8 << 20


def archive_of(parts: ImageParts, blob: Callable[[str], Path], *, tag: str) -> Iterator[bytes]:
    """Yield the archive, naming the image `tag`.

    Raises:
        Untrusted: a blob has another size or digest than stated (`blob.mismatch`).
        Unavailable: a blob cannot be read (`blob.unreadable`).
    """
    digest, size_bytes = parts.config
    if size_bytes > _CONFIG_LIMIT_BYTES:
        raise Untrusted(
            "blob.mismatch", f"{size_bytes} bytes are no configuration of an image", digest=digest
        )
    names = [f"{number:03}-{hex_of(layer)[:12]}/layer.tar" for number, (layer, _) in enumerate(parts.layers)]
    config_name = f"{hex_of(digest)}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": names}]).encode()
    yield _header("manifest.json", len(manifest))
    yield _padded(manifest)
    yield from _entry(config_name, parts.config, blob)
    for name, layer in zip(names, parts.layers, strict=True):
        yield from _entry(name, layer, blob)
    yield bytes(2 * _BLOCK_BYTES)


def _entry(name: str, pinned: tuple[str, int], blob: Callable[[str], Path]) -> Iterator[bytes]:
    digest, size_bytes = pinned
    yield _header(name, size_bytes)
    seen, read_bytes = hashlib.sha256(), 0
    try:
        with blob(digest).open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                raise Untrusted("blob.mismatch", f"the blob {digest} has another size", digest=digest)
            held = b""
            while chunk := file.read(min(_CHUNK_BYTES, size_bytes - read_bytes)):
                # The last piece is held back until the digest is known, so that the engine never has a
                # whole archive with a damaged blob in it.
                if held:
                    yield held
                held = chunk
                seen.update(chunk)
                read_bytes += len(chunk)
    except OSError as error:
        raise Unavailable("blob.unreadable", f"cannot read {digest}: {error.strerror}") from error
    if f"sha256:{seen.hexdigest()}" != digest:
        raise Untrusted("blob.mismatch", f"the bytes are not those of {digest}", digest=digest)
    yield held
    yield bytes(-size_bytes % _BLOCK_BYTES)


def _header(name: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    # PAX, because a layer may be longer than the 8 GiB of the old form.
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _BLOCK_BYTES)
