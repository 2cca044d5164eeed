"""How the command line shows a link budget and a download."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from skerry.cli.portraits import application_lines, site_lines
from skerry.cli.text import download
from skerry.spec.api import SiteView
from skerry.spec.report import ApplicationView, FetchProgress

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def shown(spec: dict[str, Any]) -> list[str]:
    view = SiteView(
        name="harbour",
        labels={},
        document={"spec": spec},
        generation=1,
        assignments={},
        hosts=0,
        hosts_online=0,
        last_seen_at=None,
        presence="never",
    )
    return list(site_lines(view, [], [], at=NOW))


@pytest.mark.parametrize(
    ("fetch", "text"),
    (
        (
            FetchProgress(done_bytes=12 << 20, total_bytes=50 << 20, rate=64 << 10, left_s=608),
            "12.0 MiB of 50.0 MiB (24 %) fetched, 64.0 KiB/s, 10m 8s to go",
        ),
        (
            FetchProgress(done_bytes=12 << 20, total_bytes=50 << 20),
            "12.0 MiB of 50.0 MiB (24 %) fetched, nothing flows now",
        ),
    ),
)
def test_a_download_is_shown_with_its_time_to_go(fetch: FetchProgress, text: str) -> None:
    view = ApplicationView(phase="fetching", candidate="meter@2.0.0", why="because", fetch=fetch)
    assert list(application_lines("meter", view)) == [
        "meter: fetching nothing yet, trying meter@2.0.0",
        "  because",
        f"  {text}",
    ]


def test_an_empty_download_is_shown_too() -> None:
    assert download({}) == "0 B of 0 B (0 %) fetched, nothing flows now"


def test_a_site_shows_its_link_and_windows() -> None:
    lines = shown(
        {
            "link": {
                "rate": "64KiB/s",
                "windows": [{"cron": "0 22 * * *", "duration": "8h"}],
                "per_day": "50MiB",
                "carry_over": "50%",
                "metered": True,
                "metered_rate": 0,
            },
            "switch_windows": [{"cron": "0 2 * * SUN", "duration": "2h"}],
        }
    )
    assert "Link:          64KiB/s, 50MiB per day, up to 50% saved up" in lines
    assert "  at 0 22 * * * for 8h: unlimited" in lines
    assert "Link metered:  0" in lines
    assert "Switches:      at 0 2 * * SUN for 2h" in lines
    assert not any(line.startswith(("Link", "Switches")) for line in shown({}))
