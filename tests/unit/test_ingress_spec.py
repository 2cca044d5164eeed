"""Routes as they are written: every problem is told, and names follow from them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.ingress import Claim, HostPorts, find_conflicts, host_ports
from skerry.matching.route_trace import parse_url, trace_route
from skerry.spec.application import ApplicationSpec, Component, Port
from skerry.spec.checks_gates import check_gates_told
from skerry.spec.checks_ingress import check_ingress
from skerry.spec.facts import Fact
from skerry.spec.gates import GateSpec
from skerry.spec.ingress import MutualTls, Route, RouteAuth, RouteRate, RouteView, route_names
from skerry.spec.shadow import Shadow


def route(name: str = "main", **options: Any) -> Route:
    return Route(
        name=name, component=options.pop("component", "web"), port=options.pop("port", "http"), **options
    )


def application(*routes: Route) -> ApplicationSpec:
    web = Component(name="web", command=("serve",), ports=(Port(name="http"), Port(name="bus", port=502)))
    return ApplicationSpec(version="1", components=(web,), ingress=routes)


def problems(*routes: Route) -> list[str]:
    return [f"{one.path}: {one.message}" for one in check_ingress(application(*routes))]


def test_a_plain_route_has_no_problem() -> None:
    assert (
        problems(route(), route("api", path="/api", protocol="grpc"), route("t", protocol="tcp", listen=5020))
        == []
    )


@pytest.mark.parametrize(
    ("made", "where"),
    (
        (route(component="other"), "spec.ingress[0].component"),
        (route(port="other"), "spec.ingress[0].port"),
        (route(idle="0s"), "spec.ingress[0].idle"),
        (route(drain="2h"), "spec.ingress[0].drain"),
        (route(rate=RouteRate(requests=1, per="1ms")), "spec.ingress[0].rate.per"),
        (route(auth=RouteAuth(token="a", mtls=MutualTls(sites=("b",)))), "spec.ingress[0].auth"),
        (route(auth=RouteAuth(mtls=MutualTls())), "spec.ingress[0].auth.mtls"),
        (route(tls="plain", auth=RouteAuth(mtls=MutualTls(sites=("b",)))), "spec.ingress[0].auth.mtls"),
        (route(tls="plain", auth=RouteAuth(token="a")), "spec.ingress[0].auth.token"),
        (route(listen=5020), "spec.ingress[0].listen"),
        (route(max_body="1GiB"), "spec.ingress[0].max_body"),
        (route(protocol="grpc", max_body="1MiB"), "spec.ingress[0].max_body"),
        (route(path="/a/../b"), "spec.ingress[0].path"),
        (route(path="/a//b"), "spec.ingress[0].path"),
        (route(protocol="tcp"), "spec.ingress[0].listen"),
        (route(protocol="tcp", listen=5020, path="/a"), "spec.ingress[0].path"),
        (route(protocol="tcp", listen=5020, auth=RouteAuth(token="a")), "spec.ingress[0].auth.token"),
        (route(protocol="tcp", listen=5020, max_body="1MiB"), "spec.ingress[0].max_body"),
        (route(protocol="tcp", listen=502), "spec.ingress[0].listen"),
        (route(protocol="tcp", listen=5020, redirect=True), "spec.ingress[0].redirect"),
        (route(tls="plain", redirect=True), "spec.ingress[0].redirect"),
    ),
)
def test_what_cannot_be_kept_is_refused_where_it_stands(made: Route, where: str) -> None:
    assert any(one.startswith(f"{where}: ") for one in problems(made)), problems(made)


@pytest.mark.parametrize(
    ("made", "where"),
    (
        (route(shadow=Shadow(), protocol="grpc"), "spec.ingress[0].shadow"),
        (route(shadow=Shadow(), rate=RouteRate(requests=1)), "spec.ingress[0].shadow"),
        (route(shadow=Shadow(share="0%")), "spec.ingress[0].shadow.share"),
        (route(shadow=Shadow(timeout="0s")), "spec.ingress[0].shadow.timeout"),
        (route(shadow=Shadow(max_body="1GiB")), "spec.ingress[0].shadow.max_body"),
        (route(path="/a", shadow=Shadow(paths=("/a/b", "/ab"))), "spec.ingress[0].shadow.paths[1]"),
        (route(shadow=Shadow(tolerance="1%")), "spec.ingress[0].shadow.tolerance"),
        (route(shadow=Shadow(compare="top-1", fields=("$.a",))), "spec.ingress[0].shadow.fields"),
        (route(shadow=Shadow(compare="json", label="$.a")), "spec.ingress[0].shadow.label"),
        (route(), "spec.update"),
    ),
)
def test_what_cannot_be_copied_or_compared_is_refused_where_it_stands(made: Route, where: str) -> None:
    found = list(check_ingress(msgspec.structs.replace(application(made), update="shadow")))
    assert [one.path for one in found] == [where]


def test_copies_are_for_applications_that_want_them_alone() -> None:
    plain = Shadow(compare="json", fields=("$.a",), tolerance="1%", paths=("/x",))
    assert problems(route(shadow=plain)) == ["spec.ingress[0].shadow: nothing is copied with update: auto"]
    wanting = msgspec.structs.replace(application(route(shadow=plain)), update="shadow")
    assert list(check_ingress(wanting)) == []


def test_who_is_led_from_without_tls_takes_that_place_as_well() -> None:
    found = problems(route("a", path="/x", redirect=True), route("b", path="/x", tls="plain"))
    assert found == ["spec.ingress[1]: is at the same place as route a"]
    claims = [
        Claim("alpha", (route(redirect=True),)),
        Claim("beta", (route(host="alpha", tls="plain"), route("other", tls="plain"))),
    ]
    (conflict,) = find_conflicts(claims, {}, site="zurich", domain="d")
    assert (conflict.application, conflict.route) == ("beta", "main")
    taken = HostPorts(taken={80: "nginx"})
    (conflict,) = find_conflicts(claims[:1], {"h": taken}, site="zurich", domain="d")
    assert conflict.why == "port 80 of host h is taken by nginx"


def test_gates_may_ask_for_what_is_measured_of_routes_and_for_nothing_that_is_not() -> None:
    def told(made: Route, **gate: Any) -> list[str]:
        one = GateSpec(max_increase="0.1", **gate)
        return [problem.path for problem in check_gates_told([one], application(made))]

    assert told(route(), metric="ingress_latency_ms", kind="quantile", quantile=0.99) == []
    assert told(route(), metric="ingress_errors.main", kind="rate", component="web") == []
    assert told(route(), metric="ingress_errors", kind="mean") == ["spec.gates[0].kind"]
    assert told(route(), metric="ingress_errors", kind="rate", component="other") == ["spec.gates[0].metric"]
    assert told(route(), metric="shadow_disagreement", kind="rate") == ["spec.gates[0].metric"]
    assert told(route(shadow=Shadow()), metric="shadow_disagreement", kind="rate") == []


def test_a_token_may_stay_within_its_host_without_tls() -> None:
    assert problems(route(tls="plain", expose="host", auth=RouteAuth(token="a"))) == []


def test_two_routes_at_one_place_are_refused_however_the_path_ends() -> None:
    found = problems(route("a", path="/x"), route("b", path="/x/"), route("c", path="/x", tls="plain"))
    assert found == ["spec.ingress[1]: is at the same place as route a"]


def test_names_are_the_same_at_every_site_but_for_the_sites_own() -> None:
    assert route_names(route(), "reader", "zurich", "example.org") == (
        "reader.zurich.example.org", "reader.site.internal",
    )  # fmt: skip
    whole = route(host="cam.zurich.example.org")
    assert route_names(whole, "reader", "zurich", "example.org") == ("cam.zurich.example.org",)


# ── conflicts ────────────────────────────────────────────────────────────────────────────────────────


def conflicts(*claims: Claim, hosts: dict[str, HostPorts] | None = None) -> list[tuple[str, str]]:
    found = find_conflicts(claims, hosts or {"h": HostPorts()}, site="zurich", domain="skerry.internal")
    return [(one.application, one.why) for one in found]


@pytest.mark.rule("INGRESS-4")
def test_a_name_and_path_belongs_to_one_application_of_a_site() -> None:
    own, other = Claim("a", (route(host="x"),)), Claim("b", (route(host="x"),))
    assert conflicts(own, other) == [("b", "x.zurich.skerry.internal/ belongs to route main of a")]
    assert conflicts(own, Claim("b", (route(host="x", path="/b"),))) == []
    assert conflicts(own, Claim("b", (route(host="x.site.internal"),))) != []


@pytest.mark.rule("INGRESS-4")
def test_a_port_belongs_to_one_application_of_a_site() -> None:
    raw = route("raw", protocol="tcp", listen=5020)
    assert conflicts(Claim("a", (raw,)), Claim("b", (raw,))) == [("b", "port 5020 belongs to route raw of a")]
    assert conflicts(Claim("a", (raw,)), Claim("b", (), frozenset({5020}))) == [
        ("a", "port 5020 belongs to a component of b itself")
    ]
    assert conflicts(Claim("a", (route(),)), Claim("b", (), frozenset({443}))) == [
        ("a", "port 443 belongs to a component of b itself")
    ]
    assert conflicts(Claim("a", (route("t", protocol="tcp", listen=443),))) != []


@pytest.mark.rule("INGRESS-4")
def test_a_port_that_a_host_holds_otherwise_and_a_host_without_a_proxy_speak_against_a_route() -> None:
    taken = {"h": HostPorts(taken={443: "nginx"})}
    assert conflicts(Claim("a", (route(),)), hosts=taken) == [("a", "port 443 of host h is taken by nginx")]
    assert conflicts(Claim("a", (route(tls="plain"),)), hosts=taken) == []
    bare = {"h": HostPorts(proxy=False)}
    assert "no proxy" in conflicts(Claim("a", (route(),)), hosts=bare)[0][1]


@pytest.mark.rule("INGRESS-4")
def test_a_name_outside_the_sites_certificate_is_a_conflict() -> None:
    for host in ("www.example.org", "x.other.skerry.internal", "azurich.skerry.internal"):
        assert "outside the site's certificate" in conflicts(Claim("a", (route(host=host),)))[0][1]
    assert conflicts(Claim("a", (route(host="deep.er.zurich.skerry.internal"),))) == []
    assert (
        "longer than"
        in conflicts(Claim("a" * 63, (route(host=".".join(["b" * 60] * 4) + ".site.internal"),)))[0][1]
    )


def one_route(application: str, host: str, path: str, tls: Literal["site", "plain"]) -> Claim:
    return Claim(application, (route(host=host, path=path, tls=tls),))


TLS: tuple[Literal["site", "plain"], ...] = ("site", "plain")
claims = st.lists(
    st.builds(
        one_route,
        st.sampled_from("abcd"),
        st.sampled_from(["x", "y", "x.site.internal", "x.zurich.skerry.internal"]),
        st.sampled_from(["/", "/a", "/a/", "/b"]),
        st.sampled_from(TLS),
    ),
    unique_by=lambda claim: claim.application,
)


@pytest.mark.rule("INGRESS-4")
@given(claims)
def test_of_what_has_no_conflict_no_two_answer_for_the_same(made: list[Claim]) -> None:
    refused = {application for application, _ in conflicts(*made)}
    places = [
        (name, one.path.rstrip("/"), one.tls)
        for claim in made
        if claim.application not in refused
        for one in claim.routes
        for name in route_names(one, claim.application, "zurich", "skerry.internal")
    ]
    assert len(places) == len(set(places))
    # And nobody is refused who alone would be there.
    assert len(refused) < len(made) or not made


def test_what_a_host_says_of_its_ports_is_read_from_its_facts() -> None:
    facts = {
        "ingress": Fact(value="envoy 1.40.0", source=""),
        "ingress.https": Fact(value=8443, source=""),
        "ports.taken": Fact(value=("22", "631 cups"), source=""),
    }
    assert host_ports(facts) == HostPorts(8443, 80, {22: "another program", 631: "cups"}, proxy=True)
    assert host_ports({"arch": Fact(value="x86_64", source="")}).proxy is False
    assert host_ports({}).proxy is True


# ── explaining ───────────────────────────────────────────────────────────────────────────────────────


def view(name: str, path: str, **options: Any) -> RouteView:
    usual: dict[str, Any] = {
        "state": "serving",
        "release": "reader@1",
        "backend": "127.0.0.1:4000",
        "port": 443,
    }
    options = usual | {"tls": True} | options
    return RouteView(
        application="reader", route=name, component="web", names=("reader.site.internal",), path=path,
        **options,
    )  # fmt: skip


def outcome(url: str, *views: RouteView) -> str:
    return trace_route(parse_url(url), "zurich", {"h": views}).outcome


def test_a_request_is_followed_to_who_answers_it() -> None:
    main, deep = view("main", "/"), view("deep", "/a", release="reader@2")
    assert outcome("https://reader.site.internal/a/b", main, deep) == "h: reader@2 at 127.0.0.1:4000"
    assert outcome("https://reader.site.internal/ab", main, deep) == "h: reader@1 at 127.0.0.1:4000"
    trace = trace_route(parse_url("https://reader.site.internal/a"), "zurich", {"h": (main, deep), "i": ()})
    assert [hop.what for hop in trace.hops] == ["name", "h: listener", "h: path", "h: clients", "h: backend"]
    assert "longer than /" in trace.hops[2].answer


@pytest.mark.parametrize(
    ("url", "made", "said"),
    (
        ("https://other.site.internal/", view("main", "/"), "no host of zurich has a route named"),
        ("http://reader.site.internal/", view("main", "/"), "are for https, not for http"),
        ("https://reader.site.internal:8443/", view("main", "/"), "on port 443, not on 8443"),
        ("https://reader.site.internal/b", view("main", "/a"), "404"),
        (
            "https://reader.site.internal/",
            view("main", "/", state="refused", why="taken"),
            "not in force: taken",
        ),
        (
            "https://reader.site.internal/",
            view("main", "/", state="waiting", why="not ready"),
            "not ready: 503",
        ),
    ),
)
def test_why_nobody_answers_is_said(url: str, made: RouteView, said: str) -> None:
    trace = trace_route(parse_url(url), "zurich", {"h": (made,)})
    assert trace.outcome.startswith("nobody")
    assert said in trace.hops[-1].answer
