"""What the steps of the demo share: the fleet, the pictures, and the sentences that several steps speak."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from scripts.demo_pictures import APPLICATION, Picture, Survey, survey
from scripts.demo_stage import Narrator, Stage, expect
from scripts.fleet_folder import SITES

SOAK = ("--soak", "2s", "--waves", "100%")


@dataclass
class Story:
    """What the steps work with, and what they hand on."""

    stage: Stage
    say: Narrator
    example: Path
    pictures: tuple[Picture, ...]
    surveys: dict[str, dict[str, Survey]] = field(default_factory=dict[str, dict[str, Survey]])
    hub_away_since: float = 0.0

    def push(self, version: str) -> str:
        """Push a release of the example and return what the command printed."""
        return self.stage.show("release", "push", f"release-{version}.yaml", cwd=self.example)

    def roll_out(self, version: str) -> str:
        """Start a rollout to all sites and return its name."""
        self.stage.run("rollout", "start", f"{APPLICATION}@{version}", "--sites", "*", *SOAK)
        return f"{APPLICATION}-{version.replace('.', '-')}"

    def ask_all(self, version: str) -> dict[str, Survey]:
        """Let every site read all pictures; they must do so with the models of one release."""
        found = {site: survey(agent, self.pictures) for site, agent in self.stage.sites.items()}
        for site, result in found.items():
            expect(result.version == version, f"{site} was to answer with {version}, not {result.version}")
        return found

    def until_each(self, condition: Callable[[str], bool], what: str, sites: Iterable[str] = SITES) -> None:
        """Wait until a condition holds at each site."""
        for site in sites:
            self.stage.until(partial(condition, site), f"{site} {what}", self.stage.sites[site].log)

    def until_all_run(self, version: str) -> None:
        """Wait until every host runs a release for good."""
        release = f"{APPLICATION}@{version}"
        self.until_each(lambda site: self.stage.runs(site, release), f"runs {version}")

    def kill_hub(self) -> None:
        """Take the hub away as a power cut would."""
        self.say.command_line(f"kill -9 {self.stage.hub.pid}", "  # the hub")
        self.stage.hub.kill()
        self.hub_away_since = time.monotonic()

    def bring_hub_back(self) -> float:
        """Start the hub again, wait until every host has found it, and return how long it was away."""
        away_s = time.monotonic() - self.hub_away_since
        since = datetime.now(UTC)
        self.stage.serve()
        self.stage.until_heard(since)
        return away_s

    def tell_surveys(self, *versions: str) -> None:
        """Show how well each site read with the models of some releases."""
        rows = [
            (site, result.version, result.variant, result.counters_text, f"{result.digits_share:.3f}")
            for site in SITES
            for result in (self.surveys[version][site] for version in versions)
        ]
        self.say.table(["site", "model", "variant", "counters read rightly", "share of digits"], rows)

    def event_kinds(self, site: str) -> set[str]:
        """Return the kinds of events that the hub knows of a site."""
        events = self.stage.look("get", "events", "--site", site)
        return {str(event["event"]["kind"]) for event in events}
