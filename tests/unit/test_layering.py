"""Layers of configurations: what they come to in which order, from where each value is, and what references become."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.filling import Known, fill_values
from skerry.matching.layering import Layer, Spot, choose_layers, lay, leaves_of, merge_values
from skerry.reconcile.configuring import Told, Unknown, files_with, started_with, tell_component
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Component,
    ConfigFile,
    ConfigUse,
    OnConfigChange,
)
from skerry.spec.configuration import (
    ApplicationConfig,
    Configuration,
    ConfigurationSpec,
    ConfigurationTarget,
    Values,
)
from skerry.spec.facts import Fact
from skerry.spec.metadata import Metadata

pytestmark = pytest.mark.rollout

_scalars = st.integers(0, 3) | st.booleans() | st.sampled_from(["a", "b", ""])
_keys = st.sampled_from(["a", "b", "c"])


def trees(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(
        _keys,
        st.recursive(
            leaf | st.lists(leaf, max_size=2),
            lambda inner: st.dictionaries(_keys, inner, max_size=3),
            max_leaves=6,
        ),
        max_size=3,
    )


FULL = trees(_scalars)
WITH_NULLS = trees(_scalars | st.none())


def has_nulls(values: Any) -> bool:
    held = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
    return values is None or any(map(has_nulls, held.values()))


@given(WITH_NULLS, WITH_NULLS)
def test_laying_the_same_over_it_once_more_changes_nothing(base: Values, over: Values) -> None:
    once = merge_values(base, over)
    assert merge_values(once, over) == once


@given(FULL, FULL, FULL)
def test_where_nothing_is_removed_it_does_not_matter_which_two_are_laid_first(
    a: Values, b: Values, c: Values
) -> None:
    assert merge_values(merge_values(a, b), c) == merge_values(a, merge_values(b, c)) or _replaced(a, b, c)


def _replaced(a: Any, b: Any, c: Any) -> bool:
    """Tell whether a value that is no map was in the place of a map: what is under it is gone for good."""
    if not isinstance(c, dict):
        return False
    if not isinstance(b, dict):
        return isinstance(a, dict)
    below, middle = cast("dict[str, Any]", a if isinstance(a, dict) else {}), cast("dict[str, Any]", b)
    above = cast("dict[str, Any]", c)
    return any(key in middle and _replaced(below.get(key), middle[key], above[key]) for key in above)


@given(FULL, WITH_NULLS)
def test_null_removes_and_is_never_kept(base: Values, over: Values) -> None:
    merged = merge_values(base, over)
    assert not has_nulls(merged)
    for key, value in over.items():
        assert (key in merged) is (value is not None)


@given(WITH_NULLS, WITH_NULLS)
def test_neither_layer_is_changed(base: Values, over: Values) -> None:
    before = repr((base, over))
    merge_values(base, over)
    assert repr((base, over)) == before


@given(st.lists(WITH_NULLS, min_size=1, max_size=4))
def test_every_value_is_from_the_last_layer_that_says_it(layers: list[Values]) -> None:
    laid = lay([Layer(str(number), values) for number, values in enumerate(layers)])
    for path, value in leaves_of(laid.values):
        source = int(laid.origins[path]) if path in laid.origins else None
        if source is None:
            assert value == {}, "only maps that were left empty are from nobody"
            continue
        assert dict(leaves_of(layers[source]))[path] == value or value == {}
        assert not any(path in dict(leaves_of(later)) for later in layers[source + 1 :])


def test_layers_come_in_their_order_and_reach_whom_they_are_for() -> None:
    def one(name: str, order: int = 0, **of: Any) -> Configuration:
        spec = ConfigurationSpec(
            application="camera", of=ConfigurationTarget(**of), order=order, values={"who": name}
        )
        return Configuration(metadata=Metadata(name), spec=spec)

    written = [
        one("host", site="zurich", host="edge-1"),
        one("site", site="zurich"),
        one("late", order=5, selector="region=north"),
        one("early", selector="region=north"),
        one("version", version="2"),
        one("all"),
        one("other-site", site="basel"),
        one("other-host", site="zurich", host="edge-2"),
        one("other-version", version="1"),
        one("other-region", selector="region=south"),
    ]
    component = Component(name="main", command=("./run",))
    config = ApplicationConfig(defaults={"who": "defaults"})
    spec = ApplicationSpec(version="2", components=(component,), config=config)
    application = Application(metadata=Metadata("camera"), spec=spec)
    spot = Spot("zurich", {"region": "north"}, "edge-1")
    order = ["defaults", "all", "version", "early", "late", "site", "host"]
    assert [layer.source for layer in choose_layers(application, written, spot)] == order
    assert [layer.source for layer in choose_layers(application, written[::-1], spot)] == order
    alone = choose_layers(application, written, Spot("zurich", {"region": "north"}))
    assert [layer.source for layer in alone] == order[:-1]


KNOWN = Known(
    site="zurich",
    labels={"line": "7"},
    variables={"url": "http://x", "sly": "${secret.password}"},
    host="edge-1",
    facts={"gpu.count": Fact(value=2, source="t"), "link.metered": Fact(value=True, source="t")},
    kept={"kernel": "6.1"},
)


def test_references_are_filled_where_the_hub_knows_them_and_left_where_the_host_does() -> None:
    text = "${site.name}/${site.label.line}/${host.name}/${host.fact.gpu.count}/${host.fact.link.metered}"
    filled = fill_values({"a": [text], "b": {"c": "${site.url}:${port.http} $${site.url}"}}, KNOWN)
    assert filled.values == {
        "a": ["zurich/7/edge-1/2/true"],
        "b": {"c": "http://x:${port.http} $${site.url}"},
    }
    assert filled.facts == {"gpu.count": "2", "link.metered": "true"}
    assert not filled.unfilled


def test_what_has_no_value_is_named_with_its_place() -> None:
    filled = fill_values({"a": {"b": ["x", "${site.none} ${site.label.none} ${host.fact.none}"]}}, KNOWN)
    assert [(one.path, one.name) for one in filled.unfilled] == [
        ("a.b[1]", "site.none"),
        ("a.b[1]", "site.label.none"),
        ("a.b[1]", "host.fact.none"),
    ]


def test_a_fact_is_what_it_was_when_the_configuration_was_made() -> None:
    assert fill_values({"a": "${host.fact.kernel}"}, KNOWN).values == {"a": "6.1"}


@pytest.mark.rule("CONFIG-5")
def test_a_variable_cannot_smuggle_in_a_reference() -> None:
    filled = fill_values({"a": "${site.sly}"}, KNOWN)
    assert filled.values == {"a": "${site.sly}"}
    assert [one.why for one in filled.unfilled] == ["its value has a reference in it"]


def component(*files: ConfigFile, change: OnConfigChange | None = None, **env: str) -> Component:
    use = ConfigUse(files=files, env=env, on_change=change or OnConfigChange())
    return Component(name="main", command=("./run",), config=use)


def test_files_and_variables_are_rendered_as_they_are_read() -> None:
    values = {
        "camera": {"url": "rtsp://${host.name}", "on": True, "rate": 2.5, "it's": "a'b\nc", "list": [1]},
        "1st": 3,
    }
    made = component(
        ConfigFile(path="all.json"),
        ConfigFile(path="camera.env", format="env", of="camera"),
        ConfigFile(path="none.json", of="nothing.there"),
        RATE="camera.rate",
        ON="camera.on",
        LIST="camera.list",
        NONE="nothing",
    )
    told = tell_component(made, values, {"host.name": "h"})
    assert isinstance(told, Told)
    assert told.env == {"RATE": "2.5", "ON": "true", "LIST": "[1]"}
    assert told.files["camera.env"] == (b"IT_S='a'\"'\"'b\nc'\nLIST='[1]'\nON=true\nRATE=2.5\nURL=rtsp://h\n")
    assert told.files["none.json"] == b"{}\n"
    assert b'"url": "rtsp://h"' in told.files["all.json"]


def test_a_reference_without_a_value_here_leaves_nothing_half_filled() -> None:
    made = component(ConfigFile(path="a.json", of="a"))
    assert tell_component(made, {"a": "${port.http}", "b": "${port.other}"}, {}) == Unknown(("port.http",))
    assert tell_component(made, {"a": "$${port.http}"}, {}) == Told({"a.json": b'"${port.http}"\n'}, {})


def test_only_what_a_component_is_told_of_asks_for_its_restart() -> None:
    restarted = component(ConfigFile(path="a.json", of="a"), B="b")
    signalled = component(ConfigFile(path="a.json", of="a"), change=OnConfigChange(signal="HUP"), B="b")
    one, two = {"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 1}
    assert started_with(restarted, one) != started_with(restarted, two)
    assert started_with(signalled, one) == started_with(signalled, two)
    assert files_with(signalled, one) != files_with(signalled, two)
    for made in (restarted, signalled):
        assert started_with(made, one) == started_with(made, {**one, "c": 2})
        assert started_with(made, one) != started_with(made, {**one, "b": 2})
