"""`Model`: a model, its version, and its variants for unlike hardware."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.hardware import Expectation, Preference, Requirements
from skerry.spec.metadata import DigestText, Document, Name, Part, RelativePath, Version


class FileSpec(Part, frozen=True, kw_only=True):
    """A file that goes to the host.

    As written it names its `source`, relative to the document. In a release it is pinned instead, by digest
    and size; `skerry release push` does that.
    """

    path: RelativePath
    source: Annotated[str, Meta(max_length=1024)] = ""
    digest: DigestText | None = None
    size_bytes: Annotated[int, Meta(ge=0)] = 0


class Tolerance(Part, frozen=True, kw_only=True):
    """How far an output may be from the expected one: `|got - expected| <= absolute + relative * |expected|`."""

    absolute: Annotated[float, Meta(ge=0)] = 1e-4
    relative: Annotated[float, Meta(ge=0)] = 1e-3


class GoldenCase(Part, frozen=True, kw_only=True):
    """One input, and the output that is right: a JSON file with numbers, nested in lists as the model gives them."""

    name: Name
    input: FileSpec
    expected: FileSpec


class SelfTest(Part, frozen=True, kw_only=True):
    """What a variant must answer on the very device it shall run on.

    A component that mounts the model says with its own `self_test` how it is asked.
    """

    cases: Annotated[tuple[GoldenCase, ...], Meta(min_length=1, max_length=64)]
    tolerance: Tolerance = Tolerance()


class Variant(Part, frozen=True, kw_only=True):
    """One form of a model: format x precision x the hardware it is made for.

    `tolerance` overrules that of the self-test, for a form that is rougher by design.
    """

    name: Name
    format: Annotated[str, Meta(min_length=1, max_length=64)]
    precision: Annotated[str, Meta(max_length=64)] = ""
    requires: Requirements = Requirements()
    prefer: Annotated[tuple[Preference, ...], Meta(max_length=32)] = ()
    expects: Expectation = Expectation()
    tolerance: Tolerance | None = None
    files: Annotated[tuple[FileSpec, ...], Meta(min_length=1, max_length=1024)]


class ModelSpec(Part, frozen=True, kw_only=True):
    """Version, variants in their author's order, and what each of them must answer."""

    version: Version
    self_test: SelfTest | None = None
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=64)]


class Model(Document, frozen=True, kw_only=True, tag="Model"):
    """A model as people write it."""

    spec: ModelSpec
