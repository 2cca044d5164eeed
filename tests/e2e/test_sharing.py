"""Three real agents on a real network share what they fetch: each byte comes over the link once, whoever fails."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.lan import Lan, lan_problem
from tests.e2e.conftest import TestFleet

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.delivery,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(lan_problem() != "", reason=lan_problem()),
]

HOSTS = ("edge-1", "edge-2", "edge-3")
SIZE = 8 << 20
RATE = 1 << 20
SMALL_TALK = 1 << 20
"""What three hosts exchange with their hub meanwhile: reports, desired states, metadata, a release's document."""
SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: harbour}}
spec: {{variables: {{greeting: hello}}, {more}}}
"""


class SharingSite:
    """A site whose hosts hear each other."""

    def __init__(self, fleet: TestFleet, lan: Lan) -> None:
        self.fleet, self.lan = fleet, lan
        self.limit()
        self.agents = {host: fleet.add_agent("harbour", host) for host in HOSTS}
        for agent in self.agents.values():
            fleet.until(lambda agent=agent: self.heard(agent) == 2)  # type: ignore[misc]

    def limit(self, more: str = "") -> None:
        self.fleet.run("apply", "-f", "-", stdin=SITE.format(more=more))

    def heard(self, agent: AgentProcess) -> int:
        observed: dict[str, Any] = agent.status().get("observed") or {}
        views: dict[str, str] = observed.get("neighbours") or {}
        return sum(view == "heard" for view in views.values())

    def begin(self, version: str) -> int:
        """Roll a release out and return what had come over the link before."""
        self.fleet.push(version, ballast={"ballast.bin": random.Random(version).randbytes(SIZE)})
        self.begun = {host: self.fetched_above(host) for host in HOSTS}
        before = self.lan.bytes_from_gateway()
        self.fleet.roll_out(version)
        return before

    def fetched_above(self, host: str) -> int:
        """Return how often a host has begun to fetch a large blob from above."""
        return self.agents[host].log.read_text().count("source=above")

    def fetching_host(self) -> str:
        """Return the host that has begun to fetch since; empty while none has."""
        return next((host for host in HOSTS if self.fetched_above(host) > self.begun[host]), "")

    def until_all_run(self, version: str, *hosts: str) -> None:
        for host in hosts or HOSTS:
            agent = self.agents[host]
            self.fleet.until(lambda agent=agent: self.runs(agent, version), self.explain)  # type: ignore[misc]

    def runs(self, agent: AgentProcess, version: str) -> bool:
        view = agent.application("talker")
        return view.get("phase") == "running" and view.get("release") == f"talker@{version}"

    def explain(self) -> str:
        return "\n".join(f"{name}: {agent.log.read_text()[-3000:]}" for name, agent in self.agents.items())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SharingSite]:
    with Lan(HOSTS, number=57) as lan, TestFleet(tmp_path, lan) as fleet:
        fleet.start()
        yield SharingSite(fleet, lan)


@pytest.mark.rule("SHARE-1")
@pytest.mark.rule("SHARE-2")
@pytest.mark.rule("SHARE-4")
def test_a_release_comes_over_the_link_once_also_when_the_one_that_fetches_it_is_killed(
    site: SharingSite,
) -> None:
    before = site.begin("1.0.0")
    site.until_all_run("1.0.0")
    assert SIZE < site.lan.bytes_from_gateway() - before <= 1.02 * SIZE + SMALL_TALK

    site.limit("link: {rate: 3MiB/s}")
    before = site.begin("2.0.0")
    fetching = site.fleet.until(site.fetching_host, site.explain)
    site.fleet.until(lambda: partial_bytes(site.agents[fetching]) > 0.7 * SIZE)
    site.agents[fetching].kill()
    others = [host for host in HOSTS if host != fetching]
    assert all(partial_bytes(site.agents[host]) < SIZE for host in others)
    site.until_all_run("2.0.0", *others)
    site.agents[fetching].start()
    site.until_all_run("2.0.0")
    # What had crossed the link for the one that was killed, and was not read yet, is lost: two seconds of its rate.
    assert SIZE < site.lan.bytes_from_gateway() - before <= 1.02 * SIZE + 2 * RATE + SMALL_TALK

    site.limit()
    for host in HOSTS:
        site.lan.cut_off(host)
    before = site.begin("3.0.0")
    site.until_all_run("3.0.0")
    assert site.lan.bytes_from_gateway() - before > 3 * SIZE, "each fetched it by itself"


def partial_bytes(agent: AgentProcess) -> int:
    return max(
        (path.stat().st_size for path in (agent.data / "blobs" / "partial").glob("*") if path.is_file()),
        default=0,
    )
