"""Previews and placements over the operator API: what the hub knows of hosts is what the answer goes by."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from skerry.cli.binding_portraits import site_binding_lines
from skerry.cli.explain_binding import binding_sentences
from skerry.cli.release_preview import preview_lines
from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.hub.services import Hub
from skerry.kit.canonical import encode_canonical
from skerry.ports.hub_store import (
    AppliedReport,
    AssignmentRecord,
    Audit,
    HostRecord,
    JoinTokenRecord,
    RolloutRecord,
    TokenRecord,
)
from skerry.spec.api import FleetPreview, HostView, PlacementView
from skerry.spec.api_binding import BindingDecision
from skerry.spec.application import Device, Placement, Resources
from skerry.spec.binding import BindingNeed, BindingSpec, BindingView, CameraBinding
from skerry.spec.facts import HostFacts
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, Observed, VariantChoice
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.spec.site import Site, SiteSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.hub_parts import memory_hub
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import GIB, component, facts, release, variant
from tests.unit.release_records import record_of

SECRET = "a viewer's secret"


class Fleet:
    """A hub, filled in few words."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.hub: Hub = memory_hub(folder, self.clock)
        now = self.clock.now()
        record = TokenRecord(id="1", name="eye", hash=hash_secret(SECRET), role="viewer", created_at=now)
        self.hub.store.add_token(record, self.audit())

    def audit(self) -> Audit:
        return Audit(at=self.clock.now(), who="test", action="test", subject="test")

    def site(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        host_network: bool = False,
        tolerance: str = "5m",
        bindings: tuple[BindingSpec, ...] = (),
    ) -> None:
        spec = SiteSpec(host_network=host_network, offline_tolerance=tolerance, bindings=bindings)
        site = Site(metadata=Metadata(name, labels or {}), spec=spec)
        self.hub.store.apply_documents(sites={name: encode_canonical(site)}, rollouts=[], audits=[])

    def host(
        self,
        name: str,
        site: str,
        its_facts: HostFacts,
        applications: dict[str, ApplicationView] | None = None,
        bindings: dict[str, BindingView] | None = None,
    ) -> None:
        now = self.clock.now()
        token = JoinTokenRecord(
            hash=name, site=site, created_at=now, expires_at=now + timedelta(days=1), uses_left=1
        )
        self.hub.store.add_join_token(token, self.audit())
        record = HostRecord(name=name, site=site, sign_key=name, seal_key=name, enrolled_at=now)
        self.hub.store.enroll_host(name, record, self.audit())
        observed = Observed(applications=applications or {}, bindings=bindings or {})
        report = AppliedReport(
            host=name, site=site, sequence=1, seen_at=now, sent_at=now, clock_offset_s=0.0, generation=0,
            observed=observed, facts=its_facts,
        )  # fmt: skip
        self.hub.store.apply_reports([report])

    def push(self, found: Release) -> str:
        self.hub.store.add_release(record_of(found, self.clock.now()), self.audit())
        return found.name

    def assign(self, site: str, *names: str) -> None:
        document = Rollout(metadata=Metadata(f"r-{site}"), spec=RolloutSpec(release=names[0], sites=site))
        rollout = RolloutRecord(
            name=f"r-{site}",
            document=encode_canonical(document),
            release=names[0],
            application="any",
            created_at=self.clock.now(),
            created_by="test",
        )
        self.hub.store.apply_documents(sites={}, rollouts=[rollout], audits=[])
        found = [
            AssignmentRecord(
                site=site, application=name.partition("@")[0], release=name, rollout=rollout.name
            )
            for name in names
        ]
        self.hub.store.advance_rollout(rollout, assign=found)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
async def client(fleet: Fleet) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(fleet.hub))  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as made:
        yield made


def host_facts(memory: int = 4, free: int = 9, **more: Any) -> HostFacts:
    return facts(arch="x86_64", memory_bytes=memory * GIB, disk__free_bytes=free * GIB, cpu_count=4, **more)


BIG = variant("big", memory="8GiB", size_bytes=6 * GIB)
SMALL = variant("small", arch=("x86_64",), size_bytes=2 * GIB)


def inspector(**fields: Any) -> Release:
    main = component(models=("defects",), resources=Resources(memory="2GiB"), **fields)
    return release(main, models={"defects": (BIG, SMALL)}, name="inspector")


async def preview(client: httpx2.AsyncClient, name: str, **params: str) -> FleetPreview:
    answer = await client.get(f"/releases/{name}/preview", params=params)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=FleetPreview)


async def test_a_fleet_is_previewed_for_a_selector_by_a_viewer(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("harbour", labels={"region": "north"})
    fleet.site("airport", labels={"region": "south"})
    fleet.host("a", "harbour", host_facts(16))
    fleet.host("b", "harbour", host_facts(4))
    fleet.host("c", "harbour", facts(arch="riscv64", memory_bytes=GIB))
    fleet.host("d", "airport", {})
    name = fleet.push(inspector())
    north = await preview(client, name, selector="region=north")
    assert [(c.models, c.examples) for c in north.combinations] == [
        ({"defects 1": "big"}, ("a",)),
        ({"defects 1": "small"}, ("b",)),
    ]
    assert (north.release, north.selector, north.hosts, north.unmatched) == (name, "region=north", 3, 1)
    assert north.oldest_facts_at == fleet.clock.now()
    assert (await preview(client, name)).without_facts_examples == ("d",)
    assert (await client.get("/releases/nothing@1/preview")).status_code == 404
    assert (await client.get(f"/releases/{name}/preview", params={"selector": "="})).status_code == 400


async def test_what_a_host_runs_already_needs_no_room_and_what_others_set_aside_is_not_there(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("harbour")
    name = fleet.push(inspector())
    other = fleet.push(release(component(resources=Resources(memory="3GiB")), name="other"))
    small = VariantChoice(model="defects", version="1", variant="small")
    fleet.host("new", "harbour", host_facts(free=1))
    fleet.host(
        "old",
        "harbour",
        host_facts(free=1),
        {"inspector": ApplicationView(phase="running", release=name, choices=(small,))},
    )
    fleet.host("busy", "harbour", host_facts(), {"other": ApplicationView(phase="running", release=other)})
    found = await preview(client, name)
    assert [(lack.host, lack.needed_bytes, lack.left_bytes) for lack in found.disk.worst] == [
        ("new", 2 * GIB + 10, GIB)
    ]
    assert [(lack.host, lack.left_bytes) for lack in found.memory.worst] == [("busy", GIB)]


async def test_a_device_that_another_application_has_is_not_there(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("harbour")
    eye = (Device(name="eye", use="camera"),)
    other = fleet.push(release(component(devices=eye), name="other"))
    name = fleet.push(inspector(devices=eye))
    camera = host_facts(devices__camera=("/dev/video0",))
    fleet.host("free", "harbour", camera)
    fleet.host("taken", "harbour", camera, {"other": ApplicationView(phase="running", release=other)})
    found = await preview(client, name)
    assert (found.matched, found.unmatched) == (1, 1)
    assert found.reasons[0].reason == "main: needs device eye: a camera"
    assert found.reasons[0].examples == ("taken",)


async def test_a_release_that_has_not_been_pushed_is_previewed_and_not_stored(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("harbour")
    fleet.host("a", "harbour", host_facts())
    body = {"release": msgspec.to_builtins(inspector())}
    answer = await client.post("/previews", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["matched"] == 1
    assert fleet.hub.store.releases() == []
    assert (await client.post("/previews", json={"release": {"type": "release"}})).status_code == 400


async def test_the_placement_of_a_site_is_explained_host_by_host(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("harbour")
    for name, memory in (("a", 4), ("b", 8), ("c", 1)):
        fleet.host(name, "harbour", host_facts(memory))
    found = inspector()
    spec = msgspec.structs.replace(found.application.spec, placement=Placement(mode="one"))
    found = msgspec.structs.replace(found, application=msgspec.structs.replace(found.application, spec=spec))
    fleet.assign("harbour", fleet.push(found))
    answer = await client.get("/sites/harbour/placements")
    (view,) = msgspec.json.decode(answer.content, type=list[PlacementView])
    assert view.now is not None
    assert view.now.hosts == ("b", "a")
    assert view.why["b"].startswith("runs it: fits best")
    assert view.why["a"] == "stands by, number 1"
    assert "has 1 GiB" in view.why["c"]
    assert (await client.get("/sites/nowhere/placements")).status_code == 404


@pytest.mark.rule("BINDING-2")
async def test_a_site_that_lacks_a_needed_binding_is_left_out_with_the_reason(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("harbour", bindings=(BindingSpec(name="eye", camera=CameraBinding(url="rtsp://10.0.0.7/")),))
    fleet.site("airport")
    fleet.site("desert")
    fleet.host("a", "harbour", host_facts())
    fleet.host("b", "airport", host_facts())
    found = inspector()
    needs = (BindingNeed(name="cam", type="camera"),)
    spec = msgspec.structs.replace(found.application.spec, needs=needs)
    found = msgspec.structs.replace(found, application=msgspec.structs.replace(found.application, spec=spec))
    view = await preview(client, fleet.push(found))
    why = "needs a binding for cam (camera): the site offers no camera"
    assert view.excluded == {"airport": why, "desert": why}
    assert (view.matched, view.unmatched, view.elsewhere) == (1, 0, 1)
    assert [(one.reason, one.examples) for one in view.elsewhere_reasons] == [(why, ("b",))]
    told = list(preview_lines(view, at=fleet.clock.now()))
    assert "2 sites left out, for want of a binding:" in told
    assert f"  airport: {why}" in told
    assert (await preview(client, fleet.push(inspector_again()))).excluded == {}


def inspector_again() -> Release:
    return release(component(), name="other")


async def test_what_an_application_is_joined_to_is_explained_host_by_host(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    eye = BindingSpec(name="eye", host="a", camera=CameraBinding(device="/dev/video0"))
    fleet.site("harbour", bindings=(eye,))
    fleet.site("airport")
    view = BindingView(state="absent", since=fleet.clock.now(), used_by=("inspector",))
    fleet.host("a", "harbour", host_facts(), bindings={"eye": view})
    fleet.host("b", "harbour", host_facts())
    found = inspector()
    spec = msgspec.structs.replace(found.application.spec, needs=(BindingNeed(name="cam", type="camera"),))
    found = msgspec.structs.replace(found, application=msgspec.structs.replace(found.application, spec=spec))
    fleet.push(found)
    answer = await client.get("/sites/harbour/bindings/inspector")
    decision = msgspec.json.decode(answer.content, type=BindingDecision)
    assert [(one.host, one.bindings, one.seen) for one in decision.hosts] == [
        ("a", {"cam": "eye"}, {"eye": view}),
        ("b", {}, {}),
    ]
    assert list(binding_sentences(decision, at=fleet.clock.now())) == [
        "inspector@1 needs cam (camera); site harbour offers 1 binding.",
        "On a it gets:",
        "  cam: eye (absent, since just now)",
        "    cam: eye fits (any camera, attached to a)",
        "On b it does not run:",
        "  needs a binding for cam (camera): eye is attached to a",
    ]
    away = msgspec.json.decode(
        (await client.get("/sites/airport/bindings/inspector")).content, type=BindingDecision
    )
    assert "offers no camera" in away.excluded
    assert (await client.get("/sites/harbour/bindings/nothing")).status_code == 404
    hosts = msgspec.json.decode((await client.get("/hosts?site=harbour")).content, type=list[HostView])
    told = list(site_binding_lines([msgspec.to_builtins(eye)], hosts, at=fleet.clock.now()))
    assert told[1] == "  eye: camera, attached to a"
    assert told[2].startswith("    a: absent since just now, used by inspector")
