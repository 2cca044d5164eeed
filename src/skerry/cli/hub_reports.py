"""`skerry hub import-reports`: hands the hub what hosts and relays without a link have to tell."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.text import clean, examples, plural


@click.command("import-reports", epilog=examples("skerry hub import-reports edge-1.reports"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@output_option("table", "json")
def import_reports(file: Path, output: str) -> None:
    """Hand the hub the reports that skerry agent export-reports or relay export-reports wrote; again changes nothing.

    They count as if the hosts had sent them. Hosts forget them when the next bundle for them has arrived. Where some of
    a host are refused, those of others are taken, and this ends with the first reason.
    """
    from skerry.cli.session import connect
    from skerry.client.bundles import hand_over
    from skerry.kit.errors import Rejected

    with connect() as client:
        found = hand_over(client, file, lambda _: None)
    if not (found.hosts or found.refused):
        raise Rejected("reports.none", f"{file} has no reports")
    if output == "json":
        refused = {key: str(error) for key, error in found.refused.items()}
        click.echo(format_data({"taken": found.taken, "hosts": found.hosts, "refused": refused}, output))
    else:
        for answer in found.hosts:
            new = plural(answer.taken, "new report") if answer.taken else "nothing new"
            click.echo(clean(f"host {answer.host} of site {answer.site}: {new}"))
    for error in found.refused.values():
        raise error
