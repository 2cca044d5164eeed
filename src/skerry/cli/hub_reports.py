"""`skerry hub import-reports`: hands the hub what hosts without a link have to tell."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.text import clean, examples, plural


@click.command("import-reports", epilog=examples("skerry hub import-reports edge-1.reports"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@output_option("table", "json")
def import_reports(file: Path, output: str) -> None:
    """Hand the hub the reports that skerry agent export-reports wrote; again changes nothing.

    They count as if the host had sent them. The host forgets them when the next bundle for it has arrived.
    """
    from skerry.cli.session import connect
    from skerry.client.bundles import hand_over
    from skerry.kit.errors import Rejected

    with connect() as client:
        answer = hand_over(client, file, lambda _: None)
    if answer is None:
        raise Rejected("reports.none", f"{file} has no reports")
    if output == "json":
        click.echo(format_data(answer, output))
        return
    new = plural(answer.taken, "new report") if answer.taken else "nothing new"
    click.echo(clean(f"host {answer.host} of site {answer.site}: {new}"))
