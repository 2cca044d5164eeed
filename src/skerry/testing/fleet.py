"""Starts the real hub and real agents as processes, and the command line as a person would.

Everything lives below one directory, and `close` leaves no process behind. Nothing here waits by sleeping: a
hub is up when it says so, and conditions are awaited with `eventually`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from skerry.testing.lan import Lan
from skerry.testing.processes import fleet_processes

READY_S = 30.0
COMMAND_S = 120.0
SKERRY = (sys.executable, "-m", "skerry")
PUBLISHER = "acme"
_ENDING = 4  # at a time: they wait for applications to end more than they compute


class CommandFailed(AssertionError):
    """A command ended otherwise than expected; shows what it printed."""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def site_path() -> str:
    """Return a PATH as a site would have it: without the virtual environment this process runs in."""
    own = str(Path(sys.executable).parent)
    parts = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(part for part in parts if part != own)


class Process:
    """A long-running `skerry` process with its log file."""

    def __init__(
        self, name: str, folder: Path, env: Mapping[str, str], *, prefix: Sequence[str] = ()
    ) -> None:
        """`prefix` is a command that runs the process elsewhere, such as in a network namespace."""
        self._prefix = tuple(prefix)
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._env = dict(env)
        self._process: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the number of the running process."""
        assert self._process is not None
        return self._process.pid

    def launch(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start it with its log appended to `log`."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *SKERRY, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env=self._env,
                start_new_session=True,
            )
        return self._process

    def ask_to_end(self) -> None:
        """Send what `stop` sends, and do not wait."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to end, wait, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Kill it as a power cut would."""
        return self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for it to end by itself and return its exit code."""
        assert self._process is not None
        return self._process.wait(READY_S)

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(READY_S)
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None
        return code


class HubProcess(Process):
    """A real hub; it keeps its port over restarts."""

    def __init__(self, folder: Path, env: Mapping[str, str], host: str = "127.0.0.1") -> None:
        super().__init__("hub", folder, env)
        self.data = folder / "data"
        self.host = host
        self.port = free_port()
        self.url = f"https://{host}:{self.port}"
        self.root = ""
        self.secret = ""

    def start(self) -> HubProcess:
        """Start the hub and return when it serves."""
        process = self.launch(
            ["hub", "serve", "--data", str(self.data), "--listen", f"{self.host}:{self.port}"]
        )
        watchdog = threading.Timer(READY_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("one-time secret:"):
                    self.secret = line.split()[-1]
                if line.startswith("log in with:"):
                    self.root = line.split()[-1]
                    return self
        finally:
            watchdog.cancel()
        raise CommandFailed(f"the hub did not start:\n{self.log.read_text()[-4000:]}")


class AgentProcess(Process):
    """A real agent with its own data directory. `facts` are stated in place of the detected ones.

    `arguments` are more of them for its command, from its next start on.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        env: Mapping[str, str],
        facts: Mapping[str, str],
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(name, folder, env, prefix=prefix)
        self.data = folder / "data"
        self._facts = dict(facts)
        self.arguments: tuple[str, ...] = ()

    def start(self) -> AgentProcess:
        """Start the agent; it needs no hub for that."""
        facts = [
            argument for name, value in self._facts.items() for argument in ("--fact", f"{name}={value}")
        ]
        self.launch(["agent", "run", "--data", str(self.data), *facts, *self.arguments])
        return self

    def status(self) -> dict[str, Any]:
        """Return what the host itself says, without any hub."""
        try:
            found: dict[str, Any] = json.loads((self.data / "status.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    def application(self, name: str) -> dict[str, Any]:
        """Return the host's view of an application; empty while there is none."""
        observed: dict[str, Any] = self.status().get("observed") or {}
        applications: dict[str, dict[str, Any]] = observed.get("applications") or {}
        return applications.get(name, {})

    def endpoint(self, application: str, component: str, port: str = "http") -> str:
        """Return host:port of a component, or an empty text."""
        seen = self.application(application).get("components", {}).get(component, {})
        return str(seen.get("endpoints", {}).get(port, ""))


class Fleet:
    """A hub, its agents, and a command line that is logged in.

    On a `lan`, the hub listens at its gateway, and agents that are named like a host of it run there.
    """

    def __init__(self, folder: Path, lan: Lan | None = None) -> None:
        self.folder = folder
        self.lan = lan
        self.env = {
            "PATH": site_path(),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "SKERRY_CONFIG": str(folder / "config.json"),
            "COLUMNS": "140",
        }
        self.hub = HubProcess(folder / "hub", self.env, lan.gateway if lan else "127.0.0.1")
        self.agents: dict[str, AgentProcess] = {}
        self._publishes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start the hub and log in."""
        self.hub.start()
        self.run("login", self.hub.url, "--root", self.hub.root, "--secret-stdin", stdin=self.hub.secret)
        return self

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        code: int | None = 0,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> str:
        """Run a `skerry` command and return its standard output; `code` None accepts any exit code.

        Raises:
            CommandFailed: another exit code.
        """
        done = self.try_run(*arguments, stdin=stdin, cwd=cwd, prefix=prefix)
        if code is not None and done.returncode != code:
            raise CommandFailed(
                f"skerry {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def try_run(
        self, *arguments: str, stdin: str = "", cwd: Path | None = None, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a `skerry` command and return how it ended; `prefix` is a command that runs it elsewhere.

        Before the first push, a publisher is made. A rollout that names no waves has one for everybody here.
        """
        if arguments[:2] == ("rollout", "start") and "--waves" not in arguments:
            arguments = (*arguments, "--waves", "100%")
        if arguments[:2] == ("release", "push") and not self._publishes:
            self.add_publisher()
        return subprocess.run(
            [*prefix, *SKERRY, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=cwd,
            timeout=COMMAND_S,
            check=False,
        )

    def get(self, *arguments: str) -> Any:
        """Run a command with `-o json` and return what it printed."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def add_publisher(self) -> None:
        """Let this command line sign releases, with the offline key of the hub's first start."""
        self._publishes = True
        self.run(
            "publisher", "add", PUBLISHER, "--signer", str(self.hub.data / "offline-keys" / "targets.pem")
        )

    def add_site(self, name: str, *labels: str) -> None:
        """Create a site."""
        self.run("site", "create", name, *(part for label in labels for part in ("--label", label)))

    def add_agent(self, site: str, name: str, facts: Mapping[str, str] | None = None) -> AgentProcess:
        """Join a host to a site and start its agent."""
        prefix = self.lan.command(name, []) if self.lan and name in self.lan.hosts else ()
        agent = AgentProcess(name, self.folder / "agents" / name, self.env, facts or {}, prefix=prefix)
        token = self.get("site", "token", site)["token"]
        self.run("agent", "join", "-", "--data", str(agent.data), "--name", name, stdin=token)
        self.agents[name] = agent
        return agent.start()

    def close(self) -> None:
        """End agents, applications and hub; what is left of them is killed."""
        for agent in self.agents.values():
            agent.ask_to_end()
        for agent in self.agents.values():
            agent.stop()
        if self.agents:
            with ThreadPoolExecutor(_ENDING) as pool:
                list(pool.map(self._end_applications, self.agents.values()))
        self.hub.stop()
        for pid in fleet_processes(self.folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _end_applications(self, agent: AgentProcess) -> None:
        self.try_run("agent", "down", "--data", str(agent.data))
