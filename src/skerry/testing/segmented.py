"""A fleet in a segmented network: real relays and agents on their levels, each dialling the level above alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skerry.testing.fleet import READY_S, AgentProcess, CommandFailed, Fleet, HubProcess, Process
from skerry.testing.segments import Segments

RELAY_PORT = 8443
RELAY = """
apiVersion: skerry/v1
kind: Relay
metadata: {{name: {name}, labels: {{zone: {name}}}}}
spec: {{upstreams: [{upstreams}], addresses: ["{address}"], cache: {cache}, queue: {queue}}}
"""


class RelayProcess(Process):
    """A real relay with its own data directory; it keeps its port over restarts."""

    def __init__(
        self, name: str, folder: Path, env: Mapping[str, str], address: str, *, prefix: Sequence[str] = ()
    ) -> None:
        super().__init__(name, folder, env, prefix=prefix)
        self.data = folder / "data"
        self.address = address

    def start(self) -> RelayProcess:
        """Start the relay and return when it serves."""
        process = self.launch(["relay", "serve", "--data", str(self.data), "--listen", self.address])
        watchdog = threading.Timer(READY_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("relay ready"):
                    return self
        finally:
            watchdog.cancel()
        raise CommandFailed(f"relay {self.name} did not start:\n{self.log.read_text()[-4000:]}")

    def status(self) -> dict[str, Any]:
        """Return what the relay itself says, without any hub."""
        try:
            found: dict[str, Any] = json.loads((self.data / "status.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found


class SegmentedFleet(Fleet):
    """A hub on this machine, at the top of a segmented network, with relays and agents on its machines."""

    def __init__(self, folder: Path, segments: Segments) -> None:
        super().__init__(folder)
        self.segments = segments
        self.hub = HubProcess(folder / "hub", self.env, segments.top)
        self.relays: dict[str, RelayProcess] = {}

    def add_relay(
        self,
        name: str,
        *,
        above: Sequence[str] = (),
        cache: str = "1GiB",
        queue: str = "64MiB",
        proxy: str = "",
    ) -> RelayProcess:
        """Write a relay down, let it join from its machine, through its firewall, and start it.

        With a `proxy` it dials by that.
        """
        address = f"{self.segments.address(name)}:{RELAY_PORT}"
        document = RELAY.format(
            name=name, address=address, upstreams=", ".join(above), cache=cache, queue=queue
        )
        self.run("apply", "-f", "-", stdin=document)
        prefix = self.segments.command(name, [])
        relay = RelayProcess(name, self.folder / "relays" / name, self.env, address, prefix=prefix)
        token = self.get("relay", "token", name)["token"]
        way = ("--proxy", proxy) if proxy else ()
        self.run("relay", "join", "-", "--data", str(relay.data), *way, stdin=token, prefix=prefix)
        self.relays[name] = relay
        return relay.start()

    def add_agent(
        self, site: str, name: str, facts: Mapping[str, str] | None = None, *, via: str = ""
    ) -> AgentProcess:
        """Join a host to a site from its machine, through a relay, and start its agent."""
        prefix = self.segments.command(name, [])
        agent = AgentProcess(name, self.folder / "agents" / name, self.env, facts or {}, prefix=prefix)
        token = self.get("site", "token", site, *(("--via", via) if via else ()))["token"]
        joining = ("agent", "join", "-", "--data", str(agent.data), "--name", name)
        self.run(*joining, stdin=token, prefix=prefix)
        self.agents[name] = agent
        return agent.start()

    def close(self) -> None:
        """End agents, relays and hub."""
        for relay in self.relays.values():
            relay.stop()
        super().close()
