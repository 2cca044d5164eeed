"""`skerry login`: from a hub's address, the digest of its trust root and a one-time secret to a stored token."""

from __future__ import annotations

import os
import sys

import click

from skerry.cli.text import examples
from skerry.client.client import Client
from skerry.client.connection import check_address, fetch_trust_root
from skerry.client.profile import Context, load_profile, profile_path, save_profile
from skerry.kit.errors import Rejected


@click.command(epilog=examples("skerry login https://hub.example.org:8443 --root sha256:9f86d0..."))
@click.argument("url")
@click.option(
    "--root", required=True, metavar="DIGEST", help="Digest of the hub's trust root; the hub prints it."
)
@click.option(
    "--context", "name", default="default", show_default=True, help="Remember the login by this name."
)
@click.option("--secret-stdin", is_flag=True, help="Read the one-time secret from standard input.")
def login(url: str, root: str, name: str, secret_stdin: bool) -> None:
    """Log in to the hub at URL with the one-time secret it printed.

    The hub's certificate is taken on no faith: its trust root must have the digest given with --root.
    """
    hub = check_address(url)
    trust_root = fetch_trust_root(hub, root)
    path = profile_path(os.environ)
    profile = load_profile(path)
    with Client(hub, ca_pem=trust_root.ca_pem) as client:
        granted = client.login(_read_secret(from_stdin=secret_stdin))
    who = f"{granted.token.name} ({granted.token.role})"
    digest = root if root.startswith("sha256:") else f"sha256:{root}"
    context = Context(
        hub=hub,
        root=digest,
        ca_pem=trust_root.ca_pem,
        hub_id=trust_root.hub,
        metadata_root=trust_root.root_bytes.decode(),
        token=granted.secret,
        who=who,
    )
    save_profile(path, profile.with_context(name, context))
    click.echo(f"logged in to {hub} as {who}; remembered as {name!r} in {path}")


def _read_secret(*, from_stdin: bool) -> str:
    if from_stdin:
        secret = sys.stdin.readline(1024)
    elif sys.stdin.isatty():
        secret = str(click.prompt("One-time secret", hide_input=True, err=True))
    else:
        raise Rejected("login.no_secret", "no terminal to ask for the secret", hint="use --secret-stdin")
    if not secret.strip():
        raise Rejected("login.no_secret", "the secret is empty", hint="the hub prints it when it starts")
    return secret.strip()
