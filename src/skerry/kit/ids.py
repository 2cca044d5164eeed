"""Names that people give, and identifiers that are derived from them and never drawn at random twice."""

from __future__ import annotations

import re
import secrets

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
VERSION_PATTERN = r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$"

_name_re = re.compile(NAME_PATTERN)
_version_re = re.compile(VERSION_PATTERN)


def is_name(text: str) -> bool:
    """Tell whether `text` may name a document: a DNS label, so that names can become host names."""
    return bool(_name_re.match(text)) and not text.endswith("\n")


def is_version(text: str) -> bool:
    """Tell whether `text` may be a version."""
    return bool(_version_re.match(text)) and not text.endswith("\n")


def release_name(application: str, version: str) -> str:
    """Return the name of a release: `application@version`."""
    return f"{application}@{version}"


def split_release_name(name: str) -> tuple[str, str] | None:
    """Return (application, version), or None when `name` is not a release's name."""
    application, at, version = name.partition("@")
    return (application, version) if at and is_name(application) and is_version(version) else None


def new_secret(prefix: str) -> str:
    """Return a fresh random secret of 256 bits that says by its prefix what it opens."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"
