"""What hosts measured decides a wave on the hub: agents' own measurements, told to a hub over the carrier API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from skerry.agent.identity import Identity, Place
from skerry.agent.loops.sync import Syncer
from skerry.agent.measurements import Measurements
from skerry.carrier.app import carrier_app
from skerry.carrier.hub_trust import HubTrust
from skerry.kit.errors import Unavailable
from skerry.ports.hub_store import JoinTokenRecord
from skerry.spec.carrier import EnrollRequest, SyncAnswer, SyncRequest
from skerry.spec.metrics import Rate
from skerry.spec.report import REPORT_TYPE, ApplicationView, Observed, Report
from skerry.telemetry.keeping import Series
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey, new_sealing_key
from skerry.trust.tokens import hash_secret
from tests.unit.test_hub_policies import Guarded
from tests.unit.test_hub_preview import host_facts
from tests.unit.test_hub_steering import GATE, rollout
from tests.unit.upstream import ScriptedLink

pytestmark = pytest.mark.rollout

SITES = ("basel", "bern", "chur", "thun")
OLD, NEW = "camera@1", "camera@2"


class WireLink(ScriptedLink):
    """A link whose requests and answers cross the carrier app as bytes. Some answers are lost on their way."""

    def __init__(self, world: Guarded) -> None:
        super().__init__(lambda request, newest: SyncAnswer(acknowledged=0))
        transport = httpx2.ASGITransport(carrier_app(world.hub.backend))
        self.client = httpx2.AsyncClient(transport=transport, base_url="https://hub")
        self.loop = asyncio.get_running_loop()
        self.to_lose = 0

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Hand a request up; in a thread, as agents do."""
        asked = self.client.post("/v1/sync", content=msgspec.json.encode(request))
        answer = asyncio.run_coroutine_threadsafe(asked, self.loop).result(30)
        assert answer.status_code == 200, answer.text
        if request.metrics is not None and self.to_lose:
            self.to_lose -= 1
            raise Unavailable("link.cut", "the answer did not arrive")
        return msgspec.json.decode(answer.content, type=SyncAnswer)


class Host:
    """The part of an agent that talks to the hub, and an application that does as the hub wants."""

    def __init__(self, world: Guarded, name: str, folder: Path) -> None:
        self.world, self.name = world, name
        self.key, self.link = SigningKey.generate(), WireLink(world)
        root = world.hub.keys.trust_root
        place = Place(host=f"{name}-host", site=name, upstream="https://hub", root="sha256:" + "0" * 64)
        identity = Identity(place, self.key, root, HubTrust(root.root_bytes, folder / name))
        store = MemoryAgentStore()
        self.syncer = Syncer(identity, store, self.link, world.clock)
        self.measurements = Measurements(store, self.syncer.now)
        self.runs = ""
        self.joined = False

    async def join(self) -> None:
        now, store = self.world.clock.now(), self.world.hub.store
        token = JoinTokenRecord(
            hash=hash_secret(self.name), site=self.name, created_at=now,
            expires_at=now + timedelta(hours=1), uses_left=1,
        )  # fmt: skip
        store.add_join_token(token, self.world.audit())
        report = Report(host=f"{self.name}-host", site=self.name, sequence=1, sent_at=now, clock=now)
        request = EnrollRequest(
            secret=self.name, host=f"{self.name}-host", sign_key=self.key.public,
            seal_key=new_sealing_key()[1], proof=sign_document(report, REPORT_TYPE, self.key),
        )  # fmt: skip
        await self.world.hub.backend.enroll(request)
        self.joined = True

    async def follow(self) -> None:
        """Learn what is wanted, run it for good, and say so."""
        if not self.joined:
            return
        await self.syncer.exchange(0.0)
        if self.syncer.desired is None:
            return
        (assignment,) = self.syncer.desired.hosts[f"{self.name}-host"] or (None,)
        self.runs = assignment.release if assignment else ""
        view = ApplicationView(phase="running", release=self.runs)
        observed = Observed(generation=self.syncer.desired.generation, applications={"camera": view})
        self.syncer.tell(observed, host_facts())
        await self.syncer.exchange(0.0)

    def measure(self, share: float) -> None:
        """Answer a thousand requests, some of them badly."""
        series = Series("camera", self.runs, "main", "errors")
        self.measurements.add(series, Rate(bad=int(share * 1000), total=1000))

    async def tell(self) -> None:
        """Tell all that was measured; what was cut off is told again."""
        await asyncio.to_thread(self.measurements.flush)
        more = True
        while more:
            try:
                more = await self.syncer.tell_metrics(self.measurements)
            except Unavailable:
                more = True


class Wired(Guarded):
    """A hub with four sites whose hosts are real on their side of the wire."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in SITES:
            self.site(name, labels={"wired": "yes"})
        self.agents = {name: Host(self, name, folder / "agents") for name in SITES}

    async def begin(self) -> None:
        for agent in self.agents.values():
            await agent.join()
        for version in ("1", "2"):
            await self.attach(version=version)
        await self.start("first", "1", {"size": "100%"})
        await self.pass_minutes(2)
        assert self.rollout("first").state == "succeeded"

    async def start(self, name: str, version: str, *waves: dict[str, Any], **spec: Any) -> None:
        await self.applied("operator", rollout(name, version, *waves, sites="wired=yes", **spec))
        await self.look()

    async def look(self) -> None:
        """Let the hub decide, hosts follow, and the hub see that they did."""
        await self.step()
        for agent in self.agents.values():
            await agent.follow()
        await self.step()

    async def pass_minutes(self, minutes: int, *, new: float = 0.01) -> None:
        """Let hosts serve, a hundredth of it badly on the old release, and tell of it once at the end."""
        for _ in range(minutes):
            for agent in self.agents.values():
                if agent.runs:
                    agent.measure(new if agent.runs == NEW else 0.01)
            self.clock.advance(60.0)
        for agent in self.agents.values():
            await agent.tell()
        await self.look()

    def running(self) -> list[str]:
        return sorted(agent.runs for agent in self.agents.values())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Wired]:
    made = Wired(tmp_path)
    await made.begin()
    yield made
    for agent in made.agents.values():
        await agent.link.client.aclose()
    made.hub.store.close()


async def test_a_release_that_hosts_measured_to_be_worse_fails_at_the_canary_and_goes_back(
    world: Wired,
) -> None:
    await world.pass_minutes(20)
    await world.start("spring", "2", {"size": "1"}, {"size": "100%"}, gates=[GATE])
    assert world.running() == [OLD, OLD, OLD, NEW]
    (canary,) = (agent for agent in world.agents.values() if agent.runs == NEW)
    assert canary.syncer.desired is not None
    (told,) = canary.syncer.desired.hosts[f"{canary.name}-host"]
    assert [gate.metric for gate in told.gates] == ["errors"], "the host judges as well"
    canary.link.to_lose = 2
    await world.pass_minutes(20, new=0.3)
    assert canary.link.to_lose == 0
    halt = world.rollout("spring").steering.halt
    assert halt is not None and halt.then == "rollback"
    assert halt.why.startswith("a gate failed in wave-1: ")
    assert "30" in halt.why, "what was told twice counts once, so the share is the one that was measured"
    await world.look()
    assert world.rollout("spring").state == "failed"
    assert world.running() == [OLD] * 4
    decisions = world.hub.store.decisions("spring", limit=99)
    offered = [name for one in decisions for e in one.effects if e.release == NEW for name in e.named]
    assert offered == [canary.name], "nobody else was offered it"


async def test_a_release_that_hosts_measured_to_be_as_good_goes_on_to_the_next_wave(world: Wired) -> None:
    await world.pass_minutes(20)
    await world.start("spring", "2", {"size": "1"}, {"size": "100%"}, gates=[GATE])
    assert world.running().count(NEW) == 1
    assert world.rollout("spring").steering.waves[0].state == "soaking", "nothing was measured of it yet"
    await world.pass_minutes(20)
    assert world.rollout("spring").steering.waves[0].state == "passed"
    await world.pass_minutes(20)
    assert world.running() == [NEW] * 4
    assert world.rollout("spring").state == "succeeded"
