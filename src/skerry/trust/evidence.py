"""What a file of evidence says in brief: kind and content to a summary that follows from nothing else.

Rules: publisher and hub run the same function, so a summary that somebody made up is refused; what is absent is never
counted as zero: a report that looked at nothing is refused; files are read as what they must be, and everything in
them that nobody asks about is passed over. Attestations must speak of the release: see `skerry.trust.attestations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected
from skerry.kit.ids import is_name, is_version
from skerry.kit.quantities import format_size
from skerry.spec.evidence import MAX_EVIDENCE_BYTES, MAX_SUMMARY_TEXT, Evidence, EvidenceKind, SummaryValue
from skerry.spec.release import Release
from skerry.trust.attestations import read_attestation
from skerry.trust.evidence_formats import (
    ABSENT,
    Summary,
    Unfit,
    is_there,
    read_evaluation,
    read_model_card,
    read_sbom,
    read_vulnerabilities,
)

MAX_TEXT_BYTES = 1 << 20
MAX_ATTESTATION_BYTES = 1 << 20
LIMITS: Mapping[EvidenceKind, int] = {
    "sbom": MAX_EVIDENCE_BYTES,
    "vulnerabilities": MAX_EVIDENCE_BYTES,
    "model-card": MAX_TEXT_BYTES,
    "evaluation": MAX_TEXT_BYTES,
    "attestation": MAX_ATTESTATION_BYTES,
}


class Subject(msgspec.Struct, frozen=True):
    """What evidence may speak of: the release's digest, the digests that it pins, and its models' versions."""

    digest: str
    files: frozenset[str]
    models: frozenset[tuple[str, str]]


class _Marks(msgspec.Struct):
    """What tells the JSON formats apart."""

    bom_format: msgspec.Raw = msgspec.field(name="bomFormat", default=ABSENT)
    components: msgspec.Raw = ABSENT
    vulnerabilities: msgspec.Raw = ABSENT
    spdx: msgspec.Raw = msgspec.field(name="spdxVersion", default=ABSENT)
    graph: msgspec.Raw = msgspec.field(name="@graph", default=ABSENT)
    matches: msgspec.Raw = ABSENT
    schema_version: msgspec.Raw = msgspec.field(name="SchemaVersion", default=ABSENT)
    metrics: msgspec.Raw = ABSENT
    payload: msgspec.Raw = ABSENT
    payload_type: msgspec.Raw = msgspec.field(name="payloadType", default=ABSENT)


_formats: Mapping[EvidenceKind, Callable[[bytes], Summary]] = {
    "sbom": read_sbom,
    "vulnerabilities": read_vulnerabilities,
    "model-card": read_model_card,
    "evaluation": read_evaluation,
}


def subject_of(release: Release, digest: str) -> Subject:
    """Return what evidence of a release, whose document has that digest, may speak of."""
    files = frozenset(str(file.digest) for file in release.files() if file.digest)
    models = frozenset((model.metadata.name, model.spec.version) for model in release.models)
    return Subject(digest, files, models)


def detect_kind(content: bytes) -> EvidenceKind | None:
    """Return the kind that a file can only be, or None when it may be several, or none."""
    try:
        marks = msgspec.json.decode(content, type=_Marks)
    except UNREADABLE:
        return None
    bom = is_there(marks.bom_format)
    kinds: list[EvidenceKind] = []
    if (bom and is_there(marks.components)) or is_there(marks.spdx) or is_there(marks.graph):
        kinds.append("sbom")
    reports = (marks.matches, marks.schema_version)
    if (bom and is_there(marks.vulnerabilities)) or any(map(is_there, reports)):
        kinds.append("vulnerabilities")
    if is_there(marks.metrics) and not bom:
        kinds.append("evaluation")
    if is_there(marks.payload) and is_there(marks.payload_type):
        kinds.append("attestation")
    return kinds[0] if len(kinds) == 1 else None


def summarise(kind: EvidenceKind, content: bytes, subject: Subject) -> Evidence:
    """Return what a file of that kind says, with its digest and size.

    Raises:
        Rejected: it is empty or too large (`evidence.size`), not of that kind, or not of this release
            (`evidence.unfit`); the fact `path` says where in the file.
    """
    limit = LIMITS[kind]
    if not 1 <= len(content) <= limit:
        message = f"{format_size(len(content))} is no size for a file of kind {kind}"
        raise Rejected("evidence.size", message, hint=f"it has 1 byte to {format_size(limit)}")
    try:
        if kind == "attestation":
            found = read_attestation(content, subject.digest, subject.files)
        else:
            found = _formats[kind](content)
            if kind == "evaluation":
                _check_model(str(found.figures["model"]), subject)
    except Unfit as unfit:
        raise Rejected("evidence.unfit", unfit.message, hint=unfit.hint, path=unfit.path) from None
    return Evidence(
        kind=kind,
        format=found.format,
        digest=digest_of(content),
        size_bytes=len(content),
        summary={name: _bounded(value) for name, value in found.figures.items()},
    )


def verify_summary(evidence: Evidence, content: bytes, subject: Subject) -> None:
    """Check that what was stated of a file is what follows from it.

    Raises:
        Rejected: as `summarise`, or it says something else (`evidence.summary`).
    """
    found = summarise(evidence.kind, content, subject)
    if found == evidence:
        return
    for field in ("digest", "size_bytes", "format"):
        stated, true = getattr(evidence, field), getattr(found, field)
        if stated != true:
            message = f"{field} is stated as {stated}, and the file has {true}"
            raise Rejected("evidence.summary", message, path=field)
    names = sorted(evidence.summary.keys() | found.summary.keys())
    wrong = next(name for name in names if evidence.summary.get(name) != found.summary.get(name))
    stated = evidence.summary.get(wrong, "nothing")
    message = f"{wrong} is stated as {stated}, and the file says {found.summary.get(wrong, 'nothing')}"
    raise Rejected("evidence.summary", message, hint="sign what the file says", path=f"summary.{wrong}")


def _check_model(model: str, subject: Subject) -> None:
    """An evaluation of a model that the release does not carry proves nothing about it."""
    name, at, version = model.partition("@")
    if not is_name(name) or (at and not is_version(version)):
        raise Unfit("model", f"not a model: {model[:80]!r}", "write NAME or NAME@VERSION")
    known = sorted(f"{known}@{its}" for known, its in subject.models)
    fits = any(name == known and (not at or version == its) for known, its in subject.models)
    if subject.models and not fits:
        raise Unfit("model", f"the release has no model {model}", f"models here: {', '.join(known)[:400]}")


def _bounded(value: SummaryValue) -> SummaryValue:
    return value[:MAX_SUMMARY_TEXT] if isinstance(value, str) else value
