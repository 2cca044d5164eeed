"""Previews: what a release would come to on the fleet, and where a site's applications are placed."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.api.releases import MAX_RELEASE_BYTES
from skerry.hub.configuration_checks import Checking
from skerry.hub.joining import binding_conflicts
from skerry.hub.previewing import Previewing
from skerry.hub.routing import route_conflicts
from skerry.hub.secret_checks import lacking_secrets
from skerry.hub.services import Hub
from skerry.hub.topics import loose_topics, site_topics
from skerry.kit.errors import Missing
from skerry.matching.preview import preview_fleet
from skerry.matching.selector import parse_selector
from skerry.spec.api import FleetPreview, PlacementView, PreviewRequest
from skerry.spec.api_topics import SiteTopics
from skerry.spec.configuration_schema import check_application_schema
from skerry.spec.documents import check_release
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.release import Release


@get("/releases/{name:str}/preview", sync_to_thread=True)
def preview_release(
    name: FromPath[str], hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*"
) -> FleetPreview:
    """Say which hosts would get which variants of a release, which none and why, and where room lacks."""
    record = hub.store.release(name)
    if record is None:
        raise Missing("release.missing", f"there is no release {name}", hint="skerry get releases lists them")
    return _preview(hub, msgspec.json.decode(record.document, type=Release), seen.scope.narrow(selector))


@post(
    "/previews",
    status_code=200,
    request_max_body_size=MAX_RELEASE_BYTES,
    sync_to_thread=True,
)
def preview_document(data: JSONBody[PreviewRequest], hub: TheHub, seen: TheSeen) -> FleetPreview:
    """Say the same of a release that has not been pushed; nothing is stored."""
    try:
        release = msgspec.convert(data.release, type=Release)
    except msgspec.ValidationError as error:
        raise DocumentRejected([Problem("", f"not a release: {str(error)[:300]}")]) from error
    if problems := [*check_release(release), *check_application_schema(release.application.spec)]:
        raise DocumentRejected(problems)
    return _preview(hub, release, seen.scope.narrow(data.selector))


@get("/sites/{name:str}/placements", sync_to_thread=True)
def list_placements(name: FromPath[str], hub: TheHub, seen: TheSeen) -> list[PlacementView]:
    """List where in a site its applications are placed: as issued, and as they would be placed now."""
    return Previewing(hub.store).placements(seen.site(name))


@get("/sites/{name:str}/topics", sync_to_thread=True)
def explain_topics(name: FromPath[str], hub: TheHub, seen: TheSeen) -> SiteTopics:
    """Say what the applications of a site publish and read on its message bus, and where an end is loose."""
    return site_topics(hub.store, seen.site(name))


def _preview(hub: Hub, release: Release, selector: str) -> FleetPreview:
    chosen = parse_selector(selector)
    previewing = Previewing(hub.store)
    found = preview_fleet(release, previewing.hosts(release.application.metadata.name, chosen))
    lacking = lacking_secrets(hub, release, selector)
    wrong = Checking(hub.store, {}).misconfigured(release, selector)
    return msgspec.structs.replace(
        found,
        selector=selector,
        loose_topics=loose_topics(hub.store, release, chosen),
        lacking_secrets=lacking,
        route_conflicts=route_conflicts(hub, release, selector),
        binding_conflicts=binding_conflicts(hub, release, selector),
        excluded=previewing.excluded(release, chosen),
        misconfigured={str(trouble): tuple(places) for trouble, places in wrong.items()},
    )


HANDLERS: list[Any] = [preview_release, preview_document, list_placements, explain_topics]
