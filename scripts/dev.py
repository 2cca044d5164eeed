"""Runs a hub and three agents to play with until Ctrl-C, and restarts them whenever their source changes.

    python scripts/dev.py [--dir DIR] [--watch DIR]

Rules: everything lives in one directory and is found there again at the next start; applications outlive the
restarts, and are ended with the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.fleet_folder import FACTS, SITES, end_everything, host_path  # noqa: E402 - the path comes first
from skerry.testing.fleet import AgentProcess, CommandFailed, Fleet, Process  # noqa: E402
from skerry.testing.processes import fleet_processes  # noqa: E402

_LOOK_S = 0.3
# Editors write several files at once; a restart amid that would be followed by another.
_SETTLE_S = 0.3


class LogTail:
    """Prints what is added to a process's log, with its name in front."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._rest = ""
        process.log.write_text("")
        self._file = process.log.open(errors="replace")

    def print_new(self) -> None:
        """Print the whole lines that came since the last time."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            print(f"{self._process.name:<10}| {line}", flush=True)


class Playground:
    """The fleet, kept in a directory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.fleet = Fleet(folder)
        self.fleet.env["PATH"] = host_path(folder)
        self._settle_port(folder / "dev.json")
        self.agents = self.fleet.agents
        for site in SITES:
            name = f"{site}-1"
            path = folder / "agents" / name
            self.agents[name] = AgentProcess(name, path, self.fleet.env, FACTS.get(site, {}))
        self._tails = [LogTail(process) for process in self._processes()]
        self._ended: set[str] = set()

    def start(self) -> None:
        """Start the hub, make what is not there yet, and start the agents.

        Raises:
            CommandFailed: the hub does not start, or a command failed.
        """
        fleet, hub = self.fleet, self.fleet.hub
        hub.start()
        if hub.secret and fleet.try_run("get", "sites").returncode:
            fleet.run("login", hub.url, "--root", hub.root, "--secret-stdin", stdin=hub.secret)
        if not fleet.get("publisher", "list"):
            fleet.add_publisher()
        known = {site["name"] for site in fleet.get("get", "sites")}
        for (site, region), agent in zip(SITES.items(), self.agents.values(), strict=True):
            if site not in known:
                fleet.add_site(site, f"region={region}")
            if not (agent.data / "identity.json").exists():
                token = fleet.get("site", "token", site)["token"]
                fleet.run("agent", "join", "-", "--data", str(agent.data), "--name", agent.name, stdin=token)
            agent.start()
        self._ended.clear()

    def stop(self) -> None:
        """Stop the agents and the hub; applications run on."""
        for agent in self.agents.values():
            agent.stop()
        self.fleet.hub.stop()

    def watch_processes(self) -> None:
        """Print new lines of the logs, and say which process has ended by itself."""
        for tail in self._tails:
            tail.print_new()
        for process in self._processes():
            if not process.running and process.name not in self._ended:
                self._ended.add(process.name)
                say(f"{process.name} does not run; it is started again at the next change")

    def close(self) -> bool:
        """End everything, applications included; tell whether nothing is left."""
        end_everything(self.fleet.folder)
        self.stop()
        return not fleet_processes(self.fleet.folder)

    def _processes(self) -> list[Process]:
        return [self.fleet.hub, *self.agents.values()]

    def _settle_port(self, memory: Path) -> None:
        """Take the port of last time: the hosts have it in their settings."""
        hub = self.fleet.hub
        with contextlib.suppress(OSError, ValueError, KeyError):
            hub.port = int(json.loads(memory.read_text())["port"])
        hub.url = f"https://127.0.0.1:{hub.port}"
        memory.write_text(json.dumps({"port": hub.port}))


def main() -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=ROOT / "build" / "dev", help="where everything lives")
    parser.add_argument("--watch", type=Path, default=ROOT / "src" / "skerry", help="sources to watch")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = options.dir.resolve()
    if fleet_processes(folder):
        say(f"something runs in {folder} already; ending it")
        end_everything(folder)
    playground = Playground(folder)
    sources = options.watch.resolve()
    # Looked at before anything runs, so that no change is missed.
    known = snapshot(sources)
    try:
        start(playground)
        tell_usage(playground)
        watch(playground, sources, known)
    except KeyboardInterrupt:
        pass
    finally:
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        say("stopping")
        clean = playground.close()
    say(
        f"stopped; `rm -r {folder}` forgets all of it" if clean else f"still there: {fleet_processes(folder)}"
    )
    return 0 if clean else 1


def start(playground: Playground) -> None:
    """Start the fleet; if it does not start, say why and wait for a change that mends it."""
    try:
        playground.start()
    except CommandFailed as error:
        say(f"{str(error).splitlines()[0]}; waiting for a change that mends it")
        return
    say(f"the hub and {len(playground.agents)} agents run")


def watch(playground: Playground, sources: Path, known: dict[Path, int]) -> NoReturn:
    """Restart hub and agents whenever a source file is no longer as in `known`."""
    while True:
        playground.watch_processes()
        time.sleep(_LOOK_S)
        seen = snapshot(sources)
        if seen == known:
            continue
        time.sleep(_SETTLE_S)
        changed = sorted(
            path.name for path in known.keys() | seen.keys() if known.get(path) != seen.get(path)
        )
        known = snapshot(sources)
        say(f"changed: {', '.join(changed[:5])}; restarting hub and agents")
        playground.stop()
        start(playground)


def snapshot(sources: Path) -> dict[Path, int]:
    """Return the time of the last change of each source file."""
    found: dict[Path, int] = {}
    for path in sources.rglob("*.py"):
        # A file may be gone between being listed and being looked at.
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def tell_usage(playground: Playground) -> None:
    """Say how to use what runs."""
    fleet, skerry = playground.fleet, Path(sys.executable).parent / "skerry"
    agent = next(iter(playground.agents.values()))
    example = Path("examples") / "meter-reader"
    lines = [
        f"export SKERRY_CONFIG={fleet.env['SKERRY_CONFIG']}",
        f"{skerry} get hosts",
        f"{skerry} agent status --data {agent.data}",
        f"{sys.executable} {example}/build.py",
        f"{skerry} release push {example}/release-1.0.0.yaml",
        f"{skerry} rollout start meter-reader@1.0.0 --sites '*' --soak 2s",
    ]
    say("in another terminal, for example:")
    print("\n".join(f"    {line}" for line in lines), flush=True)
    say("Ctrl-C ends everything")


def say(text: str) -> None:
    """Print a line of this program itself."""
    print(f"{'dev':<10}| {text}", flush=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
