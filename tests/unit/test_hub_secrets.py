"""Secrets on a hub: taken in, sealed to whom they are for, never shown, rotated, revoked, and rewrapped."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing

from skerry.adapters.key_file import KeyFile
from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.api.app import API_PATH
from skerry.hub.secret_keeping import KEPT_BEHIND
from skerry.hub.secret_sealing import Sealer
from skerry.hub.site_use import SiteUse
from skerry.kit.errors import SkerryError
from skerry.ports.hub_store import AssignmentRecord, Audit, HostRecord, JoinTokenRecord
from skerry.spec.application import SecretUse
from skerry.spec.desired import DesiredState
from skerry.spec.secret import MAX_VALUE_BYTES, SealedSecret
from skerry.trust.keys import new_sealing_key
from skerry.trust.sealing import Binding, open_secret
from tests.unit.matching_world import component, release
from tests.unit.release_records import record_of
from tests.unit.test_hub_door import World

pytestmark = pytest.mark.secrets

CANARY = "canary-7f3d9a-of-the-password"
NAMES = ("edge-1", "edge-2")


class Vaulted(World):
    """A hub on a file, with two sites of one host each, and an application that uses `db-password` at one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(folder, SqlHubStore.open(folder / "hub.db"))
        self.pems: dict[str, bytes] = {}
        self.joined = 0
        for number, (name, region) in enumerate((("harbour", "north"), ("pier", "south")), 1):
            document = {
                "apiVersion": "skerry/v1",
                "kind": "Site",
                "metadata": {"name": name, "labels": {"region": region, "tier": "test"}},
                "spec": {},
            }
            self.hub.store.apply_documents(
                sites={name: msgspec.json.encode(document)}, rollouts=[], audits=[]
            )
            self.enroll(f"edge-{number}", name)
        use = SecretUse(name="db-password", path="password")
        found = release(component(secrets=(use,)), name="reader")
        self.hub.store.add_release(record_of(found, self.clock.now()), self.audit())
        self.assign("harbour")

    def audit(self) -> Audit:
        return Audit(at=self.clock.now(), who="test", action="test", subject="test")

    def enroll(self, name: str, site: str) -> None:
        now, self.joined = self.clock.now(), self.joined + 1
        token = JoinTokenRecord(
            hash=f"join-{self.joined}",
            site=site,
            created_at=now,
            expires_at=now + timedelta(days=1),
            uses_left=1,
        )
        self.hub.store.add_join_token(token, self.audit())
        self.pems[name], public = new_sealing_key()
        sign = base64.b64encode(name.encode().ljust(32, b".")).decode()
        record = HostRecord(name=name, site=site, sign_key=sign, seal_key=public, enrolled_at=now)
        self.hub.store.enroll_host(token.hash, record, self.audit())

    def assign(self, site: str) -> None:
        """Let a site run the application, as a rollout would."""
        from tests.unit.test_hub_preview import Fleet

        Fleet.assign(self, site, "reader@1")  # type: ignore[arg-type]
        stored = self.hub.store.rollout(f"r-{site}")
        assert stored is not None
        given = AssignmentRecord(site=site, application="reader", release="reader@1", rollout=stored.name)
        self.hub.store.advance_rollout(msgspec.structs.replace(stored, state="succeeded"), assign=[given])

    async def set(self, value: str = CANARY, name: str = "db-password", **more: Any) -> dict[str, Any]:
        body = {"value": base64.b64encode(value.encode()).decode(), **more}
        answer = await self.ask("operator", f"{API_PATH}/secrets/{name}/versions", "POST", json=body)
        return {"status": answer.status_code, **answer.json()}

    async def issued(self, site: str = "harbour") -> DesiredState:
        """Return what a site was issued, once the hub has done what it has to."""
        await self.hub.rollouts.step()
        await self.hub.issuer.issue(site)
        envelope = (await self.hub.issuer.issued(site)).envelope
        assert envelope is not None
        return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)

    async def sealed(self, host: str = "edge-1", site: str = "harbour") -> tuple[SealedSecret, ...]:
        return (await self.issued(site)).secrets.get(host, ())

    def opened(self, one: SealedSecret, host: str = "edge-1") -> str:
        binding = Binding(host=host, name=one.name, version=one.version, id=one.id)
        return open_secret(one.sealed, self.pems[host], binding).decode()

    def on_disk(self) -> bytes:
        return b"".join(file.read_bytes() for file in sorted(self.folder.rglob("*")) if file.is_file())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Vaulted]:
    made = Vaulted(tmp_path)
    yield made
    made.hub.store.close()


@pytest.mark.rule("SECRET-1")
async def test_a_value_is_sealed_to_the_hosts_that_use_it_and_found_nowhere_else(world: Vaulted) -> None:
    said = bytearray()
    with structlog.testing.capture_logs() as logged:
        assert (await world.set())["status"] == 200
        encoded = base64.b64encode(CANARY.encode()).decode()
        # Where a request is malformed, the refusal must not quote it.
        malformed = (
            {"value": CANARY},
            {"value": [CANARY]},
            {"value": encoded, "not_before": CANARY},
            {"value": encoded, "site": "nowhere"},
            CANARY.encode(),
        )
        for body in malformed:
            how: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
            answer = await world.ask("operator", f"{API_PATH}/secrets/other/versions", "POST", **how)
            assert answer.status_code in (400, 404)
            said += answer.content
        (one,) = await world.sealed()
        for path in (
            "/secrets",
            "/secrets/db-password",
            "/secrets/db-password/sites/harbour",
            "/audit",
            "/events",
        ):
            said += (await world.ask("admin", API_PATH + path)).content
        said += (await world.ask("admin", f"{API_PATH}/hosts/edge-1/secrets")).content
    assert world.opened(one) == CANARY
    assert (await world.issued()).secrets.keys() == {"edge-1"}
    with pytest.raises(SkerryError):
        open_secret(
            one.sealed, world.pems["edge-2"], Binding(host="edge-2", name=one.name, version=1, id=one.id)
        )
    everywhere = bytes(said) + world.on_disk() + repr(logged).encode()
    for form in (CANARY, encoded.rstrip("="), CANARY.encode().hex()):
        assert form.encode() not in everywhere


async def test_what_was_sealed_is_not_sealed_again_until_version_or_key_changes(world: Vaulted) -> None:
    await world.set()
    first = await world.issued()
    assert await world.issued() == first, "nothing has changed, and nothing was issued"
    world.hub.issuer.forget("harbour")
    assert await world.issued() == first, "nor by a hub that has just begun"
    await world.set("another value")
    second = await world.issued()
    assert [one.version for one in second.secrets["edge-1"]] == [2]
    assert second.generation == first.generation + 1
    stored = world.hub.store.host("edge-1")
    assert stored is not None
    world.hub.store.remove_host("edge-1", world.audit())
    world.enroll("edge-1", "harbour")
    (resealed,) = await world.sealed()
    assert resealed.key != second.secrets["edge-1"][0].key
    assert world.opened(resealed) == "another value"


def sealer_of(world: Vaulted) -> Sealer:
    (found,) = (
        owner
        for add in world.hub.issuer.additions
        if isinstance(owner := getattr(add, "__self__", None), Sealer)
    )
    return found


@pytest.mark.rule("SECRET-1")
async def test_a_host_gets_the_secrets_of_its_own_applications_and_no_others_of_its_site(
    world: Vaulted,
) -> None:
    await world.set()
    await world.set(name="other")
    world.enroll("edge-3", "harbour")
    site = world.hub.store.site("harbour")
    assert site is not None
    releases = {
        name: release(component(secrets=(SecretUse(name=secret, path="it"),)), name=name)
        for name, secret in (("reader", "db-password"), ("writer", "other"))
    }
    use = SiteUse(
        site=site,
        hosts=world.hub.store.hosts("harbour"),
        applications={"edge-1": ["reader"], "edge-3": ["writer"]},
        releases=releases,
        before=None,
    )
    sealed = sealer_of(world).seal(use).secrets
    assert {host: [one.name for one in given] for host, given in sealed.items()} == {
        "edge-1": ["db-password"],
        "edge-3": ["other"],
    }
    assert [one.name for one in world.hub.store.exposures("edge-3")] == ["other"]


async def test_versions_that_were_left_far_behind_are_forgotten_and_those_of_other_scopes_are_not(
    world: Vaulted,
) -> None:
    await world.set("for the pier", site="pier")
    for number in range(KEPT_BEHIND + 3):
        await world.set(f"value {number}")
    ahead = (world.clock.now() + timedelta(days=1)).isoformat()
    await world.set("next", not_before=ahead)
    kept = world.hub.store.secret_versions("db-password")
    assert [one.version for one in kept if one.scope_kind == "all"] == list(range(4, KEPT_BEHIND + 6))
    assert [one.version for one in kept if one.scope_kind == "site"] == [1]
    assert [world.opened(one) for one in await world.sealed()] == [f"value {KEPT_BEHIND + 2}", "next"]


async def test_a_host_in_quarantine_is_sealed_nothing_new(world: Vaulted) -> None:
    barred = {"edge-1"}
    sealer_of(world)._is_barred = barred.__contains__
    await world.set()
    assert await world.sealed() == ()
    barred.clear()
    assert [one.version for one in await world.sealed()] == [1]


async def test_the_value_that_says_most_about_a_site_is_sealed_and_explained(world: Vaulted) -> None:
    await world.set("for all")
    await world.set("for the north", selector="region=north")
    assert [world.opened(one) for one in await world.sealed()] == ["for the north"]
    await world.set("for the harbour", site="harbour")
    assert [world.opened(one) for one in await world.sealed()] == ["for the harbour"]
    told = (await world.ask("operator", f"{API_PATH}/secrets/db-password/sites/harbour")).json()
    assert (told["version"], told["used_by"]) == (3, ["reader@1"])
    assert told["why"][0] == "site harbour: matches, and says most"
    told = (await world.ask("operator", f"{API_PATH}/secrets/db-password/sites/pier")).json()
    assert told["version"] == 1


async def test_two_values_that_a_site_would_get_alike_are_refused_with_the_sites(world: Vaulted) -> None:
    await world.set("for the north", selector="region=north")
    refused = await world.set("for tests", selector="tier=test")
    assert (refused["status"], refused["code"]) == (400, "secret.tied")
    assert refused["detail"].endswith("match alike at harbour")
    assert (await world.set("for tests", selector="tier=test,region=south"))["status"] == 200
    moved = {
        "apiVersion": "skerry/v1",
        "kind": "Site",
        "metadata": {"name": "quay", "labels": {"region": "north", "line": "1"}},
        "spec": {},
    }
    await world.set("for lines", selector="line=1")
    answer = await world.ask("operator", f"{API_PATH}/apply", "POST", json={"documents": [moved]})
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["message"] == "two values of secret db-password would be for it alike"


async def test_a_rollout_whose_sites_lack_a_value_is_refused_with_their_names(world: Vaulted) -> None:
    await world.set("for the harbour", site="harbour")
    document = {
        "apiVersion": "skerry/v1",
        "kind": "Rollout",
        "metadata": {"name": "spring"},
        "spec": {"release": "reader@1", "sites": "*", "waves": [{"size": "100%"}]},
    }
    for more in ({"dry_run": True}, {}):
        answer = await world.ask(
            "operator", f"{API_PATH}/apply", "POST", json={"documents": [document], **more}
        )
        assert answer.status_code == 400
        (problem,) = answer.json()["problems"]
        assert problem["message"] == "reader@1 uses secret db-password, which has no value at pier"
    await world.set("for all")
    answer = await world.ask("operator", f"{API_PATH}/apply", "POST", json={"documents": [document]})
    assert answer.status_code == 200


async def test_a_version_that_is_to_come_travels_ahead_and_the_one_before_it_stays(world: Vaulted) -> None:
    await world.set("now")
    later = world.clock.now() + timedelta(hours=2)
    await world.set("later", not_before=later.isoformat())
    assert [world.opened(one) for one in await world.sealed()] == ["now", "later"]
    assert [one.not_before for one in await world.sealed()] == [None, later]
    world.clock.advance(3 * 3600.0)
    assert [world.opened(one) for one in await world.sealed()] == ["now", "later"], (
        "hosts' clocks may be behind"
    )
    world.clock.advance(30 * 3600.0)
    assert [world.opened(one) for one in await world.sealed()] == ["later"]


@pytest.mark.rule("SECRET-4")
async def test_what_is_revoked_is_sealed_to_nobody_and_named_to_who_could_read_it(world: Vaulted) -> None:
    await world.set("first")
    (first,) = await world.sealed()
    path = f"{API_PATH}/secrets/db-password/versions/1/revoke"
    refused = await world.ask("operator", path, "POST")
    assert (refused.status_code, refused.json()["code"]) == (409, "secret.last_version")
    await world.set("second")
    await world.issued()
    assert (await world.ask("operator", f"{path}?dry_run=true", "POST")).status_code == 200
    assert (await world.issued()).revoked_secrets == ()
    assert (await world.ask("operator", path, "POST")).json()["version"]["state"] == "revoked"
    issued = await world.issued()
    assert [one.version for one in issued.secrets["edge-1"]] == [2]
    assert issued.revoked_secrets == (first.id,)
    assert (
        await world.ask("operator", f"{API_PATH}/secrets/db-password/versions/2/revoke?force=true", "POST")
    ).status_code == 200
    assert await world.sealed() == ()


@pytest.mark.rule("SECRET-4")
async def test_what_a_host_could_read_is_known_after_it_has_gone(world: Vaulted) -> None:
    await world.set("first")
    await world.issued()
    assert (await world.ask("operator", f"{API_PATH}/hosts/edge-1", "DELETE")).status_code == 204
    path = f"{API_PATH}/hosts/edge-1/secrets"
    (seen,) = (await world.ask("operator", path)).json()
    assert (seen["name"], seen["version"], seen["rotate_needed"]) == ("db-password", 1, True)
    await world.set("second")
    (seen,) = (await world.ask("operator", path)).json()
    assert (seen["rotate_needed"], seen["why"]) == (False, "a later version is in use")
    assert (await world.ask("operator", f"{API_PATH}/hosts/nobody/secrets")).status_code == 404


async def test_a_secret_that_is_used_is_not_deleted_and_one_that_is_not_begins_anew(world: Vaulted) -> None:
    await world.set()
    await world.set(name="spare")
    refused = await world.ask("operator", f"{API_PATH}/secrets/db-password", "DELETE")
    assert (refused.status_code, refused.json()["code"]) == (409, "secret.used")
    assert (await world.ask("operator", f"{API_PATH}/secrets/spare", "DELETE")).status_code == 204
    assert (await world.ask("operator", f"{API_PATH}/secrets/spare")).status_code == 404
    assert (await world.set(name="spare"))["version"]["version"] == 1


async def test_the_hub_generates_values_and_shows_public_halves_alone(world: Vaulted) -> None:
    for kind in ("random", "keypair"):
        body = {"generate": {"kind": kind}}
        answer = await world.ask("operator", f"{API_PATH}/secrets/db-password/versions", "POST", json=body)
        assert answer.status_code == 200
        assert bool(answer.json()["version"]["public"]) is (kind == "keypair")
        (one,) = await world.sealed()
        value = world.opened(one)
        assert value not in answer.text
        assert (
            value.startswith("-----BEGIN PRIVATE KEY-----")
            or len(base64.urlsafe_b64decode(f"{value}=")) == 32
        )


@pytest.mark.parametrize(
    ("body", "code"),
    (
        ({}, "secret.no_value"),
        ({"value": ""}, "secret.size"),
        ({"value": base64.b64encode(bytes(MAX_VALUE_BYTES + 1)).decode()}, "secret.size"),
        ({"value": "AAAA", "generate": {"kind": "random"}}, "secret.no_value"),
        ({"value": "AAAA", "site": "harbour", "selector": "a=b"}, "secret.scope"),
        ({"value": "AAAA", "selector": "==="}, "selector.malformed"),
        ({"value": "AAAA", "expires_at": "2020-01-01T00:00:00Z"}, "secret.times"),
    ),
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_value_is_refused(world: Vaulted, body: dict[str, Any], code: str) -> None:
    answer = await world.ask("operator", f"{API_PATH}/secrets/db-password/versions", "POST", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert world.hub.store.secret_versions() == []


async def test_a_dry_run_stores_nothing_and_names_the_sites(world: Vaulted) -> None:
    answer = await world.set(dry_run=True)
    assert (answer["version"]["version"], answer["sites"]) == (1, ["harbour"])
    assert world.hub.store.secret_versions() == []


async def test_two_versions_at_a_time_do_not_take_each_others_number(world: Vaulted) -> None:
    answers = await asyncio.gather(*(world.set(f"value {number}") for number in range(4)))
    taken = [answer["version"]["version"] for answer in answers if answer["status"] == 200]
    assert sorted(taken) == list(range(1, len(taken) + 1))
    assert {answer["code"] for answer in answers if answer["status"] != 200} <= {"secret.moved"}


async def test_a_secret_that_cannot_be_opened_now_holds_up_nothing_else(world: Vaulted) -> None:
    await world.set()
    (tmp_key,) = world.folder.rglob("secrets.key")
    hidden = tmp_key.read_bytes()
    tmp_key.unlink()
    world.hub.secrets._keys = KeyFile(tmp_key, own=True)  # pyright: ignore[reportPrivateUsage]
    issued = await world.issued()
    assert issued.hosts["edge-1"]
    assert issued.secrets == {}
    assert not tmp_key.exists(), "no other key may take the place of one that is missed"
    tmp_key.write_bytes(hidden)
    assert [world.opened(one) for one in await world.sealed()] == [CANARY]
