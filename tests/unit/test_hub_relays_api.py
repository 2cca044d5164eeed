"""Relays over the operator API: applied, shown, given tokens, deleted; and the way to a site."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.ports.hub_store import TokenRecord
from skerry.spec.api import Role
from skerry.spec.relay import QueueView, RelayView
from skerry.trust.tokens import hash_secret, parse_join_token
from tests.unit.carry_world import Gateway, carried
from tests.unit.test_hub_backend import Harbour

pytestmark = pytest.mark.trust


@pytest.fixture
def harbour(tmp_path: Path) -> Harbour:
    made = Harbour(tmp_path)
    roles: dict[str, Role] = {"viewer": "viewer", "operator": "operator", "one": "operator"}
    for name, role in roles.items():
        sites = "name=harbour" if name == "one" else ""
        record = TokenRecord(
            id=name, name=name, hash=hash_secret(name), role=role, created_at=made.clock.now(), sites=sites
        )
        made.store.add_token(record, made.audit())
    return made


@pytest.fixture
async def client(harbour: Harbour) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(harbour.hub))  # type: ignore[arg-type]
    headers = {"Authorization": "Bearer operator"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as made:
        yield made


def document(name: str, *upstreams: str, **spec: Any) -> dict[str, Any]:
    written = {"addresses": [f"{name}.example:8443"], "upstreams": list(upstreams), **spec}
    return {"apiVersion": "skerry/v1", "kind": "Relay", "metadata": {"name": name}, "spec": written}


async def apply(client: httpx2.AsyncClient, *documents: dict[str, Any], token: str = "operator") -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    return (await client.post("/apply", json={"documents": documents}, headers=headers)).json()


async def token(client: httpx2.AsyncClient, name: str, **body: Any) -> Any:
    return (await client.post(f"/relays/{name}/tokens", json=body)).json()


async def test_relays_are_applied_changed_and_shown(harbour: Harbour, client: httpx2.AsyncClient) -> None:
    first = await apply(client, document("gate"), document("cell", "gate"))
    assert [change["action"] for change in first["changes"]] == ["create", "create"]
    again = await apply(client, document("gate"), document("cell", "gate", cache="1GiB"))
    assert [change["action"] for change in again["changes"]] == ["unchanged", "update"]
    listed = (await client.get("/relays")).json()
    assert [(relay["name"], relay["presence"]) for relay in listed] == [("cell", "never"), ("gate", "never")]
    assert (await client.get("/relays/gate")).json()["below"] == ["cell"]
    assert (await client.get("/relays/none")).status_code == 404
    actions = [entry.action for entry in harbour.store.audits(3)]
    assert actions == ["relay.update", "relay.create", "relay.create"]


async def test_unknown_upstreams_circles_and_the_hubs_own_name_are_refused_together(
    harbour: Harbour, client: httpx2.AsyncClient
) -> None:
    await apply(client, document("a"), document("b", "a"))
    refused = await apply(client, document("a", "b"), document("c", "nobody", addresses=["hub.example:9443"]))
    found = {problem["path"]: problem["message"] for problem in refused["problems"]}
    assert found["Relay a: spec.upstreams"] == "it dials itself: a > b > a"
    assert found["Relay c: spec.upstreams[0]"] == "there is no relay nobody"
    assert "could pass for the hub" in found["Relay c: spec.addresses"]
    assert [relay.name for relay in harbour.store.relays()] == ["a", "b"]


async def test_a_token_limited_to_sites_neither_sees_nor_changes_relays(client: httpx2.AsyncClient) -> None:
    headers = {"Authorization": "Bearer one"}
    refused = await apply(client, document("gate"), token="one")
    assert "for all sites" in refused["problems"][0]["message"]
    await apply(client, document("gate"))
    for method, path in (("GET", "/relays"), ("GET", "/relays/gate"), ("DELETE", "/relays/gate")):
        assert (await client.request(method, path, headers=headers)).json()["code"] == "scope.whole"
    assert (await client.get("/sites/harbour/path", headers=headers)).status_code == 200
    assert (await client.get("/sites/airport/path", headers=headers)).status_code == 404
    viewer = await client.post("/relays/gate/tokens", json={}, headers={"Authorization": "Bearer viewer"})
    assert viewer.status_code == 403


async def test_a_token_names_the_relay_and_where_it_shall_ask(
    harbour: Harbour, client: httpx2.AsyncClient
) -> None:
    await apply(client, document("gate"), document("cell", "gate"))
    for name, body, hub in (
        ("gate", {}, "https://hub.example:8443"),
        ("cell", {}, "https://gate.example:8443"),
        ("gate", {"via": "cell"}, "https://cell.example:8443"),
        ("gate", {"via": "https://10.0.0.7:443/"}, "https://10.0.0.7:443"),
    ):
        answer = await token(client, name, **body)
        parsed = parse_join_token(answer["token"])
        assert (parsed.hub, parsed.relay, parsed.site) == (hub, name, ""), (name, body)
        assert answer["hub"] == hub
    assert (await token(client, "gate", via="nobody"))["code"] == "relay.missing"
    for via in ("http://gate/", "https://user:word@gate/", "https:///", "ftp://x"):
        assert (await token(client, "gate", via=via))["code"] == "join.bad_via"
    answer = (await client.post("/sites/harbour/join-tokens", json={"via": "cell"})).json()
    assert parse_join_token(answer["token"]).hub == "https://cell.example:8443"


async def test_a_relay_that_has_joined_is_shown_as_it_stands_and_replaced_only_when_asked_for(
    harbour: Harbour, client: httpx2.AsyncClient
) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    edge = await harbour.join()
    view = RelayView(version="9", queue=QueueView(reports=3), hosts={"edge": 2})
    await gate.carry(carried(edge, 5), view=view)
    shown = (await client.get("/relays/gate")).json()
    assert (shown["presence"], shown["sites"], shown["view"]["queue"]["reports"]) == (
        "online",
        ["harbour"],
        3,
    )
    path = (await client.get("/sites/harbour/path")).json()
    assert path["relays"] == ["gate"]
    assert [hop["name"] for hop in path["hosts"][0]["hops"]] == ["hub", "gate", "edge"]
    harbour.clock.advance(3600.0)
    assert (await client.get("/relays/gate")).json()["presence"] == "silent"
    assert (await client.get("/sites/harbour/path")).json()["hosts"][0]["broken"] == "gate"
    assert (await token(client, "gate"))["code"] == "relay.enrolled"
    assert (await token(client, "gate", replace=True))["relay"] == "gate"
    await harbour.sync(edge.signed(6))
    hops = (await client.get("/sites/harbour/path")).json()["hosts"][0]["hops"]
    assert [hop["name"] for hop in hops] == ["hub", "edge"], "it dialled the hub itself since"


async def test_a_relay_that_others_dial_is_not_deleted_and_one_that_is_may_carry_no_more(
    harbour: Harbour, client: httpx2.AsyncClient
) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    await apply(client, document("cell", "gate"))
    assert (await client.delete("/relays/gate")).json()["code"] == "relay.is_upstream"
    assert (await client.delete("/relays/cell")).status_code == 204
    assert (await client.delete("/relays/gate")).status_code == 204
    assert (await client.delete("/relays/gate")).status_code == 404
    assert harbour.backend.relays.key_of("gate") == ""
    assert harbour.store.audits(1)[0].action == "relay.remove"
