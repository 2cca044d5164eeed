"""Secrets: taking values in, and saying which hold where. No answer, error or audit entry has a value."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, audit_of
from skerry.hub.secret_keeping import audit_of_version
from skerry.hub.secret_views import view_decision, view_exposure, view_made, view_version
from skerry.hub.services import Hub
from skerry.kit.errors import Conflict, Missing
from skerry.ports.secrets import SecretRecord
from skerry.spec.api_secret import ExposureView, SecretAnswer, SecretDecision, SecretRequest, SecretView


@get("/secrets", sync_to_thread=True)
def list_secrets(hub: TheHub) -> list[SecretView]:
    """List secrets by name, without their values."""
    by_name: dict[str, list[SecretRecord]] = {}
    for record in hub.store.secret_versions():
        by_name.setdefault(record.name, []).append(record)
    return [_view(hub, name, versions) for name, versions in by_name.items()]


@get("/secrets/{name:str}", sync_to_thread=True)
def show_secret(name: FromPath[str], hub: TheHub) -> SecretView:
    """Show one secret with all its versions, without their values; and what hosts have made of it."""
    versions = _versions(hub, name)
    view = _view(hub, name, versions)
    if not any(one.at_site for one in versions):
        return view
    made = view_made(hub.store.hosts(), name)
    shown = [msgspec.structs.replace(one, made=made.get(one.version, ())) for one in view.versions]
    return msgspec.structs.replace(view, versions=tuple(shown))


@post("/secrets/{name:str}/versions", status_code=200)
async def add_secret_version(
    name: FromPath[str], data: JSONBody[SecretRequest], hub: TheHub, request: ApiRequest
) -> SecretAnswer:
    """Store the next version of a secret, the first one if there is none; hosts that use it get it sealed to them."""
    record = await asyncio.to_thread(hub.secrets.prepare, name, data, request.user.name)
    if not data.dry_run:
        audit = audit_of_version(record, "secret.set")
        await asyncio.to_thread(hub.store.add_secret_version, record, audit)
        versions = await asyncio.to_thread(hub.store.secret_versions, name)
        outlived = hub.secrets.outlived(versions, record.scope)
        await asyncio.to_thread(hub.store.forget_secret_versions, outlived)
        used = await asyncio.to_thread(hub.secrets.used_at, name)
        await hub.issuer.mark_releases(frozenset(release for found in used.values() for release in found))
        hub.rollouts.wake()
    return await asyncio.to_thread(_answer, hub, record, dry_run=data.dry_run)


@post("/secrets/{name:str}/versions/{version:str}/revoke", status_code=200)
async def revoke_secret_version(
    name: FromPath[str],
    version: FromPath[str],
    hub: TheHub,
    request: ApiRequest,
    *,
    dry_run: FromQuery[bool] = False,
    force: FromQuery[bool] = False,
) -> SecretAnswer:
    """Have a version used nowhere any more, for good. One that leaves a site without a value only by `force`."""
    versions = await asyncio.to_thread(_versions, hub, name)
    record = next((one for one in versions if str(one.version) == version), None)
    if record is None:
        raise _missing(f"{name} {version}")
    left = [
        msgspec.structs.replace(one, revoked_at=hub.clock.now()) if one is record else one for one in versions
    ]
    bare = await asyncio.to_thread(_left_bare, hub, name, versions, left)
    if bare and not force:
        told = ", ".join(bare[:20]) + (f" and {len(bare) - 20} more" if len(bare) > 20 else "")
        message = f"without {name} {version} there is no value at {told}"
        hint = "rotate it first; or use force: applications there lose the value"
        raise Conflict("secret.last_version", message, hint=hint)
    answer = await asyncio.to_thread(_answer, hub, record, dry_run=dry_run)
    if not dry_run:
        audit = audit_of(hub, request, "secret.revoke", f"secret:{name}@{version}")
        await asyncio.to_thread(hub.store.revoke_secret, name, record.version, audit.at, audit)
        # Hosts may hold it that are assigned nothing any more that uses it.
        await hub.issuer.mark_all()
        hub.rollouts.wake()
    shown = view_version(next(one for one in left if one.version == record.version), left, hub.clock.now())
    return msgspec.structs.replace(answer, version=shown)


@delete("/secrets/{name:str}")
async def remove_secret(name: FromPath[str], hub: TheHub, request: ApiRequest) -> None:
    """Forget a secret that no assigned release uses; who could read it stays known."""
    used = await asyncio.to_thread(hub.secrets.used_at, name)
    if used:
        releases = ", ".join(sorted(frozenset[str]().union(*used.values()))[:10])
        message = f"secret {name} is used by {releases} at {len(used)} sites"
        raise Conflict("secret.used", message, hint="take the application away first, or revoke a version")
    audit = audit_of(hub, request, "secret.remove", f"secret:{name}")
    await asyncio.to_thread(hub.store.remove_secret, name, audit)


@get("/secrets/{name:str}/sites/{site:str}", sync_to_thread=True)
def explain_secret(name: FromPath[str], site: FromPath[str], hub: TheHub) -> SecretDecision:
    """Say which version of a secret a site gets, and why; never the value."""
    record = hub.store.site(site)
    if record is None:
        raise Missing("site.missing", f"there is no site {site[:80]}", hint="skerry get sites lists them")
    offer = hub.secrets.offer(_versions(hub, name), record)
    return view_decision(name, site, offer, sorted(hub.secrets.used_at(name).get(site, ())))


@get("/hosts/{name:str}/secrets", sync_to_thread=True)
def list_exposures(name: FromPath[str], hub: TheHub) -> list[ExposureView]:
    """List what a host could read, also one that was removed, and whether it is still in use."""
    found = hub.store.exposures(name)
    if not found and hub.store.host(name) is None:
        raise Missing("host.missing", f"there is no host {name[:80]}, and no secret was sealed to it")
    versions = {secret: hub.store.secret_versions(secret) for secret in {one.name for one in found}}
    return [view_exposure(one, versions[one.name], hub.clock.now()) for one in found]


def _view(hub: Hub, name: str, versions: Sequence[SecretRecord]) -> SecretView:
    now = hub.clock.now()
    used = frozenset[str]().union(*hub.secrets.used_at(name).values())
    return SecretView(
        name=name,
        versions=tuple(view_version(one, versions, now) for one in versions),
        used_by=tuple(sorted(used)),
    )


def _versions(hub: Hub, name: str) -> Sequence[SecretRecord]:
    versions = hub.store.secret_versions(name) if name else ()
    if not versions:
        raise _missing(name)
    return versions


def _answer(hub: Hub, record: SecretRecord, *, dry_run: bool) -> SecretAnswer:
    stored = hub.store.secret_versions(record.name)
    versions = [*(one for one in stored if one.id != record.id), record]
    return SecretAnswer(
        name=record.name,
        version=view_version(record, versions, hub.clock.now()),
        sites=tuple(hub.secrets.reached(record.name, versions, record.scope)),
        dry_run=dry_run,
    )


def _left_bare(
    hub: Hub, name: str, before: Sequence[SecretRecord], after: Sequence[SecretRecord]
) -> list[str]:
    """Return the sites that use a secret, have a value of it, and would have none."""
    used: Mapping[str, object] = hub.secrets.used_at(name)
    return [
        site.name
        for site in hub.store.sites()
        if site.name in used
        and hub.secrets.offer(before, site).current is not None
        and hub.secrets.offer(after, site).current is None
    ]


def _missing(what: str) -> Missing:
    return Missing("secret.missing", f"there is no secret {what[:80]}", hint="skerry secret list shows them")


HANDLERS: list[Any] = [
    list_secrets,
    show_secret,
    add_secret_version,
    revoke_secret_version,
    remove_secret,
    explain_secret,
    list_exposures,
]
