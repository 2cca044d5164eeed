"""`skerry get`: lists of everything the hub knows."""

from __future__ import annotations

import click

from skerry.cli.listing import show_list, watch_list
from skerry.cli.output import output_option
from skerry.cli.resources import Query, Resource, ResourceType
from skerry.cli.text import examples


@click.command(
    epilog=examples(
        "skerry get sites -l region=north,tier!=test",
        "skerry get hosts --site zurich -o json",
        "skerry get events --host press-3 --watch",
    )
)
@click.argument("what", type=ResourceType())
@click.argument("name", default="")
@click.option("-l", "--selector", default="", help="Only sites, or hosts of sites, with these labels.")
@click.option("--site", default="", help="Only hosts, routes, names, topics or events of this site.")
@click.option("--host", default="", help="Only events of this host.")
@click.option("--app", "application", default="", help="Only releases or routes of this application.")
@click.option(
    "--limit", type=click.IntRange(1, 10000), default=100, show_default=True, help="At most so many events."
)
@click.option("-w", "--watch", is_flag=True, help="Print it again whenever it changes.")
@output_option("table", "json", "yaml", "name")
def get(what: Resource, name: str, watch: bool, output: str, **narrow: str | int) -> None:
    """List all of one kind.

    Kinds are sites, hosts, relays, apps, models, releases, rollouts, routes, names, topics, policies,
    configurations, sinks, events and tokens.
    """
    query = Query(name=name, **narrow)  # type: ignore[arg-type]
    (watch_list if watch else show_list)(what, query, output)
