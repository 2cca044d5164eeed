"""What commands print: tables for people, JSON and YAML for programs, names for shells.

Rules: a table on a terminal fits its width: first the least needed columns go, then long cells end in an
ellipsis; elsewhere it is aligned, plain and complete. JSON and YAML are the views of the API, nothing added.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar, cast

import click
import msgspec

from skerry.cli.invocation import Invocation
from skerry.cli.text import STATE_COLOURS, clean, colours_wanted

Format = Literal["table", "json", "yaml", "name"]
V = TypeVar("V")
C = TypeVar("C", bound=Callable[..., Any])

_GAP = 2
_LEAST_CELL = 8


class Column(msgspec.Struct, Generic[V], frozen=True):
    """A column: its head, what stands in its cells, and when it goes; `rank` 0 stays, the highest goes first."""

    head: str
    cell: Callable[[V], str]
    rank: int = 0


def output_option(*formats: Format) -> Callable[[C], C]:
    """Return the option `-o`; the whole run knows what it said, so that errors follow it."""

    def remember(context: click.Context, _: click.Parameter, value: str) -> str:
        if invocation := context.find_object(Invocation):
            invocation.output = value
        return value

    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats or ("table", "json", "yaml")),
        default=formats[0] if formats else "table",
        show_default=True,
        callback=remember,
        is_eager=True,
        help="How to print it.",
    )


def format_data(value: object, output: str) -> str:
    """Return a view, or several, as JSON or YAML, with every field: a program need not know the defaults."""
    whole = _whole(value)
    if output == "json":
        return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()
    return format_yaml(msgspec.to_builtins(whole))


def _whole(value: object) -> object:
    """Return structs as mappings of all their fields; on the wire those that equal their default are left out."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return {field.encode_name: _whole(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: _whole(held) for key, held in cast(dict[Any, Any], value).items()}  # type: ignore[redundant-cast]
    if isinstance(value, list | tuple):
        return [_whole(held) for held in cast(Sequence[Any], value)]
    return value


def format_yaml(value: object) -> str:
    """Return plain values as YAML, in the order they have."""
    import yaml

    text: str = yaml.dump(
        value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, allow_unicode=True
    )
    return text.rstrip("\n")


def print_views(
    views: Sequence[V], columns: Sequence[Column[V]], output: str, *, name: Callable[[V], str], empty: str
) -> None:
    """Print views in the format asked for; an empty table says so, on standard error."""
    if output in ("json", "yaml"):
        click.echo(format_data(views, output))
    elif output == "name":
        for view in views:
            click.echo(clean(name(view)))
    elif not views:
        click.echo(empty, err=True)
    else:
        print_table(views, columns)


def print_table(views: Sequence[V], columns: Sequence[Column[V]]) -> None:
    """Print a table for where standard output goes."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        click.echo(
            terminal_table(views, columns, width=width, coloured=colours_wanted()), color=True, nl=False
        )
    else:
        click.echo(plain_table(views, columns))


def plain_table(views: Sequence[V], columns: Sequence[Column[V]]) -> str:
    """Return an aligned table of all columns, nothing shortened."""
    rows = [[column.head for column in columns], *_cells(views, columns)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = (
        "".join(cell.ljust(width + _GAP) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def terminal_table(views: Sequence[V], columns: Sequence[Column[V]], *, width: int, coloured: bool) -> str:
    """Return a table no wider than `width` cells of a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    kept = _fitting(views, columns, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold" if coloured else "")
    for column in kept:
        table.add_column(
            column.head, no_wrap=True, overflow="ellipsis", min_width=min(len(column.head), _LEAST_CELL)
        )
    for row in _cells(views, kept):
        # Text, not markup: brackets in a reason are brackets.
        table.add_row(*(Text(cell, style=STATE_COLOURS.get(cell, "") if coloured else "") for cell in row))
    console = Console(width=width, force_terminal=coloured, no_color=not coloured, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _fitting(views: Sequence[V], columns: Sequence[Column[V]], width: int) -> list[Column[V]]:
    """Leave out columns, the highest rank first, until the rest fits or only the needed ones are left."""
    from rich.cells import cell_len

    natural = [
        max(cell_len(column.head), *(cell_len(clean(column.cell(view))) for view in views)) + _GAP
        for column in columns
    ]
    kept = list(range(len(columns)))
    while sum(natural[i] for i in kept) - _GAP > width and any(columns[i].rank for i in kept):
        kept.remove(max(kept, key=lambda i: (columns[i].rank, i)))
    return [columns[i] for i in kept]


def _cells(views: Sequence[V], columns: Sequence[Column[V]]) -> list[list[str]]:
    return [[clean(column.cell(view)) or "-" for column in columns] for view in views]


def print_view(view: msgspec.Struct, lines: Sequence[str], output: str) -> None:
    """Print one view: its lines for people, or itself for programs."""
    click.echo(format_data(view, output) if output in ("json", "yaml") else "\n".join(lines))


def yaml_documents(values: Sequence[object]) -> str:
    """Return several documents as one YAML text."""
    return "\n---\n".join(format_yaml(value) for value in values)
