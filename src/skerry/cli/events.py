"""`skerry events`: what happened at hosts and at the hub, in order, and as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click
import msgspec

from skerry.cli.options import DURATION
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time
from skerry.client.client import Client
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Unavailable
from skerry.kit.quantities import format_duration
from skerry.spec.api_events import LogEntry, LogPage, LogRequest

LATE_S = 60.0
WAIT_S = 20
PAGE = 500
TRIES_APART_S = 2.0


@click.command(
    epilog=examples(
        "skerry events --site zurich --since 6h",
        "skerry events --app reader --kind release -f",
        "skerry events --since 30d -o json > events.jsonl",
    )
)
@click.option("--site", default="", help="Only of this site.")
@click.option("--app", "application", default="", help="Only of this application.")
@click.option("--host", default="", help="Only of this host.")
@click.option("--kind", default="", help="Only of this kind; release stands for all of release.*.")
@click.option(
    "--since", type=DURATION, help="What arrived in this time, such as 6h; the newest 100 if not given."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="json: one per line."
)
def events(output: str, *, follow: bool, since: float | None, **narrow: str) -> None:
    """Show what hosts told and what was done at the hub, merged by time.

    What arrived more than a minute after it happened says how much later. What operators did is shown to admins.
    """
    asked = msgspec.structs.replace(LogRequest(since_s=int(since or 0)), **narrow)
    with connect() as client:
        for page in pages(client, asked, follow=follow):
            for entry in page.entries:
                click.echo(encode_canonical(entry).decode() if output == "json" else entry_line(entry))
            sys.stdout.flush()


def pages(client: Client, asked: LogRequest, *, follow: bool) -> Iterator[LogPage]:
    """Yield page after page; with `follow`, for ever. A hub that is away is waited for."""
    page = client.log(asked)
    while True:
        yield page
        if not page.more and not follow:
            return
        wait_s = WAIT_S if follow and not page.more else 0
        asked = msgspec.structs.replace(asked, after=page.cursor, since_s=0, limit=PAGE, wait_s=wait_s)
        page = _patiently(client, asked) if follow else client.log(asked)


def entry_line(entry: LogEntry) -> str:
    """Return an entry as one line."""
    late_s = (entry.arrived_at - entry.at).total_seconds()
    late = f"  (arrived {format_duration(late_s)} later)" if late_s > LATE_S else ""
    if entry.source == "hub":
        by = f"by {entry.who}" + (f", {entry.decision}" if entry.decision else "")
        outcome = f" {entry.outcome}" if entry.outcome not in ("", "done") else ""
        told = f"{entry.subject}  {entry.kind}{outcome} {by}"
    else:
        subject = "/".join(part for part in (entry.host, entry.application, entry.component) if part)
        told = f"{subject}  {entry.kind}"
    message = f": {entry.message}" if entry.message else ""
    return clean(f"{local_time(entry.at)}  {told}{message}{late}")


def _patiently(client: Client, asked: LogRequest) -> LogPage:
    failing = False
    while True:
        try:
            return client.log(asked)
        except Unavailable as error:
            if not failing:
                click.echo(f"{clean(error.message)}; still trying", err=True)
            failing = True
            time.sleep(TRIES_APART_S)
