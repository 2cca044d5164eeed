"""`skerry health`: what people read, and what the exit code says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from skerry.cli.main import run
from skerry.cli.portraits import health_lines
from skerry.spec.api_health import HealthReason, HealthView, SiteHealth
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

pytestmark = pytest.mark.telemetry

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FAILING = HealthView(
    word="failing",
    reasons=(
        HealthReason(
            code="app.unhealthy",
            word="failing",
            message="reader: main is backoff",
            host="press-3",
            application="reader",
            as_of=NOW - timedelta(hours=2),
        ),
        HealthReason(code="site.expected_silent", word="expected-silent", message="silent for 2h"),
    ),
    left_out=1,
    as_of=NOW - timedelta(hours=2),
)
SITES = [
    SiteHealth(site="airport", health=HealthView(word="ok")),
    SiteHealth(site="harbour", health=FAILING),
    SiteHealth(site="island", health=HealthView(word="expected-silent")),
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views["/health"] = SITES
        yield hub


def test_each_reason_is_said_with_its_word_its_host_and_its_age() -> None:
    assert list(health_lines(FAILING, at=NOW)) == [
        "Health:        failing",
        "  failing: press-3: reader: main is backoff, as of 2h ago",
        "  expected-silent: silent for 2h",
        "  and 1 more reason",
    ]


def test_the_exit_code_is_1_if_any_site_is_worse_than_expected_to_be_silent(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["health"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["airport", "ok"],
        ["harbour", "failing"],
        ["island", "expected-silent"],
    ]
    assert "press-3: reader: main is backoff (and 2 more)" in lines[2]
    hub.views["/health"] = [SITES[0], SITES[2]]
    assert run(["health", "-l", "region=north"]) == 0
    assert hub.requests[-1] == "GET /health?selector=region%3Dnorth"


def test_programs_get_every_reason_and_what_is_well_can_be_left_out(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["health", "--troubled", "-o", "json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["site"], one["health"]["word"]) == ("harbour", "failing")
    assert [reason["code"] for reason in one["health"]["reasons"]] == [
        "app.unhealthy",
        "site.expected_silent",
    ]
    assert run(["health", "--troubled", "-o", "name"]) == 1
    assert capsys.readouterr().out == "site/harbour\n"


def test_one_site_is_said_with_all_its_reasons(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    hub.views["/health"] = [SITES[1]]
    assert run(["health", "--site", "harbour"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("harbour, last heard of ")
    assert said[1] == "Health:        failing"
    assert "  failing: press-3: reader: main is backoff" in said[2]
