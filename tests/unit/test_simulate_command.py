"""`skerry simulate`: what people write and read, the picture, and the forecast from a hub."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.cli.main import run
from skerry.spec.api import HostView, SiteView
from skerry.spec.facts import Fact
from skerry.spec.problems import DocumentRejected
from skerry.testing.simulation.documents import (
    DEFAULT_SCENARIO,
    Scenario,
    SimulatedFleet,
    read_document,
)
from skerry.testing.simulation.forecast import HubFleet, plan_forecast
from tests.unit.cli_session import logged_in_hub
from tests.unit.matching_world import component, release, variant

pytestmark = pytest.mark.rollout

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROLLOUT = """\
apiVersion: skerry/v1
kind: Rollout
metadata: {name: spring}
spec:
  release: reader@2
  sites: "*"
  waves: [{name: canary, sites: link=always-on, size: "2"}, {name: <rest>}]
"""
SCENARIO = """\
apiVersion: skerry/v1
kind: Scenario
metadata: {name: bad}
spec:
  duration: 2d
  release: {faults: [{how: crashes}]}
"""


@pytest.fixture
def rollout(tmp_path: Path) -> str:
    path = tmp_path / "rollout.yaml"
    path.write_text(ROLLOUT)
    return str(path)


def test_all_problems_of_a_scenario_are_told_with_their_lines() -> None:
    text = """\
apiVersion: skerry/v2
kind: Scenario
metadata: {name: bad}
spec:
  duration: 0s
  metrics:
    - {name: latency_s, kind: quantile, typical: 0}
    - {name: latency_s, kind: rate, typical: 1.5}
"""
    with pytest.raises(DocumentRejected) as caught:
        read_document(text, Scenario, file="s.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "s.yaml:1: apiVersion: unknown version 'skerry/v2' (write apiVersion: skerry/v1)",
        "s.yaml:5: spec.duration: must be longer than 0 and at most 366d",
        "s.yaml:6: spec.metrics: metric latency_s is there 2 times",
        "s.yaml:7: spec.metrics[0].typical: expected more than 0, got 0",
        "s.yaml:8: spec.metrics[1].typical: a rate lies between 0 and 1, got 1.5 (5 % is 0.05)",
    ]


def test_what_does_not_fit_the_schema_is_told_all_at_once() -> None:
    text = """\
apiVersion: skerry/v1
kind: Scenario
metadata: {name: bad}
spec:
  durations: 2d
  release:
    size: much
    faults:
      - {how: explodes}
"""
    with pytest.raises(DocumentRejected) as caught:
        read_document(text, Scenario, file="s.yaml")
    told = [str(problem) for problem in caught.value.problems]
    assert [line.split(": ")[0] for line in told] == ["s.yaml:5", "s.yaml:7", "s.yaml:9"]
    assert "unknown field durations (did you mean duration?)" in told[0]
    assert "never-ready" in told[2]


def test_problems_of_a_fleet_name_its_groups_and_what_a_site_could_not_be() -> None:
    text = """\
apiVersion: skerry/v1
kind: SimulatedFleet
metadata: {name: north}
spec:
  groups:
    - {name: a, share: 50%, rate: "0"}
    - name: a
      share: 40%
      labels: {"a b": c}
      site: {time_zone: Mars/Olympus}
"""
    with pytest.raises(DocumentRejected) as caught:
        read_document(text, SimulatedFleet)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.groups",
        "spec.groups[0].rate",
        "spec.groups[1].name",
        "spec.groups[1].labels.a b",
        "spec.groups[1].site.time_zone",
    ]
    with pytest.raises(DocumentRejected, match='expected SimulatedFleet, got "Scenario"'):
        read_document(SCENARIO, SimulatedFleet)
    with pytest.raises(DocumentRejected, match="expected one Scenario, found 2 documents"):
        read_document(f"{SCENARIO}---\n{SCENARIO}", Scenario)


def test_the_command_says_how_it_goes_and_draws_it(
    rollout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    assert run(["simulate", rollout, "--sites", "30", "--seed", "7", "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "Simulated spring: reader@2 on 30 sites, 14d" in printed
    assert "In the end: 30 succeeded" in printed
    picture = ET.fromstring(plot.read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert picture.get("role") == "img"
    title, described = picture.findtext(f"{space}title"), picture.findtext(f"{space}desc")
    assert title == "Simulation of rollout spring: reader@2 on 30 sites, succeeded"
    assert described is not None and "30 succeeded" in described
    assert len(picture.findall(f"{space}rect[@class='wave']")) == 2
    assert picture.find(f"{space}polygon[@class='succeeded']") is not None
    for polygon in picture.iter(f"{space}polygon"):
        for point in str(polygon.get("points")).split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 960 and 0 <= y <= 480


def test_json_is_the_same_for_the_same_seed_and_the_exit_code_says_that_it_failed(
    rollout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(SCENARIO)
    command = ["simulate", rollout, "--sites", "20", "--scenario", str(scenario)]
    assert run([*command, "--json"]) == 1
    first = capsys.readouterr().out
    assert run([*command, "-o", "json"]) == 1
    assert capsys.readouterr().out == first
    result = json.loads(first)
    assert (result["state"], result["exposed"], result["bad"]) == ("failed", 2, 20)
    assert result["decisions"][0]["effects"] == 2


def test_the_command_refuses_what_it_cannot_read(
    rollout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("apiVersion: skerry/v1\nkind: Site\nmetadata: {name: zurich}\n")
    assert run(["simulate", str(site)]) == 2
    assert "expected one Rollout" in capsys.readouterr().err
    assert run(["simulate", rollout, "--fleet", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: No such file" in capsys.readouterr().err
    assert run(["simulate", rollout, "--from-hub", "--fleet", rollout]) == 2
    assert "leave out --fleet" in capsys.readouterr().err


def site(name: str, presence: str = "online", hosts: int = 1) -> SiteView:
    return SiteView(
        name=name,
        labels={"link": "always-on"},
        document={
            "apiVersion": "skerry/v1",
            "kind": "Site",
            "metadata": {"name": name},
            "spec": {"time_zone": "Europe/Zurich", "link": {"rate": "1MB/s"}},
        },
        generation=3,
        hosts=hosts,
        hosts_online=hosts,
        last_seen_at=NOW,
        presence=presence,  # type: ignore[arg-type]
        assignments={"reader": "reader@1"},
    )


def host(name: str, at: str, **facts: object) -> HostView:
    return HostView(
        name=name,
        site=at,
        enrolled_at=NOW,
        last_seen_at=NOW,
        presence="online",
        sequence=1,
        generation_held=3,
        generation_wanted=3,
        facts={key: Fact(value=value, source="test") for key, value in facts.items()},  # type: ignore[arg-type]
    )


def test_a_forecast_takes_what_the_hub_knows_and_says_what_it_assumes() -> None:
    found = release(component(models=("eyes",)), models={"eyes": (variant("x", arch=("aarch64",)),)})
    fleet = HubFleet(
        sites=[site("a"), site("b", "silent"), site("c"), site("empty", hosts=0)],
        hosts=[host("a1", "a", arch="aarch64"), host("b1", "b"), host("c1", "c", arch="x86_64")],
        release=found,
        traffic={"a": 4711},
    )
    plans, assumptions = plan_forecast(fleet, "reader", DEFAULT_SCENARIO.spec, seed=1)
    assert [(plan.name, plan.link, plan.previous) for plan in plans] == [
        ("a", "always-on", "reader@1"),
        ("b", "dead", "reader@1"),
        ("c", "always-on", "reader@1"),
    ]
    assert (plans[0].size_bytes, plans[0].rate, plans[0].time_zone) == (4711, 1_000_000, "Europe/Zurich")
    assert [bool(plan.hosts[0].problem) for plan in plans] == [False, False, True]
    assert assumptions[1:4] == (
        "1 sites that are silent now stay silent",
        "1 sites without hosts are left out",
        "the release fits 1 hosts that have not told their facts",
    )


def test_from_hub_is_labelled_as_a_forecast(
    rollout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views["/sites"] = [site("a"), site("b"), site("c", "silent")]
        hub.views["/hosts"] = [host("a1", "a"), host("b1", "b"), host("c1", "c")]
        hub.refuse("GET /releases/reader@2", 404, title="missing", code="release.missing")
        assert run(["simulate", rollout, "--from-hub"]) == 1
    printed = capsys.readouterr().out
    assert "Forecast of spring: reader@2 on 3 sites" in printed
    assert "the hub does not have the release" in printed
    assert "1 sites that are silent now stay silent" in printed
    assert "In the end: 2 succeeded, 1 unreachable" in printed


def test_the_documents_of_the_guide_are_right() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/simulate-a-rollout.md").read_text()
    fleet, scenario = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert [group.name for group in read_document(fleet, SimulatedFleet).spec.groups] == ["plant", "vessel"]
    assert read_document(scenario, Scenario).spec.release.faults[0].how == "never-ready"
