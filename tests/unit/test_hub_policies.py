"""Policies on a hub: what they stop, what they leave alone, who may overrule them, and that no summary is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH
from skerry.hub.evidence import check_evidence, stated_evidence
from skerry.hub.judging import Judge
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.ports.blobs import Blobs
from skerry.ports.hub_store import HubStore, RolloutRecord
from skerry.spec.api import ApplyAnswer, RolloutView
from skerry.spec.api_policy import PolicyDecision
from skerry.spec.application import Collected, MetricsEndpoint, Port, RateMetric
from skerry.spec.evidence import Evidence, EvidenceKind
from skerry.spec.problems import DocumentRejected
from skerry.spec.release import Release
from skerry.testing.memory import MemoryBlobs
from skerry.testing.signing import Publisher
from skerry.trust.evidence import Subject, subject_of, summarise
from skerry.trust.keys import SigningKey
from tests.unit.evidence_files import COMPONENT, attestation, cyclonedx, evaluation, grype
from tests.unit.matching_world import component, release, variant
from tests.unit.release_records import record_of
from tests.unit.test_hub_door import World
from tests.unit.test_hub_preview import Fleet, host_facts

pytestmark = pytest.mark.trust

KEY = SigningKey.generate()
REASON = "the fire brigade waits for it"


def made(version: str = "1") -> Release:
    errors = Collected(name="errors", rate=RateMetric(bad="errors_total", total="requests_total"))
    told = MetricsEndpoint(port="http", collect=(errors,))
    eye = component(models=("eye",), ports=(Port(name="http"),), metrics=told)
    found = release(eye, models={"eye": (variant("small"),)}, name="camera")
    spec = msgspec.structs.replace(found.application.spec, version=version)
    return msgspec.structs.replace(found, application=msgspec.structs.replace(found.application, spec=spec))


def subject(of: Release) -> Subject:
    return subject_of(of, digest_of(encode_canonical(of)))


class Guarded(World, Fleet):
    """A hub with two sites and a release that carries what a test attaches."""

    def __init__(self, folder: Path, store: HubStore | None = None) -> None:
        World.__init__(self, folder, store)
        self.publisher = Publisher().register(self.hub.repository, self.clock.now())
        for name in ("harbour", "pier"):
            self.site(name, labels={"region": "north"})
            self.host(f"{name}-edge", name, host_facts())

    async def attach(self, *files: tuple[EvidenceKind, bytes], version: str = "1") -> tuple[Evidence, ...]:
        found = made(version)
        evidence = tuple(summarise(kind, content, subject(found)) for kind, content in files)
        for one, (_, content) in zip(evidence, files, strict=True):
            await self.hub.blobs.put(one.digest, content)
        repository, now = self.hub.repository, self.clock.now()
        record = msgspec.structs.replace(
            record_of(found, now), evidence=evidence, publisher=self.publisher.name
        )
        signed = self.publisher.vouch(repository.load, found, now, evidence=evidence)
        given = {role.role: role.content for role in signed.metadata}
        if given:
            assert stated_evidence(repository.load, given, self.publisher.name, found.name) == evidence
        await asyncio.to_thread(repository.publish, given, self.audit(), release=record)
        return evidence

    async def apply(self, token: str, *documents: dict[str, Any], **more: Any) -> httpx2.Response:
        return await self.ask(token, f"{API_PATH}/apply", "POST", json={"documents": documents, **more})

    async def applied(self, token: str, *documents: dict[str, Any], **more: Any) -> ApplyAnswer:
        answer = await self.apply(token, *documents, **more)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=ApplyAnswer)

    async def step(self) -> dict[str, str]:
        """Let the hub decide its rollouts, and return the assignments by site."""
        await self.hub.rollouts.step()
        return {one.site: one.release for one in self.hub.store.assignments()}

    def rollout(self, name: str) -> RolloutRecord:
        record = self.hub.store.rollout(name)
        assert record is not None
        return record

    async def shown(self, path: str) -> httpx2.Response:
        return await self.ask("viewer", API_PATH + path)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Guarded]:
    found = Guarded(tmp_path)
    yield found
    found.hub.store.close()


def policy(*require: str, name: str = "production", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "skerry/v1",
        "kind": "Policy",
        "metadata": {"name": name},
        "spec": {"require": require, **spec},
    }


def rollout(name: str = "spring", sites: str = "*", version: str = "1") -> dict[str, Any]:
    spec = {"release": f"camera@{version}", "sites": sites, "waves": [{"size": "100%"}]}
    return {"apiVersion": "skerry/v1", "kind": "Rollout", "metadata": {"name": name}, "spec": spec}


def messages(answer: httpx2.Response) -> list[str]:
    return [problem["message"] for problem in answer.json()["problems"]]


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("POLICY-1")
async def test_a_rollout_of_a_release_that_lacks_something_is_refused_with_all_reasons(
    world: Guarded,
) -> None:
    await world.attach(("evaluation", evaluation(accuracy=0.9)), ("sbom", cyclonedx(COMPONENT)))
    await world.applied("admin", policy("sbom", "eval.accuracy >= 0.92", "model-card"))
    for more in ({"dry_run": True}, {}):
        answer = await world.apply("operator", rollout(), **more)
        assert (answer.status_code, answer.json()["code"]) == (400, "document.invalid")
        assert messages(answer) == [
            "policy production requires eval.accuracy >= 0.92: accuracy of eye is 0.9, required is >= 0.92",
            "policy production requires model-card: a model card is not attached",
        ]
        assert {problem["path"] for problem in answer.json()["problems"]} == {"Rollout spring: spec.release"}
    assert world.hub.store.rollout("spring") is None
    assert await world.step() == {}


async def test_a_policy_that_comes_with_a_rollout_holds_for_it(world: Guarded) -> None:
    await world.attach()
    answer = await world.apply("admin", rollout(), policy("sbom"))
    assert answer.status_code == 400
    assert world.hub.store.policies() == []


async def test_a_release_that_satisfies_every_policy_is_rolled_out(world: Guarded) -> None:
    about = subject(made()).digest
    await world.attach(
        ("evaluation", evaluation(accuracy=0.95)),
        ("vulnerabilities", grype("High")),
        ("attestation", attestation(about, KEY)),
    )
    required = ("eval.accuracy >= 0.92", "vulnerabilities.critical == 0", "attestation by ci")
    await world.applied("admin", policy(*required, attestation_keys={"ci": KEY.public}))
    assert (await world.applied("operator", rollout())).warnings == ()
    assert await world.step() == {"harbour": "camera@1", "pier": "camera@1"}


async def test_a_policy_that_warns_is_said_and_stops_nothing(world: Guarded) -> None:
    await world.attach()
    await world.applied("admin", policy("sbom", enforce="warn"))
    answer = await world.applied("operator", rollout())
    assert answer.warnings == ("policy production wants sbom: an SBOM is not attached",)
    assert len(await world.step()) == 2


async def test_a_policy_for_other_applications_is_nothing_to_it(world: Guarded) -> None:
    await world.attach()
    await world.applied("admin", policy("sbom", applications=["meter-*"]))
    await world.applied("operator", rollout())
    assert len(await world.step()) == 2


# ── while it runs ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("POLICY-1")
async def test_a_policy_that_comes_later_stops_new_sites_and_takes_nothing_away(world: Guarded) -> None:
    await world.attach()
    await world.applied("operator", rollout())
    before = await world.step()
    assert before == {"harbour": "camera@1", "pier": "camera@1"}
    await world.applied("admin", policy("sbom"))
    world.site("mole", labels={})
    world.host("mole-edge", "mole", host_facts())
    assert await world.step() == before
    record = world.rollout("spring")
    assert record.sites["mole"].state == "pending"
    reason = "offered to no further site: policy production requires sbom: an SBOM is not attached"
    assert (record.state, record.why.partition("; ")[2]) == ("running", reason)
    assert await world.step() == before
    assert world.rollout("spring").version == record.version, "waiting is not stored again and again"

    assert (await world.ask("admin", f"{API_PATH}/policies/production", "DELETE")).status_code == 204
    assert await world.step() == {**before, "mole": "camera@1"}


@pytest.mark.rule("POLICY-1")
async def test_a_rollout_that_a_policy_has_stopped_still_halts_and_goes_back(world: Guarded) -> None:
    await world.attach()
    await world.attach(version="2")
    await world.applied("operator", rollout("first", sites="name=harbour"))
    await world.step()
    await world.applied("operator", rollout("second", sites="name=harbour", version="2"))
    assert await world.step() == {"harbour": "camera@2"}
    await world.applied("admin", policy("sbom"))
    record = world.rollout("second")
    failed = msgspec.structs.replace(record.sites["harbour"], state="failed", why="it crashed")
    world.hub.store.advance_rollout(msgspec.structs.replace(record, sites={"harbour": failed}))
    # What it goes back to lacks the same: a policy stops what is new, never the way back.
    assert await world.step() == {"harbour": "camera@1"}
    assert world.rollout("second").state == "failed"


async def test_evidence_that_comes_later_lets_it_go_on(world: Guarded) -> None:
    await world.attach()
    await world.applied("operator", rollout(sites="name=harbour"))
    await world.applied("admin", policy("sbom"))
    assert await world.step() == {}
    await world.attach(("sbom", cyclonedx(COMPONENT)))
    assert await world.step() == {"harbour": "camera@1"}
    told = [entry.action for entry in world.audits() if entry.action != "rollout.decide"]
    assert told[:1] == ["release.evidence"]


# ── who may ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("POLICY-3")
@pytest.mark.parametrize("token", ("viewer", "publisher", "operator"))
async def test_only_admins_change_remove_or_override_policies(world: Guarded, token: str) -> None:
    await world.attach()
    await world.applied("admin", policy("sbom"))
    tries = (
        await world.apply(token, policy("sbom", enforce="warn")),
        await world.apply(token, rollout(), override_policy=REASON),
        await world.ask(token, f"{API_PATH}/policies/production", "DELETE"),
    )
    assert [answer.status_code for answer in tries] == [403, 403, 403]
    assert [record.name for record in world.hub.store.policies()] == ["production"]
    assert world.hub.store.rollouts() == []
    assert {(who, action) for who, action, _ in world.refusals()} == {(token, "refused")}


async def test_an_operator_may_apply_a_folder_with_a_policy_that_is_there_already(world: Guarded) -> None:
    await world.applied("admin", policy("sbom"))
    answer = await world.applied("operator", policy("sbom"))
    assert [change.action for change in answer.changes] == ["unchanged"]


@pytest.mark.rule("POLICY-3")
async def test_an_override_is_audited_with_its_reason_and_shown(world: Guarded) -> None:
    await world.attach()
    await world.applied("admin", policy("sbom"))
    await world.applied("admin", rollout(), override_policy=REASON)
    assert len(await world.step()) == 2
    entry = next(entry for entry in world.audits() if entry.action == "policy.override")
    told = f"{REASON} (policy production requires sbom: an SBOM is not attached)"
    assert (entry.who, entry.subject, entry.outcome) == ("admin", "rollout:spring", told)
    view = msgspec.json.decode((await world.shown("/rollouts/spring")).content, type=RolloutView)
    assert view.override is not None
    assert (view.override.who, view.override.reason) == ("admin", REASON)
    assert [one.requirement for one in view.override.failures] == ["sbom"]


@pytest.mark.rule("POLICY-3")
async def test_an_override_covers_the_failures_there_were_and_no_others(world: Guarded) -> None:
    await world.attach()
    await world.applied("admin", policy("sbom"))
    await world.applied("admin", rollout(sites="name=harbour"), override_policy=REASON)
    await world.applied("admin", policy("model-card", name="later"))
    assert await world.step() == {}
    assert world.rollout("spring").why.endswith(
        "policy later requires model-card: a model card is not attached"
    )
    await world.ask("admin", f"{API_PATH}/policies/later", "DELETE")
    assert await world.step() == {"harbour": "camera@1"}


async def test_an_override_of_what_has_begun_is_refused_and_one_of_nothing_is_said(world: Guarded) -> None:
    await world.attach(("sbom", cyclonedx(COMPONENT)))
    await world.applied("admin", policy("sbom"))
    answer = await world.applied("admin", rollout(), override_policy=REASON)
    assert answer.warnings == ("camera@1 satisfies every policy that blocks: nothing was overridden",)
    assert world.rollout("spring").override is None
    again = await world.apply("admin", rollout(), override_policy=REASON)
    assert (again.status_code, again.json()["code"]) == (409, "rollout.immutable")


async def test_a_policy_with_a_key_that_verifies_nothing_is_refused(world: Guarded) -> None:
    key = "-----BEGIN PUBLIC KEY-----\n" + "QUJD" * 12 + "\n-----END PUBLIC KEY-----\n"
    answer = await world.apply("admin", policy("attestation by ci", attestation_keys={"ci": key}))
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["path"] == "Policy production: spec.attestation_keys.ci"


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_decision_is_explained_requirement_by_requirement(world: Guarded) -> None:
    (one,) = await world.attach(("evaluation", evaluation(accuracy=0.95)))
    await world.applied("admin", policy("eval.accuracy >= 0.92", "sbom"))
    decision = msgspec.json.decode(
        (await world.shown("/releases/camera@1/policies")).content, type=PolicyDecision
    )
    assert not decision.satisfied
    assert [(r.requirement, r.satisfied) for r in decision.policies[0].requirements] == [
        ("eval.accuracy >= 0.92", True),
        ("sbom", False),
    ]
    assert (await world.shown("/releases/camera@9/policies")).status_code == 404
    listed = (await world.shown("/policies")).json()
    assert [(view["name"], view["enforce"], view["changed_by"]) for view in listed] == [
        ("production", "block", "admin")
    ]
    assert (await world.shown("/policies/production")).json() == listed[0]
    assert (await world.shown("/policies/none")).status_code == 404
    shown = (await world.shown("/releases/camera@1")).json()["evidence"]
    assert msgspec.convert(shown, tuple[Evidence, ...]) == (one,)


async def test_the_files_of_evidence_are_given_and_no_other_blobs(world: Guarded) -> None:
    content = cyclonedx(COMPONENT)
    (one,) = await world.attach(("sbom", content))
    await world.hub.blobs.put(digest_of(b"weights"), b"weights")
    assert (await world.shown(f"/releases/camera@1/evidence/{one.digest}")).content == content
    assert (await world.shown(f"/releases/camera@1/evidence/{digest_of(b'weights')}")).status_code == 404
    assert (await world.shown(f"/releases/camera@2/evidence/{one.digest}")).status_code == 404


# ── the door ─────────────────────────────────────────────────────────────────────────────────────────


async def checked(evidence: list[Evidence], *contents: bytes) -> list[tuple[str, str]]:
    """Return the problems that the hub has with evidence of which it holds these files."""
    blobs: Blobs = MemoryBlobs()
    for content in contents:
        await blobs.put(digest_of(content), content)
    try:
        await check_evidence(blobs, made(), subject(made()).digest, evidence)
    except DocumentRejected as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


@pytest.mark.rule("POLICY-2")
async def test_a_hub_sums_up_for_itself_and_tells_every_file_that_is_not_as_stated() -> None:
    report, bom = grype("Critical"), cyclonedx(COMPONENT)
    true = summarise("vulnerabilities", report, subject(made()))
    sbom = summarise("sbom", bom, subject(made()))
    assert await checked([true, sbom], report, bom) == []
    pretty = msgspec.structs.replace(true, summary={**true.summary, "critical": 0, "total": 0})
    assert await checked([pretty, sbom, sbom], report) == [
        ("evidence[0] (vulnerabilities): summary.critical", "critical is stated as 0, and the file says 1"),
        ("evidence[1]", f"the file {sbom.digest} is not here"),
        ("evidence[2]", "the same sbom is there twice"),
    ]
    large = [msgspec.structs.replace(sbom, size_bytes=30 << 20)] * 5
    assert await checked(large) == [("evidence", "more than 134217728 bytes in all")]


@pytest.mark.rule("POLICY-2")
async def test_an_attestation_of_another_release_is_not_taken() -> None:
    content = attestation(subject(made("2")).digest, KEY)
    stated = summarise("attestation", content, subject(made("2")))
    problems = await checked([stated], content)
    assert problems == [
        (
            "evidence[0] (attestation): payload.subject",
            "no subject is this release, nor a file that it pins",
        )
    ]


async def test_decisions_are_kept_until_something_changes(world: Guarded) -> None:
    await world.attach()
    await world.applied("admin", policy("sbom"))
    judge = Judge(world.hub.store, world.hub.blobs)
    record = world.hub.store.release("camera@1")
    assert record is not None
    first = await judge.decide(record)
    assert await judge.decide(record) is first
    await world.applied("admin", policy("model-card"))
    assert (await judge.decide(record)) != first
