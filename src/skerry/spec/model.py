"""`Model`: a model, its version, and its variants for unlike hardware."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import DigestText, Document, Name, Part, RelativePath, Size, Version


class FileSpec(Part, frozen=True, kw_only=True):
    """A file that goes to the host.

    As written it names its `source`, relative to the document. In a release it is pinned instead, by digest
    and size; `skerry release push` does that.
    """

    path: RelativePath
    source: Annotated[str, Meta(max_length=1024)] = ""
    digest: DigestText | None = None
    size_bytes: Annotated[int, Meta(ge=0)] = 0


class Requirements(Part, frozen=True, kw_only=True):
    """What hardware a variant needs; everything named must hold."""

    arch: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...] = ()
    memory: Size | None = None


class Variant(Part, frozen=True, kw_only=True):
    """One form of a model: format x precision x the hardware it is made for."""

    name: Name
    format: Annotated[str, Meta(min_length=1, max_length=64)]
    precision: Annotated[str, Meta(max_length=64)] = ""
    requires: Requirements = Requirements()
    files: Annotated[tuple[FileSpec, ...], Meta(min_length=1, max_length=1024)]


class ModelSpec(Part, frozen=True, kw_only=True):
    """Version and variants, the preferred variant first."""

    version: Version
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=64)]


class Model(Document, frozen=True, kw_only=True, tag="Model"):
    """A model as people write it."""

    spec: ModelSpec
