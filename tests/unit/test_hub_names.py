"""Names on the hub: listed with the hosts they lead to, and explained, from what hosts reported."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.matching.name_trace import HostSeen, trace_name
from skerry.ports.hub_store import AppliedReport
from skerry.spec.api_names import NameExplanation, NameStanding
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.ingress import RouteView
from skerry.spec.names import DnsView
from skerry.spec.report import ApplicationView, Observed
from tests.unit.test_hub_preview import SECRET, Fleet

SHORT, LONG = "reader.site.internal", "reader.harbour.skerry.internal"


def view(**options: Any) -> RouteView:
    whole: dict[str, Any] = {
        "application": "reader", "route": "main", "component": "web", "state": "serving",
        "names": (LONG, SHORT), "port": 443, "tls": True,
    } | options  # fmt: skip
    return RouteView(**whole)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    made.site("harbour")
    made.site("airport")
    return made


@pytest.fixture
async def client(fleet: Fleet) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(fleet.hub))  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as made:
        yield made


def report(
    fleet: Fleet,
    host: str,
    *routes: RouteView,
    duty: Literal["", "active", "stand-by"] = "",
    dns: DnsView | None = None,
    hears: Mapping[str, Literal["heard", "silent", "unknown"]] | None = None,
) -> None:
    """Have a host of the harbour report."""
    number = int(host[-1])
    facts: HostFacts = {"lan_address": Fact(value=f"10.0.0.{number}:7946", source="")}
    fleet.host(host, "harbour", facts)
    now = fleet.clock.now()
    observed = Observed(
        routes=routes, dns=dns, neighbours=dict(hears or {}),
        applications={"reader": ApplicationView(phase="running", duty=duty)},
    )  # fmt: skip
    applied = AppliedReport(
        host=host, site="harbour", sequence=2, seen_at=now, sent_at=now, clock_offset_s=0.0, generation=0,
        observed=observed, facts=facts,
    )  # fmt: skip
    fleet.hub.store.apply_reports([applied])


async def test_names_are_listed_with_the_hosts_that_they_lead_to(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    report(fleet, "edge-1", view(), duty="active", dns=DnsView(listens=("10.0.0.1:53",)))
    report(fleet, "edge-2", view(state="waiting", why="web does not run"), duty="stand-by")
    answer = await client.get("/names", params={"site": "harbour"})
    found = msgspec.json.decode(answer.content, type=list[NameStanding])
    assert [one.name.name for one in found] == [LONG, SHORT]
    assert [(one.host, one.address, one.state) for one in found[1].name.places] == [
        ("edge-1", "10.0.0.1", "serving")
    ]
    assert (found[1].answered_by, found[1].name.applications) == (("edge-1",), ("reader",))
    assert found[1].as_of == fleet.clock.now()
    assert (await client.get("/names", params={"site": "airport"})).json() == []


async def test_a_name_is_explained_host_by_host_and_by_what_each_dns_hears(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    dns = DnsView(listens=("10.0.0.3:53",))
    report(fleet, "edge-1", view(), duty="active")
    report(fleet, "edge-2", view(state="waiting", why="web does not run"), duty="stand-by")
    report(fleet, "edge-3", dns=dns, hears={"edge-1": "heard", "edge-2": "heard"})
    report(fleet, "edge-4", dns=DnsView(trouble="cannot listen at 10.0.0.4:53: it is taken"))
    answer = await client.get("/sites/harbour/name", params={"asked": f"{SHORT}."})
    found = msgspec.json.decode(answer.content, type=NameExplanation)
    assert found.trace.outcome == "10.0.0.1 (edge-1)"
    assert [(hop.what, hop.answer) for hop in found.trace.hops] == [
        ("name", f"{SHORT} is a name of site.internal"),
        ("edge-1", "route main of reader serves on port 443"),
        ("edge-2", "reader stands by: the name does not lead here"),
        ("leads to", "10.0.0.1 (edge-1)"),
        ("DNS of edge-3", "at 10.0.0.3:53 answers 10.0.0.1"),
        ("DNS of edge-4", "cannot listen at 10.0.0.4:53: it is taken"),
    ]
    assert (await client.get("/sites/nowhere/name", params={"asked": SHORT})).status_code == 404
    assert (await client.get("/sites/harbour/name", params={"asked": ""})).status_code == 400


def answers(name: str, *hosts: HostSeen) -> tuple[dict[str, str], str]:
    trace = trace_name(name, hosts, site="harbour", domain="skerry.internal")
    return {hop.what: hop.answer for hop in trace.hops}, trace.outcome


def test_why_a_name_does_not_lead_to_a_host_is_said() -> None:
    refused = HostSeen(host="a", address="10.0.0.1", routes=(view(state="refused", why="no proxy"),))
    alone = HostSeen(host="b", address="10.0.0.2", routes=(view(expose="host"),))
    lost = HostSeen(host="c", routes=(view(),))
    waits = HostSeen(host="d", address="10.0.0.4", routes=(view(state="waiting", why="no certificate"),))
    hops, outcome = answers(SHORT, refused, alone, lost)
    assert "not in force: no proxy" in hops["a"]
    assert "127.0.0.1" in hops["b"]
    assert "no address" in hops["c"]
    assert hops["DNS"].startswith("no host of harbour has one")
    assert outcome == "nobody: no host has a route of that name"
    hops, outcome = answers(SHORT, waits)
    assert ("no certificate" in hops["d"], outcome) == (True, "10.0.0.4 (d)")
    hops, outcome = answers("example.org", waits)
    assert ("asks others" in hops["name"], outcome) == (True, "nobody at the site")
    hops, outcome = answers("other.site.internal", waits)
    assert f"names there: {LONG}, {SHORT}" in hops["leads to"]
