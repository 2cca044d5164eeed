"""`make dev`: a fleet that restarts when its source changes, is found again, and ends with Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skerry.testing.fleet import SKERRY
from skerry.testing.processes import processes_of
from skerry.testing.waiting import eventually_sync

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "dev.py"


@contextmanager
def dev(folder: Path, sources: Path) -> Generator[Path]:
    """Run the script until the end of the `with`, then press Ctrl-C; yields the file with what it prints."""
    printed = folder.with_suffix(".txt")
    with printed.open("w") as file:
        command = [sys.executable, str(SCRIPT), "--dir", str(folder), "--watch", str(sources)]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield printed
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, printed.read_text()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{printed.read_text()}") from error
    finally:
        process.kill()
        process.wait()
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)


def online(folder: Path) -> int:
    """Return how many hosts the command line sees online, with the login that the script has made."""
    env = {**os.environ, "SKERRY_CONFIG": str(folder / "config.json")}
    done = subprocess.run([*SKERRY, "get", "hosts"], env=env, capture_output=True, text=True, check=False)
    return done.stdout.count(" online ")


def test_dev_runs_a_fleet_restarts_it_on_a_change_and_leaves_nothing(tmp_path: Path) -> None:
    folder, sources = tmp_path / "dev", tmp_path / "sources"
    sources.mkdir()
    with dev(folder, sources) as printed:
        eventually_sync(lambda: online(folder) == 3)
        eventually_sync(lambda: "Ctrl-C ends everything" in printed.read_text())
        (sources / "changed.py").write_text("")
        eventually_sync(lambda: "changed: changed.py; restarting" in printed.read_text())
        eventually_sync(lambda: printed.read_text().count("the hub and 3 agents run") == 2)
        eventually_sync(lambda: printed.read_text().count("event=agent.started") == 6)
    assert processes_of(folder) == {}

    with dev(folder, sources):
        eventually_sync(lambda: online(folder) == 3)
    assert processes_of(folder) == {}
