"""Which of the images in one place are meant: all platforms of one image, without attestations and other systems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import msgspec

from skerry.client.images.assembly import Assembly, PlatformImage
from skerry.client.images.layers import StoredLayer
from skerry.client.images.limits import MAX_IMAGES
from skerry.client.images.manifests import (
    Configuration,
    Descriptor,
    Index,
    Manifest,
    check_content,
    check_size,
    parse_configuration,
    parse_manifest,
)
from skerry.client.images.platforms import Platform
from skerry.kit.errors import Rejected

_MAX_DEPTH = 4


class ImageBlobs(Protocol):
    """Where the blobs of images are."""

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob; its size is bounded, its content not checked yet."""
        ...

    def layer(self, descriptor: Descriptor, label: str) -> AbstractContextManager[StoredLayer]:
        """Open a layer as it is stored."""
        ...


class _Stored(msgspec.Struct, frozen=True):
    """A manifest, and the bytes that its digest names."""

    content: bytes
    manifest: Manifest


def read_images(
    tops: Sequence[Descriptor],
    blobs: ImageBlobs,
    assembly: Assembly,
    *,
    name: str,
    wanted: Platform | None = None,
) -> list[PlatformImage]:
    """Return the images of an index or a manifest, one per platform, in the order in which they stand there.

    Raises:
        Rejected: nothing for Linux is there, a platform is there twice, or any part is not what it should be.
    """
    images: list[PlatformImage] = []
    seen = 0
    for descriptor, stored in _manifests(tops, blobs, name, 0):
        if not _may_be_meant(descriptor, wanted):
            continue
        seen += 1
        if seen > MAX_IMAGES:
            raise Rejected("image.malformed", f"{name} has more than {MAX_IMAGES} images")
        image = _read_image(descriptor, stored, blobs, assembly, name=name, wanted=wanted)
        if image is None or any(image.config.digest == other.config.digest for other in images):
            continue
        if any(image.platform.is_same(other.platform) for other in images):
            message = f"{name} has two images for {image.platform.text}"
            raise Rejected("image.ambiguous", message, hint="name the one you mean by its tag or digest")
        images.append(image)
    if not images:
        what = wanted.text if wanted else "Linux"
        raise Rejected(
            "image.no_platform", f"{name} has no image for {what}", hint="build it for that platform"
        )
    return images


def choose_named(tops: Sequence[Descriptor], reference: str, *, name: str) -> list[Descriptor]:
    """Return those that have a name, such as a tag; all, when none is asked for.

    Raises:
        Rejected: none has it (`image.no_such_name`), or there are several names to choose from.
    """
    names = sorted({known for top in tops for known in top.references})
    if reference:
        chosen = [
            top
            for top in tops
            if any(known == reference or known.endswith(f":{reference}") for known in top.references)
        ]
        if not chosen:
            hint = f"known here: {', '.join(names)}" if names else "the images there have no names"
            raise Rejected("image.no_such_name", f"{name} has no image named {reference}", hint=hint)
        return chosen
    if len({top.digest for top in tops}) > 1 and len(names) > 1:
        message = f"{name} has several images: {', '.join(names)[:400]}"
        raise Rejected(
            "image.ambiguous", message, hint=f"name one, such as {name}:{names[0].rpartition(':')[2]}"
        )
    return list(tops)


def _manifests(
    descriptors: Sequence[Descriptor], blobs: ImageBlobs, name: str, depth: int
) -> Iterator[tuple[Descriptor, _Stored]]:
    if depth > _MAX_DEPTH:
        raise Rejected("image.malformed", f"{name} has an index nested deeper than {_MAX_DEPTH} levels")
    for descriptor in descriptors:
        if descriptor.is_attestation or (descriptor.platform and descriptor.platform.os != "linux"):
            continue
        content = _checked(descriptor, blobs, f"{name}: manifest")
        parsed = parse_manifest(content, where=f"{name}: manifest")
        if isinstance(parsed, Index):
            yield from _manifests(parsed.manifests, blobs, name, depth + 1)
        else:
            yield descriptor, _Stored(content, parsed)


def _may_be_meant(descriptor: Descriptor, wanted: Platform | None) -> bool:
    return wanted is None or descriptor.platform is None or descriptor.platform.is_same(wanted)


def _read_image(
    descriptor: Descriptor,
    stored: _Stored,
    blobs: ImageBlobs,
    assembly: Assembly,
    *,
    name: str,
    wanted: Platform | None,
) -> PlatformImage | None:
    manifest = stored.manifest
    check_size(manifest.config, what=f"{name}: configuration")
    content = assembly.document(manifest.config.digest)
    if content is None:
        content = _checked(manifest.config, blobs, f"{name}: configuration")
    configuration = parse_configuration(content, where=f"{name}: configuration")
    platform = _agreed(descriptor, configuration, name)
    if platform.is_unknown or platform.os != "linux" or (wanted and not platform.is_same(wanted)):
        return None
    label = f"{name} ({platform.text})"
    layers = [partial(blobs.layer, layer, label) for layer in manifest.layers]
    image = assembly.assemble(content, configuration, layers, name=label)
    kept = assembly.keep(stored.content, f"{label} manifest")
    return msgspec.structs.replace(image, platform=platform, manifest=kept)


def _agreed(descriptor: Descriptor, configuration: Configuration, name: str) -> Platform:
    """Return the platform that descriptor and configuration name, the variant from whichever states it."""
    stated, own = descriptor.platform, configuration.platform
    if stated is None:
        return own
    variants_differ = bool(stated.variant and own.variant) and not stated.is_same(own)
    if (stated.os, stated.architecture) != (own.os, own.architecture) or variants_differ:
        message = f"{name}: the index says {stated.text}, the image itself {own.text}"
        raise Rejected(
            "image.platform_mismatch", message, hint="build the image for the platform it is meant for"
        )
    return msgspec.structs.replace(own, variant=own.variant or stated.variant)


def _checked(descriptor: Descriptor, blobs: ImageBlobs, what: str) -> bytes:
    check_size(descriptor, what=what)
    content = blobs.document(descriptor)
    check_content(descriptor, content, what=what)
    return content
