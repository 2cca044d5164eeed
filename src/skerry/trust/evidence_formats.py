"""The formats of evidence: bytes to figures.

Sources: CycloneDX 1.2 to 1.7 (cyclonedx.org), SPDX 2.2, 2.3 and 3 (spdx.dev), the JSON reports of grype and of trivy
(SchemaVersion 2), and the metrics file of Skerry's own (docs/internals/evidence.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from skerry.kit.canonical import UNREADABLE
from skerry.spec.evidence import SummaryValue
from skerry.spec.policy import METRIC_PATTERN, SEVERITIES

MAX_METRICS = 32
MAX_VALUES = 1_000_000
"""More than any real report of 32 MiB has; each takes many times its room in memory."""

ABSENT = msgspec.Raw()
T = TypeVar("T")


class Unfit(Exception):
    """A file is not what it should be; `path` says where in it."""

    def __init__(self, path: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint


class Summary(msgspec.Struct, frozen=True):
    """A format's name, and the figures of a file of it."""

    format: str
    figures: dict[str, SummaryValue]


# Without gc: there may be very many of these, and none can be part of a circle.
class _Component(msgspec.Struct, gc=False):
    components: tuple[_Component, ...] = ()


class _Rating(msgspec.Struct, gc=False):
    severity: str = ""
    score: float | None = None


class _Analysis(msgspec.Struct, gc=False):
    state: str = ""


class _CycloneVulnerability(msgspec.Struct, gc=False):
    ratings: tuple[_Rating, ...] = ()
    analysis: _Analysis | None = None


class _CycloneDx(msgspec.Struct):
    version: str = msgspec.field(name="specVersion")
    components: tuple[_Component, ...] = ()
    vulnerabilities: list[_CycloneVulnerability] | None = None


class _Spdx(msgspec.Struct):
    version: str = msgspec.field(name="spdxVersion")
    packages: list[msgspec.Raw] = []


class _Element(msgspec.Struct, gc=False):
    type: str = ""


class _Graph(msgspec.Struct):
    context: str = msgspec.field(name="@context")
    graph: list[_Element] = msgspec.field(name="@graph")


class _GrypeVulnerability(msgspec.Struct, gc=False):
    severity: str = ""


class _GrypeMatch(msgspec.Struct, gc=False):
    vulnerability: _GrypeVulnerability


class _Descriptor(msgspec.Struct):
    name: str


class _Grype(msgspec.Struct):
    matches: list[_GrypeMatch]
    descriptor: _Descriptor
    ignored: list[msgspec.Raw] | None = msgspec.field(name="ignoredMatches", default=None)


class _TrivyVulnerability(msgspec.Struct, gc=False):
    severity: str = msgspec.field(name="Severity", default="")


class _TrivyResult(msgspec.Struct):
    vulnerabilities: list[_TrivyVulnerability] | None = msgspec.field(name="Vulnerabilities", default=None)
    modified: list[msgspec.Raw] | None = msgspec.field(name="ExperimentalModifiedFindings", default=None)


class _Trivy(msgspec.Struct):
    schema_version: int = msgspec.field(name="SchemaVersion")
    results: list[_TrivyResult] | None = msgspec.field(name="Results", default=None)


class _Format(msgspec.Struct):
    bom_format: str = msgspec.field(name="bomFormat", default="")
    spdx: str = msgspec.field(name="spdxVersion", default="")
    graph: msgspec.Raw = msgspec.field(name="@graph", default=ABSENT)
    matches: msgspec.Raw = ABSENT
    schema_version: msgspec.Raw = msgspec.field(name="SchemaVersion", default=ABSENT)


class _Metrics(msgspec.Struct, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1, max_length=128)]
    metrics: Annotated[dict[str, float], Meta(min_length=1, max_length=MAX_METRICS)]
    dataset: Annotated[str, Meta(max_length=128)] = ""
    samples: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None


_excused = frozenset({"not_affected", "false_positive", "resolved", "resolved_with_pedigree"})
_severities = {name: name for name in SEVERITIES} | {"info": "negligible", "none": "negligible"}
_rank = {name: rank for rank, name in enumerate(reversed(SEVERITIES))}
_scores = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"), (0.0, "negligible"))
_cyclone_re = re.compile(r"^1\.[0-9]$")
_spdx_re = re.compile(r"^SPDX-(2\.[0-9])$")
_graph_re = re.compile(r"^https://spdx\.org/rdf/(3\.[0-9])(\.[0-9])?/spdx-context\.jsonld$")
_metric_re = re.compile(f"^{METRIC_PATTERN}$")
_control_re = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_heading_re = re.compile(r"^#{1,6}\s+(\S.*)$", re.MULTILINE)


def is_there(raw: msgspec.Raw) -> bool:
    """Tell whether a field that was not read is there, and not null."""
    view = memoryview(raw)
    return bytes(view[:5]) not in (b"", b"null")


def decode_as(content: bytes, kind: type[T], what: str) -> T:
    """Return a file's content as one of the structs here.

    Raises:
        Unfit: it is no JSON, or not of that shape, or of too many values to hold.
    """
    if content.count(b",") >= MAX_VALUES:
        raise Unfit("", f"more than {MAX_VALUES} values are too many for {what}")
    try:
        return msgspec.json.decode(content, type=kind)
    except UNREADABLE as error:
        if isinstance(error, RecursionError):
            raise Unfit("", f"nested too deeply for {what}") from None
        message, _, where = str(error).partition(" - at `")
        path = re.sub(r"^(key in )?`?\$\.?", "", where).rstrip("`")
        raise Unfit(path[:200], f"not {what}: {message[:300]}") from None


def read_sbom(content: bytes) -> Summary:
    """Return the number of components of a CycloneDX or SPDX document."""
    hint = "CycloneDX JSON and SPDX JSON are read"
    marks = decode_as(content, _Format, "an SBOM")
    if marks.bom_format == "CycloneDX":
        bom = decode_as(content, _CycloneDx, "a CycloneDX document")
        name, components = _cyclone_name(bom), _count(bom.components)
    elif marks.spdx:
        spdx = decode_as(content, _Spdx, "an SPDX document")
        found = _spdx_re.match(spdx.version)
        if found is None:
            raise Unfit(
                "spdxVersion", f"unknown version {spdx.version[:40]!r}", "SPDX-2.2, SPDX-2.3 or SPDX 3"
            )
        name, components = f"spdx-{found[1]}", len(spdx.packages)
    elif is_there(marks.graph):
        graph = decode_as(content, _Graph, "an SPDX 3 document")
        found = _graph_re.match(graph.context)
        if found is None:
            raise Unfit("@context", "not the context of SPDX 3", hint)
        name = f"spdx-{found[1]}"
        components = sum(element.type == "software_Package" for element in graph.graph)
    else:
        raise Unfit("", "neither a CycloneDX nor an SPDX document", hint)
    if not components:
        raise Unfit("", "it lists no component", "make it of the image or folder that is released")
    return Summary(name, {"components": components})


def read_vulnerabilities(content: bytes) -> Summary:
    """Return how many findings of each severity a report has; those that it explains away are `excused`."""
    marks = decode_as(content, _Format, "a vulnerability report")
    if marks.bom_format == "CycloneDX":
        bom = decode_as(content, _CycloneDx, "a CycloneDX document")
        if bom.vulnerabilities is None:
            raise Unfit("vulnerabilities", "is missing", "a list that is empty says that none were found")
        told = [found for found in bom.vulnerabilities if not _is_excused(found)]
        excused = len(bom.vulnerabilities) - len(told)
        return Summary(_cyclone_name(bom), _counted((_worst(found.ratings) for found in told), excused))
    if is_there(marks.matches):
        grype = decode_as(content, _Grype, "a report of grype")
        if grype.descriptor.name != "grype":
            raise Unfit("descriptor.name", "not a report of grype")
        severities = (match.vulnerability.severity for match in grype.matches)
        return Summary("grype", _counted(severities, len(grype.ignored or ())))
    if is_there(marks.schema_version):
        trivy = decode_as(content, _Trivy, "a report of trivy")
        if trivy.schema_version != 2:
            raise Unfit("SchemaVersion", f"unknown version {trivy.schema_version}", "2 is read")
        if not trivy.results:
            raise Unfit("Results", "it has no results: nothing was looked at", "scan the image itself")
        severities = (one.severity for result in trivy.results for one in result.vulnerabilities or ())
        return Summary("trivy", _counted(severities, sum(len(r.modified or ()) for r in trivy.results)))
    raise Unfit("", "not a vulnerability report", "CycloneDX, and the JSON of grype and trivy are read")


def read_model_card(content: bytes) -> Summary:
    """Return title, headings and words of a Markdown text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unfit("", "not UTF-8 text", "save the file as UTF-8") from None
    words = len(text.split())
    if not words or "\0" in text:
        raise Unfit(
            "", "not a text" if words else "it says nothing", "write what the model is for, in Markdown"
        )
    headings = _heading_re.findall(text)
    title = headings[0] if headings else text.strip().splitlines()[0]
    title = _control_re.sub(" ", title).strip().rstrip("#").strip()
    return Summary("markdown", {"title": title[:120], "headings": len(headings), "words": words})


def read_evaluation(content: bytes) -> Summary:
    """Return the metrics of an evaluation, each as decimal text under `metrics.NAME`."""
    found = decode_as(content, _Metrics, "an evaluation")
    figures: dict[str, SummaryValue] = {"model": _control_re.sub(" ", found.model)}
    if found.dataset:
        figures["dataset"] = _control_re.sub(" ", found.dataset)
    if found.samples is not None:
        figures["samples"] = found.samples
    for name, value in found.metrics.items():
        if not _metric_re.match(name) or name.endswith("\n"):
            hint = "a letter, then letters, digits and . _ : @ -, 63 at most"
            raise Unfit("metrics", f"not a metric's name: {name[:80]!r}", hint)
        # The shortest text that is this number and no other.
        figures[f"metrics.{name}"] = repr(value)
    return Summary("metrics", figures)


def _cyclone_name(bom: _CycloneDx) -> str:
    if not _cyclone_re.match(bom.version):
        raise Unfit("specVersion", f"unknown version {bom.version[:40]!r}", "1.2 to 1.7 are read")
    return f"cyclonedx-{bom.version}"


def _count(components: Sequence[_Component]) -> int:
    count, level = 0, components
    while level:
        count += len(level)
        level = [child for component in level for child in component.components]
    return count


def _is_excused(found: _CycloneVulnerability) -> bool:
    return found.analysis is not None and found.analysis.state in _excused


def _worst(ratings: Sequence[_Rating]) -> str:
    """Return the highest severity of a finding; one that has only a score has that of CVSS."""
    severities = [_severity(rating) for rating in ratings]
    return max(severities, key=lambda severity: _rank[severity], default="unknown")


def _severity(rating: _Rating) -> str:
    stated = _severities.get(rating.severity.lower(), "unknown")
    if stated == "unknown" and rating.score is not None:
        return next((name for least, name in _scores if rating.score >= least), "unknown")
    return stated


def _counted(severities: Iterable[str], excused: int) -> dict[str, SummaryValue]:
    counts = Counter(_severities.get(severity.lower(), "unknown") for severity in severities)
    figures: dict[str, SummaryValue] = {name: counts[name] for name in SEVERITIES}
    return figures | {"total": counts.total(), "excused": excused}
