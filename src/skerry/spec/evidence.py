"""What a publisher attaches to a release as evidence, and signs: which file, of what format, and what it says in brief.

Rules: a summary follows from the file alone and is recomputed by whoever takes it; it has no floating-point numbers,
because the canonical JSON of signed metadata has none: a metric travels as decimal text.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import DigestText, Part

EvidenceKind = Literal["sbom", "vulnerabilities", "model-card", "evaluation", "attestation"]

EVIDENCE_KINDS: tuple[EvidenceKind, ...] = (
    "sbom",
    "vulnerabilities",
    "model-card",
    "evaluation",
    "attestation",
)

MAX_EVIDENCE = 64
MAX_EVIDENCE_BYTES = 32 << 20
MAX_EVIDENCE_TOTAL_BYTES = 128 << 20
MAX_SUMMARY_ENTRIES = 40
MAX_SUMMARY_TEXT = 128

SummaryKey = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.:@-]{0,71}$")]
SummaryValue = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=MAX_SUMMARY_TEXT)]


class Evidence(Part, frozen=True, kw_only=True):
    """One file attached to a release. `format` is such as `cyclonedx-1.6`, `grype`, `markdown` or `in-toto`.

    `summary` has whole numbers (`critical`: 0), text, and metrics as decimal text (`metrics.accuracy`: "0.93").
    """

    kind: EvidenceKind
    format: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.+-]{0,63}$")]
    digest: DigestText
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_EVIDENCE_BYTES)]
    summary: Annotated[dict[SummaryKey, SummaryValue], Meta(max_length=MAX_SUMMARY_ENTRIES)] = {}
