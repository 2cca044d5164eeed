"""Bindings on a host: what applications are told, when they are told again, and what becomes of lost devices."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component, Port
from skerry.spec.binding import (
    BindingHttp,
    BindingNeed,
    BindingSpec,
    CameraBinding,
    DeviceBinding,
    OnBindingChange,
    OpcUaBinding,
    OpcUaNode,
)
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.desired import Assignment, HealthPolicy, ReleaseRef
from skerry.spec.documents import check_release
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.report import Report
from skerry.spec.secret import SealedSecret
from skerry.trust.keys import key_id
from skerry.trust.sealing import Binding, seal_secret
from tests.unit.agent_world import APP, Agent, Upstream
from tests.unit.upstream import desired

EYE = BindingSpec(
    name="eye",
    labels={"line": "a"},
    camera=CameraBinding(url="rtsp://10.0.0.7/"),
    username="viewer",
    secrets={"password": "eye-password"},
)
SCALE = BindingSpec(name="scale", host="edge", serial=DeviceBinding(path="/dev/ttyUSB0"))
PLC = BindingSpec(
    name="plc",
    opcua=OpcUaBinding(endpoint="opc.tcp://plc:4840", nodes={"speed": OpcUaNode(node="ns=2;s=Speed")}),
)
CAM = BindingNeed(name="line-cam", type="camera", labels={"line": "a"})
WEIGHT = BindingNeed(name="weight", type="serial", on_change=OnBindingChange(signal="HUP"))


class Host(Agent):
    """A host whose site offers what a test says."""

    def __init__(self, data: Path, link: Upstream) -> None:
        super().__init__(data, link)
        self.data = data
        self.generation = 0
        self.public = self.keys.make().seal_public

    def release(self, version: str, *needs: BindingNeed, name: str = APP, **component: Any) -> ReleaseRef:
        bundle = Bundle(files=(self.link.add(version.encode(), "run"),))
        made = Component(name="main", bundle=bundle, command=("./run",), **component)
        spec = ApplicationSpec(version=version, components=(made,), needs=needs)
        found = Release(application=Application(metadata=Metadata(name), spec=spec))
        assert not check_release(found)
        document = encode_canonical(found)
        self.link.contents[digest_of(document)] = document
        self.link.signed.vouch(found)
        publisher = self.link.signed.publisher.name
        return ReleaseRef(digest=digest_of(document), size_bytes=len(document), publisher=publisher)

    def seal(self, value: str, version: int = 1) -> SealedSecret:
        own = f"{version:032x}"
        binding = Binding(host="edge", name="eye-password", version=version, id=own)
        sealed = seal_secret(value.encode(), self.public, binding)
        return SealedSecret(
            id=own, name="eye-password", version=version, key=key_id(self.public), sealed=sealed
        )

    async def offer(
        self, assigned: dict[str, ReleaseRef], *bindings: BindingSpec, secrets: tuple[SealedSecret, ...] = ()
    ) -> None:
        self.generation += 1
        sealed = {"edge": secrets} if secrets else {}
        await self.desire(self.generation, assigned, bindings=bindings, secrets=sealed)

    async def offer_to_several(self, assigned: dict[str, ReleaseRef], *bindings: BindingSpec) -> None:
        """Let several applications run; `assigned` is by application@version."""
        self.generation += 1
        health = HealthPolicy(soak_s=1.0)
        given = tuple(
            Assignment(application=name.split("@")[0], release=name, health=health) for name in assigned
        )
        envelope = desired(self.generation, hosts={"edge": given}, releases=assigned, bindings=bindings)

        def answer(_: SyncRequest, newest: Report) -> SyncAnswer:
            return SyncAnswer(acknowledged=newest.sequence, desired=envelope)

        self.link.answer = answer
        await self.syncer.exchange(0.0)
        await self.judge()

    def runs_well(self, name: str) -> bool:
        view = self.observed.applications.get(name.split("@", maxsplit=1)[0])
        return view is not None and (view.release, view.candidate) == (name, "")

    @property
    def env(self) -> dict[str, str]:
        (run,) = [run for run in self.runtime.host.runs.values() if run.exit_code is None]
        return dict(run.spec.env)

    def told(self) -> Any:
        return json.loads(Path(self.env["SKERRY_BINDINGS"]).read_text())["bindings"]

    @property
    def starts(self) -> int:
        return len(self.runtime.host.starts)


def read(file: Path) -> str:
    return file.read_text()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[Host]:
    made = Host(tmp_path, Upstream())
    yield made
    await made.close()


@pytest.mark.rule("BINDING-3")
async def test_an_application_is_told_of_its_binding_and_its_secret_is_a_file_in_memory(host: Host) -> None:
    one = host.release("1", CAM, env={"SOURCE": "${binding.line-cam.url}"})
    await host.offer({"1": one}, PLC, EYE, secrets=(host.seal("geheim"),))
    await host.until(lambda: host.runs("1"))
    env = host.env
    assert env["SOURCE"] == env["SKERRY_BINDING_LINE_CAM_URL"] == "rtsp://10.0.0.7/"
    assert (env["SKERRY_BINDING_LINE_CAM_BINDING"], env["SKERRY_BINDING_LINE_CAM_USERNAME"]) == (
        "eye",
        "viewer",
    )
    file = Path(env["SKERRY_BINDING_LINE_CAM_PASSWORD_FILE"])
    assert read(file) == "geheim"
    assert host.data / "memory" in file.parents
    told = host.told()["line-cam"]
    assert (told["url"], told["state"], told["secrets"]) == (
        "rtsp://10.0.0.7/",
        "unknown",
        {"password": str(file)},
    )
    assert "geheim" not in json.dumps(told) + repr(env)
    assert host.observed.bindings["eye"].used_by == (APP,)
    assert "plc" not in host.observed.bindings


async def test_maps_are_in_the_file_alone(host: Host) -> None:
    await host.offer({"1": host.release("1", BindingNeed(name="plc", type="opcua"))}, PLC)
    await host.until(lambda: host.runs("1"))
    assert host.told()["plc"]["nodes"] == {"speed": {"node": "ns=2;s=Speed"}}
    assert host.env["SKERRY_BINDING_PLC_ENDPOINT"] == "opc.tcp://plc:4840"


@pytest.mark.rule("BINDING-3")
async def test_a_binding_that_has_changed_restarts_the_component_once(host: Host) -> None:
    one = host.release("1", CAM)
    await host.offer({"1": one}, EYE, secrets=(host.seal("geheim"),))
    await host.until(lambda: host.runs("1"))
    await host.steps()
    assert host.starts == 1
    moved = BindingSpec(name="eye", labels={"line": "a"}, camera=CameraBinding(url="rtsp://10.0.0.8/"))
    await host.offer({"1": one}, moved)
    await host.until(lambda: host.starts == 2)
    await host.steps()
    assert host.starts == 2
    assert host.env["SKERRY_BINDING_LINE_CAM_URL"] == "rtsp://10.0.0.8/"


@pytest.mark.parametrize("way", ("signal", "http", "file"))
async def test_a_component_that_takes_a_change_while_it_runs_is_told_and_not_restarted(
    host: Host, way: str
) -> None:
    change = {
        "signal": OnBindingChange(signal="HUP"),
        "http": OnBindingChange(http=BindingHttp(port="admin", path="/reload")),
        "file": OnBindingChange(file=True),
    }[way]
    need = BindingNeed(name="plc", type="opcua", on_change=change)
    one = host.release("1", need, ports=(Port(name="admin"),))
    await host.offer({"1": one}, PLC)
    await host.until(lambda: host.runs("1"))
    moved = BindingSpec(name="plc", opcua=OpcUaBinding(endpoint="opc.tcp://other:4840"))
    await host.offer({"1": one}, moved)
    await host.steps()
    assert host.told()["plc"]["endpoint"] == "opc.tcp://other:4840"
    assert host.starts == 1
    assert len(host.runtime.host.signals) == (way == "signal")
    assert ("POST /reload" in repr(host.prober.asked)) == (way == "http")


async def test_a_new_password_of_a_binding_reaches_who_uses_it(host: Host) -> None:
    one = host.release("1", CAM)
    await host.offer({"1": one}, EYE, secrets=(host.seal("geheim"),))
    await host.until(lambda: host.runs("1"))
    host.clock.advance(5)
    await host.offer({"1": one}, EYE, secrets=(host.seal("geheim"), host.seal("neu", 2)))
    await host.until(lambda: host.starts == 2)
    assert read(Path(host.env["SKERRY_BINDING_LINE_CAM_PASSWORD_FILE"])) == "neu"


@pytest.mark.rule("BINDING-4")
async def test_a_release_waits_for_a_binding_and_is_not_refused(host: Host) -> None:
    one, two = host.release("1"), host.release("2", CAM)
    await host.offer({"1": one}, PLC)
    await host.until(lambda: host.runs("1"))
    await host.offer({"2": two}, PLC)
    await host.steps()
    view = host.observed.applications[APP]
    assert view.release == f"{APP}@1"
    assert "waiting for what it is to be joined to" in view.why
    assert "the site offers no camera" in view.why
    assert not view.refused
    await host.offer({"2": two}, PLC, EYE, secrets=(host.seal("geheim"),))
    await host.until(lambda: host.runs("2"))


@pytest.mark.rule("BINDING-4")
async def test_who_runs_keeps_what_it_has_when_its_binding_is_taken_away_and_is_not_started_without(
    host: Host,
) -> None:
    one = host.release("1", BindingNeed(name="plc", type="opcua"))
    await host.offer({"1": one}, PLC)
    await host.until(lambda: host.runs("1"))
    await host.offer({"1": one})
    await host.steps()
    assert host.starts == 1
    assert host.told()["plc"]["endpoint"] == "opc.tcp://plc:4840"
    (instance,) = host.runtime.host.runs
    host.runtime.crash(instance)
    await host.steps(10)
    assert host.starts == 1
    await host.offer({"1": one}, PLC)
    events = [event for report in host.link.reports for one in report for event in one.events]
    told = {event.message for event in events if event.kind == "binding.missing"}
    lacks = "needs a binding for plc (opcua): the site offers no opcua"
    assert told == {f"{lacks}; it runs on with what it has, and is not started again without"}
    host.clock.advance(600)
    await host.until(lambda: host.starts == 2)


@pytest.mark.rule("BINDING-5")
async def test_a_device_that_is_pulled_out_is_told_to_the_application_and_the_hub_within_seconds(
    host: Host,
) -> None:
    host.devices.plug("/dev/ttyUSB0")
    await host.offer({"1": host.release("1", WEIGHT)}, SCALE)
    await host.until(lambda: host.runs("1"))
    assert host.observed.bindings["scale"].state == "present"
    began = host.clock.monotonic()
    host.devices.pull("/dev/ttyUSB0")
    await host.until(lambda: host.observed.bindings["scale"].state == "absent")
    assert host.clock.monotonic() - began <= 5
    await host.until(lambda: len(host.runtime.host.signals) == 1)
    assert host.told()["weight"]["state"] == "absent"
    host.devices.plug("/dev/ttyUSB0")
    await host.until(lambda: len(host.runtime.host.signals) == 2)
    assert host.told()["weight"]["state"] == "present"
    assert host.starts == 1
    assert host.observed.bindings["scale"].since is not None


@pytest.mark.rule("BINDING-5")
async def test_a_look_at_devices_wakes_the_loop_only_when_one_came_or_went(host: Host) -> None:
    woken: list[int] = []
    await host.offer({"1": host.release("1", WEIGHT)}, SCALE)
    host.bindings.on_change = lambda: woken.append(1)
    host.devices.plug("/dev/ttyUSB0")
    assert host.bindings.look()
    assert not host.bindings.look()
    host.devices.pull("/dev/ttyUSB0")
    assert host.bindings.look()


async def test_the_files_of_applications_that_are_gone_are_removed(host: Host) -> None:
    one = host.release("1", BindingNeed(name="plc", type="opcua"))
    await host.offer({"1": one}, PLC)
    await host.until(lambda: host.runs("1"))
    assert list((host.data / "bindings").iterdir())
    await host.offer({})
    await host.until(lambda: not list((host.data / "bindings").iterdir()))


async def test_an_agent_that_is_started_again_restarts_nobody(host: Host) -> None:
    one = host.release("1", BindingNeed(name="plc", type="opcua"))
    await host.offer({"1": one}, PLC)
    await host.until(lambda: host.runs("1"))
    other = host.bindings._parts.telling.__class__(host.store, host.runtime, host.prober, host.clock)
    (instance,) = host.runtime.host.runs
    from skerry.agent.binding_files import Joined

    need = BindingNeed(name="plc", type="opcua")
    assert other.what_is_new(instance, need, Joined(PLC)) == ""
    assert other.what_is_new(instance, need, Joined(EYE)) == "changed"
    assert other.what_is_new("nobody", need, Joined(PLC)) == "device"


ALONE = msgspec.structs.replace(PLC, exclusive=True)
SPEED = BindingNeed(name="plc", type="opcua")


@pytest.mark.rule("BINDING-7")
async def test_what_is_for_one_alone_stays_with_who_has_it_until_that_leaves(host: Host) -> None:
    late, early = host.release("1", SPEED, name="alpha"), host.release("1", SPEED, name="zulu")
    await host.offer_to_several({"zulu@1": early}, ALONE)
    await host.until(lambda: host.runs_well("zulu@1"))
    await host.offer_to_several({"zulu@1": early, "alpha@1": late}, ALONE)
    await host.until(lambda: "zulu has it" in host.observed.applications["alpha"].why)
    assert not host.observed.applications["alpha"].refused
    assert host.observed.bindings["plc"].used_by == ("zulu",)
    await host.offer_to_several({"alpha@1": late}, ALONE)
    await host.until(lambda: host.runs_well("alpha@1"))
    assert host.observed.bindings["plc"].used_by == ("alpha",)


@pytest.mark.rule("BINDING-7")
async def test_of_two_that_come_at_once_one_gets_what_is_for_one_alone(host: Host) -> None:
    both = {f"{name}@1": host.release("1", SPEED, name=name) for name in ("zulu", "alpha")}
    await host.offer_to_several(both, ALONE)
    await host.until(lambda: host.runs_well("alpha@1"))
    await host.until(lambda: "alpha has it" in host.observed.applications["zulu"].why)
    await host.steps()
    assert host.starts == 1
    await host.offer_to_several(both, PLC)
    await host.until(lambda: host.runs_well("zulu@1"))


@pytest.mark.rule("BINDING-7")
async def test_a_release_that_gives_up_what_is_for_one_alone_frees_it(host: Host) -> None:
    first, second = host.release("1", SPEED, name="zulu"), host.release("2", name="zulu")
    other = host.release("1", SPEED, name="alpha")
    await host.offer_to_several({"zulu@1": first}, ALONE)
    await host.until(lambda: host.runs_well("zulu@1"))
    await host.offer_to_several({"zulu@2": second, "alpha@1": other}, ALONE)
    await host.until(lambda: host.runs_well("zulu@2"))
    await host.until(lambda: host.runs_well("alpha@1"))
