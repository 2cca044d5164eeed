"""Exclusive bindings on the hub: a second user is refused before a rollout begins, with the sites."""

from __future__ import annotations

from pathlib import Path

import httpx2
import msgspec
import pytest

from skerry.cli.release_preview import preview_lines
from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.hub.joining import binding_conflicts, check_joined
from skerry.matching.bindings import held_alone
from skerry.ports.hub_store import TokenRecord
from skerry.spec.api import FleetPreview
from skerry.spec.binding import BindingNeed, BindingSpec, OpcUaBinding
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.site import Site, SiteSpec
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import component, release
from tests.unit.test_hub_preview import Fleet

SPEED = BindingNeed(name="plc", type="opcua")
HAS_IT = "binding plc is exclusive, and writer has it"


def plc(name: str = "plc", *, exclusive: bool = True, host: str | None = None, line: str = "") -> BindingSpec:
    labels = {"line": line} if line else {}
    opcua = OpcUaBinding(endpoint="opc.tcp://plc:4840")
    return BindingSpec(name=name, exclusive=exclusive, host=host, labels=labels, opcua=opcua)


def app(name: str, *needs: BindingNeed, version: str = "1") -> Release:
    plain = release(component(), name=name)
    spec = msgspec.structs.replace(plain.application.spec, version=version, needs=needs)
    return msgspec.structs.replace(plain, application=msgspec.structs.replace(plain.application, spec=spec))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    made.site("harbour", bindings=(plc(),))
    made.site("airport", bindings=(plc(),))
    made.site("desert", bindings=(plc(exclusive=False),))
    for site in ("harbour", "airport", "desert"):
        made.host(f"{site}-1", site, {})
    return made


@pytest.mark.rule("BINDING-7")
def test_a_second_user_is_refused_where_the_first_is_and_nowhere_else(fleet: Fleet) -> None:
    writer = fleet.push(app("writer", SPEED))
    for site in ("harbour", "desert"):
        fleet.assign(site, writer)
    other = app("other", SPEED)
    record = fleet.hub.store.release(fleet.push(other))
    assert record is not None
    assert [one.message for one in check_joined(fleet.hub, record, "*", [])] == [f"{HAS_IT}: at harbour"]
    assert binding_conflicts(fleet.hub, other, "*") == {HAS_IT: ("harbour",)}
    assert binding_conflicts(fleet.hub, other, "name=airport") == {}
    assert binding_conflicts(fleet.hub, app("other"), "*") == {}


@pytest.mark.rule("BINDING-7")
def test_the_next_release_of_the_user_is_not_in_its_own_way(fleet: Fleet) -> None:
    fleet.assign("harbour", fleet.push(app("writer", SPEED)))
    assert binding_conflicts(fleet.hub, app("writer", SPEED, version="2"), "*") == {}


def test_a_site_counts_as_it_is_to_become_in_the_same_go(fleet: Fleet) -> None:
    fleet.assign("desert", fleet.push(app("writer", SPEED)))
    other = app("other", SPEED)
    assert binding_conflicts(fleet.hub, other, "*") == {}
    new = Site(metadata=Metadata("desert"), spec=SiteSpec(bindings=(plc(),)))
    assert binding_conflicts(fleet.hub, other, "*", [new]) == {HAS_IT: ("desert",)}


def test_what_is_chosen_by_labels_or_attached_elsewhere_is_no_conflict(fleet: Fleet) -> None:
    offered = (plc("a", line="a"), plc("b", line="b", host="h2"), plc("c", exclusive=False, line="c"))
    need = BindingNeed(name="plc", type="opcua", labels={"line": "b"})
    assert held_alone([SPEED], offered, ["h1"]) == {"a"}
    assert held_alone([SPEED], offered, ["h1", "h2"]) == {"a", "b"}
    assert held_alone([need], offered, ["h1"]) == frozenset()
    assert held_alone([], offered, []) == frozenset()


@pytest.mark.rule("BINDING-7")
async def test_applying_such_a_rollout_is_refused_and_previewing_it_says_so(fleet: Fleet) -> None:
    fleet.assign("harbour", fleet.push(app("writer", SPEED)))
    name = fleet.push(app("other", SPEED))
    now = fleet.clock.now()
    admin = TokenRecord(id="2", name="ops", hash=hash_secret("admin-token"), role="admin", created_at=now)
    fleet.hub.store.add_token(admin, fleet.audit())
    rollout = {
        "apiVersion": "skerry/v1",
        "kind": "Rollout",
        "metadata": {"name": "second"},
        "spec": {"release": name, "sites": "*"},
    }
    transport = httpx2.ASGITransport(OperatorApi(fleet.hub))  # type: ignore[arg-type]
    headers = {"Authorization": "Bearer admin-token"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as client:
        refused = await client.post("/apply", json={"documents": [rollout]})
        assert refused.status_code == 400
        assert f"{HAS_IT}: at harbour" in refused.text
        seen = await client.get(f"/releases/{name}/preview")
    found = msgspec.json.decode(seen.content, type=FleetPreview)
    assert found.binding_conflicts == {HAS_IT: ("harbour",)}
    assert f"{HAS_IT}: at 1 site: harbour" in list(preview_lines(found, at=now))
