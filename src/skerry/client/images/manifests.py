"""The JSON documents of images: index, manifest and configuration, in their OCI and Docker forms.

Formats: OCI image specification 1.1 (image index, manifest, config) and Docker image manifest version 2, schema 2,
which have the same fields. What a document is, is told by its fields and not by a media type that stands elsewhere.
"""

from __future__ import annotations

import re
from typing import NoReturn, TypeVar

import msgspec

from skerry.client.images.limits import MAX_DOCUMENT_BYTES, MAX_IMAGES
from skerry.client.images.platforms import Platform
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of, parse_digest
from skerry.kit.errors import Rejected
from skerry.spec.image import MAX_LAYERS

T = TypeVar("T")

REFERENCE_ANNOTATIONS = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """Names a blob by digest and size."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def is_attestation(self) -> bool:
        """Whether it is a statement about an image, as BuildKit adds, and not an image."""
        stated = (self.annotations or {}).get("vnd.docker.reference.type", "") == "attestation-manifest"
        return stated or (self.platform is not None and self.platform.is_unknown)

    @property
    def references(self) -> tuple[str, ...]:
        """The names that the image has in this place."""
        noted = self.annotations or {}
        return tuple(noted[key] for key in REFERENCE_ANNOTATIONS if key in noted)


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """Several images, mostly one per platform."""

    manifests: tuple[Descriptor, ...]


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image: its configuration and its layers as they are stored, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the uncompressed layers."""

    type: str
    diff_ids: tuple[str, ...]


class Configuration(msgspec.Struct, frozen=True):
    """What of an image's configuration matters here."""

    architecture: str
    os: str
    rootfs: RootFs
    variant: str = ""

    @property
    def platform(self) -> Platform:
        """The platform the image is for."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 2
    manifests: object = None
    layers: object = None
    fs_layers: object = None


def check_content(descriptor: Descriptor, content: bytes, *, what: str) -> None:
    """Refuse content that is not what a descriptor names.

    Raises:
        Rejected: digest or size differ (`image.digest_mismatch`).
    """
    found = digest_of(content)
    if found != parse_digest(descriptor.digest) or len(content) != descriptor.size:
        message = (
            f"{what} is {found} with {len(content)} bytes, not {descriptor.digest} with {descriptor.size}"
        )
        raise Rejected("image.digest_mismatch", message, found=found, expected=descriptor.digest)


def check_size(descriptor: Descriptor, *, what: str) -> None:
    """Refuse a document that would be too large, before it is read."""
    if not 0 <= descriptor.size <= MAX_DOCUMENT_BYTES:
        _refuse(f"{what} of {descriptor.size} bytes; {MAX_DOCUMENT_BYTES} are the most")


def parse_manifest(content: bytes, *, where: str) -> Index | Manifest:
    """Return an index or a manifest, whichever it is.

    Raises:
        Rejected: it is neither, or too large, or of the time before content addressing (`image.schema1`).
    """
    kind = _decoded(content, _Kind, where)
    if kind.schema_version == 1 or kind.fs_layers is not None:
        message = (
            f"{where} is a Docker manifest of schema 1, which names its parts by nothing that can be checked"
        )
        hint = "pull the image with a present-day engine and push it again"
        raise Rejected("image.schema1", message, hint=hint)
    if kind.manifests is not None and kind.layers is None:
        index = _decoded(content, Index, where)
        if len(index.manifests) > MAX_IMAGES:
            _refuse(f"{where} names {len(index.manifests)} images; {MAX_IMAGES} are the most")
        return index
    manifest = _decoded(content, Manifest, where)
    if len(manifest.layers) > MAX_LAYERS:
        _refuse(f"{where} has {len(manifest.layers)} layers; {MAX_LAYERS} are the most")
    return manifest


def parse_configuration(content: bytes, *, where: str) -> Configuration:
    """Return an image's configuration.

    Raises:
        Rejected: it is none (`image.malformed`), or that of an artifact that is no image.
    """
    configuration = _decoded(content, Configuration, where)
    diff_ids = configuration.rootfs.diff_ids
    if configuration.rootfs.type != "layers":
        _refuse(f"{where} has a root file system of type {configuration.rootfs.type[:40]!r}")
    if not 0 < len(diff_ids) <= MAX_LAYERS:
        _refuse(f"{where} has {len(diff_ids)} layers; 1 to {MAX_LAYERS} are possible")
    for diff_id in diff_ids:
        parse_digest(diff_id)
    for word in (configuration.os, configuration.architecture, configuration.variant):
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,32}", word):
            _refuse(f"{where} is for a platform of no known form: {word[:40]!r}")
    return configuration


def _decoded(content: bytes, kind: type[T], where: str) -> T:
    if len(content) > MAX_DOCUMENT_BYTES:
        _refuse(f"{where} has {len(content)} bytes; {MAX_DOCUMENT_BYTES} are the most")
    try:
        return msgspec.json.decode(content, type=kind)
    except UNREADABLE as error:
        _refuse(f"{where} is no part of a container image: {str(error)[:200]}")


def _refuse(message: str) -> NoReturn:
    raise Rejected("image.malformed", message, hint="is it a container image, and was it written to its end?")
