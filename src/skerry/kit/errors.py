"""The error root and its families, by what the caller should do.

Every error carries a stable `code` (dotted, for programs), a message (for people), an optional `hint` and
facts. One table maps a family to its HTTP status and exit code, so that an error means the same on the wire,
in a log and in a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

Fact = str | int | float | bool | None


class SkerryError(Exception):
    """Root of all errors that Skerry raises on purpose."""

    family: ClassVar[str] = "bug"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, message: str, *, hint: str = "", **facts: Fact) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.facts: Mapping[str, Fact] = facts

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Rejected(SkerryError):
    """The request is wrong: fix it."""

    family = "rejected"
    http_status = 400
    exit_code = 2


class Missing(Rejected):
    """The request names something that is not there."""

    family = "missing"
    http_status = 404
    exit_code = 4


class Conflict(SkerryError):
    """The state has moved on or is immutable: read again, then decide."""

    family = "conflict"
    http_status = 409
    exit_code = 5


class Unavailable(SkerryError):
    """Not now: try again later."""

    family = "unavailable"
    retryable = True
    http_status = 503
    exit_code = 69


class Untrusted(SkerryError):
    """A signature, digest, generation or time does not hold: stop and alarm."""

    family = "untrusted"
    http_status = 422
    exit_code = 76


class Denied(SkerryError):
    """Who asks may not do this."""

    family = "denied"
    http_status = 403
    exit_code = 77


class Unauthenticated(Denied):
    """Who asks did not say, or could not prove, who they are."""

    family = "unauthenticated"
    http_status = 401


class Bug(SkerryError):
    """An assumption of the code does not hold."""


def as_failure(error: Exception) -> SkerryError:
    """Return a loop's failure as one of ours: what nobody raised on purpose is a `Bug`, with its cause.

    For loops that must outlive their bugs: one broken document must not take the rest of a host or hub down.
    """
    if isinstance(error, SkerryError):
        return error
    bug = Bug("internal", f"{type(error).__name__}: {error}")
    bug.__cause__ = error
    return bug


FAMILIES: Mapping[str, type[SkerryError]] = {
    kind.family: kind
    for kind in (Rejected, Missing, Conflict, Unavailable, Untrusted, Denied, Unauthenticated, Bug)
}
