"""What the real proxy copies: as many answers differ as were planted, and clients see nothing of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from skerry.adapters.comparing_control import INSTANCE
from skerry.adapters.envoy_proxy import find_program
from skerry.ports.proxy import Backend, Entry, ProxyTable, Shadowing
from skerry.spec.ingress import Route, RouteAuth
from skerry.spec.shadow import Shadow
from skerry.testing.waiting import eventually
from tests.contract.proxy_world import EnvoyWorld

pytestmark = pytest.mark.envoy

NAME = "reader.site.internal"
LIVE, TRIAL = "reader/main/1", "reader/main/2"


class Releases:
    """Two releases behind the real proxy: of ten answers of the one on trial three differ."""

    def __init__(self, world: EnvoyWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.copied: list[str] = []
        self._lock = Lock()
        self.backends = (
            Backend(LIVE, world.serve(lambda path: f'{{"score": 1, "path": "{path}"}}'.encode())),
            Backend(TRIAL, world.serve(self._on_trial)),
        )

    def _on_trial(self, path: str) -> bytes:
        with self._lock:
            self.copied.append(path)
        score = 1.3 if self.is_planted(path) else 1.001
        return f'{{"path": "{path}", "score": {score}}}'.encode()

    @staticmethod
    def is_planted(path: str) -> bool:
        return int(path[1:]) % 10 < 3

    async def serve(self, shadow: Shadow | None, *, backend: str = LIVE, **options: Any) -> None:
        made = Route(name="main", component="web", port="http", tls="plain", **options)
        copies = Shadowing(TRIAL, shadow) if shadow else None
        token = b"s3cret" if made.auth.token else b""
        entry = Entry("reader", made, (NAME,), backend, token, copies)
        table = ProxyTable(self.world.ports, "skerry.internal", (entry,), self.backends)
        await self.world.proxy.serve(table)

    def ask(self, count: int, *more: str, first: int = 0) -> list[str]:
        """Ask for so many paths over one connection; return a line of status and path for each."""
        port = self.world.ports.http
        done = subprocess.run(
            ["curl", "-sS", "--resolve", f"{NAME}:{port}:127.0.0.1", *more, "-w", " %{http_code}\n",
             f"http://{NAME}:{port}/[{first}-{first + count - 1}]"],
            capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()


@pytest.fixture
async def releases(tmp_path: Path) -> AsyncIterator[Releases]:
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    world = EnvoyWorld(tmp_path)
    try:
        yield Releases(world, tmp_path)
    finally:
        await world.close()


@pytest.mark.rule("INGRESS-7")
@pytest.mark.parametrize("share", ("100%", "30%"))
async def test_as_many_answers_differ_as_were_planted_and_clients_see_none_of_them(
    releases: Releases, share: str
) -> None:
    rule = Shadow(share=share, compare="json", tolerance="1%", timeout="60s")
    await releases.serve(rule, auth=RouteAuth(token="key"), expose="host")
    token = ("-H", "authorization: Bearer s3cret")

    async def is_compared() -> bool:
        found = (await releases.world.proxy.shadows())[TRIAL]
        return found.requests == found.compared + found.uncompared

    answers: list[str] = []
    for first in range(0, 300, 50):  # fewer at a time than may wait for their turn
        answers += await asyncio.to_thread(releases.ask, 50, *token, first=first)
        await eventually(is_compared)
    assert answers == [f'{{"score": 1, "path": "/{number}"}} 200' for number in range(300)]
    found = (await releases.world.proxy.shadows())[TRIAL]
    planted = sum(map(releases.is_planted, releases.copied))
    assert (found.compared, found.differing) == (len(releases.copied), planted)
    assert found.uncompared == found.errors == 0
    if share == "100%":
        assert (found.compared, found.differing) == (300, 90)
    else:
        # Six standard deviations around 90 of 300.
        assert 42 <= found.compared <= 138
    # Who shows no token is not copied either.
    refused = await asyncio.to_thread(releases.ask, 3)
    assert sum(line.endswith(" 401") for line in refused) == 3
    assert (await releases.world.proxy.shadows())[TRIAL].requests == found.requests


@pytest.mark.rule("INGRESS-7")
@pytest.mark.rule("INGRESS-6")
async def test_no_request_fails_when_copying_begins_ends_or_its_process_is_killed(
    releases: Releases,
) -> None:
    world, rule = releases.world, Shadow(share="100%", compare="json", tolerance="1%")
    await releases.serve(None)
    clients = [asyncio.create_task(asyncio.to_thread(releases.ask, 600)) for _ in range(3)]
    deaths = 0
    while not all(client.done() for client in clients):
        await releases.serve(rule)
        view = (await world.runtime.instances()).get(INSTANCE)
        if view is not None and view.state == "running":
            os.kill(view.pid, signal.SIGKILL)
            deaths += 1
        await eventually(lambda: _is_dead(world))
        await releases.serve(rule)
        assert await world.proxy.is_alive()
        await releases.serve(None)
    answers = [line for client in clients for line in client.result()]
    assert len(answers) == 1800
    assert [line for line in answers if not line.endswith(" 200")] == []
    assert not any("1.3" in line or "1.001" in line for line in answers)
    assert deaths


async def _is_dead(world: EnvoyWorld) -> bool:
    return not await world.proxy.is_alive()


async def test_a_method_that_may_change_something_is_copied_where_it_is_named_alone(
    releases: Releases,
) -> None:
    post = ("-X", "POST", "-d", "x")
    await releases.serve(Shadow(share="100%"))
    await asyncio.to_thread(releases.ask, 4, *post)
    await releases.serve(Shadow(share="100%", methods=("POST",), paths=("/3",), timeout="60s"))
    await asyncio.to_thread(releases.ask, 4, *post)
    await asyncio.to_thread(releases.ask, 4)

    async def is_compared() -> bool:
        return (await releases.world.proxy.shadows())[TRIAL].compared == 1

    await eventually(is_compared)
    assert releases.copied == ["/3"]
