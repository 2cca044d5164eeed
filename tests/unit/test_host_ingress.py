"""What a host puts into force: routes follow what is good and ready, and nothing protected is ever open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from skerry.agent.services.host_service import Turn
from skerry.agent.services.ingress import HostIngress, IngressParts
from skerry.ports.proxy import Certificate, ProxyPorts
from skerry.ports.runtime import InstanceView
from skerry.reconcile.probing import ProbeState
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.spec.application import Component, Port
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.ingress import Route, RouteAuth, RouteRate, RouteView
from skerry.spec.metrics import Rate, Value
from skerry.spec.report import Observed
from skerry.spec.shadow import Shadow
from skerry.telemetry.keeping import Series
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_proxy import MemoryProxy, ProxyRequest
from skerry.testing.waiting import eventually

NAME = "reader.site.internal"
READY, UNREADY = ProbeState(started=True, ready=True, why=""), ProbeState(started=True, why="HTTP 503")
NEW = ProbeState()


def digest(number: int) -> str:
    return "sha256:" + f"{number:x}" * 64


def route(name: str = "main", **options: Any) -> Route:
    return Route(name=name, component="web", port="http", **options)


def fact(number: int, *routes: Route, **options: Any) -> ReleaseFact:
    web = Component(name="web", command=("serve",), ports=(Port(name="http"),))
    return ReleaseFact(f"reader@{number}", digest(number), (web,), ingress=routes or (route(),), **options)


class World:
    """One host: what is known of it can be changed at will."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.proxy = MemoryProxy()
        self.facts: dict[str, ReleaseFact] = {}
        self.records: dict[str, ApplicationRecord] = {}
        self.instances: dict[str, InstanceView] = {}
        self.probes: dict[str, ProbeState] = {}
        self.secrets: dict[str, bytes] = {}
        self.taken: dict[str, str] = {}
        self.certificate: Certificate | None = Certificate(b"c", b"k", b"t")
        self.asked: list[tuple[str, ...]] = []
        self.host_facts: HostFacts = {}
        self.occupied: frozenset[int] = frozenset()
        self.in_memory = True
        self.notes: list[str] = []
        self.measured: list[tuple[Series, Value]] = []
        self.ingress = self.begin()

    def begin(self) -> HostIngress:
        """Start another agent."""

        def certificate(names: Sequence[str]) -> Certificate | None:
            self.asked.append(tuple(names))
            return self.certificate

        return HostIngress(
            IngressParts(
                host="h",
                site="zurich",
                proxy=self.proxy,
                ports=ProxyPorts(),
                in_memory=self.in_memory,
                clock=self.clock,
                fact_of=self.facts.get,
                taken=lambda: self.taken,
                probes=lambda: self.probes,
                token=self.secrets.get,
                domain=lambda: "skerry.internal",
                certificate=certificate,
                lacking=lambda: "the hub has issued none",
                occupied=lambda: self.occupied,
                add=lambda series, value: self.measured.append((series, value)),
                note=self._note,
            )
        )

    def _note(self, kind: str, message: str = "", **_: str) -> None:
        self.notes.append(f"{kind} {message}")

    def release(self, made: ReleaseFact) -> str:
        self.facts[made.digest] = made
        return made.digest

    def run(
        self, made: ReleaseFact, port: int, probe: ProbeState = READY, *, application: str = "reader"
    ) -> str:
        """Have an instance of a release's component run."""
        key = made.instance_id(application, "web")
        labels = {
            "application": application,
            "component": "web",
            "release": made.digest,
            "port.http": str(port),
        }
        self.instances[key] = InstanceView(
            id=key, state="running", labels=labels, started_at=self.clock.now()
        )
        self.probes[key] = probe
        return key

    async def look(self) -> list[RouteView]:
        """Let the host look once, and return how its routes stand."""
        turn = Turn(desired=None, records=self.records, instances=self.instances, facts=self.host_facts)
        await self.ingress.follow(turn)
        return list(self.ingress.show(Observed()).routes)

    async def serve(self) -> list[RouteView]:
        """Let the host look, and bring that into force."""
        await self.ingress.begin()
        views = await self.look()
        async with self.running():
            await eventually(self._is_served)
        return views

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.ingress.run_forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _is_served(self) -> bool | None:
        return self.proxy.table == self.ingress.wanted or None

    def answer(self, path: str = "/", **options: Any) -> tuple[int, str]:
        """Return the status and the backend of who answers a client."""
        found = self.proxy.ask(ProxyRequest(options.pop("name", NAME), path, **options))
        return found.status, found.backend


@pytest.fixture
async def world() -> World:
    one = World()
    await one.ingress.begin()
    return one


def served(number: int, name: str = "main") -> tuple[int, str]:
    return 200, f"reader/{name}/{digest(number)[7:19]}"


async def test_a_route_leads_to_the_good_release_while_another_is_on_trial_beside_it(world: World) -> None:
    old, new = fact(1), fact(2)
    world.records["reader"] = ApplicationRecord(
        "reader", good=world.release(old), candidate=world.release(new)
    )
    world.run(old, 4001)
    world.run(new, 4002)
    (view,) = await world.serve()
    assert (view.state, view.release, view.backend) == ("serving", "reader@1", "127.0.0.1:4001")
    assert world.answer() == served(1)
    # Both are there for the proxy, so that what is under way may finish on either side of the switch.
    assert world.proxy.table is not None
    assert {one.port for one in world.proxy.table.backends} == {4001, 4002}
    world.records["reader"] = ApplicationRecord("reader", good=new.digest, previous=old.digest)
    await world.serve()
    assert world.answer() == served(2)


async def test_where_the_good_release_was_ended_first_the_one_on_trial_answers(world: World) -> None:
    old, new = fact(1), fact(2)
    world.records["reader"] = ApplicationRecord(
        "reader", good=world.release(old), candidate=world.release(new)
    )
    key = world.run(new, 4002, UNREADY)
    (view,) = await world.serve()
    assert (view.state, world.answer()) == ("waiting", (503, ""))
    world.probes[key] = READY
    await world.serve()
    assert world.answer() == served(2)


async def test_a_component_that_is_not_ready_gets_no_requests(world: World) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.clock.advance(10)
    key = world.run(made, 4001, NEW)
    (view,) = await world.serve()
    assert (view.state, view.why) == ("waiting", "web of reader@1 is not ready")
    assert world.answer() == (503, "")
    world.probes[key] = READY
    assert [one.state for one in await world.serve()] == ["serving"]
    world.probes[key] = UNREADY
    await world.serve()
    assert world.answer() == (503, "")


@pytest.mark.rule("INGRESS-5")
async def test_a_new_agent_takes_nothing_from_its_routes_before_it_was_probed(world: World) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    key = world.run(made, 4001)
    await world.serve()
    world.clock.advance(60)
    world.ingress = world.begin()
    world.probes[key] = NEW
    await world.serve()
    assert world.answer() == served(1)
    world.probes[key] = UNREADY
    await world.serve()
    assert world.answer() == (503, "")


async def test_of_a_family_the_release_whose_models_were_taken_answers(world: World) -> None:
    old, new = (fact(number, family="sha256:" + "f" * 64, hot=True) for number in (1, 2))
    world.records["reader"] = ApplicationRecord(
        "reader", good=world.release(new), previous=world.release(old)
    )
    world.run(old, 4001)
    world.taken[old.kin] = new.digest
    (view,) = await world.serve()
    assert (view.release, world.answer()) == ("reader@2", served(2))


@pytest.mark.rule("INGRESS-2")
@pytest.mark.parametrize("value", (b"", b"\n", b"two words", "schlüssel".encode()))
async def test_a_route_whose_token_has_no_good_value_is_not_open(world: World, value: bytes) -> None:
    made = fact(1, route(auth=RouteAuth(token="key")))
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    world.secrets["key"] = value
    (view,) = await world.serve()
    assert view.state == "waiting"
    assert "secret key" in view.why
    assert world.answer()[0] == 0
    world.secrets["key"] = b"s3cret\n"
    await world.serve()
    assert (world.answer()[0], world.answer(token="s3cret")) == (401, served(1))


@pytest.mark.rule("INGRESS-3")
async def test_without_a_file_system_in_memory_no_token_is_told_to_the_proxy(world: World) -> None:
    made = fact(1, route(auth=RouteAuth(token="key")))
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    world.secrets["key"] = b"s3cret"
    world.in_memory = False
    world.ingress = world.begin()
    (view,) = await world.serve()
    assert "in memory" in view.why
    assert not any(entry.token for table in world.proxy.served for entry in table.entries)


@pytest.mark.rule("INGRESS-2")
async def test_a_route_for_tls_waits_for_the_certificate_and_is_nowhere_without_it(world: World) -> None:
    made = fact(1, route(), route("plain", tls="plain", path="/p"))
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    world.certificate = None
    assert [view.state for view in await world.serve()] == ["waiting", "serving"]
    assert world.asked[-1] == (NAME, "reader.zurich.skerry.internal")
    assert (world.answer(tls=False)[0], world.answer(tls=False, path="/p")[0], world.answer()[0]) == (
        404,
        200,
        0,
    )


@pytest.mark.rule("INGRESS-4")
async def test_a_route_never_takes_the_place_of_another_and_says_whose_it_is(world: World) -> None:
    for name, number in (("alpha", 1), ("beta", 2)):
        made = fact(number, route(host="shared"))
        world.records[name] = ApplicationRecord(name, good=world.release(made))
        world.run(made, 4000 + number, application=name)
    views = await world.serve()
    assert [view.state for view in views] == ["serving", "refused"]
    assert "belongs to route main of alpha" in views[1].why
    assert world.answer(name="shared.site.internal") == (200, f"alpha/main/{digest(1)[7:19]}")
    assert [note for note in world.notes if note.startswith("route.refused")] == [
        f"route.refused main: {views[1].why}"
    ]
    await world.serve()
    assert sum(note.startswith("route.refused") for note in world.notes) == 1


@pytest.mark.rule("INGRESS-4")
async def test_a_name_that_the_certificate_may_not_have_keeps_no_other_from_its_own(world: World) -> None:
    made = fact(1, route(), route("far", host="www.example.org"))
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    assert [view.state for view in await world.serve()] == ["serving", "refused"]
    assert all("www.example.org" not in names for names in world.asked)


async def test_a_port_of_another_program_is_left_to_it_and_its_own_is_not_taken_for_another(
    world: World,
) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    world.occupied = frozenset({22, 443, 4001})
    assert world.ingress.facts()["ports.taken"].value == ("22", "443", "4001")
    world.host_facts = {"ports.taken": Fact(value=("443",), source="")}
    (view,) = await world.serve()
    assert view.why == "port 443 of host h is taken by another program"
    world.host_facts = {}
    await world.serve()
    assert world.ingress.facts()["ports.taken"].value == ("22",)
    # The next agent knows what the proxy of this one listens on.
    world.ingress = world.begin()
    await world.serve()
    assert world.ingress.facts()["ports.taken"].value == ("22",)


@pytest.mark.rule("INGRESS-5")
async def test_a_proxy_that_died_comes_back_with_the_same_routes(world: World) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    await world.serve()
    async with world.running():
        world.proxy.kill()
        await world.clock.elapse(1.5)
        await eventually(_is(lambda: world.answer()[0] == 200))
    assert "ingress.restarted the proxy had ended, and is started again" in world.notes


async def test_a_proxy_that_takes_nothing_is_told_once_and_tried_again(world: World) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    world.proxy.fails = "it is ill"
    await world.look()
    async with world.running():
        await world.clock.elapse(5)
        (view,) = world.ingress.show(Observed()).routes
        assert (view.state, view.why) == ("waiting", "it is ill")
        world.proxy.fails = ""
        await world.clock.elapse(1.5)
        await eventually(_is(lambda: world.answer()[0] == 200))
    assert [note.split()[0] for note in world.notes] == ["ingress.trouble", "ingress.restored"]


async def test_without_a_proxy_program_routes_are_refused_and_the_host_says_so_in_its_facts() -> None:
    world = World()
    world.proxy.program = ""
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    (view,) = await world.serve()
    assert (view.state, "no proxy" in view.why) == ("refused", True)
    assert "ingress" not in world.ingress.facts()


SHADOW = Shadow(share="25%")


def on_trial(world: World, *, live: Route, trial: Route, **options: Any) -> str:
    """Have one release answer, and another run beside it that wants copies; return the instance of the second."""
    old, new = fact(1, live), fact(2, trial, update="shadow", **options)
    world.records["reader"] = ApplicationRecord(
        "reader", good=world.release(old), candidate=world.release(new)
    )
    world.run(old, 4001)
    return world.run(new, 4002)


@pytest.mark.rule("INGRESS-7")
async def test_a_release_on_trial_gets_copies_while_it_is_ready_and_answers_nobody(world: World) -> None:
    key = on_trial(world, live=route(), trial=route(shadow=SHADOW))
    (view,) = await world.serve()
    assert (view.state, view.release) == ("serving", "reader@1")
    assert view.why == "25% of requests are copied to reader@2"
    assert {world.answer() for _ in range(8)} == {served(1)}
    ((backend, counts),) = (await world.proxy.shadows()).items()
    assert (backend, counts.requests) == (served(2)[1], 2)
    world.probes[key] = UNREADY
    (view,) = await world.serve()
    assert (view.why, {world.answer() for _ in range(8)}) == ("", {served(1)})
    # Proven, it answers, and nothing is copied any more.
    world.probes[key] = READY
    world.records["reader"] = ApplicationRecord("reader", good=digest(2), previous=digest(1))
    await world.serve()
    assert (world.answer(), world.proxy.table and world.proxy.table.entries[0].shadow) == (served(2), None)


@pytest.mark.parametrize(
    ("live", "trial"),
    (
        (route(), route()),
        (route(path="/a"), route(path="/b", shadow=SHADOW)),
        (route(rate=RouteRate(requests=1)), route(shadow=SHADOW)),
        (route(protocol="grpc"), route(shadow=SHADOW)),
    ),
)
async def test_what_two_releases_do_not_have_alike_is_not_copied(
    world: World, live: Route, trial: Route
) -> None:
    on_trial(world, live=live, trial=trial)
    await world.serve()
    assert world.proxy.table is not None
    assert [entry.shadow for entry in world.proxy.table.entries] == [None]


async def test_a_release_that_wants_no_copies_gets_none_though_its_route_says_how(world: World) -> None:
    on_trial(world, live=route(shadow=SHADOW), trial=route())
    await world.serve()
    assert world.proxy.table is not None
    assert [entry.shadow for entry in world.proxy.table.entries] == [None]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_trial_is_measured_by_what_its_answers_differed_in(world: World) -> None:
    on_trial(world, live=route(), trial=route(shadow=Shadow(share="100%")))
    await world.serve()
    async with world.running():
        await world.clock.elapse(1)
        for _ in range(8):
            world.answer()
        await world.clock.elapse(12)

        async def is_measured() -> bool:
            return any(s.metric == "shadow_disagreement" for s, _ in world.measured)

        await eventually(is_measured)
    found = {(s.release, s.metric): v for s, v in world.measured}
    assert found["reader@2", "shadow_disagreement"] == Rate(bad=8, total=8)
    # Clients were answered by the live release, also where their requests were copied.
    assert found["reader@1", "ingress_errors"] == Rate(bad=0, total=8)
    assert ("reader@2", "ingress_errors") not in found


async def test_counters_are_read_at_their_own_pace_and_what_an_agent_finds_is_not_its_own(
    world: World,
) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    await world.serve()
    for _ in range(5):
        world.answer()
    # Another agent: what it finds counted, the one before it has told, or nobody has.
    world.ingress = world.begin()
    await world.ingress.begin()
    await world.look()
    async with world.running():
        await world.clock.elapse(1)
        for _ in range(3):
            world.answer()
        await world.clock.elapse(12)
        world.answer()
    totals = [v.total for s, v in world.measured if s.metric == "ingress_errors" and isinstance(v, Rate)]
    assert totals == [3]
    assert {series.component for series, _ in world.measured} == {"web"}


async def test_a_proxy_that_does_not_tell_its_counts_serves_on_and_they_are_read_later(world: World) -> None:
    made = fact(1)
    world.records["reader"] = ApplicationRecord("reader", good=world.release(made))
    world.run(made, 4001)
    await world.look()
    async with world.running():
        await world.clock.elapse(1)
        world.proxy.dumb = True
        world.answer()
        await world.clock.elapse(12)
        (view,) = world.ingress.show(Observed()).routes
        assert (view.state, world.measured, world.notes) == ("serving", [], [])
        world.proxy.dumb = False
        await world.clock.elapse(12)
    assert [v for s, v in world.measured if s.metric == "ingress_errors"] == [Rate(bad=0, total=1)]


def _is(true: Callable[[], bool]) -> Callable[[], Any]:
    async def look() -> bool | None:
        return true() or None

    return look
