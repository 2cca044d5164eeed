"""The operator API's door: who is let in to what, who is told to come later, and what is written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
import structlog.testing
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.api.access import ACCESS, ROLES, may
from skerry.hub.api.app import API_PATH, OperatorApi, operations
from skerry.hub.api.door import AT_ONCE, FAILURE_RATE, FREE_LOGINS, SAFE_HEADERS, TOKEN_RATE
from skerry.hub.api.refusals import FIRST_S, Refusals
from skerry.hub.services import Hub
from skerry.ports.hub_store import Audit, AuditRecord, HubStore, TokenRecord
from skerry.spec.api import Role
from skerry.testing.clock import SimulatedClock, settle
from skerry.testing.hub_parts import memory_hub
from skerry.testing.waiting import eventually
from skerry.trust.tokens import hash_secret

pytestmark = pytest.mark.trust

Answer = httpx2.Response


class World:
    """A hub with a token of each role, an expired one and a one-time secret, and its app in process."""

    def __init__(self, folder: Path, store: HubStore | None = None) -> None:
        self.clock = SimulatedClock()
        self.hub: Hub = memory_hub(folder, self.clock, store=store)
        for role in ROLES:
            self.token(role, role)
        self.token("late", "admin", expires_in=timedelta(seconds=-1))
        self.token("once", "admin", once=True)
        self.app = OperatorApi(self.hub)
        self.log = len(self.audits())

    def token(
        self, name: str, role: Role, *, expires_in: timedelta | None = None, once: bool = False
    ) -> None:
        now = self.clock.now()
        record = TokenRecord(
            id=name,
            name=name,
            hash=hash_secret(name),
            role=role,
            created_at=now,
            expires_at=now + expires_in if expires_in else None,
            once=once,
        )
        self.hub.store.add_token(record, Audit(at=now, who="test", action="test", subject=name))

    def audits(self) -> list[AuditRecord]:
        return list(self.hub.store.audits(1000))

    def refusals(self) -> list[tuple[str, str, str]]:
        """Return who was refused what, the oldest first."""
        fresh = list(reversed(self.audits()))[self.log :]
        return [(found.who, found.action, found.subject) for found in fresh if found.outcome == "denied"]

    async def ask(
        self, token: str, path: str, method: str = "GET", *, address: str = "10.0.0.1", **more: object
    ) -> Answer:
        transport = httpx2.ASGITransport(self.app, client=(address, 1))  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(transport=transport, base_url="https://hub", headers=headers) as client:
            return await client.request(method, path, **more)  # type: ignore[arg-type]

    async def log_in(self, secret: str, address: str = "10.0.0.1") -> Answer:
        return await self.ask("", f"{API_PATH}/login", "POST", address=address, json={"secret": secret})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    made = World(tmp_path)
    yield made
    made.hub.store.close()


def handlers_of(app: Litestar) -> list[tuple[str, str, HTTPRouteHandler]]:
    """Return method, path and handler of every operation."""
    return [
        (method, route.path_format, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path.startswith(API_PATH)
        for handler in route.route_handlers
        for method in sorted(handler.http_methods)
        if method != "OPTIONS"
    ]


def name_of(handler: HTTPRouteHandler) -> str:
    return handler.handler_name.rpartition(".")[2]


@pytest.mark.rule("DOOR-1")
def test_every_operation_is_in_the_table_of_roles_and_the_table_has_no_other(world: World) -> None:
    assert {name_of(handler) for _, _, handler in handlers_of(operations())} == set(ACCESS)


@pytest.mark.rule("DOOR-1")
async def test_below_its_role_nobody_is_let_in_to_an_operation(world: World) -> None:
    for method, path, handler in handlers_of(operations()):
        needed, _ = ACCESS[name_of(handler)]
        where = path.replace("{", "").replace("}", "")
        if needed == "open":
            continue
        world.clock.advance(1.0)  # one address may fail so often and no more
        assert (await world.ask("", where, method)).status_code == 401, where
        for role in ROLES:
            status = (await world.ask(role, where, method)).status_code
            assert status != 401, where
            assert (status == 403) is not may(role, needed), (where, role, status)


@pytest.mark.parametrize(
    ("role", "may_do"),
    (
        ("viewer", {"look"}),
        ("publisher", {"look", "push"}),
        ("operator", {"look", "push", "change"}),
        ("admin", {"look", "push", "change", "grant"}),
    ),
)
def test_a_publisher_brings_releases_and_changes_no_site(role: Role, may_do: set[str]) -> None:
    of = {
        "look": ("list_sites", "show_release", "list_rollouts", "preview_document"),
        "push": ("create_release", "find_missing", "upload", "download"),
        "change": ("apply_documents", "retry_rollout", "remove_release", "create_join_token", "wipe_volumes"),
        "grant": ("create_token", "list_tokens", "revoke_token", "list_audit"),
    }
    for what, names in of.items():
        assert {may(role, ACCESS[name][0]) for name in names} == {what in may_do}


@pytest.mark.rule("DOOR-2")
async def test_refusals_are_audited_by_who_and_why(world: World) -> None:
    await world.ask("viewer", f"{API_PATH}/tokens")
    await world.ask("late", f"{API_PATH}/sites")
    await world.ask("stranger", f"{API_PATH}/sites")
    await world.ask("once", f"{API_PATH}/hosts")
    await world.log_in("wrong")
    assert world.refusals() == [
        ("viewer", "refused", "GET /api/v1/tokens"),
        ("late", "refused.expired", "GET /api/v1/sites"),
        ("unknown", "refused.unknown", "GET /api/v1/sites"),
        ("unknown", "login", "one-time secret"),
    ]


@pytest.mark.rule("DOOR-2")
async def test_a_flood_of_refusals_is_counted_and_does_not_fill_the_audit(world: World) -> None:
    for number in range(50):
        await world.ask("viewer", f"{API_PATH}/tokens/{number}" + "x" * 1000, "DELETE")
    assert len(world.refusals()) == 1
    await world.clock.elapse(60.0)

    async def counted() -> bool:
        return len(world.refusals()) == 2

    await eventually(counted)
    who, action, subject = world.refusals()[1]
    assert (who, action) == ("viewer", "refused")
    assert subject.startswith("49 more, the last of them DELETE /api/v1/tokens/49")
    assert len(subject) < 300
    # A day of it: at first a minute is summed up, then two, then four, in the end an hour.
    for _ in range(24 * 60):
        await world.ask("viewer", f"{API_PATH}/tokens")
        await world.clock.elapse(60.0)
        await asyncio.sleep(0)
    assert len(world.refusals()) < 40


@pytest.mark.rule("DOOR-4")
async def test_a_token_that_asks_too_often_is_told_when_to_come_again_and_others_are_not(
    world: World,
) -> None:
    world.token("busy", "viewer")
    path = f"{API_PATH}/whoami"
    for _ in range(int(TOKEN_RATE.burst) + 1):  # the first one proves who it is
        assert (await world.ask("busy", path)).status_code == 200
    answer = await world.ask("busy", path)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["retryable"]) == ("rate.limited", True)
    assert (await world.ask("viewer", path)).status_code == 200
    assert world.refusals() == [("busy", "refused.rate", "GET /api/v1/whoami")]
    world.clock.advance(1.0)
    assert (await world.ask("busy", path)).status_code == 200


@pytest.mark.rule("DOOR-4")
async def test_guessing_tokens_is_slow_and_keeps_out_nobody_who_has_one(world: World) -> None:
    path = f"{API_PATH}/whoami"
    assert (await world.ask("viewer", path)).status_code == 200
    statuses = [(await world.ask(f"guess {number}", path)).status_code for number in range(150)]
    assert statuses.count(401) == FAILURE_RATE.burst
    assert statuses.count(429) == 150 - FAILURE_RATE.burst
    assert (await world.ask("viewer", path)).status_code == 200
    assert (
        await world.ask("operator", path)
    ).status_code == 429  # not known here yet, and now is not the time
    assert (await world.ask("operator", path, address="10.0.0.2")).status_code == 200
    world.clock.advance(1.0)
    assert (await world.ask("operator", path)).status_code == 200


async def test_a_revoked_token_is_a_stranger_at_once(world: World) -> None:
    world.token("gone", "viewer")
    path = f"{API_PATH}/whoami"
    assert (await world.ask("gone", path)).status_code == 200
    world.hub.store.remove_token("gone", Audit(at=world.clock.now(), who="x", action="x", subject="x"))
    assert (await world.ask("gone", path)).status_code == 401


@pytest.mark.rule("DOOR-4")
async def test_a_token_has_so_many_requests_at_a_time(world: World) -> None:
    door = world.app.served.door
    turns = [door.turns.turn("viewer") for _ in range(AT_ONCE)]
    for turn in turns:
        turn.__enter__()
    assert (await world.ask("viewer", f"{API_PATH}/whoami")).status_code == 429
    assert (await world.ask("admin", f"{API_PATH}/whoami")).status_code == 200
    for turn in turns:
        turn.__exit__(None, None, None)
    assert (await world.ask("viewer", f"{API_PATH}/whoami")).status_code == 200
    assert len(door.turns) == 0


@pytest.mark.rule("DOOR-4")
async def test_attempts_to_log_in_are_delayed_longer_each_time_by_address(world: World) -> None:
    for _ in range(FREE_LOGINS):
        assert (await world.log_in("wrong")).status_code == 403
    waits: list[int] = []
    for _ in range(8):
        answer = await world.log_in("once")  # too soon, the right one is not looked at, either
        assert answer.status_code == 429
        waits.append(int(answer.headers["retry-after"]))
        world.clock.advance(waits[-1])
        assert (await world.log_in("wrong")).status_code == 403
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (await world.log_in("once", address="10.0.0.2")).status_code == 200
    actions = [action for _, action, _ in world.refusals()]
    assert sorted(set(actions)) == ["login", "login.rate"]


@pytest.mark.parametrize(
    "path", (f"{API_PATH}/sites", f"{API_PATH}/tokens", "/healthz", "/nothing", "/api/openapi.json")
)
@pytest.mark.parametrize("token", ("", "viewer", "admin"))
async def test_every_answer_carries_the_headers_that_keep_browsers_from_harm(
    world: World, path: str, token: str
) -> None:
    answer = await world.ask(token, path)
    for name, value in SAFE_HEADERS.items():
        assert answer.headers[name] == value
    assert "server" not in answer.headers
    assert "x-powered-by" not in answer.headers


async def test_a_bug_is_answered_without_what_the_log_says_of_it(world: World) -> None:
    world.hub.store.close()  # nothing of it works any more
    answer = await world.ask("admin", f"{API_PATH}/whoami")
    assert answer.status_code in (500, 503)
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    assert "sqlite" not in answer.text.lower()
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_token_that_would_outlive_the_calendar_is_refused(world: World) -> None:
    for ttl_s in (1e12, 1e17, 1e300):
        asked = {"name": "old", "role": "viewer", "ttl_s": ttl_s}
        assert (await world.ask("admin", f"{API_PATH}/tokens", "POST", json=asked)).status_code == 400


BODIES = {
    "POST /login": 4096,
    "POST /tokens": 2 << 20,
    "POST /log": 2 << 20,
    "POST /sites/a/join-tokens": 2 << 20,
    "POST /relays/a/tokens": 2 << 20,
    "POST /releases": 64 << 20,
    "POST /previews": 4 << 20,
    "POST /blobs/missing": 2 << 20,
    "PUT /uploads/sha256:" + "0" * 64 + "?offset=0&size=100000000": 8 << 20,
    "POST /apply": 32 << 20,
    "POST /rollouts/a/pause": 2 << 20,
    "POST /pki/issuer": 2 << 20,
    "POST /rollouts/a/approve": 2 << 20,
    "POST /topics/sent": 2 << 20,
    "POST /rollouts/a/abort": 2 << 20,
    "POST /releases/a@1/deltas": 2 << 20,
    "POST /bundles": 8 << 20,
    "POST /reports": 4 << 20,
    "POST /secrets/a/versions": 2 << 20,
    "POST /logs": 2 << 20,
}


def test_every_operation_that_takes_a_body_is_among_those_whose_limit_is_tested(world: World) -> None:
    takes = {
        f"{method} {path.removeprefix(API_PATH)}"
        for method, path, handler in handlers_of(operations())
        if {"data", "request"} & set(handler.parsed_fn_signature.parameters)
        and method in ("POST", "PUT")
        and (
            "data" in handler.parsed_fn_signature.parameters
            or name_of(handler) in ("upload", "create_release")
        )
    }
    assert len(takes) == len(BODIES)


@pytest.mark.parametrize(("asked", "limit"), BODIES.items(), ids=lambda value: str(value)[:40])
async def test_a_body_that_is_too_large_is_refused_and_not_parsed(
    world: World, asked: str, limit: int
) -> None:
    method, _, path = asked.partition(" ")
    answer = await world.ask("admin", API_PATH + path, method, content=b"[" * (limit + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "http.413")


async def test_who_may_not_is_refused_before_the_body_is_looked_at(world: World) -> None:
    for token, status in (("", 401), ("viewer", 403)):
        answer = await world.ask(token, f"{API_PATH}/apply", "POST", content=b"[" * (33 << 20))
        assert answer.status_code == status


async def test_refusals_that_are_still_counted_end_with_the_hub(tmp_path: Path) -> None:
    clock, store = SimulatedClock(), SqlHubStore.open(None)
    refusals = Refusals(store, clock)
    for _ in range(2):
        await refusals.note("guest", "refused", "GET /api/v1/tokens")
    store.close()
    with structlog.testing.capture_logs() as logged:
        await settle()
        clock.advance(FIRST_S + 1)
        ended = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait_for(asyncio.gather(*ended), 10)
    assert logged == []
