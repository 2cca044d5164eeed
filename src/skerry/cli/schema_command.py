"""`skerry schema`: the JSON Schema of the documents, for editors and checks."""

from __future__ import annotations

import json

import click

from skerry.cli.text import examples
from skerry.spec.schema import json_schema


@click.command(epilog=examples("skerry schema > skerry.schema.json"))
def schema() -> None:
    """Print the JSON Schema of all kinds of documents.

    An editor that is given this schema completes and checks documents while they are written.
    """
    click.echo(json.dumps(json_schema(), indent=2))
