"""Where in a site applications run, and who stands by: room, devices, order, and that nothing jumps around."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.capacity import Need, Room, lacks_of, need_of, room_of
from skerry.matching.placement import Placed, SiteState, Unplaced, place_application, place_site
from skerry.spec.application import Device, Placement, Requests, Resources
from skerry.spec.desired import SitePlacement
from skerry.spec.facts import HostFacts
from skerry.spec.hardware import Preference, Requirements
from skerry.spec.release import Release
from tests.unit.matching_world import GIB, component, facts, release


def host(memory: int = 8, *, cameras: int = 0, **more: Any) -> HostFacts:
    paths = tuple(f"/dev/video{n}" for n in range(cameras))
    return facts(memory_bytes=memory * GIB, cpu_count=4, devices__camera=paths, **more)


def app(name: str = "app", *, memory: str | None = None, camera: bool = False, **placement: Any) -> Release:
    placement.setdefault("mode", "one")
    devices = (Device(name="eye", use="camera"),) if camera else ()
    found = component(resources=Resources(memory=memory), devices=devices)
    return release(found, placement=Placement(**placement), name=name)


def placed(found: Placed | Unplaced) -> SitePlacement:
    assert isinstance(found, Placed)
    return found.placement


def test_the_room_is_what_others_have_left() -> None:
    spec = release(
        component("a", resources=Resources(memory="2GiB", cpu="1500m")),
        component("b", resources=Resources(memory="9GiB", requests=Requests(memory="1GiB", cpu="0.1"))),
        component("c"),
    ).application.spec
    need = need_of(spec)
    assert need == Need(memory_bytes=3 * GIB, cpu_milli=1600)
    room = room_of(facts(memory_bytes=4 * GIB, cpu_count=2)).less(Need(memory_bytes=2 * GIB, cpu_milli=500))
    assert lacks_of(need, room) == [
        "sets 3 GiB of memory aside, has 2 GiB left",
        "sets 1.6 processors aside, has 1.5 left",
    ]
    assert lacks_of(need, Room()) == [
        "sets 3 GiB of memory aside, is unknown of this host",
        "sets 1.6 processors aside, is unknown of this host",
    ]
    assert lacks_of(Need(), Room()) == []


def test_each_is_every_host_that_fits() -> None:
    state = SiteState(hosts={"a": host(), "b": host(1), "c": host(), "d": {}})
    found = place_application(app(mode="each", memory="4GiB"), state)
    assert placed(found).hosts == ("a", "c")
    assert placed(found).count == 2
    assert isinstance(found, Placed)
    assert found.why["b"] == (
        "does not fit: main: needs memory for its limit of 4 GiB, has 1 GiB; "
        "sets 4 GiB of memory aside, has 1 GiB left"
    )
    assert found.why["d"] == "does not fit: has not reported its facts yet"


def test_one_runs_and_one_stands_by_and_the_rest_is_said() -> None:
    state = SiteState(hosts={"a": host(4), "b": host(16), "c": host(8)})
    found = place_application(app(takeover="10s", split="majority"), state)
    assert placed(found) == SitePlacement(
        count=1,
        hosts=("b", "c"),
        takeover_s=10.0,
        split="majority",
        why=("b: runs it", "c: stands by, number 1", "a: fits, but is not needed"),
    )


def test_fewer_hosts_than_wanted_is_better_than_none_and_is_said() -> None:
    state = SiteState(hosts={"a": host(), "b": host()})
    found = placed(place_application(app(mode="count", count=3), state))
    assert (found.count, found.hosts) == (3, ("a", "b"))
    assert found.why[0] == "only 2 of 3 hosts that are wanted fit"
    alone = placed(place_application(app(standby=2), state))
    assert alone.why[0] == "only 1 of 2 hosts that are to stand by fit"


def test_where_no_host_fits_every_host_has_its_reasons() -> None:
    found = place_application(
        app(requires=Requirements(arch=("x86_64",))), SiteState(hosts={"a": host(), "b": {}})
    )
    assert found == Unplaced(
        {
            "a": ("the placement needs arch x86_64, which is unknown of this host",),
            "b": ("has not reported its facts yet",),
        }
    )


def test_wishes_nearness_distance_and_room_decide_in_this_order() -> None:
    state = SiteState(
        hosts={"a": host(9), "b": host(17), "c": host(4, custom__line="x"), "d": host(8)},
        present={"camera": frozenset(["a"]), "noisy": frozenset(["b"])},
    )
    wish = (Preference(when=Requirements(facts={"custom.line": "x"}), weight=3),)
    order: dict[str, Any] = {"standby": 3}
    assert placed(place_application(app(**order), state)).hosts == ("b", "d", "a", "c")
    assert placed(place_application(app(near=("camera",), **order), state)).hosts == ("a", "b", "d", "c")
    assert placed(place_application(app(apart=("noisy",), **order), state)).hosts == ("d", "a", "c", "b")
    assert placed(place_application(app(prefer=wish, near=("camera",), **order), state)).hosts[0] == "c"


def test_a_host_in_the_order_keeps_its_rank_whatever_is_better_elsewhere() -> None:
    app_ = app(standby=1)
    before = SitePlacement(count=1, hosts=("small", "old"))
    hosts = {"small": host(2), "old": host(4), "huge": host(64)}
    assert placed(place_application(app_, SiteState(hosts=hosts), previous=before)).hosts == ("small", "old")
    # The facts of a host that is in the order may be away for a while.
    away = {**hosts, "small": HostFacts()}
    assert placed(place_application(app_, SiteState(hosts=away), previous=before)).hosts == ("small", "old")
    gone = {name: hosts[name] for name in ("old", "huge")}
    assert placed(place_application(app_, SiteState(hosts=gone), previous=before)).hosts == ("old", "huge")


def test_a_disk_that_fills_up_moves_nobody_but_counts_for_newcomers() -> None:
    app_ = app(requires=Requirements(disk="4GiB"))
    full = host(8, disk__free_bytes=GIB)
    state = SiteState(hosts={"a": full, "b": full, "c": host(2, disk__free_bytes=9 * GIB)})
    before = SitePlacement(count=1, hosts=("b",))
    assert placed(place_application(app_, state, previous=before)).hosts == ("b", "c")
    assert placed(place_application(app_, state)).hosts == ("c",)


def test_what_is_issued_says_nothing_that_changes_with_every_report() -> None:
    app_ = app(requires=Requirements(disk="4GiB"))
    issued = {
        placed(
            place_application(
                app_, SiteState(hosts={"a": host(disk__free_bytes=free), "b": host(disk__free_bytes=9 * GIB)})
            )
        )
        for free in (1, 2, 3)
    }
    assert len(issued) == 1


def test_nothing_that_stands_by_takes_what_another_application_runs_on() -> None:
    releases = {"one": app("one", memory="6GiB"), "two": app("two", memory="6GiB")}
    found = place_site(releases, SiteState(hosts={"a": host(8), "b": host(8)}))
    assert {name: placed(what).hosts for name, what in found.items()} == {"one": ("a",), "two": ("b",)}
    one = found["one"]
    assert isinstance(one, Placed)
    assert one.why["b"].startswith("cannot stand by: sets 6 GiB of memory aside, has 2 GiB left")


def test_a_newcomer_does_not_move_what_is_there() -> None:
    releases = {"aaa": app("aaa", memory="6GiB"), "zzz": app("zzz", memory="6GiB")}
    before = {"zzz": SitePlacement(count=1, hosts=("a",))}
    found = place_site(releases, SiteState(hosts={"a": host(8)}), previous=before)
    assert placed(found["zzz"]).hosts == ("a",)
    assert found["aaa"] == Unplaced({"a": ("sets 6 GiB of memory aside, has 2 GiB left",)})


def test_a_camera_is_given_once() -> None:
    releases = {name: app(name, camera=True) for name in ("one", "two", "three")}
    found = place_site(releases, SiteState(hosts={"a": host(cameras=1), "b": host(cameras=1)}))
    assert {n: placed(what).hosts for n, what in found.items() if isinstance(what, Placed)} == {
        "one": ("a",),
        "three": ("b",),
    }


def test_applications_that_ask_for_nothing_spread_over_the_hosts() -> None:
    releases = {f"app{n}": app(f"app{n}", standby=0) for n in range(4)}
    found = place_site(releases, SiteState(hosts={"a": host(8), "b": host(9)}))
    assert sorted(placed(what).hosts for what in found.values()) == [("a",), ("a",), ("b",), ("b",)]


sites = st.dictionaries(
    st.sampled_from("abcde"),
    st.one_of(st.just(HostFacts()), st.builds(host, st.integers(1, 8), cameras=st.integers(0, 2))),
    min_size=1,
)
wanted = st.dictionaries(
    st.sampled_from(["one", "two", "three", "four"]),
    st.tuples(
        st.sampled_from(["each", "one", "count"]),
        st.integers(1, 3),
        st.sampled_from([None, "1GiB", "3GiB"]),
        st.booleans(),
        st.integers(0, 2),
    ),
    min_size=1,
)


def apps_of(wishes: dict[str, Any]) -> dict[str, Release]:
    return {
        name: app(name, mode=mode, count=count, memory=memory, camera=camera, standby=standby)
        for name, (mode, count, memory, camera, standby) in wishes.items()
    }


@given(sites, wanted)
def test_no_host_is_filled_beyond_its_room_and_no_device_is_given_twice(
    hosts: dict[str, HostFacts], wishes: dict[str, Any]
) -> None:
    releases = apps_of(wishes)
    found = place_site(releases, SiteState(hosts=hosts))
    for name, its_facts in hosts.items():
        here = [
            releases[application]
            for application, what in found.items()
            if isinstance(what, Placed) and name in what.placement.hosts
        ]
        if not its_facts:
            assert here == []
            continue
        memory, cameras = its_facts["memory_bytes"].value, its_facts["devices.camera"].value
        assert isinstance(memory, int) and isinstance(cameras, tuple)
        assert sum(need_of(one.application.spec).memory_bytes for one in here) <= memory
        assert sum(bool(one.application.spec.components[0].devices) for one in here) <= len(cameras)


@given(sites, wanted)
def test_placing_again_changes_nothing(hosts: dict[str, HostFacts], wishes: dict[str, Any]) -> None:
    releases = apps_of(wishes)
    state = SiteState(hosts=hosts)
    first = place_site(releases, state)
    before = {name: what.placement for name, what in first.items() if isinstance(what, Placed)}
    again = place_site(releases, state, previous=before)
    for name, placement in before.items():
        assert placed(again[name]).hosts[: placement.count] == placement.hosts[: placement.count]
    back = SiteState(hosts=dict(reversed(hosts.items())))
    assert place_site(dict(reversed(releases.items())), back) == first


@given(sites, wanted, st.integers(1, 8))
def test_a_new_host_moves_nothing_that_runs(
    hosts: dict[str, HostFacts], wishes: dict[str, Any], memory: int
) -> None:
    releases = apps_of(wishes)
    first = place_site(releases, SiteState(hosts=hosts))
    before = {name: what.placement for name, what in first.items() if isinstance(what, Placed)}
    more = SiteState(hosts={**hosts, "new": host(memory, cameras=3)})
    after = place_site(releases, more, previous=before)
    for name, placement in before.items():
        running = placed(after[name]).hosts
        assert running[: len(placement.hosts[: placement.count])] == placement.hosts[: placement.count]
