"""`skerry explain path`: which way a site's blobs and reports take, and where it is broken."""

from __future__ import annotations

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.relay_portraits import path_lines
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, now


@click.command(epilog=examples("skerry explain path zurich"))
@click.argument("site", metavar="SITE")
@output_option("table", "json", "yaml")
def path(site: str, output: str) -> None:
    """Say by which relays each host of SITE is reached, how old that is, and where the way is broken."""
    with connect() as client:
        found = client.site_path(site)
    if output in ("json", "yaml"):
        click.echo(format_data(found, output))
        return
    for line in path_lines(found, at=now()):
        click.echo(clean(line))
