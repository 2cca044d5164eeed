"""`skerry release diff`: what changed between two releases, and what bringing it costs."""

from __future__ import annotations

from collections.abc import Iterator

import click

from skerry.cli.delta_waiting import await_deltas, making_options
from skerry.cli.output import Column, format_data, output_option, plain_table
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, plural
from skerry.kit.quantities import format_size
from skerry.spec.api_delivery import DeltaOrder, FileChange, ReleaseDiff, VariantCost


@click.command(
    epilog=examples(
        "skerry release diff meter-reader@1.0.0 meter-reader@1.1.0",
        "skerry release diff a@1 a@2 --no-make -o json",
    )
)
@click.argument("old")
@click.argument("new")
@making_options(make=True)
@output_option("table", "json", "yaml")
def diff(old: str, new: str, output: str, *, make: bool, timeout: float) -> None:
    """Say what changed from release OLD to NEW, file by file, and what each takes in full, compressed and by delta."""
    with connect() as client:
        if make:
            await_deltas(client, new, DeltaOrder(old=old), timeout_s=timeout)
        view = client.release_diff(old, new)
    if output in ("json", "yaml"):
        click.echo(format_data(view, output))
        return
    for line in diff_lines(view):
        click.echo(clean(line))


def diff_lines(view: ReleaseDiff) -> Iterator[str]:
    """Yield what changed, for people."""
    yield f"{view.old} -> {view.new}"
    if not view.fields and not view.files:
        yield "nothing changed"
        return
    for field in view.fields:
        yield f"  {field.path}: {field.before or '(absent)'} -> {field.after or '(absent)'}"
    if view.files:
        yield from plain_table(view.files, _FILE_COLUMNS).splitlines()
    if view.unchanged_files:
        yield f"{plural(view.unchanged_files, 'file')} unchanged"
    changed = [variant for variant in view.variants if variant.files]
    if changed:
        yield "A host that has the old release fetches, by what it runs:"
        yield from plain_table(changed, _COST_COLUMNS).splitlines()
    if view.pending:
        yield f"{plural(view.pending, 'delta')} still to be made: with them it may be less"


def size_text(size: int | None, *, pending: bool = False) -> str:
    """Return a size, `?` while it is not known yet, nothing when there is none."""
    if size is None:
        return "?" if pending else ""
    return format_size(size)


_FILE_COLUMNS: list[Column[FileChange]] = [
    Column("OF", lambda v: v.owner),
    Column("FILE", lambda v: v.path),
    Column("CHANGE", lambda v: v.change),
    Column("FULL", lambda v: format_size(v.size_bytes)),
    Column("COMPRESSED", lambda v: size_text(v.compressed_bytes, pending=v.pending)),
    Column("DELTA", lambda v: size_text(v.delta_bytes, pending=v.pending)),
]
_COST_COLUMNS: list[Column[VariantCost]] = [
    Column("OF", lambda v: v.owner),
    Column("FILES", lambda v: str(v.files)),
    Column("FETCHES", lambda v: format_size(v.size_bytes)),
    Column("IN PLACE OF", lambda v: format_size(v.full_bytes)),
]
