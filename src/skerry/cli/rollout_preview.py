"""`skerry rollout preview`: which hosts a rollout would reach with what, and what it takes over each site's link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from skerry.cli.delta_waiting import await_deltas, making_options
from skerry.cli.output import Column, format_data, output_option, plain_table
from skerry.cli.release_preview import preview_lines
from skerry.cli.rollout_document import foresee, make_rollout, read_rollout
from skerry.cli.rollout_hosts import HostChoice, host_choices, host_lines
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, now, plural
from skerry.cli.wave_preview import SHOWN, WaveMembers, preview_waves, wave_lines, wave_sizes
from skerry.kit.quantities import format_duration, format_size
from skerry.spec.api import FleetPreview, JsonDocument
from skerry.spec.api_delivery import DeltaOrder, SiteTraffic, TrafficPreview


class RolloutPreview(msgspec.Struct, frozen=True):
    """What a rollout would come to: who gets what, what travels, and when; `hosts` one by one, where that is asked."""

    fleet: FleetPreview
    traffic: TrafficPreview
    waves: tuple[WaveMembers, ...] = ()
    hosts: tuple[HostChoice, ...] = ()


@click.command(
    epilog=examples(
        "skerry rollout preview meter-reader@1.1.0 --sites region=north",
        'skerry rollout preview meter-reader@1.1.0 --sites "*" --make --limit 0',
        "skerry rollout preview -f rollout.yaml --hosts",
    )
)
@click.argument("release", required=False, default="")
@click.option("--sites", "selector", default="", help="Which sites, by their labels; * for all.")
@click.option(
    "-f", "--file", default="", metavar="FILE|-", help="The rollout as a document, in place of these."
)
@click.option("--name", default="", help="Name of the rollout; who is in which wave depends on it.")
@click.option("--waves", default="", metavar="SIZES", help="Sizes of the waves, as for skerry rollout start.")
@click.option("--hosts", is_flag=True, help="Say of each host what it would run, and why.")
@making_options(make=False)
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="Show so many sites; 0 for all."
)
@output_option("table", "json", "yaml")
def preview(output: str, **said: Any) -> None:
    """Say what bringing RELEASE to sites comes to: who gets it when, which variant, how many bytes, for how long.

    Nothing is started. The hub goes by what hosts last reported, and by each site's link budget as if nothing else
    flowed. Deltas that have not been made yet are counted in full, unless --make has them made.
    """
    document = _document(said)
    with connect() as client:
        foreseen = foresee(client, document)
        spec, name = foreseen.rollout.spec, foreseen.rollout.metadata.name
        if said["make"]:
            await_deltas(client, spec.release, DeltaOrder(selector=spec.sites), timeout_s=said["timeout"])
        waves = tuple(preview_waves(name, spec, foreseen.sites))
        traffic = client.traffic(spec.release, spec.sites)
        hosts = tuple(host_choices(client, spec.release, foreseen.sites, waves)) if said["hosts"] else ()
    view = RolloutPreview(foreseen.fleet, traffic, waves, hosts)
    if output in ("json", "yaml"):
        click.echo(format_data(view, output))
        return
    lines = (
        *preview_lines(view.fleet, at=now()),
        *traffic_lines(view.traffic, said["limit"]),
        *wave_lines(view.waves, said["limit"] and SHOWN),
        *(host_lines(view.hosts, said["limit"], at=now()) if said["hosts"] else ()),
    )
    for line in lines:
        click.echo(clean(line))


def _document(said: dict[str, Any]) -> JsonDocument:
    """Return the rollout that is meant: the one of a file, or one made of a release and sites."""
    inline = [name for name in ("release", "selector", "name", "waves") if said[name]]
    if said["file"]:
        if inline:
            raise click.UsageError("with --file, the document says release, sites, name and waves")
        return read_rollout(said["file"])
    if not said["release"] or not said["selector"]:
        raise click.UsageError("name a RELEASE and its --sites, or a document with --file")
    spec = {"sites": said["selector"], "waves": wave_sizes(said["waves"], "")}
    return make_rollout(said["release"], said["name"], spec)


def traffic_lines(view: TrafficPreview, limit: int) -> Iterator[str]:
    """Yield what travels, for people."""
    shown = view.sites[: limit or None]
    if not shown:
        return
    less = f", in place of {format_size(view.full_bytes)}" if view.size_bytes < view.full_bytes else ""
    yield f"Over the links: {format_size(view.size_bytes)}{less}, the slowest sites first:"
    yield from plain_table(shown, _COLUMNS).splitlines()
    if len(view.sites) > len(shown):
        yield f"and {plural(len(view.sites) - len(shown), 'site')} more"
    if view.pending:
        left = format_duration(max(1.0, view.left_s))
        yield f"{plural(view.pending, 'delta')} being made (about {left}): with them it may be less"


def _time(site: SiteTraffic) -> str:
    if site.never:
        return "never within its budget"
    return format_duration(site.duration_s) if site.duration_s else ""


_COLUMNS: list[Column[SiteTraffic]] = [
    Column("SITE", lambda v: v.site),
    Column("HOSTS", lambda v: str(v.hosts)),
    Column("FETCHES", lambda v: format_size(v.size_bytes)),
    Column("IN PLACE OF", lambda v: format_size(v.full_bytes)),
    Column("TAKES", _time),
    Column("GETS NOTHING", lambda v: str(v.unmatched or "")),
]
