"""Which way a host is reached: from what relays said last and what the hub saw, with where it is broken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from skerry.cli.relay_portraits import path_lines
from skerry.hub.relays_path import Sightings, trace_path
from skerry.ports.hub_store import HostRecord
from skerry.ports.relay_records import RelayRecord
from skerry.spec.api_relay import HostPath, SitePath
from skerry.spec.relay import RelayView

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def host(seen_s: float | None = 5.0) -> HostRecord:
    seen = None if seen_s is None else ago(seen_s)
    return HostRecord(name="edge", site="s", sign_key="", seal_key="", enrolled_at=NOW, last_seen_at=seen)


def relay(name: str, seen_s: float = 5.0, *, told_s: float = 5.0, **view: Any) -> RelayRecord:
    return RelayRecord(
        name=name,
        document=b"{}",
        sign_key="key",
        last_seen_at=ago(seen_s),
        view=RelayView(**view),
        view_at=ago(told_s),
    )


def way(found: HostPath) -> list[str]:
    return [hop.name for hop in found.hops]


def traced(edge: HostRecord, *relays: RelayRecord, **sightings: Any) -> HostPath:
    seen = Sightings(**sightings)
    return trace_path(edge, relays, seen, now=NOW, tolerance=timedelta(minutes=5))


def test_the_way_leads_from_relay_to_relay_up_to_the_hub() -> None:
    found = traced(
        host(),
        relay("gate", relays={"floor": 1}),
        relay("floor", relays={"cell": 2}, upstream="https://gate:8443"),
        relay("cell", hosts={"edge": 3, "another": 1}, upstream="https://floor:8443", trouble="disk is full"),
        relay("elsewhere", hosts={"another": 1}),
    )
    assert way(found) == ["hub", "gate", "floor", "cell", "edge"]
    assert found.broken == ""
    assert [hop.upstream for hop in found.hops[2:4]] == ["https://gate:8443", "https://floor:8443"]
    assert found.hops[3].trouble == "disk is full"


def test_who_heard_of_it_last_is_the_way_and_the_hub_itself_counts() -> None:
    old, new = relay("old", hosts={"edge": 600}), relay("new", hosts={"edge": 6})
    assert way(traced(host(), old, new)) == ["hub", "new", "edge"]
    assert way(traced(host(), old, new, hosts={"edge": ago(2)})) == ["hub", "edge"]
    assert way(traced(host(), old, new, hosts={"edge": ago(60)})) == ["hub", "new", "edge"]
    lower = relay("lower", hosts={"edge": 1})
    upper = relay("upper", relays={"lower": 40})
    assert way(traced(host(), lower, upper, relays={"lower": ago(3)})) == ["hub", "lower", "edge"]


def test_a_host_that_no_relay_lists_yet_is_where_the_hub_saw_it() -> None:
    came = {"edge": {"gate": ago(3)}}
    assert way(traced(host(), relay("gate"), came_by=came)) == ["hub", "gate", "edge"]
    assert way(traced(host(), relay("gate"))) == ["hub", "edge"]
    never = traced(host(None))
    assert (way(never), never.broken) == (["hub", "edge"], "edge")


def test_relays_that_list_each_other_do_not_lead_round_and_round() -> None:
    one = relay("one", hosts={"edge": 1}, relays={"two": 1})
    two = relay("two", relays={"one": 1})
    assert way(traced(host(), one, two)) == ["hub", "two", "one", "edge"]


def test_the_first_silent_one_from_the_hub_down_is_where_it_is_broken_and_sentences_say_so() -> None:
    found = traced(
        host(7200.0),
        relay("gate", relays={"cell": 7000}),
        relay("cell", 7100.0, told_s=7100.0, hosts={"edge": 1}),
    )
    assert found.broken == "cell"
    lines = list(path_lines(SitePath(site="s", relays=("gate",), hosts=(found,)), at=NOW))
    assert lines[0].startswith("edge > relay cell > relay gate > hub: reports go up")
    assert lines[2] == "  relay cell: last heard of 1h ago, which is too long ago"
    assert lines[3] == "  relay gate: last heard of 5s ago"
    assert lines[4].startswith("  It is broken above or at relay cell")
    assert lines[5] == "Site s is behind gate."
    empty = list(path_lines(SitePath(site="s", relays=(), hosts=()), at=NOW))
    assert empty == ["No host has joined site s yet.", "Site s is behind no relay."]
