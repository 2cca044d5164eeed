"""Container images: where they come from as written, and the blobs they are pinned to in a release.

A layer is kept as its uncompressed tar, so that its digest is the diff id which the image's configuration
vouches for, whatever compression it was pushed or saved with (OCI image specification, config.rootfs.diff_ids).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.hardware import Expectation, Objective, Preference, Requirements
from skerry.spec.metadata import Name, Part
from skerry.spec.model import FileSpec

ImageSource = Annotated[
    str,
    Meta(
        pattern=r"^((oci|oci-archive|docker-archive|engine):|docker://).+$",
        max_length=1024,
        description="oci:DIR, oci-archive:FILE, docker-archive:FILE, engine:NAME or docker://REGISTRY/NAME:TAG",
    ),
]
MAX_LAYERS = 127


class ImageVariant(Part, frozen=True, kw_only=True):
    """One image for some hardware.

    As written it names its `source`; in a release it is pinned to `config` and `layers` instead, lowest layer
    first. The digest of `config` is the image's identity in every engine. `models` ties it to variants of
    models: the image is only taken together with one of those named. `manifest` is the one it was pushed with
    elsewhere, by whose digest it can be pulled there; the hub keeps it, hosts need it for nothing.
    """

    name: Name
    source: ImageSource | None = None
    platform: Annotated[str, Meta(max_length=64, description="os/architecture, such as linux/arm64")] = ""
    requires: Requirements = Requirements()
    prefer: Annotated[tuple[Preference, ...], Meta(max_length=32)] = ()
    expects: Expectation = Expectation()
    models: dict[Name, tuple[Name, ...]] = {}
    config: FileSpec | None = None
    layers: Annotated[tuple[FileSpec, ...], Meta(max_length=MAX_LAYERS)] = ()
    manifest: FileSpec | None = None


class Image(Part, frozen=True, kw_only=True):
    """The image of a component: one `source`, which gives a variant for each platform in it, or `variants`."""

    source: ImageSource | None = None
    variants: Annotated[tuple[ImageVariant, ...], Meta(max_length=64)] = ()
    objective: Objective = "listed"
