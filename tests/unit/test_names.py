"""A site's names as its hosts know them: where each leads, and what is answered for one that does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.names import (
    Asked,
    HostWords,
    Zone,
    answer_question,
    find_names,
    is_below,
    lay_zone,
    words_of,
)
from skerry.spec.ingress import RouteView
from skerry.spec.names import NameWord

SITE, DOMAIN = "zurich", "skerry.internal"
LONG, SHORT = "reader.zurich.skerry.internal", "reader.site.internal"
READER = NameWord("reader", "reader", "https", 443)
WAITING = NameWord("reader", "reader", "https", 443, serving=False)


def view(**options: Any) -> RouteView:
    whole: dict[str, Any] = {
        "application": "reader", "route": "main", "component": "web", "state": "serving",
        "names": (LONG, SHORT), "port": 443, "tls": True,
    } | options  # fmt: skip
    return RouteView(**whole)


def at(number: int, *words: NameWord, heard: bool = True, address: str = "") -> HostWords:
    return HostWords(host=f"h{number}", address=address or f"10.0.0.{number}", heard=heard, words=words)


def zone(*hosts: HostWords, **options: Any) -> Zone:
    return lay_zone(hosts, site=SITE, domain=DOMAIN, own="h1", **options)


def ask(found: Zone, name: str, kind: str = "A", *, near: bool = False) -> Any:
    """Return the code and the data of an answer, `beyond` where upstreams are to be asked."""
    answer = answer_question(found, Asked(name, kind, near))
    if answer is None:
        return "beyond"
    return answer.code, [record.data for record in answer.records]


def test_a_route_has_its_two_names_at_every_host_that_serves_it() -> None:
    found = zone(at(1, READER), at(2, READER), at(3))
    for name in (LONG, SHORT):
        assert ask(found, name) == ("NOERROR", ["10.0.0.1", "10.0.0.2"])
    assert ask(found, "h3.skerry.zurich.skerry.internal") == ("NOERROR", ["10.0.0.3"])
    assert ask(found, "2.0.0.10.in-addr.arpa", "PTR") == ("NOERROR", ["h2.skerry.zurich.skerry.internal"])
    answer = answer_question(found, Asked(f"_https._tcp.{SHORT}", "SRV"))
    assert answer is not None
    assert [(one.data, one.port) for one in answer.records] == [
        ("h1.skerry.zurich.skerry.internal", 443),
        ("h2.skerry.zurich.skerry.internal", 443),
    ]


@pytest.mark.rule("NAME-1")
def test_a_name_follows_its_application_from_host_to_host() -> None:
    assert ask(zone(at(1, READER), at(2)), SHORT)[1] == ["10.0.0.1"]
    # The one that has it now falls silent: until another one serves it, this was its last place.
    assert ask(zone(at(1, READER, heard=False), at(2)), SHORT)[1] == ["10.0.0.1"]
    assert ask(zone(at(1, READER, heard=False), at(2, WAITING)), SHORT)[1] == ["10.0.0.2"]
    assert ask(zone(at(1, READER, heard=False), at(2, READER)), SHORT)[1] == ["10.0.0.2"]
    assert ask(zone(at(1, WAITING), at(2, READER)), SHORT)[1] == ["10.0.0.2"]
    (name,) = {one.places for one in zone(at(1, WAITING), at(2, READER)).names.values()}
    assert [place.host for place in name] == ["h2"]


def test_a_name_that_is_not_there_and_one_without_such_records_are_told_apart() -> None:
    found = zone(at(1, READER))
    assert ask(found, SHORT, "AAAA") == ("NOERROR", [])
    assert ask(found, f"_tcp.{SHORT}") == ("NOERROR", [])
    assert ask(found, "other.site.internal") == ("NXDOMAIN", [])
    assert ask(found, f"x.{SHORT}") == ("NXDOMAIN", [])
    assert ask(found, "site.internal", "SOA") == ("NOERROR", ["h1.skerry.zurich.skerry.internal"])
    assert ask(found, "zurich.skerry.internal", "NS") == ("NOERROR", ["h1.skerry.zurich.skerry.internal"])
    absent = answer_question(found, Asked("other.site.internal", "A"))
    assert absent is not None and absent.apex == "site.internal"


def test_names_of_others_are_asked_of_upstreams() -> None:
    found = zone(at(1, READER))
    for name in (
        "example.org",
        "reader.bern.skerry.internal",
        "internal",
        "xsite.internal",
        "",
        "9.0.0.10.in-addr.arpa",
    ):
        assert ask(found, name) == "beyond"


@pytest.mark.rule("NAME-4")
def test_who_does_not_know_the_whole_site_yet_denies_no_name() -> None:
    found = zone(at(1, READER), whole=False)
    assert ask(found, "other.site.internal") == ("SERVFAIL", [])
    assert ask(found, SHORT) == ("NOERROR", ["10.0.0.1"])
    assert ask(found, SHORT, "AAAA") == ("NOERROR", [])


def test_an_address_of_the_next_version_is_an_aaaa_record() -> None:
    found = zone(at(1, READER, address="fd00::7"))
    assert ask(found, SHORT, "AAAA") == ("NOERROR", ["fd00::7"])
    assert ask(found, SHORT) == ("NOERROR", [])


def test_a_route_for_the_host_alone_is_known_to_its_own_programs_alone() -> None:
    own = words_of([view(expose="host")], (), expose="host")
    assert words_of([view(expose="host")], ()) == ()
    found = zone(at(1), near=own)
    assert ask(found, SHORT, near=True) == ("NOERROR", ["127.0.0.1"])
    assert ask(found, SHORT, "AAAA", near=True) == ("NOERROR", [])
    assert ask(found, SHORT) == ("NXDOMAIN", [])
    assert ask(zone(at(1), at(2, READER), near=own), SHORT, near=True) == ("NOERROR", ["10.0.0.2"])


def test_what_a_host_says_follows_its_routes() -> None:
    assert words_of([view()], ()) == (READER,)
    assert words_of([view(), view(route="more", path="/more", state="waiting")], ()) == (READER,)
    assert words_of([view(state="waiting")], ()) == (WAITING,)
    assert words_of([view(state="refused")], ()) == ()
    assert words_of([view()], {"reader"}) == ()
    whole = view(names=("eye.site.internal",), protocol="tcp", port=5020, route="raw", tls=False)
    assert words_of([whole], ()) == (NameWord("reader", "eye.site.internal", "raw", 5020),)
    assert words_of([view(protocol="grpc"), view(tls=False, port=80)], ()) == (
        NameWord("reader", "reader", "grpc", 443),
        NameWord("reader", "reader", "http", 80),
    )


hosts = st.lists(
    st.builds(
        HostWords,
        host=st.sampled_from(["h1", "h2", "h3"]),
        address=st.sampled_from(["10.0.0.1", "fd00::1", "", "0.0.0.0", "no address", "10.0.0.1%x"]),
        heard=st.booleans(),
        words=st.lists(
            st.builds(
                NameWord,
                application=st.sampled_from(["reader", "x"]),
                host=st.one_of(
                    st.text(max_size=70),
                    st.sampled_from(
                        ["reader", "READER", LONG, SHORT, "h2.skerry.zurich.skerry.internal", "evil.org", "*", "a..b"]
                    ),
                    st.text(st.sampled_from("ab.-"), max_size=20).map(lambda text: f"{text}.site.internal"),
                ),
                service=st.text(max_size=64),
                port=st.integers(0, 65535),
                serving=st.booleans(),
            ),
            max_size=4,
        ).map(tuple),
    ),
    max_size=4,
    unique_by=lambda one: one.host,
)  # fmt: skip


@pytest.mark.rule("NAME-3")
@given(hosts)
def test_no_word_of_a_host_makes_a_name_outside_the_site(found: list[HostWords]) -> None:
    made = lay_zone(found, site=SITE, domain=DOMAIN, own="h1")
    known = {host.host: host.address for host in found}
    for name, records in made.records.items():
        inside = any(is_below(name, apex) for apex in made.apexes)
        assert inside or all(record.type == "PTR" for record in records)
        assert len(name) <= 253
        for record in records:
            if name.endswith(".skerry.zurich.skerry.internal") and record.type in ("A", "AAAA"):
                assert record.data == known[name.partition(".")[0]]


@given(hosts)
def test_a_name_leads_to_the_best_places_and_to_some_place_always(found: list[HostWords]) -> None:
    for name in find_names(found, site=SITE, domain=DOMAIN).values():
        assert name.places
        states = {place.state for place in name.places}
        assert len(states) == 1
        order = ["serving", "waiting", "silent"]
        assert all(order.index(place.state) > order.index(states.copy().pop()) for place in name.passed)
        assert msgspec.json.encode(name)
