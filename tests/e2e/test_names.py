"""Names of a site: two real hosts with real proxies, dig as the client, the hub gone, and an application that moves."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from skerry.adapters.envoy_proxy import find_program
from skerry.testing.fleet import AgentProcess, free_port
from tests.e2e.conftest import TestFleet
from tests.e2e.test_ingress import APP, DOCUMENT

pytestmark = [pytest.mark.e2e, pytest.mark.envoy]

SHORT, LONG = "reader.site.internal", "reader.harbour.skerry.internal"
HOSTS = {"edge-1": "127.0.0.2", "edge-2": "127.0.0.3"}


class Site:
    """Two hosts, each with an address, a proxy and a DNS of its own, and an application that is placed by turns."""

    def __init__(self, fleet: TestFleet) -> None:
        self.fleet = fleet
        self.ports = {host: free_port() for host in HOSTS}
        fleet.make_site("harbour")
        self.agents: dict[str, AgentProcess] = {}
        for host, address in HOSTS.items():
            agent = fleet.add_agent("harbour", host)
            agent.stop()
            # The upstream is a port that nobody listens on: there is no link to anywhere.
            agent.arguments += (
                "--lan-address", address, "--dns", f"{address}:0", "--dns-upstream", "127.0.0.1:1",
                "--announce", "--ingress-http", str(self.ports[host]), "--ingress-https", str(free_port()),
            )  # fmt: skip
            self.agents[host] = agent.start()
        fleet.until(lambda: all(self._known(host) for host in HOSTS))

    def _known(self, host: str) -> bool:
        facts = next(one["facts"] for one in self.fleet.get("get", "hosts") if one["name"] == host)
        return bool(facts.get("ingress.http", {}).get("value") == self.ports[host] and "lan_address" in facts)

    def roll_out(self) -> None:
        folder = self.fleet.folder / "reader"
        folder.mkdir()
        (folder / "app.py").write_text(APP)
        route = {"name": "main", "component": "web", "port": "http", "tls": "plain"}
        text = DOCUMENT.format(name="reader", version="1", routes=json.dumps([route]))
        text += "  placement: {mode: one, standby: 1, takeover: 2s}\n"
        (folder / "1.yaml").write_text(text)
        self.fleet.run("release", "push", str(folder / "1.yaml"))
        gate = ("--soak", "300ms", "--deadline", "30s", "--name", "first")
        self.fleet.run("rollout", "start", "reader@1", "--sites", "*", *gate)
        self.fleet.until(lambda: self.fleet.rollout_state("first") == "succeeded", self.explain)

    def dig(self, host: str, *words: str) -> str:
        """Ask the DNS of a host; nothing while it listens nowhere."""
        places: list[str] = self._dns(host).get("listens") or [""]
        address, _, port = places[0].rpartition(":")
        if not port:
            return ""
        done = subprocess.run(
            ["dig", f"@{address}", "-p", port, "+time=5", "+tries=2", *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout.strip()

    def leads(self, *asked: str) -> dict[str, set[str]]:
        """Return what the DNS of each of these hosts says of both names."""
        return {host: {self.dig(host, "+short", name) for name in (SHORT, LONG)} for host in asked}

    def announces(self, host: str) -> list[str]:
        """Return what a host announces by multicast DNS."""
        return list(self._dns(host).get("announces") or ())

    def _dns(self, host: str) -> dict[str, Any]:
        observed: dict[str, Any] = self.agents[host].status().get("observed") or {}
        return dict(observed.get("dns") or {})

    def agreed(self) -> str:
        """Return where both names lead by the word of every DNS; nothing while that is not one place."""
        found = {place for places in self.leads(*HOSTS).values() for place in places}
        return found.pop() if len(found) == 1 else ""

    def until_leads(self, to: str, *asked: str) -> None:
        wanted = {host: {HOSTS[to]} for host in asked}
        self.fleet.until(lambda: self.leads(*asked) == wanted, self.explain)

    def answer(self, host: str) -> str:
        """Return what clients of a host's proxy get under the name."""
        url = f"http://{SHORT}:{self.ports[host]}/"
        done = subprocess.run(
            ["curl", "-s", "-m", "10", "--resolve", f"{SHORT}:{self.ports[host]}:127.0.0.1", url],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return done.stdout

    def explain(self) -> str:
        logs = [agent.log.read_text()[-2000:] for agent in self.agents.values()]
        return "\n".join(
            [str(self.leads(*HOSTS)), *(str(one.status()) for one in self.agents.values()), *logs]
        )


@pytest.mark.rule("NAME-1")
@pytest.mark.rule("NAME-5")
@pytest.mark.timeout(240)
def test_a_name_is_found_with_no_hub_after_restarts_and_where_the_application_moved(fleet: TestFleet) -> None:
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    if shutil.which("dig") is None:
        pytest.skip("needs dig (bind9-dnsutils)")
    site = Site(fleet)
    site.roll_out()
    place = fleet.until(site.agreed, site.explain)
    first = next(host for host, address in HOSTS.items() if address == place)
    (second,) = HOSTS.keys() - {first}
    site.until_leads(first, *HOSTS)
    assert site.answer(first) == "reader@1"
    fleet.until(lambda: site.announces(first) == [f"main-{first}-harbour._skerry-reader._tcp"], site.explain)
    assert site.announces(second) == []

    def outcome() -> str:
        return str(fleet.get("explain", "name", SHORT, "--site", "harbour")["trace"]["outcome"])

    fleet.until(lambda: outcome() == f"{place} ({first})", outcome)
    names = fleet.get("get", "names", "--site", "harbour")
    assert [one["name"]["name"] for one in names] == [LONG, SHORT]

    # No hub, and both agents are new: the names of the site are there, and others fail at once.
    fleet.hub.stop()
    for agent in site.agents.values():
        agent.kill()
        agent.start()
    site.until_leads(first, *HOSTS)
    assert "status: SERVFAIL" in site.dig(first, "example.org")
    fleet.until(lambda: "status: NXDOMAIN" in site.dig(first, "other.site.internal"), site.explain)

    # The host falls silent: another one has the application and its name. It comes back, and has both again.
    site.agents[first].kill()
    site.until_leads(second, second)
    fleet.until(lambda: site.answer(second) == "reader@1", site.explain)
    site.agents[first].start()
    site.until_leads(first, *HOSTS)
