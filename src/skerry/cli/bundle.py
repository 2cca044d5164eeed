"""`skerry bundle`: what sites without a link need, as files that are carried there by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from skerry.cli.delta_waiting import making_options
from skerry.cli.options import DURATION, SIZE
from skerry.cli.output import Column, format_data, output_option, plain_table, print_view
from skerry.cli.progress import percent_teller
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time, now, plural, until
from skerry.client.bundles import (
    Inspected,
    envelope_of,
    inspect_bundle,
    manifests_of,
    names_for,
    write_bundles,
)
from skerry.client.client import Client
from skerry.kit.quantities import format_size
from skerry.spec.bundle import BundleAnswer, BundleManifest, BundleRequest

_POLL_S = (0.3, 5.0)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(epilog=examples("skerry bundle export --site mine -o mine.bundle"))
def bundle() -> None:
    """Carry releases to sites without a link, on a stick."""


@bundle.command(
    epilog=examples(
        "skerry bundle export --site mine -o mine.bundle",
        "skerry bundle export --site mine --site pit --since-bundle mine.bundle --max-size 4GB -o next.bundle",
    )
)
@click.option("--site", "sites", multiple=True, required=True, metavar="NAME", help="A site it is for.")
@click.option("-o", "--output", "target", type=_file, help="The file to write.")
@click.option("--since-bundle", "since", type=_file, help="An earlier bundle that has arrived there.")
@click.option("--full", is_flag=True, help="Leave nothing out that hosts may hold, and use no deltas.")
@click.option(
    "--max-size",
    "max_size_bytes",
    type=SIZE,
    help="How long a file may be; more are made then: FILE.1, FILE.2.",
)
@click.option(
    "--valid-for",
    "valid_for_s",
    type=DURATION,
    default="60d",
    show_default=True,
    help="How long it must be good at least.",
)
@making_options(make=True)
@click.option("--dry-run", is_flag=True, help="Say what would be in it, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests as JSON.")
def export(
    *,
    target: Path | None,
    since: Path | None,
    timeout: float,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Write what some sites need, and are not known to hold, to one file.

    What hosts hold is what they last reported, and what --since-bundle brought. A host of which nothing is known gets
    every variant.
    """
    if target is None and not dry_run:
        raise click.UsageError("Missing option '-o'.")
    request = BundleRequest(**asked, since=envelope_of(since) if since else None)
    with connect() as client:
        answer = _plan(client, request, timeout_s=timeout)
        manifests = manifests_of(answer)
        for note in answer.notes:
            click.echo(clean(f"note: {note}"), err=True)
        if not dry_run and target is not None:
            write_bundles(client, answer, target.absolute(), lambda path: percent_teller(f"to {path.name}"))
    if as_json:
        click.echo(format_data(manifests, "json"))
        return
    for line in _exported_lines(manifests, target or Path("FILE"), dry_run=dry_run):
        click.echo(clean(line))


def _exported_lines(manifests: Sequence[BundleManifest], target: Path, *, dry_run: bool) -> Iterator[str]:
    for name, manifest in zip(names_for(target, len(manifests)), manifests, strict=True):
        verb = "would be" if dry_run else "is"
        part = f" (part {manifest.part} of {manifest.parts})" if manifest.parts > 1 else ""
        yield f"{name}{part} {verb} {format_size(manifest.size_bytes)}:"
        yield from _manifest_lines(manifest)


@bundle.command(
    epilog=examples("skerry bundle inspect mine.bundle", "skerry bundle inspect mine.bundle -o json")
)
@click.argument("file", type=_file)
@output_option("table", "json", "yaml")
def inspect(file: Path, output: str) -> None:
    """Say what is in a bundle, and verify every byte of it; needs no hub."""
    found = inspect_bundle(file, percent_teller("verified"))
    print_view(found, [clean(line) for line in _inspected_lines(found)], output)


def _plan(client: Client, asked: BundleRequest, *, timeout_s: float) -> BundleAnswer:
    """Return the hub's plan when the deltas that help are made, or time is up."""
    began = time.monotonic()
    said = False
    while (answer := client.make_bundle(asked)).pending:
        left_s = timeout_s - (time.monotonic() - began)
        if left_s <= 0:
            click.echo(f"{plural(answer.pending, 'delta')} still to be made; it is without them", err=True)
            break
        if not said:
            said = True
            click.echo(f"making {plural(answer.pending, 'delta')}", err=True)
        time.sleep(min(_POLL_S[1], max(_POLL_S[0], answer.left_s / 2), left_s))
    return answer


def _inspected_lines(found: Inspected) -> Iterator[str]:
    manifest = found.manifest
    part = f", part {manifest.part} of {manifest.parts}" if manifest.parts > 1 else ""
    yield f"bundle {manifest.id}{part}: {format_size(found.size_bytes)}, whole and unaltered"
    yield f"signed by hub {manifest.hub}, by the root {found.root} in it; a host compares that with its own"
    yield from _manifest_lines(manifest)
    yield ""
    yield from plain_table(_rows(manifest), _COLUMNS).splitlines()


def _manifest_lines(manifest: BundleManifest) -> Iterator[str]:
    expiry = until(manifest.expires_at, now())
    yield f"  made {local_time(manifest.made_at)}, good until {local_time(manifest.expires_at)} ({expiry})"
    kinds = [entry.kind for entry in manifest.entries]
    yield f"  {plural(kinds.count('blob'), 'file')} in full, {plural(kinds.count('delta'), 'delta')}"
    for name, site in sorted(manifest.sites.items()):
        yield f"  site {name}: generation {site.generation}"
        for host, one in sorted(site.hosts.items()):
            size = sum(manifest.entries[place].size_bytes for place in one.entries)
            releases = ", ".join(one.releases) or "nothing"
            yield f"    {host}: {format_size(size)} for {releases}"


def _rows(manifest: BundleManifest) -> Sequence[tuple[str, str, str, str]]:
    wanted: dict[int, list[str]] = {}
    for site in manifest.sites.values():
        for host, one in site.hosts.items():
            for place in one.entries:
                wanted.setdefault(place, []).append(host)
    return [
        (entry.kind, format_size(entry.size_bytes), ", ".join(wanted.get(place, ())), entry.name)
        for place, entry in enumerate(manifest.entries)
    ]


_COLUMNS: list[Column[tuple[str, str, str, str]]] = [
    Column("KIND", lambda row: row[0]),
    Column("SIZE", lambda row: row[1]),
    Column("FOR", lambda row: row[2]),
    Column("WHAT", lambda row: row[3]),
]
