"""Gives a hub that was restored from an older backup what it has lost of the signed metadata.

Nothing is signed here: it sends what was verified or signed on this machine before, where that is newer than what
the hub holds. The hub verifies all of it, as it does everything. Releases whose documents or files were lost as well
are pushed again afterwards; that signs nothing anew.
"""

from __future__ import annotations

import msgspec
from tuf.api.metadata import Root, Targets

from skerry.client.client import Client
from skerry.client.hub_files import HubFiles
from skerry.kit.errors import Missing, SkerryError
from skerry.spec.publishing import MetadataRequest, SignedRole
from skerry.trust.metadata import ROOT_BYTES, TARGETS_BYTES
from skerry.trust.publishers import bin_names
from skerry.trust.repository import publisher_role, read_as


class Lost(msgspec.Struct, frozen=True):
    """What the hub lacks: roots, to be sent one after the other, and other roles, to be sent together."""

    roots: tuple[SignedRole, ...]
    roles: tuple[SignedRole, ...]
    versions: dict[str, int]


def find_lost(client: Client, files: HubFiles, publisher: str) -> Lost:
    """Return what this machine has of the top level and of a publisher, and the hub has not.

    Raises:
        Missing: nothing of that publisher was ever verified or signed here (`publisher.unknown_here`).
    """
    top = _newest(files, publisher_role(publisher))
    if top is None:
        message = f"nothing of publisher {publisher} was ever verified or signed on this machine"
        raise Missing(
            "publisher.unknown_here", message, hint="send it from the machine that pushes its releases"
        )
    root = _version(client.metadata("root.json", ROOT_BYTES), Root)
    roots = [
        (version, content)
        for version in files.root_versions()
        if version > root and (content := files.metadata(f"{version}.root.json")) is not None
    ]
    versions: dict[str, int] = {}
    roles: list[SignedRole] = []
    for role in ("targets", publisher_role(publisher), *bin_names(read_as(top, Targets).signed)):
        content = _newest(files, role)
        if content is None:
            continue
        version = _version(content, Targets)
        if version > _version(client.metadata(f"{role}.json", TARGETS_BYTES), Targets):
            versions[role] = version
            roles.append(SignedRole(role=role, content=content))
    return Lost(
        tuple(SignedRole(role="root", content=content) for _, content in roots),
        tuple(roles),
        {**{f"root {version}": version for version, _ in roots}, **versions},
    )


def resend(client: Client, lost: Lost) -> None:
    """Send what the hub lacks.

    Raises:
        Rejected, Conflict, Untrusted, Denied: the hub does not take it.
    """
    for root in lost.roots:
        client.post_metadata(MetadataRequest(metadata=(root,)))
    if lost.roles:
        client.post_metadata(MetadataRequest(metadata=lost.roles))


def _newest(files: HubFiles, role: str) -> bytes | None:
    """Return the newer one of what was verified and what was signed here."""
    found = [content for content in (files.metadata(f"{role}.json"), files.signed(role)) if content]
    return max(found, key=lambda content: _version(content, Targets), default=None)


def _version(content: bytes | None, kind: type[Root | Targets]) -> int:
    """Return the version of metadata, 0 for none; what the hub says of it is checked by the hub alone."""
    try:
        return 0 if content is None else int(read_as(content, kind).signed.version)
    except SkerryError:
        return 0
