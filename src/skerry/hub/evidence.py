"""Evidence at the hub's door: every file is here, and says what was signed of it.

Rules: nobody's own arithmetic is believed: each summary is made again from the file. One file at a time is in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from skerry.kit.errors import Rejected
from skerry.ports.blobs import Blobs
from skerry.spec.evidence import MAX_EVIDENCE_TOTAL_BYTES, Evidence
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.release import Release
from skerry.trust.evidence import LIMITS, Subject, subject_of, verify_summary
from skerry.trust.publishers import Shelf, custom_of


def stated_evidence(
    load: Callable[[str], bytes | None], given: Mapping[str, bytes], publisher: str, release: str
) -> tuple[Evidence, ...]:
    """Return the evidence that a publisher's metadata states of a release: what is given by role, else what is held.

    Whether that metadata is rightly signed is not looked at here.

    Raises:
        Untrusted: the metadata is malformed.
    """
    target = Shelf(publisher, lambda role: given.get(role) or load(role)).find(release)
    return custom_of(target).evidence if target is not None else ()


async def check_evidence(blobs: Blobs, release: Release, digest: str, evidence: Sequence[Evidence]) -> None:
    """Check the evidence that goes with a release, whose document has that digest.

    Raises:
        DocumentRejected: with every file that is not here, is not what it should be, or says something else.
    """
    subject, problems = subject_of(release, digest), list[Problem]()
    if sum(one.size_bytes for one in evidence) > MAX_EVIDENCE_TOTAL_BYTES:
        raise DocumentRejected([Problem("evidence", f"more than {MAX_EVIDENCE_TOTAL_BYTES} bytes in all")])
    seen: set[tuple[str, str]] = set()
    for index, one in enumerate(evidence):
        if (one.kind, one.digest) in seen:
            problems.append(Problem(f"evidence[{index}]", f"the same {one.kind} is there twice"))
            continue
        seen.add((one.kind, one.digest))
        problem = await _problem(blobs, subject, one, f"evidence[{index}]")
        if problem is not None:
            problems.append(problem)
    if problems:
        raise DocumentRejected(problems)


async def load_file(blobs: Blobs, evidence: Evidence) -> bytes | None:
    """Return the file of evidence, or None when it is not here with that size.

    Raises:
        Unavailable: the store of blobs does not answer.
    """
    if await blobs.size(evidence.digest) != evidence.size_bytes:
        return None
    return b"".join([chunk async for chunk in blobs.read(evidence.digest)])


async def _problem(blobs: Blobs, subject: Subject, evidence: Evidence, path: str) -> Problem | None:
    if evidence.size_bytes > LIMITS[evidence.kind]:
        return Problem(f"{path}.size_bytes", f"too large for a file of kind {evidence.kind}")
    content = await load_file(blobs, evidence)
    if content is None:
        hint = "upload it first; skerry release push does"
        return Problem(path, f"the file {evidence.digest} is not here", hint)
    try:
        await asyncio.to_thread(verify_summary, evidence, content, subject)
    except Rejected as error:
        where = error.facts.get("path")
        return Problem(f"{path} ({evidence.kind}){f': {where}' if where else ''}", error.message, error.hint)
    return None
