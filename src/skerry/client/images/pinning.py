"""From an image as people write it to one whose variants are pinned by digest, one for each platform.

The names and requirements are made from the platform alone, and the order is that of the source: reading the same
image twice gives the same release.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from skerry.client.images.assembly import PlatformImage
from skerry.client.images.platforms import parse_platform, requirements_of
from skerry.client.images.reader import ImageReader
from skerry.client.source_files import SourceFile
from skerry.kit.errors import Rejected
from skerry.kit.ids import is_name
from skerry.spec.hardware import Requirements
from skerry.spec.image import Image, ImageVariant
from skerry.spec.model import FileSpec


class PinnedVariants(msgspec.Struct, frozen=True):
    """Variants in the place of one source, and the files behind their digests."""

    variants: tuple[ImageVariant, ...]
    files: tuple[SourceFile, ...]


def pin_source(image: Image, directory: Path, reader: ImageReader) -> PinnedVariants:
    """Return a variant for each platform of the image's one source."""
    assert image.source is not None
    images = reader.read(image.source, directory)
    variants = tuple(_pinned(ImageVariant(name=_name(found)), found) for found in images)
    return PinnedVariants(variants, _files(images))


def pin_variant(variant: ImageVariant, directory: Path, reader: ImageReader) -> PinnedVariants:
    """Return a variant as its author wrote it, pinned; one for each platform, when its source has several.

    Raises:
        Rejected: a name would become too long (`image.variant_name`).
    """
    assert variant.source is not None
    wanted = parse_platform(variant.platform) if variant.platform else None
    images = reader.read(variant.source, directory, wanted=wanted)
    if len(images) == 1:
        return PinnedVariants((_pinned(variant, images[0]),), _files(images))
    several: list[ImageVariant] = []
    for found in images:
        name = f"{variant.name}-{_name(found)}"
        if not is_name(name):
            raise Rejected(
                "image.variant_name", f"{name} is too long for a name", hint="shorten the variant's"
            )
        several.append(_pinned(msgspec.structs.replace(variant, name=name), found))
    return PinnedVariants(tuple(several), _files(images))


def _pinned(variant: ImageVariant, image: PlatformImage) -> ImageVariant:
    return msgspec.structs.replace(
        variant,
        source=None,
        platform=image.platform.text,
        requires=_with_platform(variant.requires, image),
        config=_file("config.json", image.config),
        layers=tuple(_file(f"layers/{index:02}.tar", layer) for index, layer in enumerate(image.layers)),
        manifest=_file("manifest.json", image.manifest) if image.manifest else None,
    )


def _with_platform(requires: Requirements, image: PlatformImage) -> Requirements:
    """Add what the platform needs, unless the author has said for which architectures the variant is."""
    if requires.arch:
        return requires
    needed = requirements_of(image.platform)
    level = requires.arch_level or needed.arch_level
    return msgspec.structs.replace(requires, arch=needed.arch, arch_level=level)


def _name(image: PlatformImage) -> str:
    name = image.platform.name
    if not is_name(name):
        raise Rejected("image.platform", f"a platform that cannot be a name: {image.platform.text}")
    return name


def _file(path: str, source: SourceFile) -> FileSpec:
    return FileSpec(path=path, digest=source.digest, size_bytes=source.size_bytes)


def _files(images: list[PlatformImage]) -> tuple[SourceFile, ...]:
    return tuple(
        file for image in images for file in (image.config, *image.layers, image.manifest) if file is not None
    )
