"""`skerry agent import` and `export-reports`: what is carried to a host by hand, and back from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from skerry.cli.agent_options import data_option
from skerry.cli.bundle_words import file_lines
from skerry.cli.options import DURATION
from skerry.cli.output import format_data, output_option, print_view
from skerry.cli.progress import percent_teller
from skerry.cli.text import clean, examples, local_time, plural
from skerry.kit.quantities import format_size
from skerry.spec.bundle import ImportView

_file = click.Path(path_type=Path, dir_okay=False)
_timeout = click.option(
    "--timeout", type=DURATION, default="60s", show_default=True, help="How long to wait for the agent."
)


@click.command("import", epilog=examples("skerry agent import /media/stick/mine.bundle"))
@click.argument("file", type=_file)
@data_option()
@click.option("--dry-run", is_flag=True, help="Verify all of it, and change nothing.")
@_timeout
@output_option("table", "json")
def import_(file: Path, data: Path, *, dry_run: bool, timeout: float, output: str) -> None:
    """Take a bundle that was carried here; needs no hub.

    What is in it counts as if it had come from the hub. Importing again, or after it was cut short, is safe.
    """
    from skerry.agent.importing import import_bundle

    view = import_bundle(
        data.absolute(),
        file,
        dry_run=dry_run,
        timeout_s=timeout,
        tell=percent_teller("verified" if dry_run else "copied"),
    )
    print_view(view, [clean(line) for line in _lines(view, dry_run=dry_run)], output)


@click.command(
    "export-reports", epilog=examples("skerry agent export-reports -o /media/stick/edge-1.reports")
)
@data_option()
@click.option("-o", "--output", "target", type=_file, required=True, help="The file to write.")
@_timeout
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export_reports(data: Path, target: Path, timeout: float, *, as_json: bool) -> None:
    """Write what this host has to tell the hub, to be carried there: skerry hub import-reports takes it.

    The host forgets nothing by this. It does so when the next bundle says that the hub has it.
    """
    from skerry.agent.exporting_reports import export_reports as export

    view = export(data.absolute(), target.absolute(), timeout_s=timeout)
    if as_json:
        click.echo(format_data(view, "json"))
        return
    click.echo(f"{target}: {plural(view.reports, 'report')} of {view.host}, {format_size(view.size_bytes)}")


def _lines(view: ImportView, *, dry_run: bool) -> Iterator[str]:
    yield f"host {view.host} of site {view.site}: generation {view.generation}" + (
        "" if view.fresh else ", which it has"
    )
    yield f"  {', '.join(view.releases) or 'no release'}; good until {local_time(view.expires_at)}"
    yield from file_lines(view, dry_run=dry_run)
    for release, why in view.doubts.items():
        yield f"  {release} will not run: {why}"
    if dry_run:
        yield "whole and unaltered; nothing was changed"
    elif view.agent == "took it":
        yield "the agent took it; skerry agent status shows how it gets on"
    elif view.agent == "does not run":
        yield "the agent does not run; it takes it when it does"
    else:
        yield "the agent has not answered yet; it takes it as soon as it can"
