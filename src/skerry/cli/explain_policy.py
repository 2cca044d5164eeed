"""`skerry explain policy`: what policies say of a release, and why."""

from __future__ import annotations

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.proofs import decision_sentences
from skerry.cli.session import connect
from skerry.cli.text import clean, examples


@click.command(epilog=examples("skerry explain policy meter-reader@1.1.0"))
@click.argument("release", metavar="RELEASE")
@output_option("table", "json", "yaml")
def policy(release: str, output: str) -> None:
    """Say whether RELEASE may be rolled out, requirement by requirement of every policy."""
    with connect() as client:
        decision = client.policy_decision(release)
    if output in ("json", "yaml"):
        click.echo(format_data(decision, output))
        return
    for line in decision_sentences(decision):
        click.echo(clean(line))
