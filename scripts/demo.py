"""Plays Skerry on this machine: a hub, three sites, real failures, and in the end a table of what was shown.

    python scripts/demo.py [--keep] [--stop DIR]

Everything runs as real processes in a temporary directory and is gone afterwards. The exit code is 0 only if all
that was promised came true.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.demo_pictures import APPLICATION, COMPONENT, load_pictures  # noqa: E402 - the path comes first
from scripts.demo_stage import Narrator, Stage, Unmet  # noqa: E402
from scripts.demo_steps import STEPS  # noqa: E402
from scripts.demo_story import Story  # noqa: E402
from scripts.fleet_folder import end_everything  # noqa: E402
from skerry.testing.processes import fleet_processes  # noqa: E402

EXAMPLE = ROOT / "examples" / "meter-reader"
COUNTERS = EXAMPLE / "build" / "counters"
# Only a directory with this file in it is ever ended and removed.
MARK = "skerry-demo"
LOG_LINES = 12


@dataclass
class Show:
    """One performance: where it plays, and what it has shown so far."""

    say: Narrator
    folder: Path
    stage: Stage
    findings: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def play(self) -> None:
        """Play all steps."""
        story = Story(self.stage, self.say, EXAMPLE, load_pictures(COUNTERS))
        for number, step in enumerate(STEPS, start=1):
            self.say.title(f"{number} of {len(STEPS)}: {step.title}")
            begun = time.monotonic()
            figures = step.play(story)
            self.findings.append((step.proves, figures, f"{time.monotonic() - begun:.1f}"))

    def close(self) -> None:
        """End everything, and prove it."""
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        begun = time.monotonic()
        self.say.title("Clean up")
        self.say.text("The agents stop, `skerry agent down` ends the applications, the hub stops.")
        ended = self.stage.end()
        left = fleet_processes(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        if left or self.folder.exists():
            raise Unmet(f"left behind: {left or self.folder}")
        seconds = time.monotonic() - begun
        figures = f"{ended} processes ended, {len(left)} left; the directory is gone"
        self.findings.append(("nothing is left behind", figures, f"{seconds:.1f}"))

    def tell_failure(self, error: Exception) -> None:
        """Say what did not come true, and show the end of the logs."""
        self.say.text(f"\nFAILED: {error}", "bold red")
        named = error.log if isinstance(error, Unmet) else None
        logs = [self.folder / "hub" / "hub.log", *sorted(self.folder.glob("agents/*/*.log"))]
        logs += sorted(self.folder.glob("agents/*/data/instances/*/log"))
        for path in [named] if named else logs:
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
                self.say.text(f"\nthe end of {path}:")
                self.say.output("\n".join(lines))


def main() -> int:
    """Do what is asked and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--keep", action="store_true", help="leave all of it running, and say how to look around"
    )
    parser.add_argument("--stop", type=Path, metavar="DIR", help="end and remove what --keep left in DIR")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if options.stop:
        return stop(options.stop)
    return perform(keep=options.keep)


def perform(*, keep: bool) -> int:
    """Set up, play, clean up, and show the table."""
    say = Narrator()
    try:
        set_up_s = build_example(say)
    except KeyboardInterrupt:
        return 130
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="skerry-demo-")).resolve()
    (folder / MARK).touch()
    say.folder = folder
    say.text(
        f"It plays in {folder}, shown as $DEMO below. Every command is the real one; every figure is measured."
    )
    show = Show(say, folder, Stage(folder, say))
    code = 0
    try:
        show.play()
    except KeyboardInterrupt:
        say.text("\ninterrupted", "bold red")
        code = 130
    except Exception as error:  # whatever it is, the logs are shown and nothing is left behind
        show.tell_failure(error)
        code = 1
    kept = keep and code != 130
    if not kept:
        try:
            show.close()
        except Unmet as error:
            say.text(f"\nFAILED: {error}", "bold red")
            code = code or 1
    if code == 0:
        tell_summary(show, time.monotonic() - begun, set_up_s)
    if kept:
        tell_around(show)
    return code


def build_example(say: Narrator) -> float:
    """Build the example where that is due, and return how long it took."""
    say.title("Set-up: the example application and its models")
    begun = time.monotonic()
    if not (EXAMPLE / "build" / "report.json").exists():
        say.text("It is built now, once; this takes about a quarter of a minute.")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "build.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - begun
    # After the empty line come the figures of the build, which the demo measures by itself.
    say.output(done.stdout if done.returncode else done.stdout.partition("\n\n")[0])
    if done.returncode:
        say.text("FAILED: the example could not be built", "bold red")
        raise SystemExit(1)
    say.text(f"Set-up took {took_s:.1f} s, which counts below as set-up only.")
    return took_s


def tell_summary(show: Show, total_s: float, set_up_s: float) -> None:
    """Show what was proven."""
    show.say.title("What was shown")
    total = ("all of it", f"set-up of {set_up_s:.1f} s not counted", f"{total_s:.1f}")
    show.say.table(["what was proven", "how it was seen", "seconds"], [*show.findings, total], lines=True)


def tell_around(show: Show) -> None:
    """Say how to look around in what was left running, and how to end it."""
    bin_ = Path(sys.executable).parent
    lines = [f"export SKERRY_CONFIG={show.stage.env['SKERRY_CONFIG']}"]
    lines += [f"{bin_}/skerry {what}" for what in ("get hosts", "get rollouts", "get events")]
    for agent in show.stage.agents.values():
        lines.append(f"{bin_}/skerry agent status --data {agent.data}")
    for agent in list(show.stage.agents.values())[:1]:
        picture = COUNTERS / "counter-000.png"
        url = f"http://{agent.endpoint(APPLICATION, COMPONENT)}/infer"
        lines.append(f"curl -H 'Content-Type: image/png' --data-binary @{picture} {url}")
    show.say.title("All of it goes on running; look around")
    show.say.verbatim(lines)
    show.say.text("and end it with", "bold")
    show.say.verbatim([f"{sys.executable} {Path(__file__).resolve()} --stop {show.folder}"])


def stop(folder: Path) -> int:
    """End and remove what an earlier run has left on purpose."""
    folder = folder.resolve()
    if not (folder / MARK).exists():
        print(f"demo: {folder} is no directory of the demo", file=sys.stderr)
        return 2
    ended = end_everything(folder)
    shutil.rmtree(folder)
    left = fleet_processes(folder)
    print(f"ended {ended} processes and removed {folder}" if not left else f"still there: {left}")
    return 1 if left else 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
