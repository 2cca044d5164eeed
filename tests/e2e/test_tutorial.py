"""The tutorial does what it says: its commands are taken from the page and run, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess, HubProcess, free_port
from skerry.testing.processes import processes_of
from skerry.testing.waiting import eventually_sync

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorials" / "first-site.md"
# What only sets up, ends the story, or goes on in a terminal of its own.
SET_UP = ("make demo", ". .venv/bin/activate")
FAILS = ("skerry rollout watch meter-reader-1-2-0",)


def commands() -> Iterator[str]:
    """Yield the commands of the page in order."""
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))


class Reader:
    """Follows the tutorial in a directory of its own; hub and agent run as in terminals of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        bin_folder = Path(sys.executable).parent
        self.env = {
            "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "SKERRY_CONFIG": str(folder / "config.json"),
        }
        self.hub = HubProcess(folder, self.env)
        self.hub.port = free_port()
        self.hub.data = folder / "hub"
        self.hub.url = f"https://127.0.0.1:{self.hub.port}"
        self.agent = AgentProcess("agent", folder, self.env, {})
        self.agent.data = folder / "agent"

    def follow(self, command: str) -> None:
        """Do what a line of the page says."""
        if command in SET_UP:
            return
        if command == "skerry hub serve --data hub":
            self.hub.start()
        elif command == "skerry agent run --data agent":
            self.agent.start()
        elif command.startswith("skerry login"):
            self.run(f"skerry login {self.hub.url} --root {self.hub.root} --secret-stdin", self.hub.secret)
        else:
            if command == "skerry agent down --data agent":
                self.agent.stop()
            self.run(command.replace("127.0.0.1:PORT", self.endpoint() if "PORT" in command else ""))

    def run(self, command: str, stdin: str = "") -> None:
        """Run a line in a shell."""
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.folder,
            timeout=120,
            check=False,
        )
        expected = 1 if command in FAILS else 0
        assert done.returncode == expected, f"$ {command}\n{done.stdout}\n{done.stderr}"

    def endpoint(self) -> str:
        """Return where the application listens, as `skerry agent status` tells."""
        return eventually_sync(lambda: self.agent.endpoint("meter-reader", "reader"))

    def close(self) -> None:
        """Leave nothing running."""
        self.agent.stop()
        self.hub.stop()
        if self.agent.data.exists():
            self.run("skerry agent down --data agent")


def test_the_tutorial_works_line_by_line(tmp_path: Path) -> None:
    lines = list(commands())
    assert len(lines) > 25
    reader = Reader(tmp_path)
    try:
        for line in lines:
            reader.follow(line)
    finally:
        reader.close()
    assert processes_of(tmp_path) == {}
