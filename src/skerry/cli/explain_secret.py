"""`skerry explain secret`: which value of a secret a site gets, and why; never the value."""

from __future__ import annotations

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import clean, examples


@click.command(epilog=examples("skerry explain secret db-password --site zurich"))
@click.argument("name")
@click.option("--site", required=True, help="The site that gets it.")
@output_option("table", "json", "yaml")
def secret(name: str, site: str, output: str) -> None:
    """Say which version of the secret NAME a site gets, and why."""
    with connect() as client:
        decision = client.secret_decision(name, site)
    if output in ("json", "yaml"):
        click.echo(format_data(decision, output))
        return
    got = f"version {decision.version}" if decision.version is not None else "no value"
    lines = [f"Of secret {name}, site {site} gets {got}.", *(f"  {why}" for why in decision.why)]
    if decision.next:
        lines.append(f"Held ready for later: version {', '.join(map(str, decision.next))}.")
    users = (
        f"Used there by {', '.join(decision.used_by)}."
        if decision.used_by
        else "No application there uses it."
    )
    for line in (*lines, users):
        click.echo(clean(line))
