"""`skerry secret forecast`: what will run out before its site is heard of again."""

from __future__ import annotations

import click

from skerry.cli.options import DURATION
from skerry.cli.output import Column, output_option, print_views
from skerry.cli.session import connect
from skerry.cli.text import age, examples, local_time, now
from skerry.spec.api_forecast import ForecastView

_columns: tuple[Column[ForecastView], ...] = (
    Column("SITE", lambda view: view.site),
    Column("HOST", lambda view: view.host),
    Column("WHAT", lambda view: f"{view.kind} {view.name}" + (f" {view.version}" if view.version else "")),
    Column("ENDS", lambda view: local_time(view.ends_at)),
    Column("EXPECTED BACK", lambda view: local_time(view.back_by), 1),
    Column("LAST SEEN", lambda view: age(view.last_seen_at, now()), 3),
    Column("WHY", lambda view: "; ".join(view.why), 2),
)


@click.command(
    epilog=examples("skerry secret forecast", "skerry secret forecast --site zurich --within 30d -o json")
)
@click.option("--site", default="", help="Only at this site.")
@click.option("--within", type=DURATION, help="Also what ends within this time, such as 30d.")
@output_option("table", "json", "yaml")
@click.pass_context
def forecast(context: click.Context, site: str, within: float | None, output: str) -> None:
    """List secrets and certificates that run out before their host is expected back; the exit code is 1 if any do.

    A host is expected back after its longest silence, or after its site's offline tolerance if that is longer. What
    counts is what the host has said that it holds: a later version that has not reached it does not help it.
    """
    with connect() as client:
        views = client.forecast(site=site, within_s=int(within or 0))
    print_views(views, _columns, output, name=lambda view: view.host, empty="nothing runs out")
    context.exit(1 if views else 0)
