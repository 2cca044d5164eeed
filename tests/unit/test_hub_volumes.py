"""Volumes over the operator API: what is declared, and that a wipe reaches the desired state, once, and stays there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.ports.hub_store import RolloutRecord, TokenRecord
from skerry.spec.api import Role, VolumesView, VolumeView, WipeAnswer
from skerry.spec.application import Placement, Volume
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.spec.release import Release
from skerry.trust.envelope import verify_document
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import ON_EACH, component, release
from tests.unit.test_hub_preview import Fleet, host_facts

ROLES: tuple[Role, ...] = ("viewer", "operator")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    for role in ROLES:
        record = TokenRecord(
            id=role, name=role, hash=hash_secret(role), role=role, created_at=made.clock.now()
        )
        made.hub.store.add_token(record, made.audit())
    made.site("harbour")
    made.site("airport")
    for name, site in (("b", "harbour"), ("a", "harbour"), ("c", "airport")):
        made.host(name, site, host_facts())
    made.push(reader())
    made.push(release(component(), name="quiet"))
    made.assign("harbour", "reader@1", "quiet@1")
    made.assign("airport", "reader@1")
    return made


def reader(version: str = "1", placement: Placement = ON_EACH) -> Release:
    volumes = (Volume(name="log", size="2GiB"), Volume(name="cache", path="/var/cache"))
    made = release(component(volumes=volumes), name="reader", placement=placement)
    spec = msgspec.structs.replace(made.application.spec, version=version)
    return msgspec.structs.replace(made, application=msgspec.structs.replace(made.application, spec=spec))


@pytest.fixture
async def client(fleet: Fleet) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(fleet.hub))  # type: ignore[arg-type]
    headers = {"Authorization": "Bearer operator"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as made:
        yield made


async def wipe(client: httpx2.AsyncClient, site: str, application: str) -> WipeAnswer:
    answer = await client.post(f"/sites/{site}/applications/{application}/wipe")
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=WipeAnswer)


async def desired(fleet: Fleet, site: str) -> DesiredState:
    envelope = (await fleet.hub.issuer.issued(site)).envelope
    assert envelope is not None
    return verify_document(envelope, DESIRED_STATE_TYPE, DesiredState, [fleet.hub.keys.key.verifier])


def wanted(state: DesiredState, application: str) -> dict[str, int]:
    return {
        host: assignment.wipe
        for host, assignments in state.hosts.items()
        for assignment in assignments
        if assignment.application == application
    }


async def test_a_wipe_is_issued_to_the_hosts_of_one_site_for_one_application(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    for site in ("harbour", "airport"):
        assert await fleet.hub.issuer.issue(site)
    before = await desired(fleet, "harbour")
    assert wanted(before, "reader") == {"a": 0, "b": 0}
    answer = await wipe(client, "harbour", "reader")
    after = await desired(fleet, "harbour")
    assert answer == WipeAnswer(
        site="harbour", application="reader", count=1, generation=before.generation + 1, hosts=("a", "b")
    )
    assert after.generation == answer.generation
    assert wanted(after, "reader") == {"a": 1, "b": 1}
    assert wanted(after, "quiet") == {"a": 0, "b": 0}
    assert wanted(await desired(fleet, "airport"), "reader") == {"c": 0}
    assert not await fleet.hub.issuer.issue("harbour"), "nothing more has changed"
    entry = fleet.hub.store.audits(1)[0]
    assert (entry.who, entry.action, entry.subject) == (
        "operator",
        "volume.wipe",
        "site:harbour/application:reader",
    )
    assert (await wipe(client, "harbour", "reader")).count == 2
    assert wanted(await desired(fleet, "harbour"), "reader") == {"a": 2, "b": 2}


async def test_a_new_rollout_carries_the_count_on(fleet: Fleet, client: httpx2.AsyncClient) -> None:
    await wipe(client, "harbour", "reader")
    fleet.push(reader(version="1.1"))
    stored = fleet.hub.store.rollout("r-harbour")
    assert isinstance(stored, RolloutRecord)
    [held] = [a for a in fleet.hub.store.assignments("harbour") if a.application == "reader"]
    newer = msgspec.structs.replace(held, release="reader@1.1", attempt=held.attempt + 1)
    fleet.hub.store.advance_rollout(stored, assign=[newer])
    assert await fleet.hub.issuer.issue("harbour")
    assert wanted(await desired(fleet, "harbour"), "reader") == {"a": 1, "b": 1}


async def test_only_hosts_that_the_application_is_placed_on_are_named(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    fleet.site("depot")
    for name in ("e", "f"):
        fleet.host(name, "depot", host_facts())
    fleet.push(reader(version="2", placement=Placement(mode="count", count=1)))
    fleet.assign("depot", "reader@2")
    answer = await wipe(client, "depot", "reader")
    placement = (await desired(fleet, "depot")).placements["reader"]
    assert answer.hosts == tuple(sorted(placement.hosts))


@pytest.mark.parametrize(
    ("site", "application", "code"),
    (("atlantis", "reader", "site.unknown"), ("airport", "quiet", "assignment.unknown")),
)
async def test_what_is_not_there_is_not_wiped(
    client: httpx2.AsyncClient, site: str, application: str, code: str
) -> None:
    answer = await client.post(f"/sites/{site}/applications/{application}/wipe")
    assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_a_viewer_may_see_volumes_and_not_empty_them(fleet: Fleet, client: httpx2.AsyncClient) -> None:
    client.headers["Authorization"] = "Bearer viewer"
    assert (await client.get("/volumes")).status_code == 200
    answer = await client.post("/sites/harbour/applications/reader/wipe")
    assert answer.status_code == 403
    assert fleet.hub.store.wipes("harbour") == {}
    refused = fleet.hub.store.audits(1)[0]
    assert refused.outcome == "denied"


async def test_declared_volumes_are_listed_with_their_hosts_and_wipes(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    await fleet.hub.issuer.issue("airport")
    await wipe(client, "harbour", "reader")

    async def listed(**params: str) -> list[VolumesView]:
        answer = await client.get("/volumes", params=params)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=list[VolumesView])

    everything = await listed()
    found = {(view.site, view.application): (view.hosts, view.wipes) for view in everything}
    assert found == {
        ("airport", "reader"): (("c",), 0),
        ("harbour", "quiet"): (("a", "b"), 0),
        ("harbour", "reader"): (("a", "b"), 1),
    }
    assert everything[-1].volumes == (
        VolumeView(component="main", name="log", size="2GiB"),
        VolumeView(component="main", name="cache", path="/var/cache"),
    )
    assert [view.application for view in await listed(site="airport")] == ["reader"]
    assert (await client.get("/volumes", params={"site": "atlantis"})).status_code == 404


async def test_a_wipe_that_the_hub_stored_right_before_it_was_killed_is_issued_when_it_starts_again(
    fleet: Fleet,
) -> None:
    hub = fleet.hub
    await hub.issuer.issue("harbour")
    before = (await hub.issuer.issued("harbour")).generation
    hub.store.wipe_volumes("harbour", "reader", fleet.audit())
    await hub.issuer.issue_marked()
    assert (await hub.issuer.issued("harbour")).generation == before
    await hub.issuer.mark_all()
    await hub.issuer.issue_marked()
    assert (await hub.issuer.issued("harbour")).generation == before + 1
