"""`skerry relay import`: what is carried to a relay by hand, for the sites below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from skerry.cli.bundle_words import file_lines
from skerry.cli.options import DURATION
from skerry.cli.output import output_option, print_view
from skerry.cli.progress import percent_teller
from skerry.cli.relay_options import data_option
from skerry.cli.text import clean, examples, local_time, plural
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
