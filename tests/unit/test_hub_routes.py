"""Routes on the hub: refused before a rollout begins where they cannot be, listed and explained where they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.hub.routing import check_routes
from skerry.hub.secret_keeping import secrets_of
from skerry.ports.hub_store import AppliedReport, TokenRecord
from skerry.spec.api import FleetPreview
from skerry.spec.api_ingress import RouteExplanation, RouteStanding
from skerry.spec.application import Component, Port
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.ingress import Route, RouteAuth, RouteView
from skerry.spec.metadata import Metadata
from skerry.spec.metrics import MetricWindow, Rate, Value, histogram_of
from skerry.spec.release import Release
from skerry.spec.report import Observed
from skerry.spec.site import Site, SiteSpec
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import component, release
from tests.unit.test_hub_preview import SECRET, Fleet

PROXY: HostFacts = {"ingress": Fact(value="envoy 1.40.0", source=""), "arch": Fact(value="x86_64", source="")}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    for name in ("harbour", "airport"):
        made.site(name)
        made.host(f"{name}-1", name, PROXY)
    return made


@pytest.fixture
async def client(fleet: Fleet) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(fleet.hub))  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as made:
        yield made


def app(name: str, *routes: Route, version: str = "1", fixed: int = 0) -> Release:
    web: Component = msgspec.structs.replace(component(), ports=(Port(name="http", port=fixed),))
    plain = release(web, name=name)
    spec = msgspec.structs.replace(plain.application.spec, version=version, ingress=routes)
    return msgspec.structs.replace(plain, application=msgspec.structs.replace(plain.application, spec=spec))


def route(name: str = "main", **options: Any) -> Route:
    return Route(name=name, component="main", port="http", **options)


def refusals(fleet: Fleet, name: str, selector: str = "*", *new: Site) -> list[str]:
    record = fleet.hub.store.release(name)
    assert record is not None
    return [problem.message for problem in check_routes(fleet.hub, record, selector, list(new))]


@pytest.mark.rule("INGRESS-4")
async def test_a_rollout_whose_routes_would_meet_others_is_refused_with_the_sites(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.assign("harbour", fleet.push(app("reader", route())))
    thief = fleet.push(app("thief", route(host="reader")))
    (why,) = refusals(fleet, thief)
    assert why.startswith(
        "route main of thief cannot be: reader.SITE.skerry.internal/ belongs to route main of reader"
    )
    assert why.endswith("at harbour")
    assert refusals(fleet, thief, "name=airport") == []
    answer = await client.get(f"/releases/{thief}/preview")
    found = msgspec.json.decode(answer.content, type=FleetPreview)
    assert list(found.route_conflicts.values()) == [("harbour",)]


def test_the_token_of_a_route_is_one_of_the_secrets_that_a_release_uses() -> None:
    assert secrets_of(app("reader", route(auth=RouteAuth(token="key")))) == {"key"}


@pytest.mark.rule("INGRESS-4")
async def test_the_next_release_of_an_application_is_not_in_its_own_way(fleet: Fleet) -> None:
    fleet.assign("harbour", fleet.push(app("reader", route())))
    assert refusals(fleet, fleet.push(app("reader", route(), route("more", path="/more"), version="2"))) == []


@pytest.mark.rule("INGRESS-4")
async def test_it_is_refused_as_well_when_the_other_one_would_have_to_give_way(fleet: Fleet) -> None:
    """Of two names the first in the alphabet has the place: who is there already must not lose it."""
    fleet.assign("harbour", fleet.push(app("reader", route())))
    assert len(refusals(fleet, fleet.push(app("alpha", route(host="reader"))))) == 1
    assert len(refusals(fleet, fleet.push(app("fixed", fixed=443)))) == 1


@pytest.mark.rule("INGRESS-4")
async def test_a_host_without_a_proxy_or_with_a_taken_port_speaks_against_a_rollout(fleet: Fleet) -> None:
    fleet.host("airport-2", "airport", PROXY | {"ports.taken": Fact(value=("5020",), source="")})
    fleet.host("harbour-2", "harbour", {"arch": Fact(value="x86_64", source="")})
    raw = fleet.push(app("raw", route(protocol="tcp", listen=5020)))
    assert refusals(fleet, raw, "name=airport") == [
        "route main of raw cannot be: port 5020 of host airport-2 is taken by another program: at airport"
    ]
    assert "no proxy" in refusals(fleet, raw, "name=harbour")[0]
    new = Site(metadata=Metadata("new"), spec=SiteSpec())
    assert refusals(fleet, raw, "name=new", new) == []


@pytest.mark.rule("INGRESS-4")
async def test_two_rollouts_of_one_apply_whose_routes_would_meet_are_both_refused(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    for name in ("reader", "thief"):
        fleet.push(app(name, route(host="reader")))
    token = TokenRecord(
        id="2", name="hand", hash=hash_secret("operator"), role="operator", created_at=fleet.clock.now()
    )
    fleet.hub.store.add_token(token, fleet.audit())

    async def refused(*where: str) -> list[str]:
        documents = [
            {
                "apiVersion": "skerry/v1",
                "kind": "Rollout",
                "metadata": {"name": f"to-{name}"},
                "spec": {"release": f"{name}@1", "sites": sites},
            }
            for name, sites in zip(("reader", "thief"), where, strict=True)
        ]
        headers = {"Authorization": "Bearer operator"}
        body = {"documents": documents, "dry_run": True}
        answer = await client.post("/apply", json=body, headers=headers)
        problems = answer.json().get("problems", [])
        return sorted({one["path"].split(":")[0] for one in problems if "belongs to" in one["message"]})

    assert await refused("*", "name=harbour") == ["Rollout to-reader", "Rollout to-thief"]
    assert await refused("name=airport", "name=harbour") == []


async def test_routes_are_listed_with_what_clients_saw_and_a_request_is_explained(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    view = RouteView(
        application="reader", route="main", component="main", state="serving", release="reader@1",
        backend="127.0.0.1:4000", names=("reader.site.internal",), path="/", port=443, tls=True,
    )  # fmt: skip
    now = fleet.clock.now()
    report = AppliedReport(
        host="harbour-1", site="harbour", sequence=2, seen_at=now, sent_at=now, clock_offset_s=0.0, generation=0,
        observed=Observed(routes=(view,)), facts=PROXY,
    )  # fmt: skip
    fleet.hub.store.apply_reports([report])

    def window(metric: str, value: Value, minutes: int = 5) -> MetricWindow:
        begin = now - timedelta(minutes=minutes)
        return MetricWindow(
            application="reader", release="reader@1", component="main", metric=metric,
            begin=begin, end=begin + timedelta(minutes=1), value=value,
        )  # fmt: skip

    windows = [
        window("ingress_errors", Rate(bad=1, total=100)),
        window("ingress_errors", Rate(bad=0, total=50), 4),
        window("ingress_errors", Rate(bad=9, total=9), 120),
        window("ingress_bytes", Rate(bad=1000, total=5000)),
        window("ingress_latency_ms", histogram_of([2.0] * 98 + [50.0] * 2)),
    ]
    fleet.hub.store.put_metric_windows("harbour-1", "harbour", windows, sequence=2, at=now)
    answer = await client.get("/routes", params={"site": "harbour"})
    (found,) = msgspec.json.decode(answer.content, type=list[RouteStanding])
    figures = found.figures
    assert (found.host, found.route, found.as_of) == ("harbour-1", view, now)
    assert (figures.requests, figures.errors, figures.received_bytes, figures.sent_bytes) == (
        150,
        1,
        1000,
        4000,
    )
    assert figures.p50_ms == pytest.approx(2, rel=0.02)
    assert figures.p99_ms == pytest.approx(50, rel=0.02)
    assert (await client.get("/routes", params={"site": "airport"})).json() == []
    assert (await client.get("/routes", params={"application": "other"})).json() == []

    asked = {"url": "https://reader.site.internal/x"}
    answer = await client.get("/sites/harbour/route", params=asked)
    told = msgspec.json.decode(answer.content, type=RouteExplanation)
    assert told.trace.outcome == "harbour-1: reader@1 at 127.0.0.1:4000"
    assert (
        (await client.get("/sites/airport/route", params=asked))
        .json()["trace"]["outcome"]
        .startswith("nobody")
    )
    assert (await client.get("/sites/harbour/route", params={"url": "ftp://x"})).status_code == 400
    assert (await client.get("/sites/nowhere/route", params=asked)).status_code == 404
