"""`skerry delete`: sites, hosts, relays and more, by name or by the documents that made them."""

from __future__ import annotations

import sys

import click

from skerry.cli.loading import load_documents
from skerry.cli.resources import Query, Resource, ResourceType, resource_of
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.client.client import Client, Deletable
from skerry.kit.errors import Rejected
from skerry.kit.ids import release_name
from skerry.spec.application import Application
from skerry.spec.configuration import Configuration
from skerry.spec.policy import Policy
from skerry.spec.relay import Relay
from skerry.spec.rollout import Rollout
from skerry.spec.sink import Sink
from skerry.spec.site import Site

_deletable: dict[str, Deletable] = {
    "site": "sites",
    "host": "hosts",
    "release": "releases",
    "rollout": "rollouts",
    "policy": "policies",
    "relay": "relays",
    "configuration": "configurations",
    "sink": "sinks",
}
Target = tuple[str, str]
"""Kind in the singular, and name."""


@click.command(epilog=examples("skerry delete site old-plant", "skerry delete -f sites/old-plant.yaml --yes"))
@click.argument("kind", type=ResourceType(*_deletable), required=False)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE|DIR|-", help="Delete what these documents made."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(
    kind: Resource | None, names: tuple[str, ...], files: tuple[str, ...], dry_run: bool, yes: bool
) -> None:
    """Delete sites, hosts, releases, policies, relays, sinks, configurations or ended rollouts."""
    if bool(files) == bool(kind) or (kind and not names):
        raise click.UsageError("write either KIND NAME..., or -f FILE")
    targets = [(kind.singular, name) for name in names] if kind else _named_by(files)
    with connect() as client:
        if dry_run:
            _check_all_there(client, targets)
        elif not yes:
            _confirm(targets)
        for singular, name in targets:
            if not dry_run:
                client.delete(_deletable[singular], name)
            click.echo(clean(f"{singular}/{name} {'would be deleted' if dry_run else 'deleted'}"))


def _named_by(files: tuple[str, ...]) -> list[Target]:
    """Documents of applications stand for their releases, and models go with those."""
    targets: list[Target] = []
    for parsed in load_documents(files):
        match parsed.document:
            case Application() as application:
                targets.append(("release", release_name(application.metadata.name, application.spec.version)))
            case Site() as site:
                targets.append(("site", site.metadata.name))
            case Rollout() as rollout:
                targets.append(("rollout", rollout.metadata.name))
            case Policy() as policy:
                targets.append(("policy", policy.metadata.name))
            case Relay() as relay:
                targets.append(("relay", relay.metadata.name))
            case Configuration() as configuration:
                targets.append(("configuration", configuration.metadata.name))
            case Sink() as sink:
                targets.append(("sink", sink.metadata.name))
            case _:
                pass
    if not targets:
        raise Rejected("delete.nothing", "these documents made nothing that can be deleted by itself")
    # What refers to others goes before what it refers to.
    order = ("rollout", "configuration", "release", "policy", "relay", "sink", "site")
    return sorted(targets, key=lambda target: order.index(target[0]))


def _check_all_there(client: Client, targets: list[Target]) -> None:
    for singular, name in targets:
        resource = resource_of(singular)
        assert resource is not None
        resource.listing(client, Query(name=name))


def _confirm(targets: list[Target]) -> None:
    if not sys.stdin.isatty():
        raise Rejected(
            "delete.unconfirmed", "no terminal to ask on", hint="use --yes to delete without asking"
        )
    for singular, name in targets:
        click.echo(clean(f"  {singular}/{name}"), err=True)
    question = "Delete this?" if len(targets) == 1 else f"Delete these {len(targets)}?"
    click.confirm(question, abort=True, err=True)
