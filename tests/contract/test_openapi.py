"""The operator API is what the committed document says: a change of the interface is a change somebody sees."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import httpx2

from skerry.hub.api.app import OperatorApi
from skerry.testing.hub_parts import memory_hub

ROOT = Path(__file__).resolve().parents[2]


def test_the_served_document_is_the_committed_one() -> None:
    spec = importlib.util.spec_from_file_location("write_openapi", ROOT / "scripts" / "write_openapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    served = json.loads(module.openapi_text())
    committed = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text())
    assert served == committed, "run make openapi and look at what changed"


async def test_a_hub_answers_with_the_committed_document_whenever_it_is_asked(tmp_path: Path) -> None:
    hub = memory_hub(tmp_path)
    transport = httpx2.ASGITransport(OperatorApi(hub))  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url="https://hub") as client:
        answers = [await client.get("/api/openapi.json") for _ in range(2)]
    hub.store.close()
    committed = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text())
    assert [answer.json() for answer in answers] == [committed, committed]
    assert answers[0].headers["content-type"] == "application/vnd.oai.openapi+json"


def test_every_operation_but_login_and_health_needs_a_token_and_answers_are_described() -> None:
    document = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text())
    assert document["security"] == [{"token": []}]
    operations = {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) >= 25
    assert all(operation.get("description") for operation in operations.values())
