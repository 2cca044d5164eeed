"""`skerry relay`: join a hub as a relay, serve, and look at how things stand at the relay."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from skerry.cli.agent_ways import way_options
from skerry.cli.leaving_out import DECORATION, left_out
from skerry.cli.relay_bundle import export_reports, import_
from skerry.cli.relay_options import data_option
from skerry.cli.relay_token import token
from skerry.cli.text import clean, examples


@click.group(
    epilog=examples(
        "skerry relay token plant-l3 | ssh dmz skerry relay join -",
        "skerry relay serve --listen 0.0.0.0:8443",
    )
)
def relay() -> None:
    """Run a gateway inside a network segment."""


relay.add_command(token)
relay.add_command(import_)
relay.add_command(export_reports)


@relay.command(
    epilog=examples("skerry relay token plant-l3 | ssh dmz skerry relay join - --data /var/lib/skerry-relay")
)
@click.argument("token", default="-")
@data_option()
@way_options()
def join(token: str, data: Path, way: Any) -> None:
    """Make this machine a relay. TOKEN is what skerry relay token printed; - reads it from standard input."""
    from skerry.relay.joining import join_as_relay

    text = sys.stdin.read() if token == "-" else token  # noqa: S105
    place = join_as_relay(data.absolute(), text, way)
    click.echo(f"joined as relay {place.relay}; now run: skerry relay serve --data {data}")


@relay.command(
    epilog=examples("skerry relay serve --data /var/lib/skerry-relay --listen 0.0.0.0:8443 --log-json")
)
@data_option()
@click.option(
    "--listen", default="0.0.0.0:8443", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option("--log-json", is_flag=True, help="Write the log as JSON lines.")
@way_options()
def serve(data: Path, listen: str, *, log_json: bool, way: Any) -> None:
    """Serve what this relay holds to hosts and to relays below it, and hand up what they tell.

    Its port opens once the hub has issued a certificate for it, and from then on also with no hub.
    """
    with left_out(*DECORATION):
        from skerry.cli.logs import configure_logs
        from skerry.relay.wiring import serve as run

    configure_logs(json=log_json)
    run(data.absolute(), listen, lambda line: print(line, file=sys.stdout, flush=True), stated=way)


@relay.command(
    epilog=examples("skerry relay status --data /var/lib/skerry-relay", "skerry relay status -o json")
)
@data_option()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print.")
def status(data: Path, output: str) -> None:
    """Say how things stand at this relay; needs no hub."""
    from skerry.relay.commands import status_of, status_text

    found = status_of(data.absolute())
    if output == "json":
        from skerry.cli.output import format_data

        click.echo(format_data(found, "json"))
        return
    for line in status_text(found):
        click.echo(clean(line))
