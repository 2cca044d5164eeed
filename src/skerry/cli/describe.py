"""`skerry describe`: one thing with everything that is known about it, and how old that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import click
import msgspec

from skerry.cli import portraits
from skerry.cli.output import format_data, output_option
from skerry.cli.proofs import policy_lines
from skerry.cli.relay_portraits import relay_lines
from skerry.cli.resources import AnyView, Query, Resource, ResourceType, resource_of
from skerry.cli.session import connect
from skerry.cli.text import examples, now, painted
from skerry.client.client import Client

_RECENT_EVENTS = 10


class Described(msgspec.Struct, frozen=True):
    """What a program gets, and what a person reads."""

    data: object
    lines: Iterable[str]


@click.command(
    epilog=examples(
        "skerry describe host press-3",
        "skerry describe site zurich",
        "skerry describe release meter-reader@1.1.0",
    )
)
@click.argument(
    "what", type=ResourceType("site", "host", "app", "model", "release", "rollout", "policy", "relay")
)
@click.argument("name")
@output_option("table", "json", "yaml")
def describe(what: Resource, name: str, output: str) -> None:
    """Show a site, host, app, model, release, rollout, policy or relay with everything that is known about it."""
    show_described(what.singular, name, output)


def show_described(singular: str, name: str, output: str) -> None:
    """Print everything about one thing."""
    with connect() as client:
        found = _describers[singular](client, name, now())
    if output in ("json", "yaml"):
        click.echo(format_data(found.data, output))
    else:
        for line in found.lines:
            click.echo(painted(line))


def _site(client: Client, name: str, at: datetime) -> Described:
    view = client.site(name)
    hosts, events = client.hosts(name), client.events(site=name, limit=_RECENT_EVENTS)
    data = {"site": view, "hosts": hosts, "events": events}
    return Described(data, portraits.site_lines(view, hosts, events, at=at))


def _host(client: Client, name: str, at: datetime) -> Described:
    view = client.host(name)
    events = client.events(host=name, limit=_RECENT_EVENTS)
    return Described({"host": view, "events": events}, portraits.host_lines(view, events, at=at))


def _app(client: Client, name: str, at: datetime) -> Described:
    view = _only("app", client, name)[0]
    releases, hosts = client.releases(name), client.hosts()
    return Described({"app": view, "releases": releases}, portraits.app_lines(view, releases, hosts, at=at))


def _model(client: Client, name: str, at: datetime) -> Described:
    views = _only("model", client, name)
    return Described(views, portraits.model_lines(views, client.hosts(), at=at))


def _release(client: Client, name: str, at: datetime) -> Described:
    view = client.release(name)
    return Described(view, portraits.release_lines(view, at=at))


def _rollout(client: Client, name: str, at: datetime) -> Described:
    view = client.rollout(name)
    return Described(view, portraits.rollout_lines(view, at=at))


def _policy(client: Client, name: str, at: datetime) -> Described:
    view = client.policy(name)
    return Described(view, policy_lines(view, at=at))


def _relay(client: Client, name: str, at: datetime) -> Described:
    view = client.relay(name)
    return Described(view, relay_lines(view, at=at))


def _only(singular: str, client: Client, name: str) -> list[AnyView]:
    resource = resource_of(singular)
    assert resource is not None
    return list(resource.listing(client, Query(name=name)))


_describers: dict[str, Callable[[Client, str, datetime], Described]] = {
    "site": _site,
    "host": _host,
    "app": _app,
    "model": _model,
    "release": _release,
    "rollout": _rollout,
    "policy": _policy,
    "relay": _relay,
}
