"""Three hosts on a real network: one is cut off, another takes over without any hub, and one remains when it heals."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.kit.durable import write_file
from skerry.spec.desired import DesiredState, Neighbour, SitePlacement
from skerry.testing.lan import Lan, lan_problem
from skerry.testing.waiting import eventually_sync
from skerry.trust.keys import SigningKey
from tests.e2e.neighbour_host import APP, ENDING_S, HostConfig

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(lan_problem() != "", reason=lan_problem()),
]

HOSTS = ("edge-1", "edge-2", "edge-3")
TAKEOVER_S = 3.0
SLACK_S = 8.0  # a beat, the start of a process, and processors that others use, too
NOW = datetime(2026, 5, 4, tzinfo=UTC)


class Site:
    """Real neighbour loops, each in a namespace of its own."""

    def __init__(self, lan: Lan, folder: Path, split: str = "keep") -> None:
        self.lan = lan
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        keys = {host: SigningKey.generate() for host in HOSTS}
        placement = SitePlacement(count=1, hosts=HOSTS, takeover_s=TAKEOVER_S, split=split)  # type: ignore[arg-type]
        desired = DesiredState(
            site="harbour",
            generation=1,
            issued_at=NOW,
            expires_at=NOW,
            hosts=dict.fromkeys(HOSTS, ()),
            placements={APP: placement},
            neighbours={
                host: Neighbour(address=f"{lan.address(host)}:7946", sign_key=key.public)
                for host, key in keys.items()
            },
        )
        for host, key in keys.items():
            place = folder / host
            place.mkdir()
            address = f"{lan.address(host)}:7946"
            config = HostConfig(host, key.to_pem(), address, str(place), desired)
            write_file(place / "config.json", msgspec.json.encode(config))

    def start(self, host: str) -> None:
        program = [sys.executable, "-m", "tests.e2e.neighbour_host", str(self.folder / host / "config.json")]
        with (self.folder / host / "log").open("ab") as log:
            self.running[host] = subprocess.Popen(
                self.lan.command(host, program), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self, host: str) -> None:
        self.running[host].kill()
        self.running[host].wait(20)
        with (self.folder / host / "app.log").open("a") as log:
            log.write(f"end {time.monotonic():.3f}\n")  # it died with its host

    def spans(self, host: str) -> list[tuple[float, float]]:
        """Return from when to when the application ran there; infinity while it does."""
        found: list[tuple[float, float]] = []
        log = self.folder / host / "app.log"
        for line in log.read_text().splitlines() if log.exists() else ():
            what, at = line.split()
            if what == "start":
                found.append((float(at), float("inf")))
            elif found and found[-1][1] == float("inf"):
                found[-1] = (found[-1][0], float(at))
        return found

    def where(self) -> list[str]:
        """Return where the application runs now."""
        return [host for host in HOSTS if any(end == float("inf") for _, end in self.spans(host))]

    def views(self, host: str) -> dict[str, str]:
        return msgspec.json.decode((self.folder / host / "views.json").read_bytes(), type=dict[str, str])

    def together_s(self) -> float:
        """Return for how long two or more ran at the same time, so far."""
        now = time.monotonic()
        edges = sorted(
            edge
            for host in HOSTS
            for start, end in self.spans(host)
            for edge in ((start, 1), (min(end, now), -1))
        )
        count, since, total = 0, 0.0, 0.0
        for at, step in edges:
            total += at - since if count > 1 else 0.0
            count, since = count + step, at
        return total

    def await_where(self, *hosts: str) -> float:
        eventually_sync(lambda: self.where() == list(hosts), what=f"it to run on {hosts}")
        return time.monotonic()

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(20)


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(HOSTS, number=92) as made:
        yield made


@pytest.fixture
def site(lan: Lan, tmp_path: Path) -> Iterator[Site]:
    made = Site(lan, tmp_path)
    for host in HOSTS:
        made.start(host)
    yield made
    made.close()


@pytest.mark.rule("STANDBY-1")
@pytest.mark.rule("STANDBY-2")
def test_a_host_that_is_cut_off_is_replaced_in_time_and_one_remains_when_it_heals(
    site: Site, lan: Lan
) -> None:
    site.await_where("edge-1")
    lan.cut_uplink()  # no hub from here on
    began = time.monotonic()
    lan.cut_off("edge-1")
    took_s = site.await_where("edge-1", "edge-2") - began
    assert took_s <= TAKEOVER_S + SLACK_S
    assert site.views("edge-3") == {"edge-1": "silent", "edge-2": "heard"}
    healed = time.monotonic()
    before_s = site.together_s()
    lan.heal()
    site.await_where("edge-1")
    # A beat until they hear each other, and what the application takes to end.
    bound_s = TAKEOVER_S / 5 + ENDING_S + SLACK_S
    assert time.monotonic() - healed <= bound_s + SLACK_S
    assert site.together_s() - before_s <= bound_s
    assert len(site.spans("edge-1")) == 1  # the first was never interrupted


@pytest.mark.rule("STANDBY-1")
def test_a_host_that_dies_is_replaced_and_takes_over_again_in_an_orderly_manner(site: Site) -> None:
    site.await_where("edge-1")
    began = time.monotonic()
    site.kill("edge-1")
    assert site.await_where("edge-2") - began <= TAKEOVER_S + SLACK_S
    site.kill("edge-2")
    site.await_where("edge-3")
    site.start("edge-1")
    site.await_where("edge-1")
    assert site.together_s() == 0.0


def test_with_one_direction_lost_one_runs_and_never_two(site: Site, lan: Lan) -> None:
    site.await_where("edge-1")
    lan.cut("edge-1", "edge-2")
    site.await_where("edge-2")
    lan.heal()
    site.await_where("edge-1")
    assert site.together_s() == 0.0


def test_with_majority_a_split_network_never_runs_two(lan: Lan, tmp_path: Path) -> None:
    site = Site(lan, tmp_path, split="majority")
    try:
        for host in HOSTS:
            site.start(host)
        site.await_where("edge-1")
        lan.cut_off("edge-1")
        site.await_where("edge-2")
        lan.heal()
        site.await_where("edge-1")
        assert site.together_s() == 0.0
    finally:
        site.close()
