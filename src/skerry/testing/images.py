"""Tiny container images, made without an engine or a registry, for tests on real engines.

Rules:
- The same arguments give the same bytes: no clock, no owner of this machine, no order of a directory.
- What comes out are blobs as a release holds them: a configuration and uncompressed layers.
"""

from __future__ import annotations

import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

from skerry.kit.digests import digest_of, hex_of
from skerry.ports.images import ImageParts

BUSYBOX = Path("/bin/busybox")
_APPLETS = (
    "cat", "chmod", "date", "dd", "echo", "env", "false", "head", "httpd", "id", "kill", "ls", "mkdir", "mount", "nc",
    "nslookup", "printf", "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "stat", "tail",
    "touch", "tr", "true", "wc", "wget",
)  # fmt: skip
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class TestImage:
    """Blobs of one image in a folder, each named by the hexadecimal part of its digest."""

    __test__ = False

    def __init__(self, folder: Path, parts: ImageParts) -> None:
        self.folder = folder
        self.parts = parts

    @property
    def identity(self) -> str:
        return self.parts.identity

    def blob(self, digest: str) -> Path:
        """Return where a blob is."""
        return self.folder / hex_of(digest)


def make_image(
    folder: Path,
    *,
    files: Mapping[str, bytes] | None = None,
    config: Mapping[str, object] | None = None,
    architecture: str = "",
) -> TestImage:
    """Make an image: busybox with its usual names in a first layer, `files` by path in a second.

    `config` is the part of the image's configuration of that name (`Cmd`, `Env`, `User` ...), as in the OCI
    image specification. Files are executable for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layers = [_busybox_layer()]
    if files:
        layers.append(layer({name: (content, 0o755) for name, content in files.items()}))
    document = {
        "architecture": architecture or _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [digest_of(content) for content in layers]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "a test"} for _ in layers],
    }
    described = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    pinned = tuple(_keep(folder, content) for content in layers)
    return TestImage(folder, ImageParts(config=_keep(folder, described), layers=pinned))


def layer(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return a layer's tar with the given files (content and mode by path) and their directories."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add_folders(tar, files)
        for name in sorted(files):
            content, mode = files[name]
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _busybox_layer() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        content = BUSYBOX.read_bytes()
        passwd = b"root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n"
        _add_folders(tar, ("bin/x", "etc/x", "data/x"))
        for name, bytes_, mode in (("bin/busybox", content, 0o755), ("etc/passwd", passwd, 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(bytes_), mode
            tar.addfile(entry, io.BytesIO(bytes_))
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(entry)
        entry = tarfile.TarInfo("tmp")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(entry)
    return made.getvalue()


def _add_folders(tar: tarfile.TarFile, names: Mapping[str, object] | tuple[str, ...]) -> None:
    folders = {str(parent) for name in names for parent in Path(name).parents} - {"."}
    for folder in sorted(folders):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)


def _keep(folder: Path, content: bytes) -> tuple[str, int]:
    digest = digest_of(content)
    (folder / hex_of(digest)).write_bytes(content)
    return digest, len(content)
