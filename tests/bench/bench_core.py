"""The price of the core, with real processes of hub, agent and command line: memory, CPU, start, idle bytes.

Rates are per CPU-second of the process that is measured, so they are per core whatever else runs.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.adapters.system_clock import SystemClock
from skerry.agent.identity import load_identity
from skerry.agent.loops.sync import WAIT_S, Syncer
from skerry.carrier.link import HttpLink
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed
from skerry.testing.fleet import SKERRY, AgentProcess
from skerry.trust.tokens import encode_join_token, parse_join_token
from tests.bench.core_micro import micro_figures
from tests.bench.counting_proxy import CountingProxy
from tests.bench.figure import Figure
from tests.bench.process_usage import Memory, memory_of
from tests.bench.sync_load import HOSTS, Measured
from tests.e2e.conftest import TestFleet

ROOT = Path(__file__).resolve().parents[2]
MB = 1e6
SETTLE_S = 10.0
CYCLES = 5
STARTS = 12
DAY_S = 86_400


def figures() -> Iterator[Figure]:
    """Measure the command line, a quiet fleet of one, a hub under load, and the small functions."""
    yield help_figure()
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as folder, TestFleet(Path(folder)) as fleet:
        fleet.start()
        with CountingProxy(fleet.hub.port) as proxy:
            yield from quiet_figures(fleet, proxy)
        yield load_figure(fleet)
    yield from micro_figures()


def help_figure() -> Figure:
    """Measure what a person waits for `skerry --help`."""
    bare_ms = best_ms([sys.executable, "-c", "pass"])
    return Figure("cli_help_ms", best_ms([*SKERRY, "--help"]), "ms", f"bare interpreter {bare_ms:.0f} ms")


def best_ms(command: Sequence[str]) -> float:
    """Return the shortest wall time of a command in several starts."""
    times_s: list[float] = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times_s.append(time.perf_counter() - begun)
    return min(times_s) * 1e3


def quiet_figures(fleet: TestFleet, proxy: CountingProxy) -> Iterator[Figure]:
    """Bring one application to one host, let all settle, and measure both ends and the wire between them."""
    fleet.make_site("harbour")
    agent = add_agent_behind(fleet, proxy, "harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    fleet.until_runs(agent, "1.0.0")
    # The last reports go up, the long-poll begins again, and the reconciler looks some ten times more.
    time.sleep(2.0)
    before = proxy.total_bytes
    time.sleep(SETTLE_S)
    chatter = proxy.total_bytes - before
    idle = "joined, one application runs, long-poll pending"
    yield memory_figure("agent_rss_mb", memory_of(agent.pid), idle)
    yield memory_figure("hub_rss_mb", memory_of(fleet.hub.pid), "one site, one host")
    agent.stop()
    cycle_bytes = asyncio.run(measure_cycle(agent, proxy))
    per_day = cycle_bytes * DAY_S / WAIT_S + chatter * DAY_S / SETTLE_S
    yield Figure(
        "idle_bytes_per_host_day",
        per_day,
        "B",
        f"{DAY_S / WAIT_S:.0f} long-polls a day of {cycle_bytes:.0f} B (TLS and HTTP, both ways), "
        f"{chatter} B between them",
    )


def add_agent_behind(fleet: TestFleet, proxy: CountingProxy, site: str, name: str) -> AgentProcess:
    """Join a host whose way to the hub leads through the proxy, and start its agent."""
    token = parse_join_token(fleet.get("site", "token", site)["token"])
    token = msgspec.structs.replace(token, hub=f"https://127.0.0.1:{proxy.port}")
    agent = AgentProcess(name, fleet.folder / "agents" / name, fleet.env, {})
    fleet.run("agent", "join", "-", "--data", str(agent.data), "--name", name, stdin=encode_join_token(token))
    fleet.agents[name] = agent
    return agent.start()


def memory_figure(name: str, memory: Memory, state: str) -> Figure:
    """Return resident memory as a figure."""
    return Figure(name, memory.rss / MB, "MB", f"{state}; PSS {memory.pss / MB:.1f} MB")


async def measure_cycle(agent: AgentProcess, proxy: CountingProxy) -> float:
    """Return the bytes of one long-poll of an idle host, over its own identity, state and connection.

    The wait is shortened to a second: it adds no bytes.
    """
    identity, status = load_identity(agent.data), agent.status()
    store, _ = SqliteAgentStore.open(agent.data / "agent.db")
    link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
    try:
        syncer = Syncer(identity, store, link, SystemClock())
        syncer.tell(
            msgspec.convert(status["observed"], Observed), msgspec.convert(status["facts"], HostFacts)
        )
        # What the host would say once, and the handshake of the connection that long-polls have to themselves.
        await syncer.exchange(0.0)
        await syncer.exchange(1.0)
        before, connections = proxy.total_bytes, proxy.connections
        for _ in range(CYCLES):
            await syncer.exchange(1.0)
        assert proxy.connections == connections, "the connection was not kept"
        return (proxy.total_bytes - before) / CYCLES
    finally:
        link.close()
        store.close()


def load_figure(fleet: TestFleet) -> Figure:
    """Let many hosts sync at once from another process, and count what the hub answers per CPU-second."""
    fleet.add_site("load")
    token = fleet.get("site", "token", "load", "--uses", str(HOSTS))["token"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.sync_load", str(fleet.folder / "load"), str(fleet.hub.pid)],
        input=token,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
    )
    found = msgspec.json.decode(done.stdout, type=Measured)
    return Figure(
        "sync_requests_per_s_per_core",
        found.requests / found.hub_cpu_s,
        "1/s",
        f"{HOSTS} hosts at once, TLS 1.3, signed, durable; {found.requests / found.wall_s:,.0f}/s by the wall "
        f"clock, p50 {found.p50_ms:.0f} ms, p99 {found.p99_ms:.0f} ms",
    )
