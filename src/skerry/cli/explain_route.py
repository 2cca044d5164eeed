"""`skerry explain route`: what answers a request at a site, hop by hop, and why."""

from __future__ import annotations

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now


@click.command(epilog=examples("skerry explain route https://meter-reader.site.internal/read --site zurich"))
@click.argument("url", metavar="URL")
@click.option("--site", required=True, help="The site where it is asked.")
@output_option("table", "json", "yaml")
def route(url: str, site: str, output: str) -> None:
    """Say which host, route and release answer a request for URL at a site, and why no other."""
    with connect() as client:
        found = client.explain_route(url, site)
    if output in ("json", "yaml"):
        click.echo(format_data(found, output))
        return
    for hop in found.trace.hops:
        click.echo(clean(f"{hop.what}: {hop.answer}"))
    told = f" (as its hosts reported, the oldest {age(found.as_of, now())})" if found.as_of else ""
    click.echo(clean(f"answered by {found.trace.outcome}{told}"))
