"""The version of a secret that another takes the place of, and how to ask for one like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skerry.kit.errors import Missing
from skerry.spec.api_secret import SecretRequest, SecretVersionView
from skerry.spec.secret import Making


def newest_of(versions: Sequence[SecretVersionView], like: SecretVersionView) -> SecretVersionView:
    """Return the newest version that holds where another does, and is not revoked."""
    return [one for one in versions if one.scope == like.scope and one.state != "revoked"][-1]


def as_before(name: str, before: SecretVersionView) -> Making:
    """Return how a version was made.

    Raises:
        Missing: it was set (`secret.not_generated`).
    """
    if before.making is not None:
        return before.making
    if before.kind == "set":
        hint = "give the next value with --from-file or on standard input"
        raise Missing("secret.not_generated", f"{name} was set, and not generated", hint=hint)
    # It was made before it was noted how.
    return Making(kind=before.kind, length=before.length or 32)


def request_like(before: SecretVersionView, **what: Any) -> SecretRequest:
    """Return a request for another version that holds where one does; one that is generated, where that one was."""
    if "generate" in what and before.at_site:
        every = f"{before.rotate_every_s}s" if before.rotate_every_s is not None else None
        what |= {"at_site": True, "rotate_every": every}
    return SecretRequest(site=before.site, selector=before.selector, **what)
