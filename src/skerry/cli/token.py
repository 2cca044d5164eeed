"""`skerry token`: API tokens for people and machines."""

from __future__ import annotations

import click

from skerry.cli.listing import show_list
from skerry.cli.options import DURATION
from skerry.cli.output import output_option, print_view
from skerry.cli.resources import Query
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time
from skerry.kit.errors import Rejected
from skerry.kit.ids import is_name
from skerry.spec.api import Role, TokenRequest


@click.group(epilog=examples("skerry token create ci --role publisher --ttl 30d"))
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command(
    epilog=examples(
        "skerry token create ci --role publisher --ttl 30d > token",
        "skerry token create north-team --role operator --sites region=north",
    )
)
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "publisher", "operator", "admin"]),
    required=True,
    help="What it may do.",
)
@click.option("--ttl", type=DURATION, default=None, help="How long it holds; for ever if not given.")
@click.option(
    "--sites", default="", metavar="SELECTOR", help="Only for sites with these labels; all if not given."
)
@output_option("table", "json", "yaml")
def create(name: str, role: Role, ttl: float | None, sites: str, output: str) -> None:
    """Print a new API token; it is shown this once.

    A machine uses it with SKERRY_HUB, SKERRY_ROOT and SKERRY_TOKEN_FILE in its environment.
    """
    if not is_name(name):
        raise Rejected(
            "token.name", f"not a name: {name[:80]!r}", hint="lower-case letters, digits and hyphens"
        )
    with connect() as client:
        granted = client.create_token(TokenRequest(name=name, role=role, ttl_s=ttl, sites=sites))
    print_view(granted, [granted.secret], output)
    if output == "table":
        ends = f"until {local_time(granted.token.expires_at)}" if granted.token.expires_at else "for ever"
        where = f" of {granted.token.sites}" if granted.token.sites else ""
        click.echo(clean(f"token {granted.token.id} for {name} as {role}{where}, {ends}"), err=True)


@token.command("list", epilog=examples("skerry token list"))
@output_option("table", "json", "yaml", "name")
def list_tokens(output: str) -> None:
    """List the API tokens, without their secrets."""
    show_list("tokens", Query(), output)


@token.command(epilog=examples("skerry token revoke 3f2a"))
@click.argument("id")
def revoke(id: str) -> None:
    """Revoke the API token ID; `skerry token list` shows the ids."""
    with connect() as client:
        client.revoke_token(id)
    click.echo(clean(f"token {id} revoked"))
