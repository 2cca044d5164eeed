"""Who hosts are over the operator API: quarantine that is shown and ended, and tokens that replace a host."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.hub.identities import Identities
from skerry.ports.host_identities import LineageRecord
from skerry.ports.hub_store import TokenRecord
from skerry.spec.api import Role
from skerry.trust.cloning import Lineage, Stretch
from skerry.trust.tokens import hash_secret, parse_join_token
from tests.unit.test_hub_preview import Fleet, host_facts

pytestmark = pytest.mark.trust

ROLES: tuple[Role, ...] = ("viewer", "operator")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    for role in ROLES:
        record = TokenRecord(
            id=role, name=role, hash=hash_secret(role), role=role, created_at=made.clock.now()
        )
        made.hub.store.add_token(record, made.audit())
    for site, host in (("harbour", "a"), ("airport", "c")):
        made.site(site)
        made.host(host, site, host_facts())
    lineage = Lineage((Stretch("aaaaaaaa-1", 7), Stretch("bbbbbbbb-2", 9)))
    made.hub.store.put_lineage(
        LineageRecord(host="a", lineage=lineage, quarantined_at=made.clock.now(), why="a disk was copied")
    )
    made.hub.backend.hearing.identities = Identities(made.hub.store, made.clock)
    return made


@pytest.fixture
async def client(fleet: Fleet) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(fleet.hub))  # type: ignore[arg-type]
    headers = {"Authorization": "Bearer operator"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as made:
        yield made


async def post(client: httpx2.AsyncClient, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    answer = await client.post(path, json=body)
    return answer.status_code, answer.json()


@pytest.mark.rule("IDENTITY-2")
async def test_a_quarantine_is_shown_and_ended_by_an_operator_alone(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    shown = (await client.get("/hosts/a")).json()
    assert shown["quarantined"]["why"] == "a disk was copied"
    listed = {host["name"]: host.get("quarantined") for host in (await client.get("/hosts")).json()}
    assert listed == {"a": shown["quarantined"], "c": None}
    refused = await client.post("/hosts/a/readmit", headers={"Authorization": "Bearer viewer"})
    assert refused.status_code == 403
    assert (await client.get("/hosts/a")).json() == shown
    status, view = await post(client, "/hosts/a/readmit")
    assert (status, view.get("quarantined")) == (200, None)
    assert (await client.get("/hosts/a")).json().get("quarantined") is None
    newest = fleet.hub.store.audits(1)[0]
    assert (newest.who, newest.action, newest.subject) == ("operator", "host.readmit", "host:a")
    assert (await post(client, "/hosts/a/readmit"))[1]["code"] == "host.not_quarantined"
    assert (await post(client, "/hosts/none/readmit"))[0] == 404


@pytest.mark.rule("IDENTITY-4")
async def test_a_token_to_replace_a_host_names_one_of_that_site_and_is_for_one_use(
    fleet: Fleet, client: httpx2.AsyncClient
) -> None:
    status, answer = await post(client, "/sites/harbour/join-tokens", {"replaces": "a"})
    assert status == 201
    assert parse_join_token(answer["token"]).host == "a"
    newest = fleet.hub.store.audits(1)[0]
    assert (newest.action, newest.subject) == ("host.token", "host:a")
    status, answer = await post(client, "/sites/harbour/join-tokens", {})
    assert parse_join_token(answer["token"]).host == ""
    for body, code in (
        ({"replaces": "c"}, "host.other_site"),
        ({"replaces": "none"}, "host.missing"),
        ({"replaces": "a", "uses": 2}, "join.one_replacement"),
    ):
        assert (await post(client, "/sites/harbour/join-tokens", body))[1]["code"] == code
