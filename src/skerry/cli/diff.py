"""`skerry diff`: what applying documents would change, line by line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import cast

import click

from skerry.cli.config import value_text
from skerry.cli.loading import load_documents, located, refuse_release_parts
from skerry.cli.options import files_option
from skerry.cli.output import format_yaml
from skerry.cli.session import connect
from skerry.cli.text import clean, colour, examples
from skerry.spec.api import Change
from skerry.spec.api_configuration import ConfigurationEffect

_colours = {"+": "green", "-": "red", "@": "cyan"}


@click.command(epilog=examples("skerry diff -f sites/"))
@files_option("What to compare; repeatable.")
@click.pass_context
def diff(context: click.Context, files: tuple[str, ...]) -> None:
    """Compare documents with what the hub holds; the exit code is 1 when they differ, 0 when they do not."""
    parsed = load_documents(files)
    refuse_release_parts(parsed)
    with connect() as client, located(parsed):
        answer = client.apply([p.raw for p in parsed], dry_run=True)
    differ = False
    for change in answer.changes:
        for line in diff_lines(change):
            differ = True
            click.echo(colour(line, _colours[line[0]]) if line[:1] in _colours else line)
    for line in effect_lines(answer.effects):
        click.echo(clean(line))
    context.exit(1 if differ else 0)


def effect_lines(effects: Sequence[ConfigurationEffect]) -> Iterator[str]:
    """Yield what configurations change at each site and host, once a rollout brings them."""
    if effects:
        yield "what applications would be told, once a rollout brings it:"
    place = ("", "", "")
    for effect in effects:
        if (effect.application, effect.site, effect.host) != place:
            place = (effect.application, effect.site, effect.host)
            host = f", host {effect.host}" if effect.host else ""
            yield f"  {effect.application} at {effect.site}{host}"
        yield f"    {effect.path}: {value_text(effect.before)} -> {value_text(effect.after)}"


def diff_lines(change: Change) -> Iterator[str]:
    """Yield the unified diff of one change; nothing when it changes nothing."""
    if change.action == "unchanged":
        return
    name = clean(f"{change.kind}/{change.name}")
    yield from difflib.unified_diff(
        _lines(change.before),
        _lines(change.after),
        f"{name} (on the hub)",
        f"{name} (to be applied)",
        lineterm="",
    )


def _lines(document: object) -> list[str]:
    # Fields in one order on both sides: only what differs shall show.
    return [clean(line) for line in format_yaml(_sorted(document)).splitlines()] if document else []


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(part) for key, part in sorted(cast("dict[str, object]", value).items())}
    if isinstance(value, list):
        return [_sorted(part) for part in cast("list[object]", value)]
    return value
