"""`skerry rollout preview`: which hosts a rollout would reach with what, and what it takes over each site's link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from skerry.cli.delta_waiting import await_deltas, making_options
from skerry.cli.output import Column, format_data, output_option, plain_table
from skerry.cli.release_preview import preview_lines
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, now, plural
from skerry.cli.wave_preview import WaveMembers, default_name, preview_waves, wave_lines, wave_sizes
from skerry.kit.quantities import format_duration, format_size
from skerry.spec.api import FleetPreview
from skerry.spec.api_delivery import DeltaOrder, SiteTraffic, TrafficPreview
from skerry.spec.metadata import API_VERSION
from skerry.spec.parsing import parse_raw
from skerry.spec.rollout import Rollout


class RolloutPreview(msgspec.Struct, frozen=True):
    """What a rollout would come to: who gets what, and what travels."""

    fleet: FleetPreview
    traffic: TrafficPreview
    waves: tuple[WaveMembers, ...] = ()


@click.command(
    epilog=examples(
        "skerry rollout preview meter-reader@1.1.0 --sites region=north",
        'skerry rollout preview meter-reader@1.1.0 --sites "*" --make --limit 0',
    )
)
@click.argument("release")
@click.option("--sites", "selector", required=True, help="Which sites, by their labels; * for all.")
@click.option("--waves", default="", metavar="SIZES", help="Sizes of the waves, as for skerry rollout start.")
@making_options(make=False)
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="Show so many sites; 0 for all."
)
@output_option("table", "json", "yaml")
def preview(release: str, selector: str, output: str, **said: Any) -> None:
    """Say what bringing RELEASE to sites comes to: who gets it when, which variant, how many bytes, for how long.

    Nothing is started. The hub goes by what hosts last reported, and by each site's link budget as if nothing else
    flowed. Deltas that have not been made yet are counted in full, unless --make has them made.
    """
    name, waves = default_name(release), wave_sizes(said["waves"], "")
    spec: dict[str, object] = {"release": release, "sites": selector, "waves": waves}
    document = parse_raw(
        {"apiVersion": API_VERSION, "kind": "Rollout", "metadata": {"name": name}, "spec": spec}
    )
    assert isinstance(document, Rollout)
    with connect() as client:
        fleet = client.preview(release, selector)
        if said["make"]:
            await_deltas(client, release, DeltaOrder(selector=selector), timeout_s=said["timeout"])
        drawn = preview_waves(name, document.spec, client.sites(selector))
        view = RolloutPreview(fleet, client.traffic(release, selector), tuple(drawn))
    if output in ("json", "yaml"):
        click.echo(format_data(view, output))
        return
    lines = (
        *preview_lines(view.fleet, at=now()),
        *traffic_lines(view.traffic, said["limit"]),
        *wave_lines(view.waves),
    )
    for line in lines:
        click.echo(clean(line))


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
