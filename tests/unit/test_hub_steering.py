"""People and gates steer a rollout that is under way: over the API, with the hub's own loop, store and assignments."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from skerry.hub.api.app import API_PATH
from skerry.hub.fleet_facts import spec_of
from skerry.hub.gating import judge_waves
from skerry.ports.hub_store import AuditRecord
from skerry.spec.metrics import MetricWindow, Rate
from tests.unit.test_hub_policies import Guarded, world

__all__ = ["world"]

pytestmark = pytest.mark.rollout

BOTH = {"harbour": "camera@1", "pier": "camera@1"}


def rollout(name: str, version: str, *waves: dict[str, Any], **spec: Any) -> dict[str, Any]:
    told = {"release": f"camera@{version}", "sites": "*", "waves": [{"soak": "0s", **wave} for wave in waves]}
    return {"apiVersion": "skerry/v1", "kind": "Rollout", "metadata": {"name": name}, "spec": told | spec}


async def steer(world: Guarded, verb: str, name: str = "spring", **body: Any) -> dict[str, Any]:
    answer = await world.ask("operator", f"{API_PATH}/rollouts/{name}/{verb}", "POST", json=body)
    return {"status": answer.status_code, **answer.json()}


async def begun(world: Guarded, *waves: dict[str, Any], **spec: Any) -> None:
    """Have version 1 everywhere, and a rollout of version 2 begin."""
    for version in ("1", "2"):
        await world.attach(version=version)
    await world.applied("operator", rollout("first", "1", {"size": "100%"}))
    assert await world.step() == BOTH
    await succeed(world, "first")
    await world.applied("operator", rollout("spring", "2", *waves, **spec))
    await world.step()


def asked(world: Guarded) -> list[AuditRecord]:
    """Return the audit of what people did."""
    return [entry for entry in world.hub.store.audits(100) if entry.who != "hub"]


async def succeed(world: Guarded, name: str) -> None:
    """Take it that every site that was offered the release runs it."""
    record = world.rollout(name)
    done = {
        site: msgspec.structs.replace(one, state="succeeded") if one.state == "offered" else one
        for site, one in record.sites.items()
    }
    world.hub.store.advance_rollout(msgspec.structs.replace(record, sites=done))


async def test_a_paused_rollout_offers_nothing_and_goes_on_when_it_is_resumed(world: Guarded) -> None:
    await begun(world, {"size": "1"}, {"size": "100%"})
    (canary,) = (site for site, release in (await world.step()).items() if release == "camera@2")
    assert (await steer(world, "pause", why="the line is being cleaned"))["status"] == 200
    paused = await world.step()
    assert list(paused.values()).count("camera@2") == 1
    record = world.rollout("spring")
    assert (record.state, record.why) == ("paused", "paused: the line is being cleaned")
    assert (await steer(world, "resume"))["state"] == "paused", "the loop decides what follows"
    await world.step()
    assert world.rollout("spring").state == "running"
    assert (await steer(world, "abort", then="revert"))["status"] == 200
    assert await world.step() == BOTH
    assert world.rollout("spring").sites[canary].state in ("pending", "applying")
    actions = {entry.action for entry in world.hub.store.audits(100)}
    assert {"rollout.pause", "rollout.resume", "rollout.abort"} <= actions


async def test_a_wave_begins_when_it_is_approved(world: Guarded) -> None:
    await begun(world, {"name": "all", "size": "100%", "approval": "manual"})
    assert await world.step() == BOTH
    assert world.rollout("spring").why == "all: waits for approval"
    unknown = await steer(world, "approve", wave="none")
    assert (unknown["status"], unknown["code"]) == (400, "rollout.no_wave")
    assert (await steer(world, "approve"))["control"]["approved"] == [0]
    assert set((await world.step()).values()) == {"camera@2"}
    again = await steer(world, "approve")
    assert again["code"] == "rollout.no_wave"


async def test_what_has_ended_is_not_steered_but_tried_again(world: Guarded) -> None:
    await begun(world, {"size": "100%"})
    await steer(world, "abort", then="keep")
    await world.step()
    assert world.rollout("spring").state == "aborted"
    for verb in ("pause", "resume", "approve", "abort"):
        refused = await steer(world, verb)
        assert (refused["status"], refused["code"]) == (409, "rollout.ended"), verb
    assert (await steer(world, "pause", name="none"))["code"] == "rollout.missing"
    assert (await steer(world, "retry"))["attempt"] == 2
    assert set((await world.step()).values()) == {"camera@2"}


async def test_a_dry_run_says_what_would_come_of_it_and_changes_nothing(world: Guarded) -> None:
    await begun(world, {"size": "100%", "approval": "manual"})
    before, audits = world.rollout("spring"), len(asked(world))
    for verb, control in (
        ("pause", {"paused": "by operator"}),
        ("approve", {"approved": [0]}),
        ("abort", {"aborted": "revert"}),
    ):
        told = await steer(world, f"{verb}?dry_run=true")
        assert (told["status"], told["control"]) == (200, control), verb
    assert (await steer(world, "resume?dry_run=true"))["status"] == 200
    assert (await steer(world, "retry?dry_run=true"))["code"] == "rollout.not_failed"
    assert (await steer(world, "approve?dry_run=true", wave="none"))["code"] == "rollout.no_wave"
    await steer(world, "abort", then="keep")
    await world.step()
    ended, audits = world.rollout("spring"), audits + 1
    assert (await steer(world, "retry?dry_run=true"))["attempt"] == 2
    assert (await steer(world, "pause?dry_run=true"))["code"] == "rollout.ended"
    assert (before.state, ended.state) == ("running", "aborted")
    assert world.rollout("spring") == ended
    assert len(asked(world)) == audits


async def test_all_that_is_wrong_with_a_rollout_is_told_at_once(world: Guarded) -> None:
    await world.attach(version="2")
    blocking = {
        "apiVersion": "skerry/v1",
        "kind": "Policy",
        "metadata": {"name": "production"},
        "spec": {"require": ["sbom"]},
    }
    await world.applied("admin", blocking)
    waves = ({"size": "1", "sites": "tier=test"}, {"size": "1", "sites": "x=("}, {"size": "100%"})
    gates = [
        {**GATE, "metric": "latency", "kind": "quantile", "quantile": 0.95},
        {**GATE, "kind": "mean"},
        {**GATE, "metric": "unknown", "no_data": "pass"},
        GATE,
    ]
    refused = await world.apply("operator", rollout("spring", "2", *waves, gates=gates))
    assert refused.status_code == 400
    found = {problem["path"]: problem["message"] for problem in refused.json()["problems"]}
    where = "Rollout spring: spec"
    assert found == {
        f"{where}.gates[0].metric": "no component of the release tells a metric latency",
        f"{where}.gates[1].kind": "errors is not collected for kind: mean",
        f"{where}.waves[0].sites": "no selected site matches 'tier=test'",
        f"{where}.waves[1].sites": "not a selector: 'x=('",
        f"{where}.release": found[f"{where}.release"],
    }
    assert "policy production requires sbom" in found[f"{where}.release"]
    unknown = await world.apply("operator", rollout("spring", "9", sites="region=south"))
    assert [problem["message"] for problem in unknown.json()["problems"]] == [
        "there is no release camera@9",
        "no site matches 'region=south'",
    ]
    assert world.hub.store.rollout("spring") is None


async def test_viewers_steer_nothing(world: Guarded) -> None:
    await begun(world, {"size": "100%"})
    for verb in ("pause", "resume", "approve", "abort", "retry"):
        answer = await world.ask("viewer", f"{API_PATH}/rollouts/spring/{verb}", "POST", json={})
        assert answer.status_code == 403, verb


GATE = {"metric": "errors", "kind": "rate", "compare": "cohort", "max_increase": "0.02", "min_samples": 100}


@pytest.mark.parametrize(("bad", "outcome"), ((200, "pass"), (8000, "fail")))
async def test_a_wave_is_held_to_what_hosts_measured(world: Guarded, bad: int, outcome: str) -> None:
    """Of 20,000 requests on the new release 200 or 8,000 fail; of as many on the old one 200 did."""
    await begun(world, {"size": "1"}, {"size": "100%"}, gates=[GATE])
    (canary,) = (site for site, release in (await world.step()).items() if release == "camera@2")
    await world.step()
    waiting = world.rollout("spring")
    assert waiting.steering.waves[0].passed_at is None, "nothing was measured"
    begin = world.clock.now()
    for release, failed, at in (("camera@1", 200, begin - timedelta(hours=1)), ("camera@2", bad, begin)):
        window = MetricWindow(
            application="camera",
            release=release,
            component="main",
            metric="errors",
            begin=at,
            end=at + timedelta(minutes=1),
            value=Rate(bad=failed, total=20_000),
        )
        host = f"{canary}-edge"
        await asyncio.to_thread(
            world.hub.store.put_metric_windows, host, canary, [window], sequence=1, at=begin
        )
    world.clock.advance(120.0)
    record = world.rollout("spring")
    verdicts = judge_waves(world.hub.store, record, spec_of(record))
    assert {number: verdict.outcome for number, verdict in verdicts.items()} == {0: outcome}
    after = await world.step()
    halt = world.rollout("spring").steering.halt
    if outcome == "pass":
        assert halt is None
    else:
        assert halt is not None
        assert halt.why.startswith(f"a gate failed in wave-1: {verdicts[0].why}")
        assert after == BOTH, "it goes back"


async def test_figures_of_other_sites_and_releases_say_nothing_of_a_wave(world: Guarded) -> None:
    await begun(world, {"size": "1"}, {"size": "100%"}, gates=[GATE])
    (other,) = (site for site, release in (await world.step()).items() if release == "camera@1")
    at = world.clock.now()
    window = MetricWindow(
        application="camera",
        release="camera@2",
        component="main",
        metric="errors",
        begin=at,
        end=at + timedelta(minutes=1),
        value=Rate(bad=900, total=1000),
    )
    store = world.hub.store
    await asyncio.to_thread(store.put_metric_windows, f"{other}-edge", other, [window], sequence=1, at=at)
    record = world.rollout("spring")
    assert judge_waves(store, record, spec_of(record))[0].outcome == "inconclusive"
