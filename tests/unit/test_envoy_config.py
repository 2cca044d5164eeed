"""What Envoy is told, of any table: every entry is where it belongs, protected as it says, and nothing else is."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.envoy_clusters import clusters, detours
from skerry.adapters.envoy_config import listeners, routes
from skerry.ports.proxy import Backend, Certificate, Entry, ProxyPorts, ProxyTable, Shadowing
from skerry.spec.ingress import MutualTls, Route, RouteAuth, RouteRate
from skerry.spec.shadow import Shadow

NAMES = ("a.site.internal", "b.site.internal")
AUTHS = (RouteAuth(), RouteAuth(token="key"), RouteAuth(mtls=MutualTls(sites=("zurich",))))
TLS: tuple[Literal["site", "plain"], ...] = ("site", "plain")
EXPOSE: tuple[Literal["site", "host"], ...] = ("site", "host")


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    auth = draw(st.sampled_from(AUTHS))
    rest: dict[str, Any] = {
        "tls": draw(st.sampled_from(TLS)),
        "expose": draw(st.sampled_from(EXPOSE)),
        "auth": auth,
    }
    if draw(st.booleans()) and auth.token is None:
        rest |= {"protocol": "tcp", "listen": draw(st.integers(1, 65535))}
    else:
        rest["path"] = draw(st.sampled_from(("/", "/a", "/a/b", "/c/")))
        rest["rate"] = draw(st.sampled_from((None, RouteRate(requests=3))))
        rest["max_body"] = draw(st.sampled_from((None, "1KiB")))
        rest["redirect"] = rest["tls"] == "site" and draw(st.booleans())
    made = Route(name=draw(st.sampled_from("xyz")), component="web", port="http", **rest)
    names = tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)))
    copied = Shadowing("app/x/2", draw(st.sampled_from((Shadow(), Shadow(methods=("GET", "POST"))))))
    return Entry(
        "app",
        made,
        names,
        draw(st.sampled_from(("", "app/x/1"))),
        draw(st.sampled_from((b"", b"s3cret"))),
        # What has a rate is never copied.
        None if made.rate else draw(st.sampled_from((None, copied))),
    )


tables = st.lists(entries(), max_size=6).map(
    lambda found: ProxyTable(
        ProxyPorts(),
        "skerry.internal",
        tuple(found),
        (Backend("app/x/1", 4000), Backend("app/x/2", 4001)),
        Certificate(b"c", b"k", b"t"),
    )
)


def _ports(table: ProxyTable) -> set[tuple[str, int]]:
    found = [one["address"]["socket_address"] for one in listeners(table, "/run")]
    return {(one["address"], one["port_value"]) for one in found}


@pytest.mark.rule("INGRESS-1")
@given(tables)
def test_each_listener_is_there_for_an_entry_and_only_entries_for_the_site_are_outside(
    table: ProxyTable,
) -> None:
    wanted: set[tuple[str, int]] = set()
    for entry in table.entries:
        made = entry.route
        address = "0.0.0.0" if made.expose == "site" else "127.0.0.1"
        if made.protocol == "tcp":
            wanted |= {(address, made.listen or 0)} if entry.backend else set()
        else:
            wanted.add((address, 443 if made.tls == "site" else 80))
            wanted |= {(address, 80)} if made.redirect else set()
    assert _ports(table) == wanted
    outside = [name for name in routes(table) if not name.endswith("-host")]
    for name in outside:
        told = {
            one["name"]
            for config in routes(table)[name]
            for host in config["virtual_hosts"]
            for one in host["routes"]
        }
        here = [
            e for e in table.entries
            if e.route.expose == "site" and e.route.protocol != "tcp"
            and ((e.route.tls == "site") == (name == "https") or (e.route.redirect and name == "http"))
        ]  # fmt: skip
        assert {one.split("/")[1] for one in told} == {entry.route.name for entry in here}


@pytest.mark.rule("INGRESS-2")
@given(tables)
def test_whatever_leads_to_a_backend_is_as_protected_as_its_route_says(table: ProxyTable) -> None:
    by_key = {
        (e.route.name, e.route.path.rstrip("/"), e.route.auth, e.route.rate, e.route.max_body)
        for e in table.entries
    }
    for configs in routes(table).values():
        for told in (one for config in configs for host in config["virtual_hosts"] for one in host["routes"]):
            if "route" not in told:
                continue
            special = told.get("typed_per_filter_config", {})
            headers = told["match"].get("headers", [])
            shown = [one["string_match"]["exact"] for one in headers if one["name"] == "authorization"]
            path = told["match"].get("path_separated_prefix", "")
            kinds = {
                (auth.token is not None, auth.mtls is not None, rate is not None, body is not None)
                for name, where, auth, rate, body in by_key
                if (name, where) == (told["name"].split("/")[1], path)
            }
            assert (
                shown == ["Bearer s3cret"], "skerry.rbac" in special, "skerry.rate" in special, "skerry.body" in special
            ) in kinds  # fmt: skip


@given(tables)
def test_of_two_paths_the_longer_is_asked_first_and_no_name_is_there_twice(table: ProxyTable) -> None:
    for configs in routes(table).values():
        for config in configs:
            hosts = [domain for host in config["virtual_hosts"] for domain in host["domains"]]
            assert len(hosts) == len(set(hosts))
            for host in config["virtual_hosts"]:
                lengths = [len(one["match"].get("path_separated_prefix", "")) for one in host["routes"]]
                assert lengths == sorted(lengths, reverse=True)


def test_a_backend_is_one_cluster_and_its_name_has_no_dots_that_statistics_would_cut() -> None:
    one = Backend("app/x/1", 4000)
    (told,) = clusters((one, one))
    assert told["name"] == one.id
    assert "." not in told["name"]


@pytest.mark.rule("INGRESS-7")
@given(tables)
def test_only_a_share_of_the_methods_that_are_named_takes_the_detour_and_it_ends_at_the_live_release(
    table: ProxyTable,
) -> None:
    ways = {way.id: way for way in detours(table, "/run")}
    assert all((way.socket[:6], way.port) == ("/run/s", 4000) for way in ways.values())
    for told in clusters(table.backends, ways.values()):
        places = told["load_assignment"]["endpoints"]
        assert [place["priority"] for place in places] == ([0, 1] if told["name"] in ways else [0])
    for configs in routes(table).values():
        for one in (one for config in configs for host in config["virtual_hosts"] for one in host["routes"]):
            if "route" not in one:
                continue
            if one["route"]["cluster"] == "app/x/1":
                assert "runtime_fraction" not in one["match"]
                continue
            assert one["route"]["cluster"] in ways
            assert one["match"]["runtime_fraction"]["default_value"]["numerator"] == 100_000
            headers = {told["name"]: told for told in one["match"]["headers"]}
            assert headers["upgrade"]["present_match"] is False
            methods = headers[":method"]["string_match"]["safe_regex"]["regex"]
            # What may change something is never sent twice once the application has it.
            assert (methods == "POST") == ("reset" not in one["route"]["retry_policy"]["retry_on"].split(","))


def test_with_ipv6_each_listener_has_both_kinds_of_addresses() -> None:
    made = (Route(name=name, component="web", port="http", expose=name) for name in EXPOSE)
    entries = tuple(Entry("app", one, NAMES, "app/x/1") for one in made)
    table = ProxyTable(ProxyPorts(), "d", entries, (Backend("app/x/1", 4000),), Certificate(b"c", b"k", b"t"))
    found = {
        one["name"]: [place["address"]["socket_address"]["address"] for place in one["additional_addresses"]]
        for one in listeners(table, "/run", ipv6=True)
    }
    assert found == {"https": ["::"], "https-host": ["::1"]}
