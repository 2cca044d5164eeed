"""`Model`: a model, its version, and its variants for unlike hardware."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.hardware import Expectation, Preference, Requirements
from skerry.spec.metadata import DigestText, Document, Duration, Name, Part, RelativePath, Version
from skerry.spec.quality import Reference

MetricName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./@-]{0,62}$",
        description="letters, digits and . _ / @ -, 63 at most",
    ),
]


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

    A component that mounts the model says with its own `self_test` how it is asked. Where there is a `max_latency`, the
    component must tell the `latency_ms` of its answers, and their median over the cases may be no longer.
    """

    cases: Annotated[tuple[GoldenCase, ...], Meta(min_length=1, max_length=64)]
    tolerance: Tolerance = Tolerance()
    max_latency: Duration | None = None


class MetricTolerance(Part, frozen=True, kw_only=True):
    """By how much, at most, a metric of snapped weights may be worse than that of the exact ones."""

    worse_by: Annotated[float, Meta(ge=0)] = 0.0
    better: Literal["higher", "lower"] = "higher"


class Evaluation(Part, frozen=True, kw_only=True):
    """How the publisher judges a model's files; only `skerry release push --snap` runs it, on the publisher's machine.

    The command is run in the directory of the document, with no shell in between. It finds a variant's files in the
    directory `SKERRY_MODEL_DIR` and its name in `SKERRY_MODEL_VARIANT`. Its last line is one JSON object,
    `{"metrics": {"accuracy": 0.93}, "outputs": {"CASE": [...]}}`; `outputs` are what the model answers to the inputs
    of the golden cases, and are compared with what is expected.
    """

    command: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(min_length=1, max_length=256)]
    timeout: Duration = "10m"
    metrics: Annotated[dict[MetricName, MetricTolerance], Meta(max_length=64)] = {}


class Snapped(Part, frozen=True, kw_only=True):
    """That a variant's weights were chosen near those of another release, so that the delta is small.

    `skerry release push --snap` writes it. No weight is further from what the publisher trained than
    `largest_error`, relative to the weight, or to the typical weight of its tensor where it is smaller.
    """

    release: Annotated[str, Meta(max_length=256)]
    bits: Annotated[int, Meta(ge=1, le=23)]
    largest_error: Annotated[float, Meta(ge=0)]


class Variant(Part, frozen=True, kw_only=True):
    """One form of a model: format x precision x the hardware it is made for.

    `tolerance` overrules that of the self-test, for a form that is rougher by design. `snapped` is written by
    `skerry release push --snap`.
    """

    name: Name
    format: Annotated[str, Meta(min_length=1, max_length=64)]
    precision: Annotated[str, Meta(max_length=64)] = ""
    requires: Requirements = Requirements()
    prefer: Annotated[tuple[Preference, ...], Meta(max_length=32)] = ()
    expects: Expectation = Expectation()
    tolerance: Tolerance | None = None
    snapped: Snapped | None = None
    files: Annotated[tuple[FileSpec, ...], Meta(min_length=1, max_length=1024)]


class ModelSpec(Part, frozen=True, kw_only=True):
    """Version, variants in their author's order, what each of them must answer, and how the publisher judges them.

    `reference` says what its predictions were like when it was judged good; hosts tell when they are no longer.
    """

    version: Version
    self_test: SelfTest | None = None
    evaluation: Evaluation | None = None
    reference: Reference | None = None
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=64)]


class Model(Document, frozen=True, kw_only=True, tag="Model"):
    """A model as people write it."""

    spec: ModelSpec
