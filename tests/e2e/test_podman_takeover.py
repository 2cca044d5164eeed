"""Three hosts with an engine each: the one with the application is cut off, another takes over, one remains."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.lan import Lan, lan_problem
from skerry.testing.waiting import eventually_sync
from tests.e2e.boxes import BoxFleet, box, page_image

HOSTS = ("edge-1", "edge-2", "edge-3")
TAKEOVER_S = 5.0
SLACK_S = 10.0  # a plan each second, the container's start, and processors that others use, too
LIMIT_S = 90.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.podman,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(lan_problem() != "", reason=lan_problem()),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[BoxFleet]:
    """Three hosts of one site, of which one runs the application and two stand by."""
    with Lan(HOSTS, number=94) as lan, BoxFleet(tmp_path, lan) as fleet:
        fleet.start()
        for host in HOSTS:
            fleet.box_host(host)
        placement = {"mode": "one", "standby": 2, "takeover": f"{TAKEOVER_S:g}s"}
        fleet.push_shop("1.0.0", box(page_image(tmp_path / "page", "here")), placement=placement)
        fleet.roll_shop("1.0.0")
        yield fleet


def where(fleet: BoxFleet) -> list[str]:
    """Return the hosts whose engine runs the application's container."""
    return [
        host for host in HOSTS if json.loads(fleet.engines[host].podman("ps", "--format", "json") or "[]")
    ]


@pytest.mark.rule("STANDBY-1")
@pytest.mark.rule("STANDBY-2")
def test_another_engine_takes_over_with_no_hub_and_exactly_one_container_remains_when_it_heals(
    site: BoxFleet,
) -> None:
    assert site.lan is not None
    (first,) = eventually_sync(lambda: found if len(found := where(site)) == 1 else [], limit_s=LIMIT_S)
    site.lan.cut_uplink()
    site.lan.cut_off(first)
    began = time.monotonic()
    eventually_sync(lambda: len(where(site)) == 2, limit_s=LIMIT_S, what="another host to take over")
    assert time.monotonic() - began <= TAKEOVER_S + SLACK_S
    site.lan.heal()
    eventually_sync(lambda: where(site) == [first], limit_s=LIMIT_S, what="one container to remain")

    # A host that loses its power altogether is replaced in the same way.
    site.agents[first].kill()
    site.engines[first].power_cut()
    (second,) = eventually_sync(
        lambda: [host for host in where(site) if host != first],
        limit_s=LIMIT_S,
        what="another host to take over",
    )
    site.engines[first].start()
    site.agents[first].start()
    eventually_sync(lambda: where(site) == [first], limit_s=LIMIT_S, what="the first host to run it again")
    eventually_sync(
        lambda: site.agents[second].application("shop")["phase"] == "standing-by", limit_s=LIMIT_S
    )
