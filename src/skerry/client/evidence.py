"""Files of evidence that go with a release: read, checked and summed up as the hub will do it again.

Rules: everything that is wrong with any of the files is told at once; a file is read into memory whole, up to a limit,
so that what is summed up is what was hashed; what is downloaded is what was signed, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from skerry.client.client import Client
from skerry.client.source_files import SourceFile, changed, identity_of, open_source
from skerry.client.sources import PreparedRelease
from skerry.kit.digests import Digest, digest_of
from skerry.kit.errors import Rejected, Untrusted
from skerry.kit.quantities import format_size
from skerry.spec.evidence import (
    EVIDENCE_KINDS,
    MAX_EVIDENCE,
    MAX_EVIDENCE_BYTES,
    MAX_EVIDENCE_TOTAL_BYTES,
    Evidence,
    EvidenceKind,
)
from skerry.spec.problems import DocumentRejected, Problem
from skerry.trust.evidence import Subject, detect_kind, subject_of, summarise

_markdown = frozenset({".md", ".markdown"})


def attach_evidence(prepared: PreparedRelease, named: Sequence[str]) -> PreparedRelease:
    """Return a release with evidence: each name is `KIND=FILE`, or `FILE` where the file itself tells its kind.

    Raises:
        DocumentRejected: with everything that is wrong with any of the files.
    """
    if not named:
        return prepared
    subject = subject_of(prepared.release, digest_of(prepared.content))
    evidence: list[Evidence] = []
    sources: dict[str, SourceFile] = {}
    problems: list[Problem] = []
    if len(named) > MAX_EVIDENCE:
        problems.append(Problem("", f"{len(named)} files of evidence are more than {MAX_EVIDENCE}"))
    for text in named[:MAX_EVIDENCE]:
        try:
            one, source = _read(text, subject)
        except Rejected as error:
            problems.append(_problem(text, error))
            continue
        if any((one.kind, one.digest) == (other.kind, other.digest) for other in evidence):
            problems.append(Problem("", f"the same {one.kind} is there twice", file=str(source.path)))
        evidence.append(one)
        sources[one.digest] = source
    if sum(one.size_bytes for one in evidence) > MAX_EVIDENCE_TOTAL_BYTES:
        most = format_size(MAX_EVIDENCE_TOTAL_BYTES)
        problems.append(Problem("", f"the files of evidence have more than {most} in all"))
    if problems:
        raise DocumentRejected(problems)
    return msgspec.structs.replace(
        prepared, evidence=tuple(evidence), sources={**prepared.sources, **sources}
    )


def download_evidence(client: Client, release: str, evidence: Evidence) -> bytes:
    """Return the file of a release's evidence.

    Raises:
        Untrusted: the hub gives other bytes (`evidence.mismatch`).
    """
    content = b"".join(_bounded(client.evidence(release, evidence.digest), evidence))
    if digest_of(content) != evidence.digest:
        message = f"the hub does not give the {evidence.kind} that belongs to {release}"
        raise Untrusted("evidence.mismatch", message, digest=evidence.digest)
    return content


def _bounded(chunks: Iterator[bytes], evidence: Evidence) -> Iterator[bytes]:
    left = evidence.size_bytes
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise Untrusted("evidence.mismatch", "the hub gives more bytes than the evidence has")
        yield chunk


def _read(text: str, subject: Subject) -> tuple[Evidence, SourceFile]:
    kind, path = _split(text)
    try:
        with open_source(path) as file:
            identity = identity_of(file)
            if identity[2] > MAX_EVIDENCE_BYTES:
                message = f"{format_size(identity[2])} are more than the {format_size(MAX_EVIDENCE_BYTES)} it may have"
                raise Rejected("evidence.size", message)
            content = file.read(MAX_EVIDENCE_BYTES + 1)
            if identity_of(file) != identity or len(content) != identity[2]:
                raise changed(path)
    except FileNotFoundError:
        raise Rejected("evidence.unreadable", "no such file", hint=_hint(text)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Rejected(
            "evidence.unreadable", f"cannot be read: {reason}", hint="check its permissions"
        ) from None
    kind = kind or detect_kind(content) or ("model-card" if path.suffix.lower() in _markdown else None)
    if kind is None:
        hint = f"write KIND={path}, with KIND one of {', '.join(EVIDENCE_KINDS)}"
        raise Rejected("evidence.kind", "what kind of evidence this is cannot be told", hint=hint)
    evidence = summarise(kind, content, subject)
    source = SourceFile(path, Digest(evidence.digest), len(content), identity, name=f"{kind} {path.name}")
    return evidence, source


def _split(text: str) -> tuple[EvidenceKind | None, Path]:
    head, equals, rest = text.partition("=")
    for kind in EVIDENCE_KINDS:
        if equals and head == kind:
            return kind, Path(rest)
    return None, Path(text)


def _hint(text: str) -> str:
    head, equals, _ = text.partition("=")
    if equals and "/" not in head:
        return f"{head!r} is no kind of evidence: there are {', '.join(EVIDENCE_KINDS)}"
    return "the path is relative to where the command runs"


def _problem(text: str, error: Rejected) -> Problem:
    _, path = _split(text)
    return Problem(str(error.facts.get("path") or ""), error.message, error.hint, file=str(path))
