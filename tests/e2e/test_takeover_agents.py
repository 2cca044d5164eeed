"""Three real agents on a real network whose hub is cut off: another host takes over, and one remains at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.fleet import Fleet
from skerry.testing.lan import Lan, lan_problem
from skerry.testing.waiting import eventually_sync
from tests.e2e.releases import place, write_release

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(lan_problem() != "", reason=lan_problem()),
]

HOSTS = ("edge-1", "edge-2", "edge-3")
TAKEOVER_S = 5.0
SLACK_S = 8.0  # a plan each second, the start of the application, and processors that others use, too
LIMIT_S = 90.0


class Site:
    """A fleet of three agents, and where its application runs by their own word."""

    def __init__(self, fleet: Fleet, lan: Lan) -> None:
        self.fleet, self.lan = fleet, lan

    def phase(self, host: str) -> str:
        return str(self.fleet.agents[host].application("talker").get("phase", ""))

    def where(self) -> list[str]:
        """Return the hosts on which a component is alive."""
        return [
            host
            for host in HOSTS
            if any(
                part["state"] in ("starting", "running", "ready", "unready", "stopping")
                for part in self.fleet.agents[host].application("talker").get("components", {}).values()
            )
        ]

    def await_where(self, *hosts: str, limit_s: float = LIMIT_S) -> float:
        eventually_sync(lambda: self.where() == list(hosts), limit_s=limit_s, what=f"it to run on {hosts}")
        return time.monotonic()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Lan(HOSTS, number=93) as lan, Fleet(tmp_path, lan).start() as fleet:
        fleet.add_site("harbour")
        (tmp_path / "site.yaml").write_text(
            "apiVersion: skerry/v1\nkind: Site\nmetadata: {name: harbour}\nspec: {variables: {greeting: hello}}\n"
        )
        fleet.run("apply", "-f", str(tmp_path / "site.yaml"))
        for host in HOSTS:
            fleet.add_agent("harbour", host)
        placement = f"{{mode: one, standby: 2, takeover: {TAKEOVER_S:g}s}}"
        fleet.run("release", "push", str(place(write_release(tmp_path / "app", "1.0.0"), placement)))
        fleet.run("rollout", "start", "talker@1.0.0", "--sites", "*", "--deadline", "60s", "--soak", "1s")
        yield Site(fleet, lan)


@pytest.mark.rule("STANDBY-1")
@pytest.mark.rule("STANDBY-2")
def test_another_host_takes_over_with_no_hub_and_exactly_one_remains_when_it_heals(site: Site) -> None:
    eventually_sync(
        lambda: site.fleet.get("get", "rollouts")[0]["state"] == "succeeded",
        limit_s=LIMIT_S,
        what="the rollout to succeed, with two hosts standing by",
    )
    (first,) = site.where()
    others = [host for host in HOSTS if host != first]
    assert [site.phase(host) for host in others] == ["standing-by"] * 2
    site.lan.cut_uplink()
    began = time.monotonic()
    site.lan.cut_off(first)
    eventually_sync(lambda: len(site.where()) == 2, limit_s=LIMIT_S, what="another host to take over")
    assert time.monotonic() - began <= TAKEOVER_S + SLACK_S
    (second,) = (host for host in site.where() if host != first)
    site.lan.heal()
    site.await_where(first)
    assert site.phase(second) == "standing-by"
    site.fleet.agents[first].kill()
    # An agent that is dead is silent, though its application lives on: documented, and mended when it is back.
    eventually_sync(lambda: second in site.where(), limit_s=LIMIT_S, what="a silent agent to be replaced")
    site.fleet.agents[first].start()
    site.await_where(first)
