"""`skerry agent facts`: what the host finds out about itself, each with where it was read."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.leaving_out import DECORATION, left_out
from skerry.cli.output import Column, output_option, print_table
from skerry.cli.text import examples
from skerry.spec.facts import Fact


@click.command(
    epilog=examples("skerry agent facts", "skerry agent facts -o json", "skerry agent facts --fact 'gpu.*='")
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/skerry-agent"),
    show_default=True,
    help="Data directory: its disk is looked at, and its facts.d is asked.",
)
@click.option(
    "--fact", "stated", multiple=True, metavar="NAME=VALUE", help="State a fact instead of detecting it."
)
@click.option("--root", type=click.Path(path_type=Path, exists=True), default=Path("/"), hidden=True)
@output_option("table", "json")
def facts(data: Path, stated: tuple[str, ...], root: Path, output: str) -> None:
    """Print what this host finds out about itself, with sources; needs no hub."""
    import msgspec

    with left_out(*DECORATION):
        from skerry.agent.wiring import find_facts

    overrides: dict[str, str] = {}
    for text in stated:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--fact")
        overrides[name] = value
    found = find_facts(data.absolute(), overrides, root.absolute())
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
