"""`get routes` and `explain route`: how the routes of sites stand, and what answers a request, hop by hop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.cli.main import run
from skerry.spec.api_ingress import RouteExplanation, RouteFigures, RouteHop, RouteStanding, RouteTrace
from skerry.spec.ingress import RouteView
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

AT = datetime(2026, 6, 1, tzinfo=UTC)
FIGURES = RouteFigures(
    since=AT, requests=1200, errors=3, received_bytes=10, sent_bytes=20, p50_ms=2.345, p95_ms=9.0, p99_ms=51.2
)
READER = RouteView(
    application="reader", route="main", component="web", state="serving", release="reader@2",
    backend="127.0.0.1:4000", names=("reader.zurich.skerry.internal", "reader.site.internal"), path="/v1",
    port=8443, tls=True, auth="token",
)  # fmt: skip
BUS = RouteView(
    application="bus", route="raw", component="web", state="waiting", why="nobody is ready",
    names=("bus.site.internal",), port=5020, protocol="tcp",
)  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        nothing = RouteFigures(since=AT, requests=0, errors=0, received_bytes=0, sent_bytes=0)
        hub.views["/routes"] = [
            RouteStanding(site="zurich", host="edge-1", as_of=AT, route=READER, figures=FIGURES),
            RouteStanding(site="zurich", host="edge-1", as_of=AT, route=BUS, figures=nothing),
        ]
        yield hub


def test_routes_are_listed_with_where_they_are_how_they_stand_and_what_clients_saw(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["get", "routes", "--site", "zurich"]) == 0
    reader, bus = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:])
    assert "https://reader.site.internal:8443/v1 serving reader@2 token 1200 3 2.35 ms 51.2 ms" in reader
    assert "bus.site.internal:5020 waiting: nobody is ready" in bus


def test_a_route_is_found_by_its_name_and_programs_get_all_of_it(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["get", "routes", "raw", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["route"]["application"], found["route"]["why"]) == ("bus", "nobody is ready")
    assert run(["get", "routes", "-o", "name"]) == 0
    assert capsys.readouterr().out.splitlines() == ["route/edge-1/reader/main", "route/edge-1/bus/raw"]


def test_a_request_is_explained_hop_by_hop_and_hostile_text_stays_text(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://reader.site.internal/v1"
    hops = (RouteHop("name", "leads to edge-1"), RouteHop("edge-1: backend", "reader@2\x1b[31m"))
    hub.views["/sites/zurich/route"] = RouteExplanation(
        url=url, site="zurich", as_of=AT, trace=RouteTrace(hops=hops, outcome="edge-1: reader@2")
    )
    assert run(["explain", "route", url, "--site", "zurich"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name: leads to edge-1"
    assert "\x1b" not in lines[1]
    assert lines[2].startswith("answered by edge-1: reader@2 (as its hosts reported, the oldest ")
    assert run(["explain", "route", url, "--site", "zurich", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace"]["outcome"] == "edge-1: reader@2"


def test_explaining_needs_a_site(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "route", "https://reader.site.internal/"]) == 2
    assert "--site" in capsys.readouterr().err
