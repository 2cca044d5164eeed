"""`skerry model`: what a model was like when it was judged good."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from skerry.cli.output import format_data
from skerry.cli.text import examples, plural


@click.group(epilog=examples("skerry model reference good.csv -o reference.yaml"))
def model() -> None:
    """Make what a Model document says of its predictions."""


@model.command(
    epilog=examples(
        "skerry model reference good.csv -o reference.yaml",
        "skerry model reference good.jsonl --column width --column score --column class --json",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option("--classes", multiple=True, metavar="NAME", help="A column of numbers that are classes.")
@click.option("--bins", default=20, show_default=True, type=click.IntRange(2, 64), help="For numbers.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write it there, instead of printing it."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON instead of YAML.")
def reference(
    file: Path,
    columns: tuple[str, ...],
    classes: tuple[str, ...],
    bins: int,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make a `reference` from FILE: predictions of when the model was good, as CSV or JSON lines.

    Each column is a feature; `score` and `class` are those of the prediction. What is printed goes under `spec` of the
    Model document. No value of FILE is in it, only counts; names of classes are.
    """
    from skerry.client.model_reference import make_reference
    from skerry.kit.durable import write_file

    made = make_reference(file, columns=columns, classes=classes, bins=bins)
    text = format_data({"reference": msgspec.to_builtins(made)}, "json" if as_json else "yaml")
    if output is None:
        click.echo(text)
        return
    write_file(output, f"{text.rstrip()}\n".encode())
    samples = max(one.total for one in made.features.values())
    click.echo(f"{output}: {plural(len(made.features), 'feature')}, {plural(samples, 'sample')}", err=True)
