"""`skerry top`: which sites or applications take most, and which models predict most."""

from __future__ import annotations

import click

from skerry.cli.coverage import coverage_lines, in_words, range_line
from skerry.cli.options import DURATION
from skerry.cli.output import Column, format_data, output_option, print_table
from skerry.cli.session import connect
from skerry.cli.text import age, examples
from skerry.kit.quantities import format_size
from skerry.spec.api_telemetry import TopAnswer, TopView


@click.command(
    epilog=examples(
        "skerry top sites", "skerry top apps --since 24h -l region=north -o json", "skerry top models"
    )
)
@click.argument("what", type=click.Choice(["sites", "apps", "models"]))
@click.option(
    "--since", default="1h", show_default=True, type=DURATION, help="How far back, such as 6h or 7d."
)
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites alone.")
@output_option("table", "json", "yaml")
def top(what: str, since: float, selector: str, output: str) -> None:
    """Show which sites or applications take most, or which models predict most, the most first.

    Of sites, CPU is the busy share of their hosts' processors; of applications, how many processors they take at all
    sites together. Of models, ACCURACY is of the predictions whose truth came, and DRIFT the population stability index
    of the feature that is furthest from the model's reference.
    """
    with connect() as client:
        answer = client.top(what, since_s=since, selector=selector)
    if output != "table":
        click.echo(format_data(answer, output))
        return
    if answer.rows:
        print_table(answer.rows, _columns(answer))
    else:
        click.echo(f"no {what}", err=True)
    click.echo(range_line(answer.since, answer.until))
    for line in coverage_lines(answer.coverage, answer.until):
        click.echo(line)


def _columns(answer: TopAnswer) -> list[Column[TopView]]:
    if answer.what == "models":
        return [
            Column("MODEL", lambda row: row.name),
            Column("PREDICTIONS", lambda row: str(row.predictions)),
            Column("LABELLED", lambda row: str(row.labelled), 2),
            Column("ACCURACY", lambda row: in_words(row.accuracy)),
            Column("DRIFT", lambda row: in_words(row.drift_psi)),
            Column("SITES", lambda row: str(row.sites), 1),
            Column("AS OF", lambda row: age(row.as_of, answer.until)),
        ]
    sites = answer.what == "sites"
    columns = [
        Column[TopView]("SITE" if sites else "APP", lambda row: row.name),
        Column[TopView]("CPU", lambda row: _share(row.cpu) if sites else in_words(row.cpu)),
        Column[TopView](
            "MEMORY", lambda row: "" if row.memory_bytes is None else format_size(round(row.memory_bytes))
        ),
    ]
    if sites:
        columns.append(Column[TopView]("OF ALL", lambda row: _share(row.memory_share), 1))
    else:
        columns.append(Column[TopView]("RESTARTS", lambda row: in_words(row.restarts)))
        columns.append(Column[TopView]("SITES", lambda row: str(row.sites), 1))
    return [
        *columns,
        Column[TopView]("HOSTS", lambda row: str(row.hosts), 2),
        Column[TopView]("AS OF", lambda row: age(row.as_of, answer.until)),
    ]


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
