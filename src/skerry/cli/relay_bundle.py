"""`skerry relay import` and `export-reports`: what is carried to a relay by hand for those below it, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from skerry.cli.bundle_words import file_lines
from skerry.cli.options import DURATION
from skerry.cli.output import format_data, output_option, print_view
from skerry.cli.progress import percent_teller
from skerry.cli.relay_options import data_option
from skerry.cli.text import clean, examples, local_time, plural
from skerry.kit.quantities import format_size
from skerry.spec.bundle import RelayImportView


@click.command("import", epilog=examples("skerry relay import /media/stick/plant.bundle"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@data_option()
@click.option("--dry-run", is_flag=True, help="Verify all of it, and change nothing.")
@click.option(
    "--timeout", type=DURATION, default="60s", show_default=True, help="How long to wait for the relay."
)
@output_option("table", "json")
def import_(file: Path, data: Path, *, dry_run: bool, timeout: float, output: str) -> None:
    """Take a bundle for sites below this relay, and serve it; needs no hub.

    What is in it counts as if it had come from above. Importing again, or after it was cut short, is safe.
    """
    from skerry.relay.importing import import_at_relay

    view = import_at_relay(
        data.absolute(),
        file,
        dry_run=dry_run,
        timeout_s=timeout,
        tell=percent_teller("verified" if dry_run else "copied"),
    )
    print_view(view, [clean(line) for line in _lines(view, dry_run=dry_run)], output)


@click.command(
    "export-reports", epilog=examples("skerry relay export-reports -o /media/stick/plant-l3.reports")
)
@data_option()
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export_reports(data: Path, target: Path, *, as_json: bool) -> None:
    """Write what hosts told this relay and the hub does not have: skerry hub import-reports takes it.

    The relay forgets nothing by this. It does so when the hub has it, by a link or as the next bundle says.
    """
    from skerry.relay.exporting import export_reports as export

    view = export(data.absolute(), target.absolute())
    if as_json:
        click.echo(format_data(view, "json"))
        return
    told = f"{plural(view.reports, 'report')} of {plural(view.hosts, 'host')}"
    click.echo(f"{target}: {told}, {format_size(view.size_bytes)}")


def _lines(view: RelayImportView, *, dry_run: bool) -> Iterator[str]:
    yield f"relay {view.relay}: {plural(len(view.sites), 'site')}; good until {local_time(view.expires_at)}"
    for name, site in view.sites.items():
        yield f"  {name}: generation {site.generation}" + ("" if site.fresh else ", which it has")
    for name, why in view.refused.items():
        yield f"  {name}: refused, {why}"
    yield from file_lines(view, dry_run=dry_run)
    for release, why in view.doubts.items():
        yield f"  hosts will not run {release}: {why}"
    if dry_run:
        yield "whole and unaltered; nothing was changed"
    elif view.process == "took it":
        yield "the relay took it, and serves it"
    elif view.process == "does not run":
        yield "the relay does not run; it takes it when it does"
    else:
        yield "the relay has not answered yet; it takes it as soon as it can"
