"""What the hub answered, as values; and what it refused, as the errors of `skerry.kit.errors`."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Bug, Denied, SkerryError, Unauthenticated, Unavailable
from skerry.spec.problem_details import error_of

T = TypeVar("T")


def decode_answer(body: bytes, kind: type[T]) -> T:
    """Return the value of an answer.

    Raises:
        Bug: the answer is not what the API promises (`hub.strange_answer`).
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        hint = "is the hub of another version? compare `skerry --version` on both"
        raise Bug("hub.strange_answer", f"the hub's answer cannot be read: {error}", hint=hint) from None


def error_of_answer(status: int, body: bytes) -> SkerryError:
    """Return the error that a refusing answer stands for, problem document or not."""
    error = error_of(body)
    if isinstance(error, Unauthenticated) and not error.hint:
        error.hint = "log in again: skerry login URL --root DIGEST"
    return error or _error_of_status(status)


def _error_of_status(status: int) -> SkerryError:
    """Something between us and the hub answered: a proxy, or another server altogether."""
    message = f"HTTP {status} without a problem document"
    hint = "is this address a Skerry hub, and is there a proxy in between?"
    if status in (401, 403, 407):
        return Denied("hub.not_a_hub", message, hint=hint, status=status)
    return Unavailable("hub.not_a_hub", message, hint=hint, status=status)
