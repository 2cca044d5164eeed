"""Errors on the wire: RFC 9457 problem documents, both ways."""

from __future__ import annotations

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import FAMILIES, Rejected, SkerryError, Unavailable
from skerry.spec.api import ProblemDetails
from skerry.spec.problems import DocumentRejected

PROBLEM_MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:skerry:error:"
_own_parameters = frozenset({"self", "code", "message", "hint"})


def problem_of(error: SkerryError) -> ProblemDetails:
    """Return the problem document of an error."""
    return ProblemDetails(
        type=_TYPE_PREFIX + error.family,
        title=error.family,
        status=error.http_status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        retryable=error.retryable,
        problems=error.problems if isinstance(error, DocumentRejected) else (),
        facts=dict(error.facts),
    )


def error_of(body: bytes) -> SkerryError | None:
    """Return the error that a problem document stands for, or None when the bytes are none."""
    try:
        problem = msgspec.json.decode(body, type=ProblemDetails)
    except UNREADABLE:
        return None
    if problem.problems:
        return DocumentRejected(problem.problems)
    family = FAMILIES.get(problem.title, Unavailable if problem.status >= 500 else Rejected)
    facts = {name: value for name, value in problem.facts.items() if name not in _own_parameters}
    return family(problem.code, problem.detail, hint=problem.hint, **facts)
