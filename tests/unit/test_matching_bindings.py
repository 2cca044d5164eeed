"""Which binding of a site an application gets: by type, labels and host, each need its own, always the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.bindings import BindingChoice, NoBinding, lack_of, match_bindings, site_lacks
from skerry.spec.binding import BindingNeed, BindingSpec, CameraBinding, HttpBinding


def camera(name: str, host: str | None = None, **labels: str) -> BindingSpec:
    return BindingSpec(name=name, labels=labels, host=host, camera=CameraBinding(url="rtsp://10.0.0.7/"))


def api(name: str, **labels: str) -> BindingSpec:
    return BindingSpec(name=name, labels=labels, http=HttpBinding(url="http://mes"))


def need(name: str, type_: Any = "camera", **labels: str) -> BindingNeed:
    return BindingNeed(name=name, type=type_, labels=labels)


def chosen(found: BindingChoice | NoBinding) -> dict[str, str]:
    assert isinstance(found, BindingChoice), found
    return {name: one.name for name, one in found.bindings.items()}


@pytest.mark.rule("BINDING-1")
def test_a_need_gets_a_binding_of_its_type_with_all_its_labels() -> None:
    offered = (api("mes", line="a"), camera("dark", line="b"), camera("eye", line="a", side="left"))
    found = match_bindings([need("cam", line="a", side="left")], offered, host="h1")
    assert chosen(found) == {"cam": "eye"}
    assert isinstance(found, BindingChoice)
    assert found.why == (
        "cam: dark is not line=a, side=left",
        "cam: eye fits (line=a, side=left)",
    )


def test_why_there_is_none_names_each_binding_of_the_type() -> None:
    offered = (api("mes"), camera("dark", line="b"), camera("eye", host="h2", line="a"))
    found = match_bindings([need("cam", line="a"), need("plc", "opcua")], offered, host="h1")
    assert found == NoBinding(
        (
            "needs a binding for cam (camera with line=a): dark is not line=a; eye is attached to h2",
            "needs a binding for plc (opcua): the site offers no opcua",
        )
    )


@pytest.mark.rule("BINDING-1")
def test_what_is_attached_to_a_host_is_for_that_host_alone_and_goes_first_there() -> None:
    offered = (camera("net"), camera("left", host="h1"), camera("right", host="h2"))
    assert chosen(match_bindings([need("cam")], offered, host="h1")) == {"cam": "left"}
    assert chosen(match_bindings([need("cam")], offered, host="h2")) == {"cam": "right"}
    assert chosen(match_bindings([need("cam")], offered, host="h3")) == {"cam": "net"}
    assert isinstance(match_bindings([need("cam")], offered[1:], host="h3"), NoBinding)
    assert chosen(match_bindings([need("cam")], offered[1:], host=None)) == {"cam": "left"}


def test_each_need_gets_its_own_and_an_earlier_one_gives_way_only_where_it_must() -> None:
    offered = (camera("one", side="left"), camera("two"))
    assert chosen(match_bindings([need("a"), need("b")], offered, host="h")) == {"a": "one", "b": "two"}
    assert chosen(match_bindings([need("a"), need("b", side="left")], offered, host="h")) == {
        "a": "two",
        "b": "one",
    }
    found = match_bindings([need("a"), need("b")], offered[:1], host="h")
    assert found == NoBinding(("needs a binding for b (camera): the site has not one for each of its needs",))


def test_a_site_is_left_out_only_where_none_of_its_hosts_gets_one() -> None:
    offered = (camera("eye", host="h2"),)
    assert site_lacks([need("cam")], offered, ["h1", "h2"]) == ""
    assert "attached to h2" in site_lacks([need("cam")], offered, ["h1"])
    assert site_lacks([need("cam")], offered, []) == ""
    assert site_lacks([], (), ["h1"]) == ""
    assert "offers no camera" in site_lacks([need("cam")], (), [])


_labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=2)
_offered = st.lists(st.tuples(_labels, st.sampled_from([None, "h1", "h2"]), st.booleans()), max_size=6)
_needs = st.lists(st.tuples(_labels, st.sampled_from(["camera", "http"])), max_size=4)


@pytest.mark.rule("BINDING-1")
@given(offered=_offered, needs=_needs, host=st.sampled_from(["h1", "h2", "h3"]))
def test_a_choice_is_right_and_nothing_is_refused_that_could_be_given(
    offered: list[tuple[dict[str, str], str | None, bool]], needs: list[tuple[dict[str, str], Any]], host: str
) -> None:
    there = [
        BindingSpec(
            name=f"b{n}",
            labels=labels,
            host=on,
            camera=CameraBinding(url="rtsp://x") if is_camera else None,
            http=None if is_camera else HttpBinding(url="http://x"),
        )
        for n, (labels, on, is_camera) in enumerate(offered)
    ]
    asked = [BindingNeed(name=f"n{n}", type=type_, labels=labels) for n, (labels, type_) in enumerate(needs)]
    found = match_bindings(asked, there, host=host)
    assert found == match_bindings(asked, there, host=host)
    if isinstance(found, BindingChoice):
        assert set(found.bindings) == {one.name for one in asked}
        assert len({one.name for one in found.bindings.values()}) == len(asked)
        assert not any(lack_of(one, found.bindings[one.name], host) for one in asked)
    else:
        assert found.reasons
        assert not _can_all(asked, there, host, frozenset())


def _can_all(needs: list[BindingNeed], there: list[BindingSpec], host: str, used: frozenset[str]) -> bool:
    """Try every way there is."""
    if not needs:
        return True
    return any(
        _can_all(needs[1:], there, host, used | {one.name})
        for one in there
        if one.name not in used and not lack_of(needs[0], one, host)
    )
