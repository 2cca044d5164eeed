"""`skerry health`: how sites are, in one word each, with the reasons."""

from __future__ import annotations

import click

from skerry.cli.output import Column, output_option, print_views
from skerry.cli.portraits import health_lines
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now, painted
from skerry.spec.api_health import SiteHealth

WELL = ("ok", "expected-silent")


@click.command(
    epilog=examples(
        "skerry health", "skerry health --site zurich", "skerry health -l region=north --troubled -o json"
    )
)
@click.option("--site", default="", help="Only this site, with all reasons.")
@click.option("-l", "--selector", default="", help="Only sites with these labels.")
@click.option("--troubled", is_flag=True, help="Leave out sites that are ok or expected to be silent.")
@output_option("table", "json", "yaml", "name")
@click.pass_context
def health(context: click.Context, site: str, selector: str, *, troubled: bool, output: str) -> None:
    """Say how sites are: ok, expected-silent, degraded, failing or silent; from the best to the worst.

    The exit code is 1 if any site is degraded, failing or silent. A site that is silent for no longer than is usual of
    it is expected-silent; what it last said goes on counting, with its age.
    """
    with connect() as client:
        views = client.health(site=site, selector=selector)
    ill = [view for view in views if view.health.word not in WELL]
    if site and output == "table":
        for view in views:
            click.echo(clean(f"{view.site}, last heard of {age(view.health.as_of, now())}"))
            for line in health_lines(view.health, at=now()):
                click.echo(painted(line))
    else:
        shown = ill if troubled else views
        print_views(shown, _columns, output, name=lambda view: f"site/{view.site}", empty="no sites")
    context.exit(1 if ill else 0)


def _why(view: SiteHealth) -> str:
    """The worst reason, and how many more there are."""
    reasons = view.health.reasons
    if not reasons:
        return ""
    first, more = reasons[0], len(reasons) - 1 + view.health.left_out
    subject = f"{first.host}: " if first.host else ""
    return f"{subject}{first.message}" + (f" (and {more} more)" if more else "")


_columns: tuple[Column[SiteHealth], ...] = (
    Column("SITE", lambda view: view.site),
    Column("HEALTH", lambda view: view.health.word),
    Column("LAST HEARD", lambda view: age(view.health.as_of, now()), 1),
    Column("WHY", _why),
)
