"""The demo's stage: a real fleet whose commands are shown as they run, and the words in between.

Rules: with a terminal it is coloured, without one it is plain text; paths below the demo's folder are shown as
`$DEMO/...`; whatever was expected and did not come true is raised as `Unmet`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.demo_pictures import APPLICATION
from scripts.fleet_folder import FACTS, end_everything, host_path
from skerry.testing.fleet import SKERRY, AgentProcess, Fleet
from skerry.testing.processes import processes_of

T = TypeVar("T")

_PLAIN_WIDTH = 132
_LIMIT_S = 60.0
# Rarely enough not to take the processor from what is waited for.
_PAUSE_S = 0.1
_digest_re = re.compile(r"(sha256:[0-9a-f]{8})[0-9a-f]{56}")
# A line of `skerry rollout watch`: when, site or rollout, state, why.
_progress_re = re.compile(r"\S+ \S+  (?P<what>[^:]+): (?P<state>\w+): (?P<why>.*)")


class Unmet(AssertionError):
    """Something the demo promises did not come true. `log` is where to look."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


def expect(met: bool, what: str, log: Path | None = None) -> None:  # noqa: FBT001 - reads as a sentence
    """Go on only if something is so.

    Raises:
        Unmet: it is not.
    """
    if not met:
        raise Unmet(what, log)


class Narrator:
    """Prints the story."""

    def __init__(self, folder: Path | None = None) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, markup=False, emoji=False, width=_PLAIN_WIDTH)
        self.folder = folder

    def title(self, text: str) -> None:
        """Begin a step."""
        self.console.print(f"\n== {text}", style="bold cyan")

    def text(self, text: str, style: str = "") -> None:
        """Say a sentence."""
        self.console.print(text, style=style)

    def command(self, arguments: Sequence[str], note: str = "") -> None:
        """Show a command as a person would type it."""
        self.command_line(shlex.join(["skerry", *arguments]), note)

    def command_line(self, line: str, note: str = "") -> None:
        """Show a line as a person would type it."""
        self.console.print(Text("$ " + self._shortened(line), "bold").append(note, "dim"), soft_wrap=True)

    def output(self, text: str) -> None:
        """Show what a command printed."""
        for line in text.rstrip().splitlines():
            self.console.print("  " + self._shortened(line), style="dim", soft_wrap=True)

    def verbatim(self, lines: Iterable[str]) -> None:
        """Show lines to be copied, as they are."""
        for line in lines:
            self.console.print(f"  {line}", soft_wrap=True)

    def table(self, headings: Iterable[str], rows: Iterable[Sequence[str]], *, lines: bool = False) -> None:
        """Show a table; all but its first column are as wide as they need to be."""
        table = Table(*headings, show_lines=lines, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)

    def _shortened(self, text: str) -> str:
        if self.folder:
            text = text.replace(str(self.folder), "$DEMO")
        return _digest_re.sub(r"\1…", text)


class Stage(Fleet):
    """A fleet that shows its commands."""

    def __init__(self, folder: Path, say: Narrator) -> None:
        super().__init__(folder)
        self.say = say
        self.env["PATH"] = host_path(folder)
        self.sites: dict[str, AgentProcess] = {}
        self._shows = True

    def try_run(
        self, *arguments: str, stdin: str = "", cwd: Path | None = None, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, and show it unless it is but a look."""
        if self._shows:
            self.say.command(arguments, "  # with the secret on standard input" if stdin else "")
        return super().try_run(*arguments, stdin=stdin, cwd=cwd, prefix=prefix)

    def show(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run a command and show what it prints, too."""
        printed = self.run(*arguments, cwd=cwd)
        self.say.output(printed)
        return printed

    def look(self, *arguments: str) -> Any:
        """Return what a command says, without showing it; for waiting."""
        self._shows = False
        try:
            return self.get(*arguments)
        finally:
            self._shows = True

    def serve(self) -> None:
        """Start the hub, for the first time or again."""
        self.say.command(self.serve_arguments(), " &")
        self.hub.start()

    def serve_arguments(self) -> list[str]:
        """Return how the hub is started."""
        return ["hub", "serve", "--data", str(self.hub.data), "--listen", f"127.0.0.1:{self.hub.port}"]

    def join(self, site: str) -> None:
        """Let a host join a site and start its agent."""
        agent = self.add_agent(site, f"{site}-1", FACTS.get(site))
        self.sites[site] = agent
        self._show_agent(site)

    def start_agent(self, site: str) -> None:
        """Start a site's agent again."""
        self.sites[site].start()
        self._show_agent(site)

    def _show_agent(self, site: str) -> None:
        facts = [
            part for name, value in FACTS.get(site, {}).items() for part in ("--fact", f"{name}={value}")
        ]
        self.say.command(["agent", "run", "--data", str(self.sites[site].data), *facts], " &")

    def follow(self, rollout: str, *, code: int) -> None:
        """Follow a rollout to its end, showing each new state once.

        Raises:
            Unmet: it ended otherwise than expected, or not in time.
        """
        arguments = ["rollout", "watch", rollout, "--timeout", f"{_LIMIT_S:.0f}s"]
        self.say.command(arguments)
        shown: set[tuple[str, str]] = set()
        lines: list[str] = []
        process = subprocess.Popen(
            [*SKERRY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                match = _progress_re.match(line)
                if match is None or (match["what"], match["state"]) not in shown:
                    self.say.output(line if match is None else "{}: {}: {}".format(*match.groups()))
                    shown |= {(match["what"], match["state"])} if match else set()
            ended = process.wait()
        finally:
            process.kill()
            process.wait()
        expect(ended == code, f"rollout {rollout} was to end with {code}, not {ended}:\n{''.join(lines)}")

    def until(self, condition: Callable[[], T], what: str, log: Path | None = None) -> T:
        """Wait for a condition and return its value.

        Raises:
            Unmet: it did not come true.
        """
        limit = time.monotonic() + _LIMIT_S
        while not (found := condition()):
            expect(time.monotonic() < limit, f"{what} did not come true within {_LIMIT_S:.0f} s", log)
            time.sleep(_PAUSE_S)
        return found

    def runs(self, site: str, release: str) -> bool:
        """Tell whether a site's host says that it runs a release for good."""
        view = self.sites[site].application(APPLICATION)
        parts = view.get("components", {}).values()
        ready = bool(parts) and all(part.get("state") == "ready" for part in parts)
        return ready and view.get("phase") == "running" and view.get("release") == release

    def application_pid(self, site: str) -> int:
        """Return the number of the application's own process at a site; 0 while there is none."""
        found = processes_of(self.sites[site].folder)
        return next((pid for pid, words in found.items() if words[-1].endswith("meter-reader.pyz")), 0)

    def end(self) -> int:
        """End all that runs, and return how many processes there were."""
        ended = end_everything(self.folder)
        for process in (*self.agents.values(), self.hub):
            process.stop()
        return ended

    def site_state(self, rollout: str, site: str) -> str:
        """Return how far a rollout is at a site, as the hub sees it."""
        return str(self.look("get", "rollouts", rollout)["sites"][site]["state"])

    def heard_since(self, instant: datetime) -> int:
        """Return how many hosts the hub has heard from since an instant."""
        seen = [host["last_seen_at"] for host in self.look("get", "hosts")]
        return sum(at is not None and datetime.fromisoformat(at) >= instant for at in seen)

    def until_heard(self, since: datetime) -> None:
        """Wait until the hub has heard, since an instant, from every host that runs."""
        running = sum(agent.running for agent in self.agents.values())
        self.until(lambda: self.heard_since(since) >= running, "every host is heard of", self.hub.log)
