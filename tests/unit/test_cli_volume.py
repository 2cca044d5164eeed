"""`skerry volume` and `skerry agent wipe`: nothing is emptied unasked, and what is lost is said before."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from skerry.agent.commands import stop_applications, wipe_volumes
from skerry.agent.identity import Place, save_place
from skerry.agent.volumes import Volumes
from skerry.agent.wiring.opening import lock_data, open_runtime
from skerry.cli.main import run
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.ports.runtime import InstanceSpec
from skerry.spec.api import VolumesView, VolumeView, WipeAnswer
from skerry.testing.clock import SimulatedClock
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

VOLUMES = VolumesView(
    site="zurich",
    application="reader",
    release="reader@1.0.0",
    hosts=("edge-1", "edge-2"),
    volumes=(
        VolumeView(component="main", name="log", size="2GiB"),
        VolumeView(component="main", name="cache"),
    ),
    wipes=2,
)
ANSWER = WipeAnswer(site="zurich", application="reader", count=3, generation=9, hosts=("edge-1", "edge-2"))
WIPE = "POST /sites/zurich/applications/reader/wipe"


class Terminal(io.StringIO):
    """Standard input that a person types into."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views["/volumes"] = [VOLUMES]
        hub.views["/sites/zurich/applications/reader/wipe"] = ANSWER
        yield hub


def test_volumes_are_listed_one_per_line(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["volume", "list", "--site", "zurich"]) == 0
    assert hub.requests == ["GET /volumes?site=zurich"]
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "SITE", "APPLICATION", "COMPONENT", "VOLUME", "SIZE", "RELEASE", "HOSTS", "WIPES",
    ]  # fmt: skip
    assert lines[0].split() == ["zurich", "reader", "main", "log", "2GiB", "reader@1.0.0", "2", "2"]
    assert lines[1].split()[4:6] == ["no", "limit"]
    assert run(["volume", "list", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["volumes"][0]["size"] == "2GiB"


def test_a_wipe_is_not_asked_for_without_a_yes(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(["volume", "wipe", "reader", "--site", "zurich"]) == 2
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(["volume", "wipe", "reader", "--site", "zurich"]) == 1
    asked = capsys.readouterr().err
    for told in ("main/log (at most 2GiB)", "main/cache (no limit)", "edge-1", "edge-2", "next hears"):
        assert told in asked
    assert WIPE not in hub.requests
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run(["volume", "wipe", "reader", "--site", "zurich"]) == 0
    assert hub.requests.count(WIPE) == 1
    shown = capsys.readouterr().out
    assert "wipe 3 is asked for, in generation 9" in shown
    assert "edge-2: when it next hears from the hub" in shown


def test_a_wipe_with_a_yes_asks_nobody(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["volume", "wipe", "reader", "--site", "zurich", "--yes", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "site": "zurich",
        "application": "reader",
        "count": 3,
        "generation": 9,
        "hosts": ["edge-1", "edge-2"],
    }


def test_a_dry_run_says_what_would_be_lost_and_asks_for_nothing(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["volume", "wipe", "reader", "--site", "zurich", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "main/log" in shown
    assert "on 2 hosts" in shown
    assert run(["volume", "wipe", "reader", "--site", "zurich", "--dry-run", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["hosts"] == ["edge-1", "edge-2"]
    assert run(["volume", "wipe", "tap", "--site", "zurich", "--yes"]) == 4
    assert "applications there: reader" in capsys.readouterr().err
    assert not [request for request in hub.requests if request.startswith("POST")]


# ── at the host ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "agent"
    made.mkdir()
    save_place(made, Place(host="edge", site="zurich", upstream="https://hub", root="sha256:0"), b"{}")
    volumes = Volumes(made / "volumes", SimulatedClock())
    for application in ("reader", "reader-two"):
        (volumes.place(application, "main", "log") / "count").write_text("1\n")
        (volumes.own(application, "main") / "state").write_text("x")
    volumes.wipe("gone", 4)
    return made


def agree(_: Sequence[str]) -> None:
    return


def left(data: Path) -> list[str]:
    root = data / "volumes"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


OTHERS = [".wiped/gone", "reader-two/main/.data/state", "reader-two/main/log/count"]


def test_volumes_are_emptied_at_the_host_and_what_the_hub_counts_stays(data: Path) -> None:
    Volumes(data / "volumes", SimulatedClock()).wipe("none", 7)
    told: list[str] = []
    assert wipe_volumes(data, "reader", confirm=told.extend) == ["main (its data directory)", "main/log"]
    assert told == ["main (its data directory)", "main/log"]
    assert left(data) == [*OTHERS[:1], ".wiped/none", *OTHERS[1:]]
    assert sorted(path.name for path in (data / "volumes").iterdir()) == [".wiped", "reader-two"]
    assert Volumes(data / "volumes", SimulatedClock()).wiped() == {"gone": 4, "none": 7}


def test_whoever_says_no_loses_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left(data)
    wipe = ["agent", "wipe", "reader", "--data", str(data)]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(wipe) == 2
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(wipe) == 1
    assert left(data) == before
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run(wipe) == 0
    assert left(data) == OTHERS


def test_a_wipe_at_the_host_that_was_cut_short_is_finished_by_the_next(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "volumes" / "reader").rename(data / "volumes" / ".removed-reader-here")
    assert run(["agent", "wipe", "reader", "--data", str(data), "--yes"]) == 0
    assert left(data) == OTHERS
    capsys.readouterr()
    assert run(["agent", "wipe", "reader", "--data", str(data), "--yes"]) == 4
    assert "here: reader-two" in capsys.readouterr().err


def test_nothing_is_emptied_below_an_agent_or_an_application_that_runs(data: Path) -> None:
    before = left(data)
    with lock_data(data), pytest.raises(Conflict) as caught:
        wipe_volumes(data, "reader", confirm=agree)
    assert caught.value.code == "agent.running"
    spec = InstanceSpec(
        id="reader.main.0123456789ab",
        command=("sleep", "1000"),
        env={"PATH": "/usr/bin:/bin"},
        directory=data,
        labels={"application": "reader", "component": "main"},
    )
    asyncio.run(open_runtime(data).start(spec))
    try:
        with pytest.raises(Conflict) as caught:
            wipe_volumes(data, "reader", confirm=agree)
        assert caught.value.code == "application.running"
        assert "skerry agent down" in caught.value.hint
        assert left(data) == before
    finally:
        stop_applications(data)
    wipe_volumes(data, "reader", confirm=agree)
    assert left(data) == OTHERS


@pytest.mark.parametrize("name", ("..", "../other", ".wiped", "", "Reader"))
def test_only_an_application_can_be_named(data: Path, name: str) -> None:
    before = left(data)
    with pytest.raises(Rejected) as caught:
        wipe_volumes(data, name, confirm=agree)
    assert caught.value.code == "application.bad_name"
    assert left(data) == before


def test_a_directory_of_no_agent_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "volumes" / "reader").mkdir(parents=True)
    with pytest.raises(Missing) as caught:
        wipe_volumes(tmp_path, "reader", confirm=agree)
    assert caught.value.code == "agent.not_joined"
    assert (tmp_path / "volumes" / "reader").exists()
