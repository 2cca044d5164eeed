"""Configurations at the hub: refused where they break, pinned to rollouts, issued to the sites whose turn it is."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH
from skerry.kit.editions import edition_of
from skerry.matching.configured import configure
from skerry.matching.filling import Known
from skerry.ports.hub_store import AppliedReport, TokenRecord
from skerry.spec.api_configuration import ConfigurationView, RenderedConfiguration
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Bundle,
    Component,
    ConfigFile,
    ConfigUse,
    Port,
)
from skerry.spec.binding import BindingNeed
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.configuration import ApplicationConfig
from skerry.spec.desired import Assignment, DesiredState
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, Observed
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import file
from tests.unit.test_hub_door import World
from tests.unit.test_hub_preview import Fleet

pytestmark = pytest.mark.rollout

SCHEMA = {
    "type": "object",
    "properties": {"rate": {"type": "integer", "maximum": 100}, "where": {"type": "string"}},
    "additionalProperties": False,
}
FACTS: HostFacts = {"machine": Fact(value="press", source="test")}


def release(version: str = "1", defaults: dict[str, Any] | None = None, schema: Any = SCHEMA) -> Release:
    component = Component(
        name="main",
        bundle=Bundle(files=(file("main.bin"),)),
        command=("./run",),
        ports=(Port(name="http"),),
        config=ConfigUse(files=(ConfigFile(path="app.json"),)),
    )
    config = ApplicationConfig(defaults={"rate": 1} if defaults is None else defaults, schema=schema)
    spec = ApplicationSpec(version=version, components=(component,), config=config)
    return Release(application=Application(metadata=Metadata("camera"), spec=spec))


class Plant(World, Fleet):
    """A hub with three sites of one host each, and a release that takes a configuration."""

    def __init__(self, folder: Path) -> None:
        World.__init__(self, folder)
        self.sequence = 1
        for number, region in ((1, "north"), (2, "north"), (3, "south")):
            self.site(f"site-{number}", labels={"region": region})
            self.host(f"edge-{number}", f"site-{number}", FACTS)
        self.push(release())

    async def apply(self, *documents: dict[str, Any], dry_run: bool = False) -> httpx2.Response:
        body = {"documents": documents, "dry_run": dry_run}
        return await self.ask("operator", f"{API_PATH}/apply", "POST", json=body)

    async def applied(self, *documents: dict[str, Any]) -> None:
        answer = await self.apply(*documents)
        assert answer.status_code == 200, answer.text

    async def problems(self, *documents: dict[str, Any], dry_run: bool = False) -> list[str]:
        answer = await self.apply(*documents, dry_run=dry_run)
        assert answer.status_code == 400, answer.text
        return [f"{one['path']}: {one['message']}" for one in answer.json()["problems"]]

    async def render(self, site: str, **query: str) -> RenderedConfiguration:
        answer = await self.ask("viewer", f"{API_PATH}/sites/{site}/configurations/camera", params=query)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=RenderedConfiguration)

    async def step(self) -> None:
        await self.hub.rollouts.step()

    def desired(self, site: str) -> DesiredState | None:
        record = self.hub.store.site(site)
        if record is None or record.desired is None:
            return None
        envelope = msgspec.json.decode(record.desired, type=JsonEnvelope)
        return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)

    def issued(self, site: str) -> tuple[Assignment, dict[str, Any]] | None:
        """Return what the host of a site is assigned, and with which values."""
        desired = self.desired(site)
        given = desired.hosts.get(f"edge-{site[-1]}", ()) if desired else ()
        if desired is None or not given:
            return None
        return given[0], desired.configurations[given[0].configuration or ""].values

    def values(self, site: str) -> dict[str, Any] | None:
        found = self.issued(site)
        return found[1] if found else None

    async def report(self, site: str, *, refused: str = "", facts: HostFacts | None = None) -> None:
        """Let the host of a site say that it runs what it is assigned, or that it has refused it."""
        found, desired = self.issued(site), self.desired(site)
        assert found is not None and desired is not None
        assigned = found[0]
        self.sequence += 1
        before = self.hub.store.host(f"edge-{site[-1]}")
        running = before.observed.applications.get("camera") if before and before.observed else None
        if refused:
            edition = edition_of(desired.releases[assigned.release].digest, assigned.configuration or "")
            view = ApplicationView(
                phase="running", release=running.release if running else "", refused={edition: refused}
            )
        else:
            view = ApplicationView(phase="running", release=assigned.release)
        now = self.clock.now()
        observed = Observed(generation=desired.generation, applications={"camera": view})
        report = AppliedReport(
            host=f"edge-{site[-1]}",
            site=site,
            sequence=self.sequence,
            seen_at=now,
            sent_at=now,
            clock_offset_s=0.0,
            generation=desired.generation,
            observed=observed,
            facts=facts,
        )
        self.hub.store.apply_reports([report])
        self.hub.issuer.mark(site)
        await self.step()

    def states(self, rollout: str) -> dict[str, str]:
        record = self.hub.store.rollout(rollout)
        assert record is not None
        return {site: progress.state for site, progress in sorted(record.sites.items())}


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncGenerator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.hub.store.close()


def configuration(name: str, values: dict[str, Any], **of: Any) -> dict[str, Any]:
    spec = {"application": "camera", "values": values, **({"of": of} if of else {})}
    return {"apiVersion": "skerry/v1", "kind": "Configuration", "metadata": {"name": name}, "spec": spec}


def rollout(name: str, *, release: str = "camera@1", waves: Any = None, **spec: Any) -> dict[str, Any]:
    one = [{"name": "all", "soak": "0s"}]
    spec = {"release": release, "sites": "*", "waves": waves or one, **spec}
    return {"apiVersion": "skerry/v1", "kind": "Rollout", "metadata": {"name": name}, "spec": spec}


def site(name: str, region: str, **variables: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"region": region}}
    return {"apiVersion": "skerry/v1", "kind": "Site", "metadata": metadata, "spec": {"variables": variables}}


async def settle(plant: Plant, *sites: str) -> None:
    """Let the hosts of sites run what they are assigned."""
    for name in sites or ("site-1", "site-2", "site-3"):
        await plant.report(name)
    await plant.step()


async def test_layers_come_to_each_site_with_a_rollout_and_not_before(plant: Plant) -> None:
    await plant.applied(rollout("first"))
    await plant.step()
    await settle(plant)
    assert plant.values("site-1") == {"rate": 1}
    await plant.applied(
        configuration("north", {"rate": 5}, selector="region=north"),
        configuration("one", {"where": "${site.name} ${host.fact.machine}", "rate": None}, site="site-1"),
    )
    await plant.step()
    assert plant.values("site-1") == {"rate": 1}, "nothing moves without a rollout"
    await plant.applied(rollout("second"))
    await plant.step()
    assert plant.values("site-1") == {"where": "site-1 press"}
    assert plant.values("site-2") == {"rate": 5}
    assert plant.values("site-3") == {"rate": 1}
    await settle(plant)
    assert set(plant.states("second").values()) == {"succeeded"}


@pytest.mark.rule("CONFIG-4")
async def test_a_site_gets_no_revision_that_its_wave_has_not_reached(plant: Plant) -> None:
    await plant.applied(rollout("first"))
    await plant.step()
    await settle(plant)
    await plant.applied(configuration("all", {"rate": 7}))
    waves = [
        {"name": "canary", "sites": "name=site-1", "size": "1", "soak": "10s"},
        {"name": "rest", "soak": "0s"},
    ]
    await plant.applied(rollout("second", waves=waves))
    await plant.step()
    assert [plant.values(f"site-{n}") for n in (1, 2, 3)] == [{"rate": 7}, {"rate": 1}, {"rate": 1}]
    # What is applied later is not what this rollout brings.
    await plant.applied(configuration("all", {"rate": 9}), site("site-2", "north", other="x"))
    await plant.step()
    assert [plant.values(f"site-{n}") for n in (1, 2, 3)] == [{"rate": 7}, {"rate": 1}, {"rate": 1}]
    await settle(plant, "site-1")
    plant.clock.advance(11)
    await plant.step()
    await plant.step()
    assert [plant.values(f"site-{n}") for n in (1, 2, 3)] == [{"rate": 7}] * 3


@pytest.mark.rule("CONFIG-1")
async def test_a_configuration_that_a_host_refuses_is_taken_back_from_all_that_have_it(plant: Plant) -> None:
    await plant.applied(rollout("first"))
    await plant.step()
    await settle(plant)
    await plant.applied(configuration("all", {"rate": 7}))
    waves = [{"name": "two", "sites": "region=north", "soak": "0s"}, {"name": "rest", "soak": "0s"}]
    await plant.applied(rollout("second", waves=waves))
    await plant.step()
    await plant.report("site-1")
    await plant.report("site-2", refused="probe failed")
    await plant.step()
    assert [plant.values(f"site-{n}") for n in (1, 2, 3)] == [{"rate": 1}] * 3
    await settle(plant)
    assert plant.states("second") == {"site-1": "rolled_back", "site-2": "failed", "site-3": "pending"}
    record = plant.hub.store.rollout("second")
    assert record is not None and record.state == "failed" and "probe failed" in record.why


@pytest.mark.rule("CONFIG-3")
@pytest.mark.parametrize("dry_run", (True, False))
async def test_an_override_that_breaks_the_schema_is_refused_with_every_site_it_would_break(
    plant: Plant, dry_run: bool
) -> None:
    await plant.applied(rollout("first"))
    await plant.step()
    [problem] = await plant.problems(configuration("all", {"rate": 101}), dry_run=dry_run)
    assert problem.startswith(
        "Configuration all: spec.values.rate: breaks the schema: expected 100 or less, got 101"
    )
    assert problem.endswith("at site-1, site-2, site-3")
    [problem] = await plant.problems(
        configuration("north", {"rte": 1}, selector="region=north"), dry_run=dry_run
    )
    assert "spec.values.rte: breaks the schema: unknown field rte" in problem
    assert problem.endswith("at site-1, site-2")
    assert not plant.hub.store.configurations()


@pytest.mark.rule("CONFIG-3")
async def test_an_override_is_held_against_the_newest_release_where_none_runs_yet(plant: Plant) -> None:
    [problem] = await plant.problems(configuration("one", {"rate": "fast"}, site="site-1"))
    assert problem.endswith("(with camera@1), at site-1")


@pytest.mark.rule("CONFIG-3")
async def test_a_release_whose_schema_the_overrides_break_is_refused_at_its_rollout(plant: Plant) -> None:
    await plant.applied(rollout("first"), configuration("north", {"rate": 50}, selector="region=north"))
    schema = {"properties": {"rate": {"maximum": 10}}}
    plant.push(release("2", schema=schema))
    [problem] = await plant.problems(rollout("second", release="camera@2"))
    assert problem.startswith("Rollout second: spec.release: its configuration: rate: breaks the schema")
    assert "(from north)" in problem and problem.endswith("at site-1, site-2")
    await plant.applied(rollout("second", release="camera@2", sites="region=south"))


async def test_a_preview_says_what_is_wrong_with_the_configuration_and_where(plant: Plant) -> None:
    await plant.applied(configuration("north", {"rate": 50}, selector="region=north"))
    plant.push(release("2", schema={"properties": {"rate": {"maximum": 10}}}))
    answer = await plant.ask("viewer", f"{API_PATH}/releases/camera@2/preview")
    [(what, places)] = answer.json()["misconfigured"].items()
    assert what.startswith("rate: breaks the schema") and places == ["site-1", "site-2"]
    asked = release("3", schema={"$ref": "https://example.org/s"})
    body = {"release": msgspec.to_builtins(asked), "selector": "*"}
    answer = await plant.ask("viewer", f"{API_PATH}/previews", "POST", json=body)
    assert answer.status_code == 400 and "leads elsewhere" in answer.text


async def test_an_unknown_reference_is_refused_with_its_sites_and_hosts(plant: Plant) -> None:
    await plant.applied(rollout("first"), site("site-3", "south", line="7"))
    await plant.step()
    found = await plant.problems(
        configuration("all", {"where": "${site.line} ${host.fact.gpu} ${port.grpc}"})
    )
    where, hosts = (
        "Configuration all: spec.values.where",
        "edge-1 of site-1, edge-2 of site-2, edge-3 of site-3",
    )
    assert sorted(found) == [
        f"{where}: ${{host.fact.gpu}}: there is no fact gpu (with camera@1), at {hosts}",
        f"{where}: ${{port.grpc}}: component main has no such thing (with camera@1), at site-1, site-2, site-3",
        f"{where}: ${{site.line}}: there is no variable line (with camera@1), at site-1, site-2",
    ]


def test_a_reference_to_a_binding_that_the_component_is_not_told_of_is_a_trouble() -> None:
    bare = release(defaults={"where": "${binding.line.url} ${binding.eye.device}"})
    spec = bare.application.spec

    def troubles(*needs: BindingNeed) -> list[str]:
        application = msgspec.structs.replace(
            bare.application, spec=msgspec.structs.replace(spec, needs=needs)
        )
        asked = msgspec.structs.replace(bare, application=application)
        return [str(one) for one in configure(asked, (), Known(site="harbour")).troubles]

    line, eye = BindingNeed(name="line", type="http"), BindingNeed(name="eye", type="camera")
    assert troubles(line, eye) == []
    assert [what.split(" ")[1] for what in troubles(line)] == ["${binding.eye.device}:"]
    elsewhere = msgspec.structs.replace(eye, components=("other",))
    assert [what.split(" ")[1] for what in troubles(line, elsewhere)] == ["${binding.eye.device}:"]
    wrong = msgspec.structs.replace(line, type="serial")
    assert [what.split(" ")[1] for what in troubles(wrong, eye)] == ["${binding.line.url}:"]


async def test_a_site_whose_change_would_break_a_configuration_is_refused(plant: Plant) -> None:
    await plant.applied(site("site-1", "north", line="7"))
    await plant.applied(configuration("one", {"where": "${site.line}"}, site="site-1"), rollout("first"))
    await plant.step()
    [problem] = await plant.problems(site("site-1", "north"))
    assert problem.startswith("Site site-1: spec: would break a configuration: where: ${site.line}")


@pytest.mark.rule("CONFIG-3")
async def test_what_cannot_be_filled_is_not_issued_and_the_site_keeps_what_it_had(plant: Plant) -> None:
    await plant.applied(configuration("all", {"where": "${host.fact.machine}"}), rollout("first"))
    await plant.step()
    await settle(plant)
    before = plant.issued("site-1")
    await plant.applied(configuration("all", {"where": "on ${host.fact.machine}"}))
    await plant.applied(rollout("second", waves=[{"name": "a", "approval": "manual", "soak": "0s"}]))
    await plant.report("site-1", facts={"other": Fact(value=1, source="test")})
    assert plant.issued("site-1") == before, "facts that went restart nothing"
    answer = await plant.ask("operator", f"{API_PATH}/rollouts/second/approve", "POST", json={})
    assert answer.status_code == 200, answer.text
    await plant.step()
    await plant.step()
    found = plant.issued("site-1")
    assert found is not None and before is not None and found[1] == before[1]
    record = plant.hub.store.rollout("second")
    why = record.sites["site-1"].why if record else ""
    assert (
        why == "edge-1: its configuration: where: ${host.fact.machine}: there is no fact machine (from all)"
    )


async def test_a_fact_that_changes_changes_no_configuration_until_a_rollout(plant: Plant) -> None:
    await plant.applied(configuration("all", {"where": "${host.fact.machine}"}), rollout("first"))
    await plant.step()
    await settle(plant)
    await plant.report("site-1", facts={"machine": Fact(value="lathe", source="test")})
    assert plant.values("site-1") == {"rate": 1, "where": "press"}
    await plant.applied(rollout("second"))
    await plant.step()
    assert plant.values("site-1") == {"rate": 1, "where": "lathe"}


async def test_a_change_of_a_site_reaches_that_site_at_once_and_no_other(plant: Plant) -> None:
    await plant.applied(site("site-1", "north", line="7"), site("site-2", "north", line="8"))
    await plant.applied(
        configuration("n", {"where": "${site.line}"}, selector="region=north"), rollout("first")
    )
    await plant.step()
    await settle(plant)
    before = plant.issued("site-2")
    await plant.applied(site("site-1", "north", line="9"))
    assert plant.values("site-1") == {"rate": 1, "where": "9"}
    assert plant.issued("site-2") == before


async def test_a_host_that_has_told_no_facts_yet_waits_for_them(plant: Plant) -> None:
    plant.host("edge-9", "site-1", {})
    await plant.applied(configuration("all", {"where": "${host.fact.machine}"}, selector="name!=site-1"))
    await plant.applied(configuration("one", {"where": "${host.name}"}, site="site-1"), rollout("first"))
    await plant.step()
    desired = plant.desired("site-1")
    assert desired is not None and desired.hosts["edge-1"]
    assert not desired.hosts["edge-9"], "its name is known, and what else it is not"


async def test_a_dry_run_says_what_would_change_at_which_sites(plant: Plant) -> None:
    await plant.applied(rollout("first"))
    await plant.step()
    answer = await plant.apply(configuration("north", {"rate": 5}, selector="region=north"), dry_run=True)
    found = [(one["site"], one["path"], one["before"], one["after"]) for one in answer.json()["effects"]]
    assert found == [("site-1", "rate", 1, 5), ("site-2", "rate", 1, 5)]


async def test_rendering_says_where_each_value_is_from(plant: Plant) -> None:
    await plant.applied(
        configuration("north", {"rate": 5}, selector="region=north"),
        configuration("one", {"where": "${site.name}:${port.http}"}, site="site-1"),
        rollout("first"),
    )
    await plant.step()
    view = await plant.render("site-1")
    assert view.values == {"rate": 5, "where": "site-1:${port.http}"}
    assert [(one.path, one.source) for one in view.origins] == [("rate", "north"), ("where", "one")]
    assert [layer.source for layer in view.layers] == ["defaults", "north", "one"]
    assert view.issued == view.values and not view.problems
    await plant.applied(configuration("one", {"where": "elsewhere"}, site="site-1"))
    view = await plant.render("site-1", host="edge-1")
    assert (view.values["where"], (view.issued or {})["where"]) == ("elsewhere", "site-1:${port.http}")
    answer = await plant.ask("viewer", f"{API_PATH}/configurations")
    views = {view.name: view for view in msgspec.json.decode(answer.content, type=list[ConfigurationView])}
    assert (views["one"].behind, views["north"].behind) == (("site-1",), ())


async def test_removing_a_configuration_is_refused_where_others_need_it(plant: Plant) -> None:
    schema = {**SCHEMA, "required": ["where"]}
    plant.push(release("2", schema=schema))
    await plant.applied(configuration("all", {"where": "here"}), rollout("first", release="camera@2"))
    await plant.step()
    answer = await plant.ask("operator", f"{API_PATH}/configurations/all", "DELETE")
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["message"].endswith("at site-1, site-2, site-3")
    await plant.applied(configuration("more", {"where": "there"}))
    assert (await plant.ask("operator", f"{API_PATH}/configurations/all", "DELETE")).status_code == 204
    assert (await plant.ask("operator", f"{API_PATH}/configurations/all", "DELETE")).status_code == 404


async def test_a_token_for_some_sites_changes_configurations_of_those_alone(plant: Plant) -> None:
    now, limited = plant.clock.now(), hash_secret("north-operator")
    record = TokenRecord(
        id="n", name="n", hash=limited, role="operator", created_at=now, sites="region=north"
    )
    plant.hub.store.add_token(record, plant.audit())
    body = {"documents": [configuration("all", {"rate": 5})]}
    answer = await plant.ask("north-operator", f"{API_PATH}/apply", "POST", json=body)
    assert answer.status_code == 400 and "not for a site of this token" in answer.text
    body = {"documents": [configuration("one", {"rate": 5}, site="site-1")]}
    answer = await plant.ask("north-operator", f"{API_PATH}/apply", "POST", json=body)
    assert answer.status_code == 200, answer.text
