"""What every Proxy promises, asked of each adapter with the same questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.envoy_proxy import find_program
from skerry.kit.errors import Unavailable
from skerry.ports.proxy import SHADOWED, Backend, Entry, ProxyTable, Shadowing
from skerry.spec.ingress import MutualTls, Route, RouteAuth
from skerry.spec.shadow import Shadow
from skerry.testing.memory_proxy import ProxyAnswer, ProxyRequest
from skerry.testing.waiting import eventually
from tests.contract.proxy_world import EnvoyWorld, MemoryWorld, ProxyWorld

READER, PRESS = "reader.site.internal", "press.site.internal"
GATE = "spiffe://skerry.internal/site/zurich/app/gate"


@pytest.fixture(params=["memory", pytest.param("envoy", marks=pytest.mark.envoy)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProxyWorld]:
    if request.param == "envoy" and find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    one: ProxyWorld = MemoryWorld() if request.param == "memory" else EnvoyWorld(tmp_path)
    try:
        yield one
    finally:
        await one.close()


def route(name: str = "main", **options: Any) -> Route:
    return Route(name=name, component="web", port="http", **options)


def entry(made: Route, backend: Backend | None, *, name: str = READER, token: bytes = b"") -> Entry:
    return Entry("reader", made, (name,), backend.id if backend else "", token)


async def serve(world: ProxyWorld, *entries: Entry, backends: tuple[Backend, ...]) -> None:
    await world.proxy.serve(ProxyTable(world.ports, "skerry.internal", entries, backends, world.certificate))


async def ask(world: ProxyWorld, path: str = "/", **options: Any) -> ProxyAnswer:
    return await asyncio.to_thread(world.ask, ProxyRequest(options.pop("name", READER), path, **options))


async def test_the_longest_path_of_a_name_answers(world: ProxyWorld) -> None:
    one, two = world.backend("a/main/1"), world.backend("a/deep/1")
    await serve(world, entry(route(), one), entry(route("deep", path="/a/b"), two), backends=(one, two))
    asked = {path: (await ask(world, path)).backend for path in ("/", "/a", "/a/b", "/a/b/c", "/a/bc")}
    assert asked == {"/": one.id, "/a": one.id, "/a/b": two.id, "/a/b/c": two.id, "/a/bc": one.id}


@pytest.mark.rule("INGRESS-1")
async def test_what_no_entry_names_is_not_answered_and_not_listened_on(world: ProxyWorld) -> None:
    one = world.backend("a/main/1")
    await serve(world, entry(route(path="/only"), one), backends=(one,))
    assert (await ask(world, "/only")).status == 200
    assert (await ask(world, "/other")).status == 404
    assert (await ask(world, "/only", name=PRESS)).status == 404
    assert (await ask(world, "/only", tls=False)).status == 0
    assert await world.proxy.listening() == {world.ports.https}
    await serve(world, backends=())
    assert (await ask(world, "/only")).status == 0
    assert not await world.proxy.is_alive()


async def test_a_route_that_nobody_answers_for_says_so(world: ProxyWorld) -> None:
    await serve(world, entry(route(tls="plain"), None), backends=())
    assert (await ask(world, tls=False)).status == 503


@pytest.mark.rule("INGRESS-2")
async def test_only_who_shows_the_token_gets_through(world: ProxyWorld) -> None:
    one = world.backend("a/main/1")
    locked = route("locked", path="/locked", auth=RouteAuth(token="key"))
    entries = entry(route(), one), entry(locked, one, token=b"s3cret")
    await serve(world, *entries, backends=(one,))
    assert (await ask(world, "/locked")).status == 401
    assert (await ask(world, "/locked", token="wrong")).status == 401
    assert (await ask(world, "/locked", token="s3cret")).status == 200
    assert (await ask(world, "/open")).status == 200
    # Without a value nobody is let in, whatever he shows.
    await serve(world, entry(locked, one), backends=(one,))
    assert (await ask(world, "/locked", token="s3cret")).status == 401
    assert (await ask(world, "/locked")).status == 401


@pytest.mark.rule("INGRESS-2")
async def test_only_clients_that_a_route_names_get_through_with_their_certificate(world: ProxyWorld) -> None:
    one = world.backend("a/main/1")
    by_id = route("id", path="/id", auth=RouteAuth(mtls=MutualTls(ids=(GATE,))))
    by_site = route("site", path="/site", auth=RouteAuth(mtls=MutualTls(sites=("zurich",))))
    await serve(world, entry(by_id, one), entry(by_site, one), entry(route(), one), backends=(one,))
    other, elsewhere = f"{GATE}2", GATE.replace("zurich", "zurich2")
    for path, allowed in (("/id", {GATE}), ("/site", {GATE, other})):
        for client in ("", GATE, other, elsewhere):
            answer = await ask(world, path, client=client)
            assert (answer.status == 200) == (client in allowed), (path, client)
    assert (await ask(world, "/")).status == 200


async def test_a_body_that_is_too_long_is_refused(world: ProxyWorld) -> None:
    one = world.backend("a/main/1")
    await serve(world, entry(route(max_body="1KiB"), one), backends=(one,))
    assert (await ask(world, body=b"x" * 1024)).status == 200
    assert (await ask(world, body=b"x" * 1025)).status == 413


async def test_a_switch_leads_what_comes_anew_to_the_new_backend(world: ProxyWorld) -> None:
    old, new = world.backend("a/main/1"), world.backend("a/main/2")
    await serve(world, entry(route(), old), backends=(old, new))
    assert (await ask(world)).backend == old.id
    await serve(world, entry(route(), new), backends=(old, new))
    assert (await ask(world)).backend == new.id
    await serve(world, entry(route(), new), backends=(new,))
    assert (await ask(world)).backend == new.id


@pytest.mark.rule("INGRESS-5")
async def test_a_proxy_that_was_killed_answers_as_before_when_served_again(world: ProxyWorld) -> None:
    one = world.backend("a/main/1")
    await serve(world, entry(route(), one), backends=(one,))
    await world.kill()
    await eventually(lambda: _is_dead(world))
    assert (await ask(world)).status == 0
    await serve(world, entry(route(), one), backends=(one,))
    assert (await ask(world)).backend == one.id


@pytest.mark.rule("INGRESS-5")
async def test_a_new_caller_finds_the_proxy_at_work(world: ProxyWorld) -> None:
    one, two = world.backend("a/main/1"), world.backend("a/main/2")
    await serve(world, entry(route(), one), backends=(one,))
    world.proxy = world.again()
    assert await world.proxy.is_alive()
    assert (await ask(world)).backend == one.id
    assert await world.proxy.listening() == {world.ports.https}
    await serve(world, entry(route(), two), backends=(one, two))
    assert (await ask(world)).backend == two.id


async def test_requests_are_counted_by_backend(world: ProxyWorld) -> None:
    one, two = world.backend("a/main/1"), world.backend("a/deep/1")
    await serve(world, entry(route(), one), entry(route("deep", path="/deep"), two), backends=(one, two))
    for path in ("/", "/", "/deep", "/x"):
        await ask(world, path)
    await eventually(lambda: _counted(world, {one.id: 3, two.id: 1}))
    first = await world.proxy.counts()
    await ask(world)
    await eventually(lambda: _counted(world, {one.id: 4, two.id: 1}))
    assert {counts.run for counts in first.values()} == {c.run for c in (await world.proxy.counts()).values()}


@pytest.mark.rule("INGRESS-7")
async def test_clients_get_the_live_answer_while_another_release_gets_copies(world: ProxyWorld) -> None:
    live, other = world.backend("a/main/1"), world.backend("a/main/2")
    copied = msgspec.structs.replace(
        entry(route(), live), shadow=Shadowing(other.id, Shadow(share="100%", timeout="60s"))
    )
    await serve(world, copied, backends=(live, other))
    for _ in range(20):
        assert (await ask(world)).backend == live.id
    # A body makes it a POST, which is copied only where it is named.
    assert (await ask(world, body=b"x")).backend == live.id
    await eventually(lambda: _compared(world, other.id, 20))
    found = (await world.proxy.shadows())[other.id]
    assert (found.requests, found.differing, found.errors, found.uncompared) == (20, 20, 0, 0)
    assert found.beside == live.id
    await eventually(lambda: _counted(world, {f"{live.id}{SHADOWED}": 20, live.id: 1}))
    # Nothing is copied any more once the entry does not say so.
    await serve(world, entry(route(), live), backends=(live, other))
    assert (await ask(world)).backend == live.id
    assert (await world.proxy.shadows())[other.id].requests == 20


async def test_who_comes_without_tls_is_led_to_where_it_is_with_it(world: ProxyWorld) -> None:
    one = world.backend("a/main/1")
    locked = route("locked", path="/locked", redirect=True, auth=RouteAuth(token="key"))
    await serve(world, entry(locked, one, token=b"s3cret"), entry(route(), one), backends=(one,))
    assert await world.proxy.listening() == {world.ports.https, world.ports.http}
    assert (await ask(world, "/locked", tls=False)).status == 308
    assert (await ask(world, "/locked", token="s3cret")).status == 200
    # Others of the same name stay where they are.
    assert (await ask(world, "/", tls=False)).status == 404


@pytest.mark.envoy
@pytest.mark.rule("INGRESS-3")
async def test_a_token_is_never_told_to_a_proxy_that_would_write_it_to_a_disk(tmp_path: Path) -> None:
    from skerry.adapters.envoy_proxy import EnvoyProxy
    from skerry.adapters.process_runtime import ProcessRuntime
    from skerry.adapters.system_clock import SystemClock

    proxy = EnvoyProxy(tmp_path / "run", ProcessRuntime(tmp_path / "i"), SystemClock(), in_memory=False)
    world = MemoryWorld()
    locked = entry(route(auth=RouteAuth(token="key")), None, token=b"s3cret")
    with pytest.raises(Unavailable, match="in memory"):
        await proxy.serve(ProxyTable(world.ports, "skerry.internal", (locked,), (), world.certificate))
    assert b"s3cret" not in await asyncio.to_thread(_everything, tmp_path)


async def _is_dead(world: ProxyWorld) -> bool | None:
    return not await world.proxy.is_alive() or None


async def _counted(world: ProxyWorld, wanted: dict[str, int]) -> bool | None:
    counts = await world.proxy.counts()
    return {key: one.requests for key, one in counts.items() if one.requests} == wanted or None


async def _compared(world: ProxyWorld, backend: str, wanted: int) -> bool | None:
    found = (await world.proxy.shadows()).get(backend)
    return (found is not None and found.compared == wanted) or None


def _everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
