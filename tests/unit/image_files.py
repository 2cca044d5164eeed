"""Small container images, and the forms in which they come: layout, archive, saved archive."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.kit.digests import digest_of, hex_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

Compress = Callable[[bytes], bytes]


def plain(content: bytes) -> bytes:
    return content


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


class BuiltImage(msgspec.Struct, frozen=True):
    """An image: its configuration and its uncompressed layers."""

    config: bytes
    layers: tuple[bytes, ...]

    @property
    def digests(self) -> list[str]:
        return [digest_of(self.config), *map(digest_of, self.layers)]


def build_image(
    architecture: str = "amd64",
    *,
    variant: str = "",
    contents: Sequence[str] = ("system", "program"),
    os: str = "linux",
) -> BuiltImage:
    layers = tuple(
        tar_of({f"{name}.txt": f"{name} for {architecture}\n".encode() * 200}) for name in contents
    )
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": os,
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    if variant:
        config["variant"] = variant
    return BuiltImage(json.dumps(config).encode(), layers)


class Layout:
    """An OCI image layout that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.index([])

    def blob(self, content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Write a blob and return its descriptor."""
        digest = digest_of(content)
        self.path(digest).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / hex_of(digest)

    def image(self, built: BuiltImage, compress: Compress = gzipped, **more: Any) -> dict[str, Any]:
        """Write an image and return the descriptor of its manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(built.config, OCI_CONFIG),
            "layers": [self.blob(compress(layer), OCI_LAYER) for layer in built.layers],
        }
        return self.blob(json.dumps(manifest).encode(), OCI_MANIFEST, **more)

    def nested(self, manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Write an index below the top one, as builders do for several platforms."""
        content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        return self.blob(json.dumps(content).encode(), OCI_INDEX)

    def index(self, manifests: Sequence[dict[str, Any]]) -> None:
        """Write the top index."""
        content = {"schemaVersion": 2, "manifests": list(manifests)}
        (self.folder / "index.json").write_text(json.dumps(content))

    def archive(self, file: Path) -> Path:
        """Write the layout as a tar."""
        names = sorted(path for path in self.folder.rglob("*") if path.is_file())
        file.write_bytes(tar_of({str(path.relative_to(self.folder)): path.read_bytes() for path in names}))
        return file


def platform(architecture: str, variant: str = "", os: str = "linux") -> dict[str, Any]:
    """Return what a descriptor says of a platform."""
    stated = {"os": os, "architecture": architecture}
    return {"platform": {**stated, "variant": variant} if variant else stated}


def one_image(folder: Path, built: BuiltImage | None = None, compress: Compress = gzipped) -> Layout:
    layout = Layout(folder)
    layout.index([layout.image(built or build_image(), compress)])
    return layout


def two_platforms(folder: Path) -> Layout:
    """Write an image for amd64 and arm64 with an attestation, as BuildKit does."""
    layout = Layout(folder)
    statement = layout.image(build_image("unknown", os="unknown"), plain, **platform("unknown", os="unknown"))
    images = [
        layout.image(build_image(), **platform("amd64")),
        layout.image(build_image("arm64"), **platform("arm64", "v8")),
    ]
    layout.index([layout.nested([*images, statement])])
    return layout


def saved_files(built: BuiltImage, tags: Sequence[str] = ("app:1",)) -> dict[str, bytes]:
    """Return the files of what `docker save` writes."""
    config = f"{hex_of(digest_of(built.config))}.json"
    layers = {f"{hex_of(digest_of(layer))}/layer.tar": layer for layer in built.layers}
    manifest = [{"Config": config, "RepoTags": list(tags), "Layers": list(layers)}]
    return {config: built.config, **layers, "manifest.json": json.dumps(manifest).encode()}
