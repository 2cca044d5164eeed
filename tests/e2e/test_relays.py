"""Two sites three firewalls below their hub: everything comes up and down through two relays, and nothing else does."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.lan import lan_problem
from skerry.testing.segmented import RELAY_PORT, SegmentedFleet
from skerry.testing.segments import Segments, Wire
from skerry.testing.waiting import eventually_sync
from tests.e2e.conftest import SITE
from tests.e2e.releases import write_release

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(lan_problem() != "", reason=lan_problem()),
]

T = TypeVar("T")
LEVELS = ((), ("l4",), ("l3",), ("a1", "a2", "b1"))
HOSTS = {"a1": "mill", "a2": "mill", "b1": "quarry"}
BALLAST = 3 << 20
PROXY_PORT = 3128


class Plant(SegmentedFleet):
    """The sentences that these tests speak."""

    def build(self) -> None:
        """Begin with the hub, and go down level by level."""
        self.start()
        self.segments.allow(1, self.hub.port)
        self.segments.allow(2, RELAY_PORT, to="l4")
        self.segments.allow(3, RELAY_PORT, to="l3")
        self.add_relay("l4")
        self.add_relay("l3", above=["l4"])
        for site in ("mill", "quarry"):
            self.run("apply", "-f", "-", stdin=SITE.format(name=site, region="north"))
        for host, site in HOSTS.items():
            self.add_agent(site, host, via="l3")
        # Until the relay has heard of a host from the hub, only the hub answers it.
        self.until(lambda: self.relays["l3"].status().get("hosts", {}).keys() >= HOSTS.keys())

    def push(self, version: str, *, seed: int = 1, size: int = BALLAST) -> None:
        """Push a release with some bytes that do not pack."""
        ballast = {"weights.bin": random.Random(seed).randbytes(size)}
        path = write_release(self.folder / "release", version, "well", ballast=ballast)
        self.run("release", "push", str(path))

    def roll_out(self, version: str) -> str:
        """Begin to roll a release out to everybody and return the rollout's name."""
        name = f"to-{version.replace('.', '-')}"
        gate = ("--soak", "300ms", "--deadline", "2m")
        self.run("rollout", "start", f"talker@{version}", "--sites", "*", "--name", name, *gate)
        return name

    def until(self, look: Callable[[], T], *, limit_s: float = 90.0) -> T:
        """Wait until something is the case."""
        return eventually_sync(look, limit_s=limit_s, what=self.explain())

    def explain(self) -> str:
        """Return where to look when it never is."""
        return f"see {self.folder}"

    def until_runs(self, agent: AgentProcess, version: str) -> None:
        """Wait until a host says that it runs a release for good."""

        def runs() -> bool:
            view = agent.application("talker")
            return view.get("phase") == "running" and view.get("release") == f"talker@{version}"

        self.until(runs)

    def until_succeeded(self, rollout: str) -> None:
        """Wait until the hub knows that a rollout has succeeded."""
        self.until(lambda: self.get("rollout", "status", rollout)["state"] == "succeeded")

    def events(self, host: str, kind: str) -> list[dict[str, Any]]:
        """Return a host's events of a kind, the oldest first."""
        listed = self.get("get", "events", "--host", host, "--limit", "1000")
        return [view["event"] for view in reversed(listed) if view["event"]["kind"] == kind]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with (
        Segments(LEVELS, number=11) as segments,
        Plant(tmp_path_factory.mktemp("plant"), segments) as made,
    ):
        made.build()
        yield made


@pytest.mark.rule("RELAY-5")
def test_a_rollout_reaches_hosts_three_levels_down_and_nothing_goes_another_way(plant: Plant) -> None:
    plant.push("1.0.0")
    rollout = plant.roll_out("1.0.0")
    for agent in plant.agents.values():
        plant.until_runs(agent, "1.0.0")
    plant.until_succeeded(rollout)
    for number in (1, 2, 3):
        crossed = plant.segments.crossings(number)
        assert crossed.opened > 0
        assert (crossed.downwards, crossed.past, crossed.other) == (0, 0, 0), f"firewall {number}: {crossed}"
    # Three hosts, two sites, one copy: what each wire carried besides is small.
    for number in (1, 2):
        assert plant.segments.bytes_down(number) < 1.1 * BALLAST + (1 << 20)


def test_the_hub_shows_the_way_a_report_takes(plant: Plant) -> None:
    listed = {view["name"]: view for view in plant.get("get", "relays")}
    assert set(listed) == {"l3", "l4"}
    path = plant.run("explain", "path", "quarry")
    assert path.index("b1") < path.index("l3") < path.index("l4")


@pytest.mark.parametrize("number", (1, 2, 3))
def test_a_link_that_is_cut_in_the_middle_of_a_rollout_and_mended(plant: Plant, number: int) -> None:
    version = f"1.{number}.0"
    plant.push(version, seed=10 + number)
    before = plant.segments.bytes_down(number)
    rollout = plant.roll_out(version)
    somewhere = random.Random(number).randrange(BALLAST // 10, BALLAST)
    plant.until(lambda: plant.segments.bytes_down(number) - before > somewhere)
    plant.segments.cut(number)
    plant.until(lambda: plant.segments.lost(number) > 3)
    plant.segments.heal(number)
    for agent in plant.agents.values():
        plant.until_runs(agent, version)
    plant.until_succeeded(rollout)


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
def test_a_relay_that_is_killed_with_reports_in_its_hands_loses_and_doubles_none(plant: Plant) -> None:
    agent, relay = plant.agents["a1"], plant.relays["l3"]
    count = len(plant.events("a1", "agent.started"))
    plant.segments.cut(2)
    for _ in range(2):
        agent.stop()
        (agent.data / "status.json").unlink()
        agent.start()
        plant.until(lambda: agent.status().get("last_contact"))
        plant.until(lambda: relay.status().get("queue", {}).get("reports", 0) > 0)
        relay.kill()
        relay.start()
    plant.segments.heal(2)
    plant.until(lambda: len(plant.events("a1", "agent.started")) >= count + 2)
    heard = plant.events("a1", "agent.started")
    assert len(heard) == count + 2
    assert [event["at"] for event in heard] == sorted(event["at"] for event in heard)


def test_a_host_that_lost_all_it_had_begins_again_below_a_relay_without_a_link(plant: Plant) -> None:
    agent = plant.agents["b1"]
    version = agent.application("talker")["release"].partition("@")[2]
    agent.stop()
    plant.run("agent", "down", "--data", str(agent.data))
    for folder in ("blobs", "releases", "instances"):
        shutil.rmtree(agent.data / folder)
    for file in (agent.data / "status.json", *agent.data.glob("agent.db*")):
        file.unlink()
    plant.segments.cut(1)
    agent.start()
    plant.until_runs(agent, version)
    plant.segments.heal(1)
    plant.until(
        lambda: plant.events("b1", "release.proven")[-1]["at"] > plant.events("b1", "agent.started")[-1]["at"]
    )


def answers(address: str, port: int) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket() as one:
        return one.connect_ex((address, port)) == 0


@contextmanager
def tinyproxy(segments: Segments, machine: str, folder: Path, port: int) -> Generator[tuple[str, Path]]:
    """Run a real proxy on a machine, which lets through to one port alone; yield its address and its log."""
    config, log = folder / "tinyproxy.conf", folder / "tinyproxy.log"
    config.write_text(
        f"Port {PROXY_PORT}\nListen {segments.address(machine)}\nTimeout 600\nConnectPort {port}\n"
        f'LogFile "{log}"\nLogLevel Connect\n'
    )
    log.touch(mode=0o666)
    process = subprocess.Popen(segments.command(machine, ["tinyproxy", "-d", "-c", str(config)]))
    try:
        eventually_sync(lambda: answers(segments.address(machine), PROXY_PORT), what="tinyproxy")
        yield f"http://{segments.address(machine)}:{PROXY_PORT}", log
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="needs tinyproxy")
@pytest.mark.rule("RELAY-5")
def test_a_rollout_over_a_slow_long_and_lossy_link_that_only_a_proxy_may_cross(tmp_path: Path) -> None:
    satellite = Wire(rate=32_000, delay_s=0.3, loss=0.02, seed=7)
    levels = (("proxy",), ("gate",), ("edge",))
    with (
        Segments(levels, wires={1: satellite}, number=12) as segments,
        Plant(tmp_path, segments) as plant,
    ):
        plant.start()
        segments.allow(1, PROXY_PORT, to="proxy")
        segments.allow(2, RELAY_PORT, to="gate")
        with tinyproxy(segments, "proxy", tmp_path, plant.hub.port) as (proxy, log):
            roll_out_by_satellite(plant, proxy)
        for number in (1, 2):
            crossed = segments.crossings(number)
            assert crossed.opened > 0
            assert (crossed.downwards, crossed.past, crossed.other) == (0, 0, 0), (number, crossed)
        assert f"CONNECT {segments.top}:{plant.hub.port}" in log.read_text()


def roll_out_by_satellite(plant: Plant, proxy: str) -> None:
    """Let a relay that dials by a proxy, and a host below it, join and run a release."""
    plant.add_relay("gate", proxy=proxy)
    plant.run("apply", "-f", "-", stdin=SITE.format(name="mine", region="north"))
    agent = plant.add_agent("mine", "edge", via="gate")
    plant.push("1.0.0", size=50_000)
    rollout = plant.roll_out("1.0.0")
    plant.until_runs(agent, "1.0.0")
    plant.until_succeeded(rollout)
