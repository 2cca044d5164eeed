"""What the hub tells the hosts of a site's link, its windows, and what is urgent."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.agent.seeing import urgent_releases
from skerry.spec.desired import LinkPolicy, OpenWindow
from skerry.spec.site import LinkWindow, SiteLink, SwitchWindow
from tests.unit.test_hub_placing import APP, SITE, Harbour, release

pytestmark = pytest.mark.delivery


async def test_hosts_are_told_the_sites_link_and_how_many_share_it(tmp_path: Path) -> None:
    harbour = Harbour(tmp_path, hosts=2)
    await harbour.all_report_facts()
    await harbour.roll_out(release())
    assert (await harbour.desired()).policy.link is None
    link = SiteLink(rate="64KiB/s", windows=(LinkWindow(cron="0 22 * * *", duration="8h"),), per_day="50MiB")
    harbour.site(
        link=link, time_zone="Europe/Zurich", switch_windows=(SwitchWindow(cron="0 2 * * *", duration="1h"),)
    )
    assert await harbour.hub.issuer.issue(SITE)
    policy = (await harbour.desired()).policy
    night = OpenWindow(cron="0 22 * * *", duration_s=28800.0)
    assert policy.link == LinkPolicy(hosts=2, rate=65536, windows=(night,), per_day=50 << 20)
    assert policy.switch_windows == (OpenWindow(cron="0 2 * * *", duration_s=3600.0),)
    assert policy.time_zone == "Europe/Zurich"

    harbour.join("edge-9")
    assert await harbour.hub.issuer.issue(SITE)
    link_now = (await harbour.desired()).policy.link
    assert link_now is not None and link_now.hosts == 3


@pytest.mark.parametrize("urgent", (True, False))
async def test_what_an_urgent_rollout_brings_is_fetched_first(tmp_path: Path, urgent: bool) -> None:
    harbour = Harbour(tmp_path, hosts=1)
    await harbour.all_report_facts()
    await harbour.roll_out(release(), urgent=urgent)
    desired = await harbour.desired()
    (digest,) = (ref.digest for ref in desired.releases.values())
    assert urgent_releases(desired, "edge-0") == (frozenset({digest}) if urgent else frozenset())
    assert urgent_releases(desired, "edge-1") == frozenset()
    assert [assignment.application for assignment in desired.hosts["edge-0"]] == [APP]
