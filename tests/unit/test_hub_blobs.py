"""Publishers get a blob of the hub by its digest, whole; others do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.hub.services import Hub
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import Audit, TokenRecord
from skerry.spec.api import Role
from skerry.testing.hub_parts import memory_hub
from skerry.trust.tokens import hash_secret

CONTENT = bytes(range(256)) * 10_000
ROLES: tuple[Role, ...] = ("viewer", "operator")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncGenerator[Hub]:
    made = memory_hub(tmp_path)
    now = made.clock.now()
    for role in ROLES:
        record = TokenRecord(id=role, name=role, hash=hash_secret(role), role=role, created_at=now)
        made.store.add_token(record, Audit(at=now, who="test", action="token.create", subject=role))
    await made.blobs.put(digest_of(CONTENT), CONTENT)
    yield made
    made.store.close()


async def answer_of(hub: Hub, path: str, token: str = "operator") -> httpx2.Response:
    transport = httpx2.ASGITransport(OperatorApi(hub))  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=f"https://hub{API_PATH}", headers=headers
    ) as client:
        return await client.get(path)


async def test_a_publisher_gets_a_blob_as_it_was_pushed(hub: Hub) -> None:
    answer = await answer_of(hub, f"/blobs/{digest_of(CONTENT)}")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("digest", "token", "status", "code"),
    (
        (digest_of(b"other"), "operator", 404, "blob.missing"),
        ("no-digest", "operator", 400, "digest"),
        (digest_of(CONTENT), "viewer", 403, "role.too_low"),
        (digest_of(CONTENT), "nobody", 401, "token.unknown"),
    ),
)
async def test_what_is_not_given_is_a_problem(
    hub: Hub, digest: str, token: str, status: int, code: str
) -> None:
    answer = await answer_of(hub, f"/blobs/{digest}", token)
    assert answer.status_code == status
    assert answer.json()["code"].startswith(code)
