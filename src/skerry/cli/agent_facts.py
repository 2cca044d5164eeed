"""`skerry agent facts`: what the host finds out about itself, each with where it was read."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.agent_options import data_option, parse_stated, stated_option
from skerry.cli.leaving_out import DECORATION, left_out
from skerry.cli.output import Column, output_option, print_table
from skerry.cli.text import examples
from skerry.spec.facts import Fact


@click.command(
    epilog=examples("skerry agent facts", "skerry agent facts -o json", "skerry agent facts --fact 'gpu.*='")
)
@data_option("Data directory: its disk is looked at, and its facts.d is asked.")
@stated_option
@click.option("--root", type=click.Path(path_type=Path, exists=True), default=Path("/"), hidden=True)
@output_option("table", "json")
def facts(data: Path, stated: tuple[str, ...], root: Path, output: str) -> None:
    """Print what this host finds out about itself, with sources; needs no hub."""
    import msgspec

    with left_out(*DECORATION):
        from skerry.agent.wiring.opening import find_facts

    found = find_facts(data.absolute(), parse_stated(stated), root.absolute())
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    rows = list(found.items())
    columns: tuple[Column[tuple[str, Fact]], ...] = (
        Column("FACT", lambda row: row[0]),
        Column("VALUE", lambda row: shown(row[1])),
        Column("SOURCE", lambda row: row[1].source, 1),
    )
    print_table(rows, columns)


def shown(fact: Fact) -> str:
    """Return a fact's value as one would state it."""
    value = fact.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return str(value)
