"""The operator API answers as its document says, whatever is asked and whoever asks.

The real app, its parts in memory, is asked in process with requests that its own OpenAPI document allows, and with
some that it does not. The search is the same each time; `SKERRY_API_FUZZ_S` is about how many seconds it takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from litestar.routes import HTTPRoute
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis import checks as any_checks
from schemathesis.python import asgi
from schemathesis.specs.openapi import checks

from skerry.adapters.system_clock import SystemClock
from skerry.hub.api.access import ACCESS, ROLES, Needed, may
from skerry.hub.api.app import OperatorApi, operations
from skerry.hub.api.openapi import document_of
from skerry.ports.hub_store import TokenRecord
from skerry.spec.api import Role
from skerry.testing.hub_parts import memory_hub
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import component, release
from tests.unit.test_hub_preview import Fleet, host_facts

BUDGET_S = float(os.environ.get("SKERRY_API_FUZZ_S", "25"))
EXAMPLES = {
    GenerationMode.POSITIVE: max(2, round(BUDGET_S / 2)),
    GenerationMode.NEGATIVE: max(2, round(BUDGET_S / 8)),  # they take longer to make
}
"""Of each operation."""

ROLE_OF: dict[str, Role | None] = {
    **{role: role for role in ROLES},
    "limited": "operator",
    "expired": None,
    "unknown": None,
    "": None,
}
KNOWN = {
    "name": ("harbour", "edge", "camera@1", "r-harbour"),
    "application": ("camera",),
    "site": ("harbour",),
    "host": ("edge",),
    "old": ("camera@1",),
}
Operation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[Any]
HASTE = (
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.filter_too_much,
    hypothesis.HealthCheck.data_too_large,
)
CHECKS: list[Any] = [
    any_checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


class QuickClock(SystemClock):
    """Two minutes pass with every look, so that nobody asks too often."""

    def __init__(self) -> None:
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        return super().monotonic() + 120.0 * self._looks


class World(Fleet):
    """A hub with a site, a host, a release and a rollout, and one token for each caller."""

    def __init__(self, folder: Path) -> None:
        self.clock = QuickClock()  # type: ignore[assignment]
        self.hub = memory_hub(folder, self.clock)
        now = self.clock.now()
        for name in (*ROLES, "limited", "expired"):
            record = TokenRecord(
                id=name,
                name=name,
                hash=hash_secret(name),
                role=ROLE_OF[name] or "admin",
                created_at=now,
                sites="region=north" if name == "limited" else "",
                expires_at=now - timedelta(seconds=1) if name == "expired" else None,
            )
            self.hub.store.add_token(record, self.audit())
        self.site("harbour", labels={"region": "north"})
        self.host("edge", "harbour", host_facts())
        self.push(release(component(), name="camera"))
        self.assign("harbour", "camera@1")


class Api:
    """The app in process, and what its document says it does."""

    def __init__(self, world: World) -> None:
        self.hub = world.hub
        self.app = OperatorApi(world.hub)
        document = document_of(operations())
        del document["security"], document["components"]["securitySchemes"]  # who asks is not drawn
        self.schema = schemathesis.openapi.from_dict(document)
        found: list[Operation] = [
            cast(Operation, result.ok()) for result in cast(Any, self.schema.get_all_operations())
        ]
        self.operations: list[Operation] = [op for op in found if op.path.startswith("/api/")]
        self.handlers = {
            f"{method} {route.path_format}": handler.handler_name.rpartition(".")[2]
            for route in operations().routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
            for method in handler.http_methods
        }

    def needed(self, operation: Operation) -> Needed:
        """Return the lowest role of an operation."""
        return ACCESS[self.handlers[f"{operation.method.upper()} {operation.path}"]][0]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(World(tmp_path_factory.mktemp("api")))
    yield made
    made.hub.store.close()


@st.composite
def requests(draw: st.DrawFn, operation: Operation, mode: GenerationMode) -> AnyCase:
    """Draw a request; half of those that name something name what is there."""
    case: AnyCase = draw(cast(Any, operation).as_strategy(mode))
    if draw(st.booleans()):
        for given in (case.path_parameters, case.query):
            for name in set(given or {}) & set(KNOWN):
                given[name] = draw(st.sampled_from(KNOWN[name]))
    return case


def examine(api: Api, client: asgi.ASGIClient, caller: str, case: AnyCase) -> None:
    """Ask, and compare the answer with what the document and the table of roles say."""
    answer = case.call(session=client, headers={"authorization": f"Bearer {caller}" if caller else ""})
    case.validate_response(answer, checks=CHECKS)
    needed, role = api.needed(case.operation), ROLE_OF[caller]
    if needed == "open":
        return
    if role is None:
        assert answer.status_code == 401, case.as_curl_command()
    elif not may(role, needed):
        assert answer.status_code == 403, case.as_curl_command()
    elif caller == "limited":
        assert answer.status_code != 401, case.as_curl_command()
    else:
        assert answer.status_code not in (401, 403), case.as_curl_command()


@pytest.mark.timeout(300 + 3 * BUDGET_S)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_asked_by_whomever_the_answer_is_as_documented(api: Api, mode: GenerationMode) -> None:
    positive = mode is GenerationMode.POSITIVE
    callers = list(ROLE_OF) if positive else ["admin", "limited", "viewer", ""]
    until = time.monotonic() + BUDGET_S / 2
    settings = hypothesis.settings(
        max_examples=EXAMPLES[mode],
        derandomize=True,
        database=None,
        deadline=None,
        phases=(
            hypothesis.Phase.generate,
        ),  # a case that fails is small enough, and another state is another case
        suppress_health_check=HASTE,
    )
    asked: set[str] = set()
    with asgi.get_client(cast(Any, api.app)) as client:

        def ask(case: AnyCase) -> None:
            asked.add(case.operation.label)
            for caller in callers:
                examine(api, client, caller, case)

        for operation in api.operations:
            # Each operation is asked rightly, however slow the machine.
            if not positive and time.monotonic() > until:
                break
            try:
                settings(hypothesis.given(requests(operation, mode))(ask))()
            except Unsatisfiable:
                assert not positive  # nothing that this operation takes can be wrong
    assert len(asked) == len(api.operations) if positive else asked
