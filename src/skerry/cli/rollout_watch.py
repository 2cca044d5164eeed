"""`skerry rollout watch`: a rollout until it ends: live on a terminal, a line per change elsewhere."""

from __future__ import annotations

import os
import sys

import click

from skerry.cli.options import DURATION
from skerry.cli.output import output_option
from skerry.cli.rollout_watching import Changes, follow, print_json, print_line
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.client.client import Client
from skerry.spec.api import RolloutView


@click.command(
    epilog=examples("skerry rollout watch spring --timeout 30m", "skerry rollout watch spring -o json")
)
@click.argument("name")
@click.option("--timeout", type=DURATION, default=None, help="Give up after so long; exit code 69.")
@output_option("table", "json")
@click.pass_context
def watch(context: click.Context, name: str, timeout: float | None, output: str) -> None:
    """Follow a rollout until it ends. The exit code is 0 if it succeeded, else 1.

    On a terminal: its waves and the sites in trouble, kept up to date. Elsewhere: one line per change; with -o json,
    each is a JSON object. A hub that is away is waited for. Ctrl-C ends the watching; the rollout goes on.
    """
    try:
        with connect() as client:
            view = _follow(client, name, timeout, output)
    except KeyboardInterrupt:
        click.echo(clean(f"rollout {name} goes on without you"), err=True)
        raise
    context.exit(0 if view.state == "succeeded" else 1)


def _follow(client: Client, name: str, timeout_s: float | None, output: str) -> RolloutView:
    # A terminal that can move no cursor gets lines.
    if output == "table" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from skerry.cli.rollout_live import LiveView

        with LiveView() as live:
            return follow(client, name, timeout_s=timeout_s, display=live)
    changes = Changes(name, print_json if output == "json" else print_line)
    return follow(client, name, timeout_s=timeout_s, display=changes)
