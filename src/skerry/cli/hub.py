"""`skerry hub`: serve a hub, let its owner in, back it up, restore it and look it over."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from skerry.cli.hub_backup import COMMANDS
from skerry.cli.hub_keys import keys
from skerry.cli.hub_rekey import rekey
from skerry.cli.hub_reports import import_reports
from skerry.cli.lasting import lasting
from skerry.cli.leaving_out import DECORATION, left_out
from skerry.cli.options import SIZE
from skerry.cli.text import examples


@click.group()
def hub() -> None:
    """Serve a hub, back it up, restore it, and look it over."""


@hub.command(
    epilog=examples(
        "skerry hub serve --data /var/lib/skerry --listen 0.0.0.0:8443 --url https://hub.example.org:8443"
    )
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Data directory."
)
@click.option(
    "--listen", default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option("--url", default="", metavar="URL", help="Where hosts find the hub, if not where it listens.")
@click.option(
    "--delta-disk", type=SIZE, default="4GiB", show_default=True, help="What deltas may take of the disk."
)
@click.option(
    "--delta-workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="How many deltas are made at a time; 0 makes none.",
)
@click.option(
    "--domain",
    default="skerry.internal",
    metavar="DOMAIN",
    show_default=True,
    help="What sites' names are below, in certificates: APPLICATION.SITE.DOMAIN.",
)
@click.option("--log-json", is_flag=True, help="Write the log as JSON lines.")
def serve(data: Path, listen: str, url: str, *, domain: str, log_json: bool, **deltas: int) -> None:
    """Serve a hub from a data directory, which is made at the first start.

    The first start makes a certificate authority and the hub's keys, and prints a one-time secret.
    """
    with lasting(), left_out(*DECORATION):
        from skerry.cli.logs import configure_logs
        from skerry.hub.deltas import DeltaLimits
        from skerry.hub.wiring.serving import serve as run

    configure_logs(json=log_json)
    limits = DeltaLimits(deltas["delta_disk"], deltas["delta_workers"])
    say = partial(print, file=sys.stdout, flush=True)
    run(data.absolute(), listen, url, say, deltas=limits, domain=domain)


@hub.command("admin-secret", epilog=examples("skerry hub admin-secret --data /var/lib/skerry"))
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Data directory."
)
def admin_secret(data: Path) -> None:
    """Make a new one-time secret for skerry login; works while the hub serves."""
    from skerry.hub.wiring.serving import new_admin_secret

    secret, root = new_admin_secret(data.absolute())
    click.echo(f"one-time secret:   {secret}")
    click.echo(f"log in with:       skerry login URL --root {root}")


hub.add_command(keys)
hub.add_command(import_reports)
hub.add_command(rekey)
for _command in COMMANDS:
    hub.add_command(_command)
