"""`skerry agent hold` and `release-hold` at a host whose agent does not run, and how holds are shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.agent.hold_commands import hold_updates, release_updates
from skerry.agent.holding import read_holds
from skerry.agent.identity import Place, save_place
from skerry.cli.main import run
from skerry.cli.portraits import host_lines
from skerry.kit.errors import Missing, Rejected
from skerry.spec.api import HostView
from skerry.spec.hold import Hold
from skerry.spec.report import ApplicationView
from skerry.trust.timekeeping import TimeTrust

pytestmark = pytest.mark.rollout

LATER = datetime(2037, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "agent"
    made.mkdir()
    save_place(made, Place(host="edge", site="zurich", upstream="https://hub", root="sha256:0"), b"{}")
    return made


def at(data: Path, *arguments: str) -> int:
    return run(["agent", *arguments, "--data", str(data)])


@pytest.mark.rule("HOST-7")
def test_a_hold_is_set_shown_and_released_with_no_agent(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    assert at(data, "hold", "--why", "stock\x1b[2Jtaking") == 0
    assert (
        at(data, "hold", "--why", "an audit", "--application", "reader", "--until", "2037-05-04T12:00+02:00")
        == 0
    )
    said = capsys.readouterr().out
    assert "this host takes no other release until it is released" in said
    assert "reader takes no other release until 2037-05-04 10:00Z" in said
    assert "the agent does not run" in said
    assert at(data, "status") == 0
    shown = capsys.readouterr().out
    assert "reader: held by ann since" in shown and "an audit, until" in shown
    assert "\x1b" not in shown
    assert at(data, "status", "-o", "json") == 0
    assert [hold["by"] for hold in json.loads(capsys.readouterr().out)["holds"]] == ["ann", "ann"]

    assert at(data, "release-hold", "--application", "reader") == 0
    assert "still, this host: held by ann" in capsys.readouterr().out
    assert at(data, "release-hold", "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["hold"], told["agent"], told["left"]) == (None, "does not run", [])
    assert at(data, "release-hold") == 4
    assert "held here: nothing" in capsys.readouterr().err


@pytest.mark.parametrize("until", ("tomorrow", "2037-05-04T12:00", "-1h", ""))
def test_a_time_that_says_nothing_is_refused(
    data: Path, until: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at(data, "hold", "--why", "x", "--until", until) == 2
    assert not (data / "holds").exists()


def test_what_is_past_by_the_time_the_host_believes_is_refused(data: Path) -> None:
    # The machine's own clock is years behind what its hub has signed.
    believed = TimeTrust(offset_s=0.0, floor=LATER)
    (data / "status.json").write_bytes(
        msgspec.json.encode({"host": "edge", "site": "zurich", "time": believed})
    )
    with pytest.raises(Rejected) as caught:
        hold_updates(data, "", why="x", by="ann", until=LATER - timedelta(seconds=1))
    assert caught.value.code == "hold.past"
    with pytest.raises(Rejected):
        hold_updates(data, "", why="x", by="ann", until=1e18)
    made = hold_updates(data, "", why="x", by="ann", until=3600.0)
    assert made.hold is not None
    assert made.hold.until == LATER + timedelta(hours=1), "a duration counts from the time the host believes"
    assert read_holds(data, LATER + timedelta(minutes=59))
    assert not read_holds(data, LATER + timedelta(minutes=60))


def test_a_directory_that_no_host_has_joined_from_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        hold_updates(tmp_path, "", why="x", by="ann")
    with pytest.raises(Missing):
        release_updates(tmp_path, "")
    assert list(tmp_path.iterdir()) == []


def test_the_hub_shows_who_holds_a_host_since_when_and_why() -> None:
    hold = Hold(since=LATER, by="ann", why="stocktaking", application="reader", until=LATER)
    view = HostView(
        name="edge",
        site="zurich",
        enrolled_at=LATER,
        last_seen_at=LATER,
        presence="online",
        sequence=1,
        generation_held=1,
        generation_wanted=1,
        observed_at=LATER,
        applications={"reader": ApplicationView(phase="held", release="reader@1", candidate="reader@2")},
        holds=(hold, msgspec.structs.replace(hold, application="", until=None)),
    )
    lines = list(host_lines(view, [], at=LATER))
    text = "held by ann since 2037-05-04 12:00Z: stocktaking"
    assert f"Hold:          reader, {text}, until 2037-05-04 12:00Z" in lines
    assert f"Hold:          all applications, {text}" in lines
    assert "  reader: held reader@1, trying reader@2" in lines
