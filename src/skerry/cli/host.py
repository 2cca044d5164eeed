"""`skerry host`: hosts that somebody else may have: their identity was used twice, or they were lost."""

from __future__ import annotations

import sys

import click

from skerry.cli.output import output_option, print_view
from skerry.cli.secret import print_exposures
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, plural
from skerry.kit.errors import Conflict, Rejected


@click.group(epilog=examples("skerry host readmit press-1", "skerry host revoke press-1"))
def host() -> None:
    """Let a host go on that is in quarantine, or revoke it."""


@host.command(epilog=examples("skerry describe host press-1", "skerry host readmit press-1"))
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
@output_option("table", "json", "yaml")
def readmit(name: str, dry_run: bool, output: str) -> None:
    """Take reports of a host in quarantine again, and give it its desired state.

    Make sure that only one machine has its identity: if two still do, it is in quarantine again within minutes. When a
    disk was copied by somebody you do not know, give the host new keys instead: skerry site token SITE --replace HOST.
    """
    with connect() as client:
        if dry_run:
            view = client.host(name)
            if view.quarantined is None:
                raise Conflict(
                    "host.not_quarantined", f"host {name} is not in quarantine: it goes on as usual"
                )
        else:
            view = client.readmit_host(name)
    done = "would go on" if dry_run else "goes on"
    print_view(view, [clean(f"host {view.name} at site {view.site} {done}")], output)


@host.command(epilog=examples("skerry host revoke press-1 --dry-run", "skerry host revoke press-1 --yes"))
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what it could read, change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json", "yaml")
def revoke(name: str, dry_run: bool, yes: bool, output: str) -> None:
    """Strike a host that was stolen or lost, and list every secret that it could read.

    Its keys are refused from now on and nothing more is sealed to it. What it has it keeps: rotate what is listed as
    needed, then revoke the versions it had. The list can be had again: skerry secret list --exposed-by NAME.
    """
    with connect() as client:
        client.host(name)
        exposures = client.exposures(name)
        if not (dry_run or yes):
            if not sys.stdin.isatty():
                raise Rejected("host.unconfirmed", "no terminal to ask on", hint="use --yes")
            click.confirm(f"Revoke host {name}?", abort=True, err=True)
        if not dry_run:
            client.delete("hosts", name)
    print_exposures(exposures, name, output)
    needed = len({view.name for view in exposures if view.rotate_needed})
    done = "would be revoked" if dry_run else "is revoked"
    click.echo(clean(f"host {name} {done}; {plural(needed, 'secret')} to rotate"), err=True)
