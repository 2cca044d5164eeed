"""`skerry simulate`: a rollout on virtual time, over a fleet that is described or as the hub knows it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from skerry.cli.loading import load_documents
from skerry.cli.output import Column, format_data, output_option, plain_table
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, now
from skerry.kit.durable import write_file
from skerry.kit.errors import Missing, Rejected
from skerry.kit.quantities import format_duration, format_size
from skerry.spec.application import Application
from skerry.spec.model import Model
from skerry.spec.parsing import decode_text
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.testing.simulation.documents import (
    DEFAULT_FLEET,
    DEFAULT_SCENARIO,
    Scenario,
    SimulatedFleet,
    W,
    read_document,
)
from skerry.testing.simulation.fleet import plan_fleet
from skerry.testing.simulation.forecast import HubFleet, plan_forecast
from skerry.testing.simulation.plot import draw_rollout
from skerry.testing.simulation.results import (
    GroupResult,
    Milestones,
    RelayResult,
    SimulationResult,
    WaveResult,
)
from skerry.testing.simulation.run import Premises
from skerry.testing.simulation.run import simulate as run_simulation

EXIT_NOT_SUCCEEDED = 1
BEGINS = datetime(2026, 1, 5, 8, tzinfo=UTC)
"""A Monday morning: a simulation goes by no clock."""
MAX_SITES = 100_000


@click.command(
    epilog=examples(
        "skerry simulate rollout.yaml --sites 5000 --seed 7 --plot rollout.svg",
        "skerry simulate rollout.yaml --fleet fleet.yaml --scenario bad-on-jetson.yaml -o json",
        "skerry simulate rollout.yaml --from-hub",
    )
)
@click.argument("rollout", metavar="FILE")
@click.option(
    "--sites", type=click.IntRange(1, MAX_SITES), default=1000, show_default=True, help="How many sites."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same result.")
@click.option("--fleet", metavar="FILE", help="What the sites are like; a mix if not given.")
@click.option("--scenario", metavar="FILE", help="What happens; the release is good if not given.")
@click.option(
    "--release", metavar="FILE", help="The release's documents: what fits the facts of the fleet is chosen."
)
@click.option("--from-hub", is_flag=True, help="Take the sites, hosts and facts of the hub: a forecast.")
@click.option("--plot", metavar="FILE.svg", help="Draw sites by state over time.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@output_option("table", "json", "yaml")
@click.pass_context
def simulate(context: click.Context, /, rollout: str, output: str, **said: Any) -> None:
    """Run the rollout of FILE on virtual time, and say how it goes. Nothing is started anywhere.

    Decisions, gates, matching and what each host plans are the real ones. Exit code 1: it did not succeed in that time.
    """
    asked = msgspec.convert(said, _Asked)
    document = _load_rollout(rollout)
    scenario = _load(asked.scenario, Scenario) if asked.scenario else DEFAULT_SCENARIO
    premises = (
        _forecast(document, scenario, asked) if asked.from_hub else _invented(document, scenario, asked)
    )
    result = run_simulation(premises)
    if asked.plot:
        write_file(Path(asked.plot), draw_rollout(result).encode(), mode=0o644)
    if asked.as_json or output in ("json", "yaml"):
        click.echo(format_data(result, "json" if asked.as_json else output))
    else:
        for line in result_lines(result):
            click.echo(clean(line))
    context.exit(0 if result.state == "succeeded" else EXIT_NOT_SUCCEEDED)


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options."""

    sites: int
    seed: int
    fleet: str | None
    scenario: str | None
    release: str | None
    from_hub: bool
    plot: str | None
    as_json: bool


def result_lines(result: SimulationResult) -> Iterator[str]:
    """Yield a result for people."""
    what = "Forecast of" if result.forecast else "Simulated"
    yield f"{what} {result.rollout}: {result.release} on {result.sites} sites, {format_duration(result.duration_s)}"
    yield f"{result.state}{_after(result.ended_s)}: {result.why}"
    if result.assumptions:
        yield "Assumed:"
        yield from (f"  {line}" for line in result.assumptions)
    yield ""
    times = [("all", result.all), ("reachable", result.reachable)]
    yield from plain_table(times, _MILESTONES).splitlines()
    yield ""
    yield from plain_table(result.groups, _GROUPS).splitlines()
    yield ""
    if result.relays:
        yield from plain_table(result.relays, _RELAYS).splitlines()
        yield ""
    yield from plain_table(result.waves, _WAVES).splitlines()
    yield ""
    ends = ", ".join(f"{count} {state}" for state, count in result.states.items())
    yield f"In the end: {ends}"
    yield f"Started it: {result.exposed} sites; of {result.bad} where it cannot work, {result.exposed_bad}"
    yield f"Over the links: {format_size(result.fetched_bytes)}; decisions: {result.decisions_made}"


def _after(seconds: float | None) -> str:
    return f" after {format_duration(seconds)}" if seconds is not None else ""


def _time(seconds: float | None) -> str:
    return "never" if seconds is None else format_duration(seconds) if seconds >= 1 else "0s"


_MILESTONES: list[Column[tuple[str, Milestones]]] = [
    Column("SITES", lambda v: v[0]),
    Column("COUNT", lambda v: str(v[1].sites)),
    Column("50 %", lambda v: _time(v[1].p50_s)),
    Column("90 %", lambda v: _time(v[1].p90_s)),
    Column("99 %", lambda v: _time(v[1].p99_s)),
    Column("100 %", lambda v: _time(v[1].p100_s)),
]
_RELAYS: list[Column[RelayResult]] = [
    Column("RELAY", lambda v: v.name),
    Column("SITES", lambda v: str(v.sites)),
    Column("FROM ABOVE", lambda v: format_size(v.fetched_bytes)),
    Column("HANDED DOWN", lambda v: format_size(v.handed_down_bytes)),
]
_GROUPS: list[Column[GroupResult]] = [
    Column("GROUP", lambda v: v.name),
    Column("SITES", lambda v: str(v.sites)),
    Column("RUN IT", lambda v: str(v.succeeded)),
    Column("STARTED IT", lambda v: str(v.exposed)),
    Column("FETCHED", lambda v: format_size(v.fetched_bytes)),
    Column("50 %", lambda v: _time(v.p50_s)),
    Column("100 %", lambda v: _time(v.p100_s)),
]
_WAVES: list[Column[WaveResult]] = [
    Column("WAVE", lambda v: v.name),
    Column("SITES", lambda v: str(v.members)),
    Column("BEGINS", lambda v: _time(v.began_s)),
    Column("PASSES", lambda v: _time(v.passed_s)),
    Column("WHY", lambda v: v.why),
]


def _load_rollout(name: str) -> Rollout:
    """Return the one Rollout of a file.

    Raises:
        Rejected: there is none, or several.
    """
    found = [parsed.document for parsed in load_documents([name]) if isinstance(parsed.document, Rollout)]
    if len(found) != 1:
        raise Rejected("simulation.rollout", f"expected one Rollout in {name}, found {len(found)}")
    return found[0]


def _load(name: str, kind: type[W]) -> W:
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise Rejected("documents.unreadable", f"{name}: {error.strerror}") from None
    return read_document(decode_text(content, file=name), kind, file=name)


def _load_release(name: str) -> Release:
    documents = [parsed.document for parsed in load_documents([name])]
    applications = [document for document in documents if isinstance(document, Application)]
    if len(applications) != 1:
        raise Rejected("simulation.release", f"expected one Application in {name}, found {len(applications)}")
    models = tuple(document for document in documents if isinstance(document, Model))
    return Release(application=applications[0], models=models)


def _invented(rollout: Rollout, scenario: Scenario, asked: _Asked) -> Premises:
    fleet = _load(asked.fleet, SimulatedFleet) if asked.fleet else DEFAULT_FLEET
    application = rollout.spec.release.partition("@")[0]
    sites = plan_fleet(
        fleet.spec,
        scenario.spec,
        sites=asked.sites,
        seed=asked.seed,
        release=_load_release(asked.release) if asked.release else None,
        previous=fleet.spec.previous or f"{application}@before",
    )
    return Premises(
        rollout=rollout,
        fleet=sites,
        scenario=scenario.spec,
        seed=asked.seed,
        starts_at=_start(rollout, scenario, BEGINS),
    )


def _forecast(rollout: Rollout, scenario: Scenario, asked: _Asked) -> Premises:
    if asked.fleet or asked.release:
        message = "--from-hub takes the fleet and the release of the hub"
        raise Rejected("simulation.from_hub", message, hint="leave out --fleet and --release")
    name, selector = rollout.spec.release, rollout.spec.sites
    with connect() as client:
        sites, hosts = client.sites(selector), client.hosts()
        release, traffic = None, dict[str, int]()
        try:
            document = client.release(name).document
            release = msgspec.convert(document, Release) if document is not None else None
            traffic = {site.site: site.size_bytes for site in client.traffic(name, selector).sites}
        except Missing:
            pass
    fleet = HubFleet(sites=sites, hosts=hosts, release=release, traffic=traffic)
    plans, assumptions = plan_forecast(fleet, name.partition("@")[0], scenario.spec, seed=asked.seed)
    return Premises(
        rollout=rollout,
        fleet=plans,
        scenario=scenario.spec,
        seed=asked.seed,
        starts_at=_start(rollout, scenario, now()),
        forecast=True,
        assumptions=assumptions,
    )


def _start(rollout: Rollout, scenario: Scenario, otherwise: datetime) -> datetime:
    """Return when a simulation begins: as the scenario says, or an hour before the rollout does."""
    if scenario.spec.starts_at is not None:
        return scenario.spec.starts_at.astimezone(UTC)
    begin_at = rollout.spec.begin_at
    return begin_at.astimezone(UTC) - timedelta(hours=1) if begin_at is not None else otherwise
