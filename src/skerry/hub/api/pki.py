"""Certificates: who issues, what was issued to whom, and how a root kept elsewhere comes in."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.pki_issuing import renew_from
from skerry.hub.services import Hub
from skerry.ports.authorities import AuthorityRecord
from skerry.spec.api_pki import AuthorityView, IssuerView, PkiImport, PkiRequest, PkiView, TrustBundle
from skerry.spec.pki import HostPki
from skerry.trust.authorities import Inspected, inspect_authority, split_pem


@get("/pki", sync_to_thread=True)
def show_pki(hub: TheHub) -> PkiView:
    """Show the roots that sites trust, and the issuers that this hub is or was."""
    return _view(hub)


@get("/pki/sites/{site:str}/bundle")
async def show_trust_bundle(site: FromPath[str], hub: TheHub, seen: TheSeen) -> TrustBundle:
    """Return what verifies certificates of a site from outside."""
    await asyncio.to_thread(seen.site, site)
    pki = (await hub.issuer.desired(site)).pki
    return TrustBundle(roots=pki.roots, crls=(*pki.crls, *(one.crl for one in pki.hosts.values() if one.crl)))


@get("/pki/authorities", sync_to_thread=True)
def list_authorities(hub: TheHub, seen: TheSeen, site: FromQuery[str] = "") -> list[AuthorityView]:
    """List hosts' intermediates that have not run out, those that are revoked among them."""
    names = {seen.site(site).name} if site else seen.names()
    told = {host.name: host.observed.pki for host in seen.hosts() if host.observed}
    return [
        _authority(record, told.get(record.host, HostPki()))
        for record in hub.store.authorities(site)
        if record.site in names
    ]


@post("/pki/request", status_code=200)
async def request_issuer(hub: TheHub, request: ApiRequest) -> PkiRequest:
    """Return a signing request of the hub, for a root that is kept elsewhere; again is for the same key."""
    audit = audit_of(hub, request, "pki.request", "pki")
    found = await asyncio.to_thread(hub.pki.file.request)
    await asyncio.to_thread(hub.store.add_audit, audit)
    return PkiRequest(request=found, domain=hub.pki.domain)


@post("/pki/issuer", status_code=200)
async def install_issuer(data: JSONBody[PkiImport], hub: TheHub, request: ApiRequest) -> PkiView:
    """Issue with what a root has made of the request from now on; all sites trust that root as well from now on."""
    chain, root, crls = await asyncio.to_thread(split_pem, data.pem)
    checked = await asyncio.to_thread(hub.pki.file.check_install, chain, root, crls)
    if not data.dry_run:
        await asyncio.to_thread(hub.pki.file.install, chain, root, crls)
        audit = audit_of(hub, request, "pki.install", f"pki:{checked.serial}")
        await asyncio.to_thread(hub.store.add_audit, audit)
        await hub.issuer.mark_all()
        hub.rollouts.wake()
    return await asyncio.to_thread(_view, hub)


def _view(hub: Hub) -> PkiView:
    state = hub.pki.file.state
    issuers = [inspect_authority(one.chain) for one in state.issuers]
    roots = [inspect_authority(one) for one in state.roots]
    return PkiView(
        domain=hub.pki.domain,
        issuers=(
            *(_issuer("root", found, issues=found == issuers[0]) for found in roots),
            *(
                _issuer("issuer", found, issues=found == issuers[0])
                for found in issuers
                if found not in roots
            ),
        ),
        requested=bool(state.next_key),
    )


def _issuer(role: Any, found: Inspected, *, issues: bool) -> IssuerView:
    return IssuerView(
        role=role,
        subject=found.subject,
        serial=found.serial,
        not_before=found.not_before,
        not_after=found.not_after,
        issues=issues,
    )


def _authority(record: AuthorityRecord, told: HostPki) -> AuthorityView:
    in_use = told.serial == record.serial and record.revoked_at is None
    return AuthorityView(
        site=record.site,
        host=record.host,
        serial=record.serial,
        issued_at=record.issued_at,
        renew_from=renew_from(record),
        not_after=record.not_after,
        revoked_at=record.revoked_at,
        in_use=in_use,
        certificates=told.certificates if in_use else {},
        trouble=told.trouble if in_use else "",
    )


HANDLERS: list[Any] = [
    show_pki,
    show_trust_bundle,
    list_authorities,
    request_issuer,
    install_issuer,
]
