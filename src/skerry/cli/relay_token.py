"""`skerry relay token`: a token with which one machine joins as a relay."""

from __future__ import annotations

import click

from skerry.cli.options import DURATION
from skerry.cli.output import output_option, print_view
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time
from skerry.spec.api_relay import RelayTokenRequest


@click.command(
    epilog=examples("skerry relay token plant-l3 --ttl 2h", "skerry relay token plant-l3 --replace")
)
@click.argument("name")
@click.option("--ttl", type=DURATION, default="24h", show_default=True, help="How long it can be used.")
@click.option("--replace", is_flag=True, help="For a machine that takes this relay's place, with new keys.")
@click.option(
    "--via",
    default="",
    metavar="RELAY|URL",
    help="Where it shall ask to join; its first upstream if not given, or the hub where it has none.",
)
@output_option("table", "json", "yaml")
def token(name: str, ttl: float, replace: bool, via: str, output: str) -> None:
    """Print a token with which one machine becomes a relay: `skerry relay join TOKEN`.

    The relay must have been applied. The token alone is printed to standard output; it is shown this once.
    """
    with connect() as client:
        answer = client.relay_token(name, RelayTokenRequest(ttl_s=ttl, replace=replace, via=via))
    print_view(answer, [answer.token], output)
    if output == "table":
        note = f"for relay {answer.relay}, asking {answer.hub}, until {local_time(answer.expires_at)}"
        click.echo(clean(note), err=True)
