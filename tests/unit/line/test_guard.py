"""The production line's rule: it orders what is certain, again until it is done, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.application import Application
from skerry.spec.documents import kind_of
from skerry.spec.parsing import parse_documents
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "line"
PUSHED = (
    "gateways/camera-gateway",
    "gateways/modbus-gateway",
    "gateways/opcua-gateway",
    "line/reader",
    "line/guard",
)


def load(path: str) -> Any:
    """Load a module of the example as its own programs do."""
    spec = importlib.util.spec_from_file_location(f"line_{Path(path).stem}", EXAMPLE / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Known = load("app/guard/rule.py").Known


def good(value: object, **more: object) -> dict[str, object]:
    return {"value": value, "quality": "good", **more}


@given(st.integers(0, 99_999), st.integers(0, 99_999), st.booleans())
def test_it_orders_what_the_press_does_not_do_yet(reading: int, limit: int, stopped: bool) -> None:
    known = Known().told("limit", good(limit)).told("reading", good(reading)).told("stopped", good(stopped))
    assert known.order == (None if (reading > limit) == stopped else reading > limit)


@pytest.mark.parametrize(
    "message",
    (
        good(90_000, score=0.3),
        good(True),
        good("90000"),
        good(None),
        {"value": 90_000, "quality": "bad"},
        {"value": 90_000},
        [],
        "x",
    ),
)
@pytest.mark.parametrize("which", ("reading", "limit"))
def test_what_is_doubtful_gives_no_order(which: str, message: object) -> None:
    known = Known(reading=90_000.0, limit=5.0, stopped=False)
    assert known.order is True
    assert known.told(which, message).order is None


def test_an_order_is_given_again_until_the_press_says_that_it_obeys() -> None:
    known = Known(reading=9.0, limit=5.0)
    assert known.order is True
    assert known.told("stopped", good(False)).order is True
    assert known.told("stopped", good(True)).order is None
    assert known.told("stopped", {"value": True, "quality": "bad"}).order is True


def test_all_that_the_line_rolls_out_is_there_and_its_topics_are_joined() -> None:
    documents = [parsed.document for parsed in parse_documents((EXAMPLE / "line.yaml").read_text())]
    (site,) = (one for one in documents if isinstance(one, Site))
    wanted = {one.spec.release for one in documents if isinstance(one, Rollout)}
    applications = [
        parsed.document
        for name in PUSHED
        for parsed in parse_documents((EXAMPLE.parent / f"{name}.yaml").read_text())
        if isinstance(parsed.document, Application)
    ]
    assert {f"{one.metadata.name}@{one.spec.version}" for one in applications} == wanted
    assert {kind_of(one) for one in documents} == {"Site", "Rollout"}
    needed = {need.type for one in applications for need in one.spec.needs}
    assert {binding.type for binding in site.spec.bindings} == needed


def test_the_guards_bundle_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    pytest.importorskip("paho")
    build = load("build.py")
    for name in ("one.pyz", "other.pyz"):
        build.build_guard(tmp_path / name)
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "other.pyz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.pyz") as packed:
        assert {"__main__.py", "guard/rule.py", "paho/mqtt/client.py"} <= set(packed.namelist())
