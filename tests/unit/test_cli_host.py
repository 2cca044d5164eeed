"""The commands about who a host is: what they ask the hub for, and what they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import run
from skerry.spec.api import HostView, JoinTokenAnswer
from skerry.spec.api_identity import QuarantineView
from tests.unit.cli_session import log_in, own_profile
from tests.unit.hub_double import HubDouble, serve_hub

pytestmark = pytest.mark.trust

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WHY = (
    "two agents report with the keys of this host by turns, machines aaaaaaaa and bbbbbbbb: a disk was copied"
)
FINE = HostView(
    name="edge",
    site="zurich",
    enrolled_at=NOW,
    last_seen_at=NOW,
    presence="silent",
    sequence=7,
    generation_held=1,
    generation_wanted=1,
)
HELD = msgspec.structs.replace(FINE, quarantined=QuarantineView(since=NOW, why=WHY))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    own_profile(tmp_path, monkeypatch)
    with serve_hub(tmp_path) as hub:
        log_in(tmp_path / "private" / "config.json", hub)
        yield hub


def test_a_host_in_quarantine_is_shown_with_the_reason_and_what_to_do(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views |= {"/hosts/edge": HELD, "/hosts": [HELD], "/events": []}
    assert run(["get", "hosts"]) == 0
    assert "quarantined" in capsys.readouterr().out
    assert run(["describe", "host", "edge"]) == 0
    shown = capsys.readouterr().out
    assert WHY in shown
    assert "skerry site token zurich --replace edge" in shown
    assert "skerry host readmit edge" in shown


def test_a_host_is_readmitted_and_a_dry_run_changes_nothing(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views |= {"/hosts/edge": HELD, "/hosts/edge/readmit": FINE}
    assert run(["host", "readmit", "edge", "--dry-run"]) == 0
    assert "would go on" in capsys.readouterr().out
    assert not any(request.startswith("POST") for request in hub.requests)
    assert run(["host", "readmit", "edge", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "edge"
    assert hub.requests[-1] == "POST /hosts/edge/readmit"
    hub.views["/hosts/edge"] = FINE
    assert run(["host", "readmit", "edge", "--dry-run"]) != 0
    assert "not in quarantine" in capsys.readouterr().err


def test_a_token_that_replaces_a_host_says_so(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    hub.views["/sites/zurich/join-tokens"] = JoinTokenAnswer(
        token="skerry-join.x", site="zurich", expires_at=NOW, uses=1
    )
    assert run(["site", "token", "zurich", "--replace", "edge"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "skerry-join.x\n"
    assert "the machine that replaces host edge" in shown.err
