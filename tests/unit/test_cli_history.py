"""`rollout explain --history`: the decisions of a rollout, for people and programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.cli.main import run
from skerry.spec.api_rollout import DecisionView, EffectView
from tests.unit.cli_session import log_in, own_profile
from tests.unit.hub_double import HubDouble, serve_hub

AT = datetime(2026, 6, 1, tzinfo=UTC)
PATH = "/rollouts/spring/decisions"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    own_profile(tmp_path, monkeypatch)
    with serve_hub(tmp_path) as hub:
        log_in(tmp_path / "private" / "config.json", hub)
        yield hub


def decision(number: int, why: str, *effects: EffectView) -> DecisionView:
    return DecisionView(
        number=number, at=AT, state="running", why=why, inputs=f"sha256:{number:064x}", effects=effects
    )


def test_decisions_are_shown_in_the_order_they_were_made(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    given = EffectView(release="reader@2", sites=12, named=("basel", "zurich"))
    taken = EffectView(release="", sites=1, named=("bern",))
    hub.views[PATH] = [
        decision(9, "halted", taken),
        decision(2, "canary: at work", given),
        decision(1, "as it is"),
    ]
    assert run(["rollout", "explain", "spring", "--history"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == ["NUMBER", "AT", "STATE", "DID", "WHY", "INPUTS"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "9"]
    assert "reader@2 to basel, zurich and 10 more  canary: at work" in lines[2]
    assert "taken away from bern " in lines[3]
    assert shown.err == "6 decisions in between are not kept\n"
    assert run(["explain", "rollout", "spring", "--history", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in told] == [1, 2, 9]
    assert told[1]["effects"] == [{"release": "reader@2", "sites": 12, "named": ["basel", "zurich"]}]


def test_of_a_rollout_that_nobody_has_looked_at_there_is_none(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views[PATH] = []
    assert run(["rollout", "explain", "spring", "--history"]) == 0
    assert capsys.readouterr().err == "nothing has been decided yet\n"
    assert run(["rollout", "explain", "spring", "--history", "--site", "bern"]) == 2
