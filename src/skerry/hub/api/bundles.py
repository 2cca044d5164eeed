"""Bundles for sites that are reached by hand, and the reports that are carried back from there."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import post
from litestar.params import JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.bundling import plan_bundle
from skerry.hub.carried_reports import take_carried
from skerry.kit.errors import Rejected
from skerry.spec.bundle import MAX_CARRIED_BYTES, BundleAnswer, BundleRequest, CarriedAnswer, CarriedReports
from skerry.trust.report import claimed_key

MAX_BUNDLE_REQUEST_BYTES = 8 << 20
"""The manifest of an earlier bundle may be in it."""


@post("/bundles", status_code=200, request_max_body_size=MAX_BUNDLE_REQUEST_BYTES)
async def make_bundle(
    data: JSONBody[BundleRequest], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> BundleAnswer:
    """Say what is to be carried to some sites by hand: signed manifests, and what the blobs in them are."""
    if len(set(data.sites)) != len(data.sites):
        raise Rejected("bundle.twice", "a site is named twice")
    sites = [await asyncio.to_thread(seen.site, name) for name in data.sites]
    answer = await plan_bundle(hub, data, sites)
    for site in data.sites:
        audit = audit_of(hub, request, "bundle.make", f"site:{site}")
        await asyncio.to_thread(hub.store.add_audit, audit)
    return answer


@post("/reports", status_code=200, request_max_body_size=2 * MAX_CARRIED_BYTES)
async def import_reports(
    data: JSONBody[CarriedReports], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> CarriedAnswer:
    """Take reports of a host that were carried by hand; they count as if they had come by themselves, each once."""
    host = await hub.backend.hearing.known(claimed_key(data.reports[0]))
    await asyncio.to_thread(seen.host, host.name)
    answer = await take_carried(hub, data)
    if answer.taken:
        audit = audit_of(hub, request, "reports.import", f"host:{answer.host}")
        await asyncio.to_thread(hub.store.add_audit, audit)
    return answer


HANDLERS: list[Any] = [make_bundle, import_reports]
