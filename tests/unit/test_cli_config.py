"""The commands about configurations: what they ask the hub for and what they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.cli.diff import effect_lines
from skerry.cli.main import run
from skerry.spec.api_configuration import (
    ConfigurationEffect,
    ConfigurationView,
    ConfiguredValue,
    LayerView,
    RenderedConfiguration,
)
from skerry.spec.configuration import ConfigurationTarget
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

pytestmark = pytest.mark.rollout

VIEW = ConfigurationView(
    name="north",
    application="camera",
    of=ConfigurationTarget(selector="region=north"),
    target="sites region=north",
    values={"rate": 5},
    changed_at=datetime(2026, 6, 1, tzinfo=UTC),
    changed_by="ada",
    behind=("zurich", "chur"),
)
RENDERED = RenderedConfiguration(
    application="camera",
    site="zurich",
    release="camera@1.2.0",
    revision="3f2a9c01d4e7",
    values={"rate": 5, "upload": {"url": "http://x"}},
    layers=(LayerView(source="defaults"), LayerView(source="north", of="sites region=north")),
    origins=(
        ConfiguredValue(path="rate", value=5, source="north"),
        ConfiguredValue(path="upload.url", value="http://x", source="defaults"),
    ),
    issued_release="camera@1.2.0",
    issued={"rate": 1},
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Configuration
metadata: {name: north}
spec:
  application: camera
  values:
    rate: 500
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as served:
        yield served


def test_list_says_whom_each_is_for_and_how_many_sites_are_behind(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/configurations"] = [VIEW]
    assert run(["config", "list"]) == 0
    printed = capsys.readouterr().out
    assert "sites region=north" in printed and "2 sites" in printed
    assert run(["config", "list", "--application", "other", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_render_shows_values_and_from_which_layer_each_is(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/sites/zurich/configurations/camera"] = RENDERED
    assert run(["config", "render", "camera", "--site", "zurich"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# camera@1.2.0 at zurich, revision 3f2a9c01d4e7"
    assert "rate: north (sites region=north)" in lines
    assert "upload.url: defaults" in lines
    assert "# the site has other values, of camera@1.2.0: a rollout brings these" in lines


def test_what_could_not_be_issued_is_said_and_ends_with_1(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/sites/zurich/configurations/camera"] = RenderedConfiguration(
        application="camera", site="zurich", release="camera@1", problems=("rate: too high",)
    )
    assert run(["config", "render", "camera", "--site", "zurich"]) == 1
    assert "# problem: rate: too high" in capsys.readouterr().out


def test_diff_shows_what_would_change_site_by_site() -> None:
    effects = [
        ConfigurationEffect(
            application="camera", site=site, host=f"{site}-1", path="rate", before=1, after=None
        )
        for site in ("chur", "zurich")
    ]
    assert list(effect_lines(effects)) == [
        "what applications would be told, once a rollout brings it:",
        "  camera at chur, host chur-1",
        "    rate: 1 -> -",
        "  camera at zurich, host zurich-1",
        "    rate: 1 -> -",
    ]
    assert not list(effect_lines([]))


def test_a_problem_that_the_hub_finds_is_told_with_its_file_and_line(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "north.yaml"
    file.write_text(DOCUMENT)
    path = "Configuration north: spec.values.rate"
    problems = [{"path": path, "message": "breaks the schema, at chur, zurich"}]
    hub.refuse("POST /apply", 400, title="rejected", code="document.invalid", problems=problems)
    assert run(["apply", "-f", str(file)]) != 0
    assert f"{file}:8: {path}: breaks the schema, at chur, zurich" in capsys.readouterr().err
