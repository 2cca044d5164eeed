"""Releases, the applications and models they carry, and the uploads that make them."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Response, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream

from skerry.hub.api.bodies import decode_body, read_body
from skerry.hub.api.metadata import MAX_METADATA_BYTES, roles_of
from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.evidence import stated_evidence
from skerry.hub.foreseeing import foresee_release
from skerry.hub.views import view_applications, view_models, view_release
from skerry.kit.digests import digest_of, parse_digest
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.ports.hub_store import ReleaseRecord
from skerry.spec.api import (
    AppView,
    MissingAnswer,
    MissingBlob,
    MissingRequest,
    ModelView,
    ReleaseView,
    UploadAnswer,
)
from skerry.spec.configuration_schema import check_application_schema
from skerry.spec.documents import check_release
from skerry.spec.problems import DocumentRejected
from skerry.spec.publishing import PublishRequest
from skerry.spec.release import Release

MAX_RELEASE_BYTES = 4 << 20
MAX_CHUNK_BYTES = 8 << 20
MAX_BLOB_BYTES = 1 << 40


@get("/applications", sync_to_thread=True)
def list_applications(hub: TheHub, seen: TheSeen) -> list[AppView]:
    """List applications over the fleet."""
    return view_applications(hub.store.releases(), seen.hosts())


@get("/models", sync_to_thread=True)
def list_models(hub: TheHub, seen: TheSeen) -> list[ModelView]:
    """List models over the fleet."""
    return view_models(hub.store.releases(), seen.hosts())


@get("/releases", sync_to_thread=True)
def list_releases(hub: TheHub, application: FromQuery[str] = "") -> list[ReleaseView]:
    """List releases, of one application or all."""
    found = [r for r in hub.store.releases() if application in ("", r.application)]
    return [view_release(release, hub.repository.revoked(release)) for release in found]


@get("/releases/{name:str}", sync_to_thread=True)
def show_release(name: FromPath[str], hub: TheHub) -> ReleaseView:
    """Show one release with its document."""
    record = hub.store.release(name)
    if record is None:
        raise Missing("release.missing", f"there is no release {name}", hint="skerry get releases lists them")
    return view_release(record, hub.repository.revoked(record), whole=True)


@delete("/releases/{name:str}", sync_to_thread=True)
def remove_release(name: FromPath[str], hub: TheHub, request: ApiRequest) -> None:
    """Forget a release that no site is assigned and no running rollout names."""
    hub.store.remove_release(name, audit_of(hub, request, "release.remove", f"release:{name}"))


@post("/releases", request_max_body_size=MAX_METADATA_BYTES)
async def create_release(request: ApiRequest, hub: TheHub) -> Response[ReleaseView]:
    """Accept a signed release whose files are all here: 201 when it is new, 200 when the very same was here before."""
    asked = await read_body(request, PublishRequest)
    body = asked.document
    if len(body) > MAX_RELEASE_BYTES:
        raise Rejected("release.too_large", f"a release document may have {MAX_RELEASE_BYTES} bytes at most")
    release = decode_body(body, Release)
    if problems := [*check_release(release), *check_application_schema(release.application.spec)]:
        raise DocumentRejected(problems)
    files = {str(file.digest): file.size_bytes for file in release.files()}
    lacking = [digest for digest, size in files.items() if await hub.blobs.size(digest) != size]
    if lacking:
        hint = "upload them first; skerry release push does"
        raise Rejected(
            "release.incomplete", f"{len(lacking)} files are not here, such as {lacking[0]}", hint=hint
        )
    digest = digest_of(body)
    given = roles_of(asked.metadata)
    load = hub.repository.load
    evidence = await asyncio.to_thread(stated_evidence, load, given, asked.publisher, release.name)
    await hub.judge.check_evidence(release, digest, evidence)
    await hub.blobs.put(digest, body)
    record = ReleaseRecord(
        name=release.name,
        application=release.application.metadata.name,
        version=release.application.spec.version,
        digest=digest,
        document=body,
        size_bytes=sum(files.values()),
        created_at=hub.clock.now(),
        created_by=request.user.name,
        publisher=asked.publisher,
        evidence=evidence,
    )
    audit = audit_of(hub, request, "release.create", f"release:{release.name}")
    published = await asyncio.to_thread(hub.repository.publish, given, audit, release=record)
    await hub.issuer.mark_releases(published.affected)
    if published.new:
        await hub.deltas.prepare(foresee_release(release))
    stored = record if published.new else await asyncio.to_thread(hub.store.release, release.name)
    assert stored is not None
    return Response(
        view_release(stored, hub.repository.revoked(stored)), status_code=201 if published.new else 200
    )


@post("/blobs/missing", status_code=200)
async def find_missing(data: JSONBody[MissingRequest], hub: TheHub) -> MissingAnswer:
    """Say which blobs are not here, and how much of each has arrived."""
    missing = [
        MissingBlob(digest=blob.digest, offset=hub.uploads.partial_size(blob.digest))
        for blob in data.blobs
        if await hub.blobs.size(blob.digest) is None
    ]
    return MissingAnswer(missing=tuple(missing))


@get("/blobs/{digest:str}", media_type="application/octet-stream")
async def download(digest: FromPath[str], hub: TheHub) -> Stream:
    """Give a blob's bytes, from which a publisher makes the next release; deltas are blobs, too."""
    held = hub.deltas.readable
    size = await held.size(parse_digest(digest))
    if size is None:
        raise Missing("blob.missing", f"there is no blob {digest}")
    headers = {"content-length": str(size)}
    return Stream(held.read(digest), media_type="application/octet-stream", headers=headers)


@put("/uploads/{digest:str}", request_max_body_size=MAX_CHUNK_BYTES)
async def upload(
    digest: FromPath[str], offset: FromQuery[int], size: FromQuery[int], request: ApiRequest, hub: TheHub
) -> UploadAnswer:
    """Take a piece of a blob; the last piece makes it whole. A cut loses at most the piece under way."""
    parse_digest(digest)
    if not 0 <= offset <= size <= MAX_BLOB_BYTES:
        raise Rejected("upload.bad_range", f"offset {offset} and size {size} do not fit")
    if await hub.blobs.size(digest) is not None:
        return UploadAnswer(offset=size, complete=True)
    chunk = await request.body()
    try:
        held = await asyncio.to_thread(hub.uploads.append, digest, [chunk], offset=offset, limit=size)
    except Conflict as error:
        held = hub.uploads.partial_size(digest)
        raise Conflict("upload.elsewhere", f"the upload stands at {held}", offset=held) from error
    if held < size:
        return UploadAnswer(offset=held, complete=False)
    file = await asyncio.to_thread(hub.uploads.finish, digest)
    await hub.blobs.adopt(digest, file)
    return UploadAnswer(offset=size, complete=True)


HANDLERS: list[Any] = [
    list_applications,
    list_models,
    list_releases,
    show_release,
    remove_release,
    create_release,
    find_missing,
    download,
    upload,
]
