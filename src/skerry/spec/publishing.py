"""What publishers sign, and what is sent to a hub to publish it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from skerry.spec.evidence import Evidence
from skerry.spec.metadata import Name, Part, Version

Running = Literal["keep", "replace", "stop"]
"""What hosts do that run a revoked release: run on; go back to the good release before it, if there is one; end it."""

MAX_ROLE_FILES = 4100
"""A publisher's role with all its bins, and some of the top level."""

MetadataName = Annotated[
    str, Meta(pattern=r"^([1-9][0-9]{0,11}\.)?[a-z0-9][a-z0-9-]{0,127}\.json$", max_length=150)
]
"""`timestamp.json`, or a version and the role's name: `3.publisher-acme.json`."""


class Revocation(Part, frozen=True, kw_only=True):
    """A release, or a publisher, is trusted no more: nobody takes anything of it from now on."""

    why: Annotated[str, Meta(min_length=1, max_length=1024)]
    at: datetime
    running: Running = "keep"


class TargetCustom(Part, frozen=True, kw_only=True):
    """The custom metadata of a release's target: a summary for those who have not fetched the document."""

    application: Name
    version: Version
    models: dict[str, str] = {}
    size_bytes: Annotated[int, Meta(ge=0)] = 0
    evidence: Annotated[tuple[Evidence, ...], Meta(max_length=64)] = ()
    revoked: Revocation | None = None


class SignedRole(Part, frozen=True, kw_only=True):
    """A role's new metadata: the bytes as they were signed."""

    role: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,127}$")]
    content: bytes


class PublishRequest(Part, frozen=True, kw_only=True):
    """A release document and the metadata that vouches for it; both are taken or none.

    Without `metadata`, the publisher has vouched for it before.
    """

    publisher: Name
    document: bytes
    metadata: Annotated[tuple[SignedRole, ...], Meta(max_length=MAX_ROLE_FILES)] = ()


class MetadataRequest(Part, frozen=True, kw_only=True):
    """New metadata alone: a root, publishers, revocations, or the same with a later expiry."""

    metadata: Annotated[tuple[SignedRole, ...], Meta(min_length=1, max_length=MAX_ROLE_FILES)]


class RoleView(Part, frozen=True, kw_only=True):
    """A role as the hub holds it. `keys` are key ids."""

    role: str
    version: int
    expires_at: datetime
    keys: tuple[str, ...] = ()
    threshold: int = 1


class MetadataView(Part, frozen=True, kw_only=True):
    """The newest of everything that is signed, as the hub holds it."""

    roles: tuple[RoleView, ...] = ()


class PublisherView(Part, frozen=True, kw_only=True):
    """A publisher: whose keys sign its releases, and how many there are."""

    name: str
    keys: tuple[str, ...] = ()
    threshold: int = 1
    releases: int = 0
    version: int = 0
    expires_at: datetime | None = None
    revoked: Revocation | None = None


class HubKeysFile(Part, frozen=True, kw_only=True):
    """`hub-keys.json`: the public keys that a hub signs with. `keys` are keys of TUF by their ids."""

    online: str
    desired: tuple[str, ...]
    keys: dict[str, dict[str, Any]]
