"""`skerry explain name`: where a name leads at a site, and why there."""

from __future__ import annotations

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now


@click.command(epilog=examples("skerry explain name meter-reader.site.internal --site zurich"))
@click.argument("name", metavar="NAME")
@click.option("--site", required=True, help="The site where it is asked.")
@output_option("table", "json", "yaml")
def name(name: str, site: str, output: str) -> None:
    """Say to which hosts NAME leads at a site, why not to others, and what each DNS there answers."""
    with connect() as client:
        found = client.explain_name(name, site)
    if output in ("json", "yaml"):
        click.echo(format_data(found, output))
        return
    for hop in found.trace.hops:
        click.echo(clean(f"{hop.what}: {hop.answer}"))
    told = f" (as its hosts reported, the oldest {age(found.as_of, now())})" if found.as_of else ""
    click.echo(clean(f"leads to {found.trace.outcome}{told}"))
