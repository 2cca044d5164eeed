"""`skerry volume`: the data that applications keep at sites, and emptying it.

Nothing is emptied without a yes: data that a host has lost comes back from nowhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import msgspec

from skerry.cli.output import Column, format_data, output_option, print_table, print_view
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, plural
from skerry.kit.errors import Missing, Rejected
from skerry.spec.api import VolumesView, VolumeView, WipeAnswer


class _Row(msgspec.Struct, frozen=True):
    """One volume of one application at one site."""

    view: VolumesView
    volume: VolumeView


_columns: tuple[Column[_Row], ...] = (
    Column("SITE", lambda row: row.view.site),
    Column("APPLICATION", lambda row: row.view.application),
    Column("COMPONENT", lambda row: row.volume.component),
    Column("VOLUME", lambda row: row.volume.name),
    Column("SIZE", lambda row: row.volume.size or "no limit"),
    Column("RELEASE", lambda row: row.view.release, 3),
    Column("HOSTS", lambda row: str(len(row.view.hosts)), 1),
    Column("WIPES", lambda row: str(row.view.wipes), 2),
)


@click.group(epilog=examples("skerry volume list --site zurich", "skerry volume wipe reader --site zurich"))
def volume() -> None:
    """List the volumes of applications, and empty them."""


@volume.command("list", epilog=examples("skerry volume list", "skerry volume list --site zurich -o json"))
@click.option("--site", default="", help="Only at this site.")
@output_option("table", "json", "yaml")
def list_volumes(site: str, output: str) -> None:
    """List the volumes that the releases assigned to sites declare."""
    with connect() as client:
        views = client.volumes(site)
    rows = [_Row(view, found) for view in views for found in view.volumes]
    if output != "table":
        click.echo(format_data(views, output))
    elif rows:
        print_table(rows, _columns)
    else:
        click.echo("no volumes", err=True)


@volume.command(
    epilog=examples(
        "skerry volume wipe reader --site zurich --dry-run", "skerry volume wipe reader --site zurich"
    )
)
@click.argument("application")
@click.option("--site", required=True, help="At this site.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be lost, change nothing.")
@output_option("table", "json", "yaml")
def wipe(application: str, site: str, yes: bool, dry_run: bool, output: str) -> None:
    """Empty all volumes of APPLICATION on all hosts of a site, for good.

    Each host does so once, when it next hears from the hub: it ends the application, empties its volumes and the
    data directories of its components, and starts the same release again.
    """
    with connect() as client:
        view = _find(client.volumes(site), application, site)
        lines = loss_lines(view)
        if dry_run:
            print_view(view, [*lines, "nothing was changed: this was a dry run"], output)
            return
        if not yes:
            _confirm(lines)
        answer = client.wipe_volumes(site, application)
    print_view(answer, answer_lines(answer), output)


def loss_lines(view: VolumesView) -> list[str]:
    """Say what is lost where, and when."""
    volumes = [f"  {found.component}/{found.name} ({_limit(found)})" for found in view.volumes]
    lines = [
        f"{view.application} ({view.release}) at site {view.site} loses what it holds in:",
        *volumes,
        "  the data directories of its components",
    ]
    if view.hosts:
        lines.append(f"on {plural(len(view.hosts), 'host')}, each when it next hears from the hub:")
        lines += [f"  {host}" for host in view.hosts]
    else:
        lines.append("no host of the site has it now; one that gets it later begins empty")
    return [clean(line) for line in lines]


def answer_lines(answer: WipeAnswer) -> list[str]:
    """Say what was asked for, and who is to do it."""
    head = f"{answer.application} at site {answer.site}: wipe {answer.count} is asked for"
    hosts = [f"  {host}: when it next hears from the hub" for host in answer.hosts]
    return [clean(line) for line in (f"{head}, in generation {answer.generation}", *hosts)]


def _limit(found: VolumeView) -> str:
    return f"at most {found.size}" if found.size else "no limit"


def _find(views: Sequence[VolumesView], application: str, site: str) -> VolumesView:
    for view in views:
        if view.application == application:
            return view
    known = ", ".join(view.application for view in views) or "none"
    raise Missing(
        "assignment.unknown",
        f"{application} is not assigned to site {site}",
        hint=f"applications there: {known}",
    )


def _confirm(lines: Sequence[str]) -> None:
    if not sys.stdin.isatty():
        hint = "use --dry-run to see what would be lost, --yes to go on without asking"
        raise Rejected("volume.unconfirmed", "no terminal to ask on", hint=hint)
    for line in lines:
        click.echo(line, err=True)
    click.confirm("Empty them?", abort=True, err=True)
