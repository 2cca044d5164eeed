"""Follows a page of the documentation: its commands are taken from the page and run, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from skerry.testing.fleet import AgentProcess, HubProcess, free_port
from skerry.testing.waiting import eventually_sync

ROOT = Path(__file__).resolve().parents[2]
# What only sets up.
SET_UP = ("make demo", "make setup", ". .venv/bin/activate")


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page in order."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))


class Reader:
    """Follows a tutorial in a directory of its own; hub and agent run as in terminals of their own.

    `instead` has what is done for a line in place of running it; `fails` are the lines that are to end with 1.
    `ports` are those that are taken here by those of the page.
    """

    def __init__(
        self, folder: Path, *, fails: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.instead: dict[str, Callable[[], object]] = {}
        self.ports: dict[str, int] = {}
        self._fails = fails
        (folder / "examples").symlink_to(ROOT / "examples")
        bin_folder = Path(sys.executable).parent
        self.env = {
            "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "SKERRY_CONFIG": str(folder / "config.json"),
            **(env or {}),
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
        if command in self.instead:
            self.instead[command]()
        elif command == "skerry hub serve --data hub":
            self.hub.start()
        elif command.startswith("skerry agent run --data agent"):
            self.agent.arguments = tuple(self.here(command).split()[5:])
            self.agent.start()
        elif command.startswith("skerry login"):
            self.run(f"skerry login {self.hub.url} --root {self.hub.root} --secret-stdin", self.hub.secret)
        else:
            if command == "skerry agent down --data agent":
                self.agent.stop()
            self.run(command)

    def runs(self, command: str) -> bool:
        """Run a line in a shell, and tell whether it ended with 0."""
        return self._shell(command).returncode == 0

    def run(self, command: str, stdin: str = "") -> str:
        """Run a line in a shell, and return what it prints."""
        done = self._shell(command, stdin)
        expected = 1 if command in self._fails else 0
        assert done.returncode == expected, f"$ {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def endpoint(self, application: str, component: str) -> str:
        """Return where an application listens, as `skerry agent status` tells."""
        return eventually_sync(lambda: self.agent.endpoint(application, component))

    def close(self) -> None:
        """Leave nothing running."""
        self.agent.stop()
        self.hub.stop()
        if self.agent.data.exists():
            self.run("skerry agent down --data agent")

    def _shell(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-c", self.here(command)],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.folder,
            timeout=300,
            check=False,
        )

    def here(self, text: str) -> str:
        """Return a text with the ports that are taken here."""
        for shown, taken in self.ports.items():
            text = re.sub(rf"\b{shown}\b", str(taken), text)
        return text
