"""A fleet with relays on this machine: every process is real, and what lies between them are ports of the loopback."""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from skerry.agent.commands import join_site
from skerry.agent.identity import Identity, load_identity
from skerry.client.client import Client
from skerry.client.profile import load_profile, profile_path
from skerry.spec.api import HostView
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.relay import RelayState
from skerry.spec.report import Event
from skerry.testing.fleet import AgentProcess, Process, free_port
from skerry.testing.segmented import RELAY, RelayProcess
from skerry.trust.tokens import encode_join_token, parse_join_token
from tests.e2e.conftest import TestFleet

_named = re.compile(r"^timestamp=\S+ level=\S+ event=(\S+)", re.MULTILINE)


class RelayFleet(TestFleet):
    """A fleet whose hosts stand behind relays, each of which dials the hub or what a test puts before it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.relays: dict[str, RelayProcess] = {}

    def add_relay(
        self, name: str, *, above: str = "", upstreams: str = "", data: Path | None = None
    ) -> RelayProcess:
        """Write a relay down, let it join and start it.

        `above` is what it dials in the place of the hub, `upstreams` what its document says of that, and `data` its
        data directory if that is to be elsewhere.
        """
        address = f"127.0.0.1:{free_port()}"
        document = RELAY.format(name=name, upstreams=upstreams, address=address, cache="1GiB", queue="64MiB")
        self.run("apply", "-f", "-", stdin=document)
        relay = RelayProcess(name, self.folder / "relays" / name, self.env, address)
        relay.data = data or relay.data
        token = parse_join_token(self.get("relay", "token", name)["token"])
        token = msgspec.structs.replace(token, hub=above or token.hub)
        self.run("relay", "join", "-", "--data", str(relay.data), stdin=encode_join_token(token))
        self.relays[name] = relay
        return relay.start()

    def add_agent_by(self, site: str, name: str, upstreams: Sequence[str]) -> AgentProcess:
        """Join a host to a site by some upstreams, in the order of preference, and start its agent."""
        agent = AgentProcess(name, self.folder / "agents" / name, self.env, {})
        options = [option for url in upstreams for option in ("--upstream", url)]
        joining = ("agent", "join", "-", "--data", str(agent.data), "--name", name, *options)
        self.run(*joining, stdin=self.get("site", "token", site)["token"])
        self.agents[name] = agent
        return agent.start()

    def join_host(self, site: str, name: str, relay: RelayProcess) -> Identity:
        """Join a host to a site through a relay, without an agent."""
        token = parse_join_token(self.get("site", "token", site)["token"])
        folder = self.folder / "hosts" / name
        join_site(folder, encode_join_token(msgspec.structs.replace(token, hub=url_of(relay))), host=name)
        return load_identity(folder)

    def client(self) -> Client:
        """Return what the command line asks the hub by, logged in; to be closed."""
        profile = load_profile(profile_path(self.env))
        login = profile.contexts[profile.current]
        return Client(login.hub, ca_pem=login.ca_pem, token=login.token)

    def host(self, name: str) -> HostView:
        """Return a host as the hub shows it."""
        with self.client() as client:
            return client.host(name)

    def events(self, host: str) -> list[Event]:
        """Return what the hub has heard of a host, the oldest first."""
        with self.client() as client:
            return [view.event for view in reversed(client.events(host=host, limit=1000))]

    def until_knows(self, relay: RelayProcess, host: str) -> None:
        """Wait until a relay has heard of a host from the hub, and holds its site's state.

        Until then only the hub answers that host.
        """
        self.until(lambda: any(host in hosts for hosts in _sites_of(relay).values()))

    def close(self) -> None:
        """End agents, relays and hub."""
        for relay in self.relays.values():
            relay.stop()
        super().close()


def url_of(relay: RelayProcess) -> str:
    """Return where hosts dial a relay."""
    return f"https://{relay.address}"


def _sites_of(relay: RelayProcess) -> dict[str, dict[str, str]]:
    """Return the hosts, by site, that the RelayState on a relay's disk names; only of sites whose state is there."""
    own = "SELECT envelope FROM signed WHERE kind = 'relay-state' AND name = ?"
    with closing(sqlite3.connect(f"file:{relay.data / 'relay.db'}?mode=ro", uri=True)) as database:
        row = database.execute(own, (relay.name,)).fetchone()
        held = {name for (name,) in database.execute("SELECT name FROM signed WHERE kind = 'desired'")}
    if row is None:
        return {}
    envelope = msgspec.json.decode(row[0], type=JsonEnvelope)
    state = msgspec.json.decode(base64.b64decode(envelope["payload"]), type=RelayState)
    return {site: hosts for site, hosts in state.sites.items() if site in held}


def logged(process: Process) -> list[str]:
    """Return what a process's log names, in order: of an agent, among others, the kinds of what it told the hub."""
    return _named.findall(process.log.read_text())
