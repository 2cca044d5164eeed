"""What several commands of `skerry agent` are given: the data directory, and facts that a person states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from skerry.cli.options import Command


def data_option(help: str = "Data directory.") -> Callable[[Command], Command]:
    """Return the option `--data`, handed over as the path `data`."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/var/lib/skerry-agent"),
        show_default=True,
        help=help,
    )


stated_option = click.option(
    "--fact", "stated", multiple=True, metavar="NAME=VALUE", help="State a fact instead of detecting it."
)


def parse_stated(stated: Sequence[str]) -> dict[str, str]:
    """Return what `--fact` states, by name; of a name that is there twice, the last value counts.

    Raises:
        click.BadParameter: one has no `=`.
    """
    found: dict[str, str] = {}
    for text in stated:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--fact")
        found[name] = value
    return found
