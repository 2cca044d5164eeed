"""Secrets over the operator API. A value goes in and never comes out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Duration, Part
from skerry.spec.secret import MAX_VALUE_BYTES, Making, SecretKind

Instant = Annotated[datetime, Meta(tz=True)]
SecretState = Literal["used", "next", "superseded", "revoked"]


class SecretRequest(Part, frozen=True, kw_only=True):
    """A new version of a secret: its `value` in base64, or how to `generate` it; for a site, a selector, or all.

    With `at_site` each host that uses it generates its own value, which is never here, and with `rotate_every` the next
    ones by itself.
    """

    value: Annotated[str, Meta(max_length=4 * MAX_VALUE_BYTES)] | None = None
    generate: Making | None = None
    at_site: bool = False
    rotate_every: Duration | None = None
    site: Annotated[str, Meta(max_length=63)] = ""
    selector: Annotated[str, Meta(max_length=1024)] = ""
    not_before: Instant | None = None
    expires_at: Instant | None = None
    dry_run: bool = False

    def __repr__(self) -> str:
        return "SecretRequest(...)"


class MadeView(Part, frozen=True, kw_only=True):
    """A value that a host made for itself, as it last said: the how manieth, and whether it uses it or will."""

    host: str
    site: str
    round: int
    used: bool
    made_at: datetime
    not_before: datetime | None = None
    public: str = ""
    reported_at: datetime | None = None


class SecretVersionView(Part, frozen=True, kw_only=True):
    """A version without its value; one with neither `site` nor `selector` is for all, as `scope` says in words.

    `public` is the public half of a pair of keys: base64 of its SubjectPublicKeyInfo in DER. `making` says how a value
    was generated; one `at_site` is made by each host that uses it, and `made` are those that hosts have told of.
    `used` is the newest of its scope whose time has come, `next` one whose time is to come.
    """

    version: int
    scope: str
    site: str
    selector: str
    state: SecretState
    kind: SecretKind
    length: int
    public: str
    created_at: datetime
    created_by: str
    not_before: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    making: Making | None = None
    at_site: bool = False
    rotate_every_s: int | None = None
    made: tuple[MadeView, ...] = ()


class SecretView(Part, frozen=True, kw_only=True):
    """A secret, and what uses it: `application@version` of releases that sites are assigned."""

    name: str
    versions: tuple[SecretVersionView, ...]
    used_by: tuple[str, ...] = ()


class SecretAnswer(Part, frozen=True, kw_only=True):
    """A version that was stored or revoked, and the sites with applications that use the secret and are affected."""

    name: str
    version: SecretVersionView
    sites: tuple[str, ...] = ()
    dry_run: bool = False


class ExposureView(Part, frozen=True, kw_only=True):
    """A version that was sealed to a host. It is to be rotated while it is the newest that some site gets."""

    host: str
    site: str
    name: str
    version: int
    sealed_at: datetime
    rotate_needed: bool
    why: str


class SecretDecision(Part, frozen=True, kw_only=True):
    """Which version of a secret a site gets, and why; `version` is None where it gets none now."""

    name: str
    site: str
    version: int | None
    next: tuple[int, ...] = ()
    used_by: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
