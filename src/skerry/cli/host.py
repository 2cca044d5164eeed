"""`skerry host`: hosts whose identity was used by two machines."""

from __future__ import annotations

import click

from skerry.cli.output import output_option, print_view
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.kit.errors import Conflict


@click.group(epilog=examples("skerry host readmit press-1"))
def host() -> None:
    """Let a host go on that is in quarantine."""


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
