"""Where the hub places the applications of a site, what it then tells the hosts, and when a rollout counts as done."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.hub.loops.rollouts import RolloutLoop
from skerry.hub.placing import SiteWork, place_work
from skerry.hub.secret_checks import lacking_secrets
from skerry.hub.services import Hub
from skerry.kit.canonical import encode_canonical
from skerry.ports.hub_store import Audit, HostRecord, JoinTokenRecord, RolloutRecord
from skerry.spec.api_secret import SecretRequest
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component, Placement
from skerry.spec.binding import BindingNeed, BindingSpec, BindingView, CameraBinding, DeviceBinding
from skerry.spec.carrier import JsonEnvelope, SyncRequest
from skerry.spec.desired import DesiredState, SitePolicy
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.hardware import Requirements
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.report import REPORT_TYPE, ApplicationView, Observed, Report
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.spec.site import Site, SiteSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.hub_parts import memory_hub
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey, new_sealing_key
from tests.unit.release_records import record_of

APP, SITE = "reader", "harbour"
GIB = 1 << 30


def release(
    version: str = "1", *, application: str = APP, needs: tuple[BindingNeed, ...] = (), **placement: Any
) -> Release:
    file = FileSpec(path="run", digest="sha256:" + "0" * 64, size_bytes=1)
    component = Component(name="main", bundle=Bundle(files=(file,)), command=("run",))
    spec = ApplicationSpec(
        version=version, placement=Placement(**placement), needs=needs, components=(component,)
    )
    return Release(application=Application(metadata=Metadata(name=application), spec=spec))


def facts(number: int, *, memory: int = GIB, **more: str) -> HostFacts:
    found: dict[str, Any] = {"memory_bytes": memory, "cpu_count": 4, "lan_address": f"10.0.0.{number}:7946"}
    return {name: Fact(value=value, source="test") for name, value in {**found, **more}.items()}


class Harbour:
    """A hub with one site; its hosts report what a test lets them."""

    def __init__(self, folder: Path, hosts: int = 3) -> None:
        self.clock = SimulatedClock()
        self.hub: Hub = memory_hub(folder, self.clock)
        self.store = self.hub.store
        self.loop: RolloutLoop = self.hub.rollouts
        self.keys: dict[str, SigningKey] = {}
        self.sequences: dict[str, int] = {}
        self.site()
        for number in range(hosts):
            self.join(f"edge-{number}")

    def site(self, **spec: Any) -> None:
        # Clocks are moved on by hours here, and nobody reports meanwhile.
        document = Site(metadata=Metadata(name=SITE), spec=SiteSpec(offline_tolerance="30d", **spec))
        self.store.apply_documents(sites={SITE: encode_canonical(document)}, rollouts=(), audits=())

    def audit(self) -> Audit:
        return Audit(at=self.clock.now(), who="ann", action="test", subject="something")

    def join(self, name: str, *, seal_key: str = "") -> None:
        now = self.clock.now()
        token = JoinTokenRecord(
            hash=name, site=SITE, created_at=now, expires_at=now + timedelta(hours=1), uses_left=1
        )
        self.store.add_join_token(token, self.audit())
        self.keys[name] = SigningKey.generate()
        record = HostRecord(
            name=name, site=SITE, sign_key=self.keys[name].public, seal_key=seal_key or name, enrolled_at=now
        )
        self.store.enroll_host(name, record, self.audit())

    async def report(self, name: str, **changes: Any) -> None:
        self.sequences[name] = self.sequences.get(name, 0) + 1
        now = self.clock.now()
        report = Report(host=name, site=SITE, sequence=self.sequences[name], sent_at=now, clock=now)
        envelope = sign_document(msgspec.structs.replace(report, **changes), REPORT_TYPE, self.keys[name])
        await self.hub.backend.sync(SyncRequest(reports=(envelope,)))
        await self.loop.step()

    async def all_report_facts(self) -> None:
        for number, name in enumerate(sorted(self.keys)):
            await self.report(name, facts=facts(number))

    async def say(
        self, name: str, phase: str, *, candidate: str = "", running: str = "", **view: Any
    ) -> None:
        seen = ApplicationView(phase=phase, release=running, candidate=candidate, **view)  # type: ignore[arg-type]
        observed = Observed(generation=await self.generation(), applications={APP: seen})
        await self.report(name, observed=observed)

    async def roll_out(self, wanted: Release, name: str = "first", *, urgent: bool = False) -> None:
        record = record_of(wanted, self.clock.now())
        self.store.add_release(record, self.audit())
        spec = RolloutSpec(release=wanted.name, sites="*", urgent=urgent)
        document = Rollout(metadata=Metadata(name=name), spec=spec)
        rollout = RolloutRecord(
            name=name,
            document=encode_canonical(document),
            release=wanted.name,
            application=record.application,
            created_at=self.clock.now(),
            created_by="ann",
        )
        self.store.apply_documents(sites={}, rollouts=[rollout], audits=())
        await self.loop.step()

    async def generation(self) -> int:
        return (await self.hub.issuer.issued(SITE)).generation

    async def desired(self) -> DesiredState:
        envelope = (await self.hub.issuer.issued(SITE)).envelope
        assert envelope is not None
        return payload(envelope)

    async def assigned(self, application: str = APP) -> list[str]:
        hosts = (await self.desired()).hosts
        return [host for host, given in hosts.items() if application in {each.application for each in given}]

    async def progress(self, name: str = "first") -> tuple[str, str]:
        await self.loop.step()
        record = self.store.rollout(name)
        assert record is not None
        return record.sites[SITE].state, record.sites[SITE].why


def payload(envelope: JsonEnvelope) -> DesiredState:
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)


@pytest.fixture
def harbour(tmp_path: Path) -> Harbour:
    return Harbour(tmp_path)


async def test_an_application_for_one_host_is_assigned_to_it_and_its_stand_by_alone(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one", takeover="12s", split="majority"))
    desired = await harbour.desired()
    placement = desired.placements[APP]
    assert (placement.count, placement.takeover_s, placement.split) == (1, 12.0, "majority")
    assert len(placement.hosts) == 2
    assert sorted(placement.hosts) == await harbour.assigned()
    assert set(desired.hosts) == set(harbour.keys)  # the third is told that it runs nothing
    assert {name: each.address for name, each in desired.neighbours.items()} == {
        f"edge-{number}": f"10.0.0.{number}:7946" for number in range(3)
    }
    assert {name: each.sign_key for name, each in desired.neighbours.items()} == {
        name: key.public for name, key in harbour.keys.items()
    }


async def test_hosts_know_each_other_also_where_nothing_is_placed(harbour: Harbour) -> None:
    harbour.site(host_network=True)
    await harbour.all_report_facts()
    await harbour.roll_out(release())
    desired = await harbour.desired()
    assert (desired.placements, set(desired.neighbours)) == ({}, set(harbour.keys))
    before = await harbour.generation()
    await harbour.report("edge-1", facts=facts(77))
    assert (await harbour.desired()).neighbours["edge-1"].address == "10.0.0.77:7946"
    assert await harbour.generation() == before + 1
    assert desired.policy.host_network
    assert await harbour.assigned() == sorted(harbour.keys)


@pytest.mark.rule("SHARE-5")
async def test_a_host_alone_at_its_site_has_no_neighbours(harbour: Harbour) -> None:
    alone = tuple(harbour.store.hosts(SITE))[:1]
    for releases in ({}, {APP: release(mode="one")}):
        work = SiteWork(releases=releases, hosts=alone, policy=SitePolicy())
        assert place_work(work).neighbours == {}


@pytest.mark.rule("STANDBY-4")
async def test_facts_that_move_nothing_issue_nothing(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    before = await harbour.desired()
    for memory in (64 * GIB, GIB // 2, 2 * GIB):
        await harbour.report("edge-2", facts=facts(2, memory=memory))
    await harbour.report("edge-1", facts=facts(1, kernel="7.1"))
    assert await harbour.desired() == before


@pytest.mark.rule("STANDBY-4")
async def test_a_silent_host_keeps_its_rank(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    before = await harbour.desired()
    harbour.clock.advance(86400.0 * 7)
    await harbour.report("edge-2", facts=facts(2, memory=64 * GIB))
    await harbour.hub.issuer.issue(SITE)
    assert (await harbour.desired()).placements == before.placements


async def test_a_new_address_is_told_to_the_neighbours(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    before = await harbour.generation()
    await harbour.report("edge-1", facts=facts(77))
    desired = await harbour.desired()
    assert desired.generation == before + 1
    assert desired.neighbours["edge-1"].address == "10.0.0.77:7946"


async def test_a_host_that_joins_or_goes_makes_a_new_order_in_which_the_others_stay(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="count", count=2, standby=2))
    first = (await harbour.desired()).placements[APP].hosts
    assert sorted(first) == sorted(harbour.keys)
    harbour.join("edge-3")
    harbour.clock.advance(2.0)  # the hub looks for hosts it does not know once a second
    await harbour.report("edge-3", facts=facts(3, memory=64 * GIB))
    second = (await harbour.desired()).placements[APP].hosts
    assert second == (*first, "edge-3")
    harbour.store.remove_host(first[0], harbour.audit())
    await harbour.hub.issuer.issue(SITE)
    desired = await harbour.desired()
    assert desired.placements[APP].hosts == second[1:]
    assert first[0] not in desired.neighbours


async def test_an_application_finds_its_place_when_the_first_facts_come(harbour: Harbour) -> None:
    await harbour.roll_out(release(mode="one"))
    assert (await harbour.progress())[0] == "unreachable"
    await harbour.all_report_facts()
    await harbour.progress()
    assert len((await harbour.desired()).placements[APP].hosts) == 2


async def test_what_fits_no_host_fails_once_all_have_said_what_they_are(harbour: Harbour) -> None:
    await harbour.roll_out(release(mode="one", requires=Requirements(memory="32GiB")))
    await harbour.report("edge-0", facts=facts(0))
    await harbour.report("edge-1", facts=facts(1))
    assert (await harbour.progress())[0] == "offered"
    await harbour.report("edge-2", facts=facts(2))
    state, why = await harbour.progress()
    assert state == "failed"
    assert "no host fits; edge-0: the placement needs memory >= 32 GiB;" in why
    assert await harbour.assigned() == []


async def test_each_goes_to_every_host_but_those_that_the_placement_excludes(harbour: Harbour) -> None:
    for number in range(3):
        os = "debian" if number < 2 else "fedora"
        await harbour.report(f"edge-{number}", facts=facts(number, os=os))
    await harbour.roll_out(release(requires=Requirements(os=("debian",))))
    assert await harbour.assigned() == ["edge-0", "edge-1"]
    assert (await harbour.desired()).placements == {}
    # One that has it keeps it: it says itself what it lacks now.
    await harbour.report("edge-0", facts=facts(0, os="fedora"))
    await harbour.report("edge-2", facts=facts(2, os="debian"))
    assert await harbour.assigned() == ["edge-0", "edge-1", "edge-2"]
    for name in ("edge-0", "edge-1", "edge-2"):
        await harbour.say(name, "running", running=f"{APP}@1")
    assert (await harbour.progress())[0] == "succeeded"


async def test_a_site_succeeds_when_the_first_run_it_and_the_others_stand_by_with_it(
    harbour: Harbour,
) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    first, second = (await harbour.desired()).placements[APP].hosts
    await harbour.say(second, "standing-by", candidate=f"{APP}@1")
    await harbour.say(first, "standing-by", candidate=f"{APP}@1")
    assert await harbour.progress() == ("applying", "waiting for a host whose turn it is")
    await harbour.say(first, "soaking", candidate=f"{APP}@1", why="soaking")
    assert await harbour.progress() == ("soaking", f"{first}: soaking")
    await harbour.say(first, "running", running=f"{APP}@1")
    assert await harbour.progress() == ("succeeded", f"{first} runs it; {second} standing by")


async def test_a_stand_by_that_runs_it_in_the_firsts_stead_counts_as_well(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    first, second = (await harbour.desired()).placements[APP].hosts
    await harbour.say(second, "running", running=f"{APP}@1")
    assert (await harbour.progress())[0] == "applying"  # the first has not been seen with it
    await harbour.say(first, "standing-by", running=f"{APP}@1")
    assert (await harbour.progress())[0] == "succeeded"


async def test_a_stand_by_with_the_old_release_is_not_done(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    first, second = (await harbour.desired()).placements[APP].hosts
    await harbour.say(first, "running", running=f"{APP}@1")
    await harbour.say(second, "standing-by", running=f"{APP}@0")
    assert (await harbour.progress())[0] == "applying"
    await harbour.say(second, "standing-by", running=f"{APP}@0", candidate=f"{APP}@1")
    assert (await harbour.progress())[0] == "succeeded"


async def test_a_host_where_nothing_of_it_is_left_to_run_makes_room_for_another(harbour: Harbour) -> None:
    """What failed its self-test is told by the host, and asked of the matching core."""
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    before = await harbour.generation()
    first, _ = (await harbour.desired()).placements[APP].hosts
    await harbour.say(first, "running", running=f"{APP}@1", failed_variants={"other@1/x": "wrong output"})
    assert await harbour.generation() == before  # it was looked at, and changes nothing


async def test_a_rollout_that_goes_back_places_the_release_from_before(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    first, second = (await harbour.desired()).placements[APP].hosts
    await harbour.say(first, "running", running=f"{APP}@1")
    await harbour.say(second, "standing-by", running=f"{APP}@1")
    await harbour.roll_out(release("2", mode="one"), name="second")
    assert (await harbour.desired()).placements[APP].hosts == (first, second)
    record = harbour.store.release(f"{APP}@2")
    assert record is not None
    await harbour.say(first, "running", running=f"{APP}@1", refused={record.digest: "probe failed"})
    assert await harbour.progress("second") == ("failed", f"{first}: probe failed")
    desired = await harbour.desired()
    assert {each.release for given in desired.hosts.values() for each in given} == {f"{APP}@1"}
    assert desired.placements[APP].hosts == (first, second)


async def test_a_hub_that_starts_again_knows_where_everything_is(harbour: Harbour) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(mode="one"))
    held = harbour.hub.issuer.where(SITE, APP)
    assert held is not None
    harbour.hub.issuer.forget(SITE)
    assert harbour.hub.issuer.where(SITE, APP) == held
    assert harbour.hub.issuer.where(SITE, "unknown") is None
    assert not await harbour.hub.issuer.issue(SITE)


CAMERA = (BindingNeed(name="cam", type="camera"),)
EYE = BindingSpec(name="eye", camera=CameraBinding(url="rtsp://10.0.0.7/"))


@pytest.mark.rule("BINDING-2")
async def test_a_site_without_the_binding_is_no_part_of_the_rollout_until_it_offers_one(
    harbour: Harbour,
) -> None:
    await harbour.all_report_facts()
    await harbour.roll_out(release(needs=CAMERA))
    stored = harbour.store.rollout("first")
    assert stored is not None and dict(stored.sites) == {}
    assert await harbour.assigned() == []
    harbour.site(bindings=(EYE,))
    await harbour.loop.step()
    assert await harbour.assigned() == sorted(harbour.keys)
    assert (await harbour.desired()).bindings == (EYE,)


@pytest.mark.rule("BINDING-2")
async def test_what_is_attached_to_a_host_places_the_application_there(harbour: Harbour) -> None:
    scale = BindingSpec(name="scale", host="edge-1", serial=DeviceBinding(path="/dev/ttyUSB0"))
    needs = (BindingNeed(name="scale", type="serial"),)
    harbour.site(bindings=(scale,))
    await harbour.all_report_facts()
    await harbour.roll_out(release(needs=needs))
    assert await harbour.assigned() == ["edge-1"]
    assert (await harbour.progress())[0] == "offered"
    await harbour.roll_out(release(application="one", needs=needs, mode="one"), "second")
    assert (await harbour.desired()).placements["one"].hosts == ("edge-1",)


async def test_a_binding_that_is_taken_away_takes_no_application_with_it(harbour: Harbour) -> None:
    harbour.site(bindings=(EYE,))
    await harbour.all_report_facts()
    await harbour.roll_out(release(needs=CAMERA))
    harbour.site()
    await harbour.hub.issuer.issue(SITE)
    assert await harbour.assigned() == sorted(harbour.keys)
    assert (await harbour.desired()).bindings == ()


async def test_a_binding_that_changes_is_issued(harbour: Harbour) -> None:
    harbour.site(bindings=(EYE,))
    await harbour.all_report_facts()
    await harbour.roll_out(release())
    assert (await harbour.desired()).bindings == (EYE,)
    other = msgspec.structs.replace(EYE, labels={"line": "a"})
    harbour.site(bindings=(other,))
    assert await harbour.hub.issuer.issue(SITE)
    assert (await harbour.desired()).bindings == (other,)


def seen(**states: Any) -> dict[str, BindingView]:
    return {name: BindingView(state=state) for name, state in states.items()}


@pytest.mark.rule("BINDING-5")
async def test_an_application_moves_to_a_host_whose_device_is_there_and_back_only_when_it_must(
    harbour: Harbour,
) -> None:
    path = DeviceBinding(path="/dev/ttyUSB0")
    scales = (
        BindingSpec(name="left", host="edge-0", serial=path),
        BindingSpec(name="right", host="edge-1", serial=path),
    )
    harbour.site(bindings=scales)
    await harbour.all_report_facts()
    needs = (BindingNeed(name="scale", type="serial"),)
    await harbour.roll_out(release(needs=needs, mode="one"))
    first, second = (await harbour.desired()).placements[APP].hosts
    own = {"edge-0": "left", "edge-1": "right"}

    async def say(host: str, state: str) -> tuple[str, ...]:
        generation = await harbour.generation()
        observed = Observed(generation=generation, bindings=seen(**{own[host]: state}))
        await harbour.report(host, observed=observed)
        return (await harbour.desired()).placements[APP].hosts

    assert await say(first, "absent") == (second,)
    assert await say(second, "absent") == (second, first)  # there is no better place: it waits for its device
    assert (await say(second, "present"))[0] == second


async def test_a_binding_makes_the_application_a_user_of_its_secret(harbour: Harbour) -> None:
    eye = msgspec.structs.replace(EYE, secrets={"password": "eye-password"})
    harbour.site(bindings=(eye,))
    harbour.join("edge-9", seal_key=new_sealing_key()[1])
    await harbour.all_report_facts()
    record = harbour.hub.secrets.prepare("eye-password", SecretRequest(value="Z2VoZWlt"), "ann")
    harbour.store.add_secret_version(record, harbour.audit())
    await harbour.roll_out(release(needs=CAMERA))
    sealed = (await harbour.desired()).secrets
    assert {host: [one.name for one in given] for host, given in sealed.items()} == {
        "edge-9": ["eye-password"]  # the others have no key that anything could be sealed to
    }
    assert harbour.hub.secrets.used_at("eye-password") == {SITE: {f"{APP}@1"}}
    lacking = lacking_secrets(harbour.hub, release(needs=CAMERA), "*")
    assert lacking == {}
    harbour.site(bindings=(msgspec.structs.replace(eye, secrets={"password": "other"}),))
    assert lacking_secrets(harbour.hub, release(needs=CAMERA), "*") == {"other": (SITE,)}
