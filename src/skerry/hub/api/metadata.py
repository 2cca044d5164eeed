"""The signed metadata of releases: whose it is, its files, and new ones from publishers and offline keys."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from skerry.hub.api.bodies import read_body
from skerry.hub.api.operators import ApiRequest, TheHub, audit_of
from skerry.kit.errors import Denied, Missing, Rejected
from skerry.spec.publishing import MetadataRequest, MetadataView, PublisherView, SignedRole
from skerry.trust.repository import publisher_of

MAX_METADATA_BYTES = 64 << 20
"""A publisher of a hundred thousand releases that spreads them over more bins sends all of them at once."""


@get("/metadata", sync_to_thread=True)
def list_metadata(hub: TheHub) -> MetadataView:
    """Say which version of every role is the newest, whose keys sign it, and when it expires."""
    return hub.repository.view()


@get("/metadata/{name:str}", media_type="application/octet-stream", sync_to_thread=True)
def get_metadata(name: FromPath[str], hub: TheHub) -> Response[bytes]:
    """Give a metadata file; without a version in its name, the newest."""
    content = hub.repository.file(name)
    if content is None:
        raise Missing("metadata.absent", f"there is no metadata file {name}")
    return Response(content, media_type="application/octet-stream")


@post("/metadata", status_code=200, request_max_body_size=MAX_METADATA_BYTES)
async def publish_metadata(request: ApiRequest, hub: TheHub) -> MetadataView:
    """Take new metadata: a root, publishers (for admins), or what a publisher signed anew, such as a revocation."""
    given = roles_of((await read_body(request, MetadataRequest)).metadata)
    offline = sorted(role for role in given if not publisher_of(role))
    if offline and request.user.role != "admin":
        raise Denied("metadata.admins_only", f"{offline[0]} is for admins", hint="log in as an admin")
    subject = ",".join(sorted({publisher_of(role) or role for role in given}))
    audit = audit_of(hub, request, "metadata.publish", f"metadata:{subject[:200]}")
    published = await asyncio.to_thread(hub.repository.publish, given, audit)
    await hub.issuer.mark_releases(published.affected)
    hub.rollouts.wake()
    return await asyncio.to_thread(hub.repository.view)


@get("/publishers", sync_to_thread=True)
def list_publishers(hub: TheHub) -> list[PublisherView]:
    """List publishers, those that were revoked among them."""
    return hub.repository.publishers()


def roles_of(signed: tuple[SignedRole, ...]) -> dict[str, bytes]:
    """Return the metadata of a request by role.

    Raises:
        Rejected: a role is there twice (`metadata.twice`).
    """
    given = {role.role: role.content for role in signed}
    if len(given) != len(signed):
        raise Rejected("metadata.twice", "a role is there twice")
    return given


HANDLERS: list[Any] = [list_metadata, get_metadata, publish_metadata, list_publishers]
