"""`skerry apply`: documents to the hub, all or none."""

from __future__ import annotations

import click

from skerry.cli.loading import load_documents, located, refuse_release_parts
from skerry.cli.options import files_option
from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, plural
from skerry.spec.api import ApplyAnswer

_words = {"create": "created", "update": "updated", "unchanged": "unchanged"}
_words_dry = {"create": "would be created", "update": "would be updated", "unchanged": "unchanged"}


@click.command(epilog=examples("skerry apply -f sites/ --dry-run", "skerry apply -f sites/ -f rollout.yaml"))
@files_option("What to apply; repeatable.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
@output_option("table", "json", "yaml")
def apply(files: tuple[str, ...], dry_run: bool, output: str) -> None:
    """Store documents on the hub: all of them, or none when one is wrong."""
    parsed = load_documents(files)
    refuse_release_parts(parsed)
    with connect() as client, located(parsed):
        answer = client.apply([p.raw for p in parsed], dry_run=dry_run)
    print_changes(answer, output)


def print_changes(answer: ApplyAnswer, output: str) -> None:
    """Print what applying did, or would do."""
    if output in ("json", "yaml"):
        click.echo(format_data(answer, output))
        return
    for change in answer.changes:
        words = _words_dry if answer.dry_run else _words
        click.echo(clean(f"{change.kind.lower()}/{change.name} {words[change.action]}"))
    if answer.effects:
        sites = {effect.site for effect in answer.effects}
        click.echo(
            f"{plural(len(sites), 'site')} will be told otherwise, once a rollout of the application brings it"
        )
    for warning in answer.warnings:
        click.echo(clean(f"warning: {warning}"), err=True)
