"""Secrets that hosts make for themselves, at the hub: ordered, never held, shown by their public halves, revoked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.key_file import KeyFile
from skerry.hub.api.app import API_PATH
from skerry.hub.secret_rekeying import rekey
from skerry.ports.hub_store import AppliedReport
from skerry.spec.report import MadeSecret, Observed
from skerry.spec.secret import Making, SecretOrder
from tests.unit.test_hub_secrets import Vaulted, sealer_of

pytestmark = pytest.mark.secrets

KEYPAIR = {"kind": "keypair", "algorithm": "p256"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Vaulted]:
    made = Vaulted(tmp_path)
    yield made
    made.hub.store.close()


async def order(world: Vaulted, **more: Any) -> Any:
    body = {"generate": KEYPAIR, "at_site": True, **more}
    return await world.ask("operator", f"{API_PATH}/secrets/db-password/versions", "POST", json=body)


async def ordered(world: Vaulted, host: str = "edge-1") -> tuple[SecretOrder, ...]:
    return (await world.issued()).secret_orders.get(host, ())


@pytest.mark.rule("SECRET-6")
async def test_hosts_that_use_it_are_told_how_to_make_it_and_the_hub_has_nothing_of_it(
    world: Vaulted,
) -> None:
    answer = await order(world, rotate_every="30d")
    assert answer.status_code == 200
    version = answer.json()["version"]
    assert (version["at_site"], version["rotate_every_s"], version["public"]) == (True, 30 * 86400, "")
    (one,) = await ordered(world)
    assert (one.name, one.version, one.rotate_every_s) == ("db-password", 1, 30 * 86400)
    assert one.making == Making(kind="keypair", algorithm="p256")
    issued = await world.issued()
    assert issued.secrets == {}
    assert list(issued.secret_orders) == ["edge-1"]
    (stored,) = world.hub.store.secret_versions()
    assert (stored.encrypted, stored.wrapped, stored.public) == (b"", b"", "")
    generation = issued.generation
    world.hub.issuer.forget("harbour")
    assert (await world.issued()).generation == generation, "what has not changed is not issued again"


@pytest.mark.parametrize(
    ("body", "code"),
    (
        ({"generate": None}, "secret.no_value"),
        ({"value": "AAAA"}, "secret.no_value"),
        ({"rotate_every": "30s"}, "secret.period"),
        ({"rotate_every": "30d", "at_site": False}, "secret.period"),
        ({"rotate_every": "30d", "expires_at": "2099-01-01T00:00:00Z"}, "secret.period"),
    ),
    ids=str,
)
async def test_what_cannot_be_made_at_a_site_is_refused(
    world: Vaulted, body: dict[str, Any], code: str
) -> None:
    answer = await order(world, **body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert world.hub.store.secret_versions() == []


async def test_what_hosts_tell_of_theirs_is_shown_by_version_with_when_they_told_it(world: Vaulted) -> None:
    await order(world)
    now = world.clock.now()
    told = MadeSecret(name="db-password", version=1, round=3, made_at=now, used=True, public="PUBLIC")
    other = msgspec.structs.replace(told, name="another", public="OTHER")
    report = AppliedReport(
        host="edge-1",
        site="harbour",
        sequence=2,
        sent_at=now + timedelta(minutes=1),
        seen_at=now + timedelta(minutes=1),
        generation=1,
        clock_offset_s=0.0,
        observed=Observed(generation=1, made_secrets=(told, other)),
    )
    world.hub.store.apply_reports([report])
    shown = (await world.ask("operator", f"{API_PATH}/secrets/db-password")).json()
    ((made,),) = (version["made"] for version in shown["versions"])
    assert (made["host"], made["site"], made["round"], made["used"]) == ("edge-1", "harbour", 3, True)
    assert made["public"] == "PUBLIC"
    assert made["reported_at"] > made["made_at"]
    told = (await world.ask("operator", f"{API_PATH}/secrets/db-password/sites/harbour")).json()
    assert "each host makes a value of its own; the hub has none" in told["why"]


@pytest.mark.rule("SECRET-4")
async def test_a_revoked_version_is_ordered_from_nobody_and_named_to_who_made_it(world: Vaulted) -> None:
    await order(world)
    (first,) = await ordered(world)
    path = f"{API_PATH}/secrets/db-password/versions/1/revoke"
    assert (await world.ask("operator", path, "POST")).json()["code"] == "secret.last_version"
    await order(world, generate={"kind": "random"})
    await world.issued()
    assert (await world.ask("operator", path, "POST")).status_code == 200
    issued = await world.issued()
    assert issued.revoked_secrets == (first.id,)
    assert [one.version for one in issued.secret_orders["edge-1"]] == [2]


async def test_what_a_lost_host_made_itself_needs_no_rotation(world: Vaulted) -> None:
    await order(world)
    await world.issued()
    (seen,) = (await world.ask("operator", f"{API_PATH}/hosts/edge-1/secrets")).json()
    assert not seen["rotate_needed"]
    assert seen["why"].endswith("trust its public key no more")


async def test_a_rollout_finds_a_value_where_hosts_make_their_own_and_a_sealed_one_follows(
    world: Vaulted,
) -> None:
    await order(world)
    assert world.hub.secrets.lacking(["db-password"], world.hub.store.sites()) == {}
    await world.set("from now on")
    assert [world.opened(one) for one in await world.sealed()] == ["from now on"]
    assert await ordered(world) == ()


async def test_the_hub_s_key_is_changed_with_such_versions_among_the_stored(world: Vaulted) -> None:
    await world.set(name="other")
    await order(world)
    (path,) = world.folder.rglob("secrets.key")
    assert rekey(world.hub.store, KeyFile(path, own=True), world.audit()) == 1


async def test_a_host_in_quarantine_is_asked_for_nothing_new(world: Vaulted) -> None:
    barred = {"edge-1"}
    sealer_of(world)._is_barred = barred.__contains__  # pyright: ignore[reportPrivateUsage]
    await order(world)
    assert await ordered(world) == ()
    barred.clear()
    assert len(await ordered(world)) == 1
    barred.add("edge-1")
    assert len(await ordered(world)) == 1, "what it has is not taken from it"
