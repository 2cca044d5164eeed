"""`skerry config`: what applications are told, where, and which of the layers says it."""

from __future__ import annotations

import json
from typing import Any

import click

from skerry.cli.output import Column, format_data, format_yaml, output_option, print_views
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now, plural
from skerry.spec.api_configuration import ConfigurationView, RenderedConfiguration


def behind_text(view: ConfigurationView) -> str:
    """Return how many sites have yet to get a configuration."""
    return plural(len(view.behind), "site") if view.behind else "none"


COLUMNS: tuple[Column[ConfigurationView], ...] = (
    Column("NAME", lambda view: view.name),
    Column("APPLICATION", lambda view: view.application),
    Column("FOR", lambda view: view.target),
    Column("BEHIND", behind_text),
    Column("ORDER", lambda view: str(view.order), 2),
    Column("CHANGED", lambda view: f"{age(view.changed_at, now())} by {view.changed_by}", 1),
)


@click.group(epilog=examples("skerry config render camera --site zurich", "skerry config list"))
def config() -> None:
    """See what applications are told, and where that comes from."""


@config.command(
    "list", epilog=examples("skerry config list", "skerry config list --application camera -o json")
)
@click.option("--application", help="Those of this application alone.")
@output_option("table", "json", "yaml", "name")
def list_(application: str | None, output: str) -> None:
    """List configurations: whom they are for, and how many sites have yet to get them by a rollout."""
    with connect() as client:
        views = [view for view in client.configurations() if application in (None, view.application)]
    print_views(
        views, COLUMNS, output, name=lambda view: f"configuration/{view.name}", empty="no configurations"
    )


@config.command(
    "render",
    epilog=examples(
        "skerry config render camera --site zurich",
        "skerry config render camera --site zurich --host zurich-1 --release camera@1.3.0",
    ),
)
@click.argument("application")
@click.option("--site", required=True, help="The site whose values are shown.")
@click.option("--host", default="", help="One of its hosts: with what is a host's own filled in.")
@click.option("--release", default="", help="Another release than the one the site has.")
@output_option("table", "json", "yaml")
def render(application: str, site: str, host: str, release: str, output: str) -> None:
    """Show what the configuration of APPLICATION comes to at a site, and which layer each value is from.

    What only the host knows, such as ports and the paths of secrets, stands there as a reference. The exit code is 1
    when it could not be issued like this.
    """
    with connect() as client:
        view = client.rendered_configuration(application, site, host=host, release=release)
    if output in ("json", "yaml"):
        click.echo(format_data(view, output))
    else:
        for line in lines_of(view):
            click.echo(clean(line))
    if view.problems:
        click.get_current_context().exit(1)


def lines_of(view: RenderedConfiguration) -> list[str]:
    """Return a rendered configuration in lines: the values, where each is from, and what is wrong."""
    revision = f", revision {view.revision}" if view.revision else ""
    place = f"{view.host} of {view.site}" if view.host else view.site
    lines = [f"# {view.release} at {place}{revision}"]
    lines += format_yaml(view.values).splitlines() if view.values else ["{}"]
    lines += ["", "# from"]
    targets = {layer.source: layer.of for layer in view.layers}
    for one in view.origins:
        of = targets.get(one.source, "")
        lines.append(f"{one.path}: {one.source}" + (f" ({of})" if of else ""))
    if view.issued_release and view.issued != view.values:
        lines += ["", f"# the site has other values, of {view.issued_release}: a rollout brings these"]
    lines += [f"# problem: {problem}" for problem in view.problems]
    return lines


def value_text(value: Any) -> str:
    """Return a value in one line; a dash for none."""
    return "-" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
