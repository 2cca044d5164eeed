"""`skerry agent measure`: how fast each variant of an application's models is on this very host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from skerry.cli.agent_options import data_option
from skerry.cli.output import Column, output_option, print_table
from skerry.cli.text import clean, examples


@click.command(epilog=examples("skerry agent measure meter-reader"))
@click.argument("application")
@data_option()
@click.option(
    "--timeout",
    "timeout_s",
    default=3600.0,
    show_default=True,
    help="Seconds to wait for the agent's answer.",
)
@output_option("table", "json")
def measure(application: str, data: Path, timeout_s: float, output: str) -> None:
    """Let the agent measure every variant of APPLICATION's models that fits this host.

    Each is fetched if need be and run through the component's self-test; the median latency becomes a fact,
    which counts for more than what the author declared when the next release is chosen.
    """
    from skerry.agent.commands import ask_to_measure
    from skerry.agent.measuring import Measurement

    if sys.stderr.isatty():
        click.echo("measuring; the applications run on...", err=True)
    found = ask_to_measure(data.absolute(), application, timeout_s=timeout_s)
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    columns: tuple[Column[Measurement], ...] = (
        Column("VARIANT", lambda one: one.variant),
        Column("LATENCY", lambda one: f"{one.latency_us / 1000:.2f} ms" if one.latency_us else "-"),
        Column("WHY NOT", lambda one: clean(one.why) or "-"),
    )
    print_table(list(found.variants), columns)
