"""The steps of the demo; each returns the figures that show what it proves.

Rules: every figure is measured while the story plays, and what does not come true is raised as `Unmet`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scripts.demo_pictures import APPLICATION, Traffic
from scripts.demo_stage import expect
from scripts.demo_story import Story
from scripts.fleet_folder import SITES

GOOD, BETTER, BROKEN = "1.0.0", "1.1.0", "1.2.0"
SAMPLES = 4


def begin(story: Story) -> str:
    """Start a hub and three hosts, each at its own site."""
    stage, since = story.stage, datetime.now(UTC)
    story.say.command(stage.serve_arguments(), " &")
    stage.start()
    for site, region in SITES.items():
        stage.add_site(site, f"region={region}")
    for site in SITES:
        stage.join(site)
    stage.until_heard(since)
    stage.show("get", "hosts")
    online = [host for host in stage.look("get", "hosts") if host["presence"] == "online"]
    expect(len(online) == len(SITES), f"{len(online)} of {len(SITES)} hosts are online", stage.hub.log)
    return f"{len(online)} of {len(SITES)} hosts online, each joined with a token that pins the hub"


def roll_out_first(story: Story) -> str:
    """Bring the first release to hosts of two kinds."""
    stage = story.stage
    story.push(GOOD)
    stage.follow(story.roll_out(GOOD), code=0)
    story.until_all_run(GOOD)
    stage.show("explain", "variant", APPLICATION, "--host", stage.sites["depot"].name)
    choices = {site: agent.application(APPLICATION)["choices"][0] for site, agent in stage.sites.items()}
    variants = {site: choice["variant"] for site, choice in choices.items()}
    wanted = {"harbour": "fp32", "airport": "fp32", "depot": "int8"}
    expect(variants == wanted, f"the variants were to be {wanted}, not {variants}")
    chosen = ", ".join(f"{site} {variant}" for site, variant in variants.items())
    return f"{chosen} ({choices['depot']['why'][0]})"


def read_pictures(story: Story) -> str:
    """Let every site read pictures no model has seen."""
    found = story.surveys[GOOD] = story.ask_all(GOOD)
    for site, result in found.items():
        chosen = story.stage.sites[site].application(APPLICATION)["choices"][0]["variant"]
        expect(result.variant == chosen, f"{site} chose {chosen} and answers with {result.variant}")
    rows = [
        (picture.name, picture.truth, *(_marked(found[site].readings[i], picture.truth) for site in found))
        for i, picture in enumerate(story.pictures[:SAMPLES])
    ]
    story.say.text("POST /infer with a picture, at every site:")
    story.say.table(["picture", "truth", *found], rows)
    story.tell_surveys(GOOD)
    return f"of {len(story.pictures)} counters read rightly: " + ", ".join(
        f"{site} {result.counters_right}" for site, result in found.items()
    )


def go_without_hub(story: Story) -> str:
    """Kill the hub, an application and an agent; all sites go on."""
    stage, say = story.stage, story.say
    agent = stage.sites["airport"]
    before = {site: (stage.application_pid(site), stage.sites[site].pid) for site in SITES}
    with Traffic(stage.sites, story.pictures) as traffic:
        story.kill_hub()
        say.command_line(f"kill -9 {before['harbour'][0]}", "  # the application at harbour")
        os.kill(before["harbour"][0], signal.SIGKILL)
        say.command_line(f"kill -9 {agent.pid}", "  # the agent at airport")
        adopted = agent.log.read_text().count("event=agent.started") + 1
        agent.kill()
        stage.start_agent("airport")
        stage.until(
            lambda: agent.log.read_text().count("event=agent.started") >= adopted,
            "the agent is back",
            agent.log,
        )
        stage.until(
            lambda: stage.application_pid("harbour") not in (0, before["harbour"][0]), "it is started again"
        )
        # The killed one was stated to be ready, too: only an answer tells that the new one is.
        story.ask_all(GOOD)
        story.until_all_run(GOOD)
    after = {site: (stage.application_pid(site), stage.sites[site].pid) for site in SITES}
    tallies = traffic.tallies
    say.table(
        ["site", "application pid", "agent pid", "meanwhile", "longest gap"],
        [
            (
                site,
                *map(_change, before[site], after[site]),
                str(tallies[site]),
                f"{tallies[site].gap_s:.1f} s",
            )
            for site in SITES
        ],
    )
    for site in ("airport", "depot"):
        expect(before[site][0] == after[site][0], f"the application at {site} was to run on untouched")
        expect(tallies[site].failed == 0, f"{tallies[site].failed} requests failed at {site}", agent.log)
    gap_s = tallies["harbour"].gap_s
    return (
        f"hub killed; killed application answers again after {gap_s:.1f} s; agent killed: application kept its "
        f"pid; {traffic.total().answered.total()} of {traffic.total().total} requests answered, "
        f"all {traffic.total().failed} failed ones at harbour"
    )


def update_some(story: Story) -> str:
    """Bring the hub back, and a better model to those sites that are there."""
    stage, say = story.stage, story.say
    away_s = story.bring_hub_back()
    stage.until(lambda: "component.ended" in story.event_kinds("harbour"), "what happened meanwhile is told")
    say.text(f"The hub was away for {away_s:.1f} s; harbour has told it now what happened meanwhile.")
    airport = stage.sites["airport"]
    say.command_line(f"kill {airport.pid}", "  # the agent at airport: this site is off the network")
    airport.stop()
    sent = story.push(BETTER).splitlines()[-1]
    rollout = story.roll_out(BETTER)
    there = [site for site in SITES if site != "airport"]
    with Traffic({"airport": airport}, story.pictures) as traffic:
        story.until_each(lambda site: stage.site_state(rollout, site) == "succeeded", "takes it", there)
    stage.show("rollout", "status", rollout)
    tally = traffic.tallies["airport"]
    expect(tally.failed == 0 and set(tally.answered) == {GOOD}, f"airport was to go on with {GOOD}: {tally}")
    expect(stage.site_state(rollout, "airport") == "offered", "airport is offered the release, and no more")
    return f"{sent}; {' and '.join(there)} run it; airport, away, went on: {tally}"


def catch_up(story: Story) -> str:
    """Let the site that was away come back."""
    stage = story.stage
    begun = time.monotonic()
    with Traffic({"airport": stage.sites["airport"]}, story.pictures) as traffic:
        stage.start_agent("airport")
        stage.follow(f"{APPLICATION}-{BETTER.replace('.', '-')}", code=0)
        took_s = time.monotonic() - begun
    story.until_all_run(BETTER)
    story.surveys[BETTER] = story.ask_all(BETTER)
    story.tell_surveys(GOOD, BETTER)
    parts: list[str] = []
    for site, new in story.surveys[BETTER].items():
        old = story.surveys[GOOD][site]
        expect(new.counters_right > old.counters_right, f"{site} was to read better with {BETTER}")
        parts.append(f"{site} {old.counters_right} -> {new.counters_right}")
    gap_s = traffic.tallies["airport"].gap_s
    return (
        f"airport was there {took_s:.1f} s after its start (no answer for {gap_s:.1f} s of it); "
        f"counters of {len(story.pictures)} read rightly: {', '.join(parts)}"
    )


def go_back(story: Story) -> str:
    """Bring a broken release, take the hub away, and see every host go back by itself."""
    stage, say = story.stage, story.say
    release = f"{APPLICATION}@{BROKEN}"
    story.push(BROKEN)
    rollout = story.roll_out(BROKEN)
    with Traffic(stage.sites, story.pictures) as traffic:
        story.until_each(
            lambda site: _notes(stage.sites[site].log, "release.trial", release), f"tries {BROKEN}"
        )
        begun = time.monotonic()
        say.text("All hosts are trying it. Now nobody can tell them to go back:")
        story.kill_hub()
        story.until_each(lambda site: _notes(stage.sites[site].log, "release.refused", release), "refuses it")
        story.until_all_run(BETTER)
        back_s = time.monotonic() - begun
        found = story.ask_all(BETTER)
    story.bring_hub_back()
    stage.follow(rollout, code=1)
    story.until_each(lambda site: "release.refused" in story.event_kinds(site), "tells the hub of it")
    stage.show("get", "hosts")
    failed = stage.look("get", "rollouts", rollout)
    expect(failed["state"] == "failed", f"the rollout was to fail, not: {failed['state']}", stage.hub.log)
    total = traffic.total()
    expect(BROKEN not in total.answered, f"the broken release answered {total.answered[BROKEN]} requests")
    say.table(
        ["site", "while it was tried", "failed", "longest gap"],
        [(site, str(t), str(t.failed), f"{t.gap_s:.1f} s") for site, t in traffic.tallies.items()],
    )
    say.text(
        "The application was asked to take the new model while it ran, found it broken, and kept the one it had: "
        "nothing was stopped to find out."
    )
    return (
        f"{len(found)} of {len(SITES)} hosts refused it and ran {BETTER} again {back_s:.1f} s after the hub was "
        f"killed; rollout {failed['state']}: {failed['why']}; {total}, {total.failed} failed, longest gap "
        f"{total.gap_s:.1f} s"
    )


@dataclass(frozen=True)
class Step:
    """One step: its heading, what it proves, and how it is played."""

    title: str
    proves: str
    play: Callable[[Story], str]


STEPS = (
    Step("A hub, and three sites with a host each", "a fleet starts from nothing", begin),
    Step("A first release, to unlike hosts", "each host takes the variant that fits it", roll_out_first),
    Step("Real pictures", "real pictures are read at every site", read_pictures),
    Step("No hub, and things die", "sites need no hub and mend themselves", go_without_hub),
    Step(
        "A better model, while one site is away",
        "only the new model travels, and a site that is away goes on",
        update_some,
    ),
    Step("The site that was away comes back", "that site catches up, and all read better", catch_up),
    Step(
        "A broken release, and no hub to help",
        "from a broken release, every host goes back by itself",
        go_back,
    ),
)


def _notes(log: Path, event: str, release: str) -> bool:
    return any(f"event={event} " in line and release in line for line in log.read_text().splitlines())


def _marked(digits: str, truth: str) -> str:
    return digits if digits == truth else f"{digits}  wrong"


def _change(before: int, after: int) -> str:
    return f"{before}, the same" if before == after else f"{before} -> {after}"
