"""A folder with a fleet of real processes in it: what its hosts find on their PATH, and how all of it is ended.

Rules: only the fleet's own processes are signalled; applications are asked to end before they are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from skerry.testing.fleet import SKERRY, site_path
from skerry.testing.processes import fleet_processes, is_running, runs

SITES: Mapping[str, str] = {"harbour": "north", "airport": "north", "depot": "south"}
"""The sites of demo and dev, each with its region."""

FACTS: Mapping[str, Mapping[str, str]] = {"depot": {"memory": "512MiB"}}
"""What a site's host is told to believe of itself: one is small, so that it takes another variant."""

_PATIENCE_S = 15.0


def host_path(folder: Path) -> str:
    """Return the PATH of the folder's hosts; `python3` there is the interpreter that this program runs on.

    The example's bundle is tied to the minor version of Python that built it; a machine may have several.
    """
    link = folder / "bin" / "python3"
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not base.exists():
        return site_path()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(base)
    return os.pathsep.join([str(link.parent), site_path()])


def end_everything(folder: Path) -> int:
    """End what runs in a folder, whoever started it: agents, applications, hub. Return how many there were."""
    found = fleet_processes(folder)
    _end([pid for pid, words in found.items() if runs(words, "agent", "run")])
    for data in sorted((folder / "agents").glob("*/data")):
        subprocess.run([*SKERRY, "agent", "down", "--data", str(data)], capture_output=True, check=False)
    _end([pid for pid, words in found.items() if runs(words, "hub", "serve")])
    for pid in fleet_processes(folder):
        _signal(pid, signal.SIGKILL)
    _wait(lambda: not fleet_processes(folder))
    return len(found)


def _end(pids: list[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    _wait(lambda: not any(is_running(pid) for pid in pids))


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + _PATIENCE_S
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
