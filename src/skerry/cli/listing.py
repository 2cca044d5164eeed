"""Lists a resource once, or again whenever it changes: what `get` and every `list` share."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from skerry.cli.output import format_data, print_views
from skerry.cli.resources import Query, Resource, columns_now, resource_of
from skerry.cli.session import connect
from skerry.cli.text import clean
from skerry.client.client import Client
from skerry.kit.errors import Unavailable

WATCH_PERIOD_S = 2.0


def show_list(resource: Resource | str, query: Query, output: str) -> None:
    """Print a list once."""
    found = resource_of(resource) if isinstance(resource, str) else resource
    assert found is not None
    with connect() as client:
        views = found.listing(client, query)
    if query.name and output in ("json", "yaml") and len(views) == 1:
        # One thing was asked for by name: programs get it, not a list of one.
        click.echo(format_data(views[0], output))
    else:
        _print(found, views, output)


def watch_list(resource: Resource, query: Query, output: str) -> None:
    """Print a list whenever it changes, until interrupted. A hub that is away is waited for."""
    shown: object = None
    with connect() as client:
        while True:
            views = _patiently(client, resource, query)
            if views is not None and views != shown:
                shown = views
                # A table takes the place of the one before; programs get one after the other.
                if output == "table" and sys.stdout.isatty():
                    click.clear()
                _print(resource, views, output)
            time.sleep(WATCH_PERIOD_S)


def _patiently(client: Client, resource: Resource, query: Query) -> Any:
    try:
        return resource.listing(client, query)
    except Unavailable as error:
        click.echo(f"{clean(error.message)}; still trying", err=True)
        return None


def _print(resource: Resource, views: Any, output: str) -> None:
    empty = f"no {resource.plural}"
    print_views(views, columns_now(resource), output, name=resource.name, empty=empty)
