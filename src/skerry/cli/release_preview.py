"""`skerry release preview`: what a release would come to on the fleet, before anything is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
import msgspec

from skerry.cli.output import Column, format_data, output_option, plain_table
from skerry.cli.push_display import PushDisplay
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now, plural
from skerry.client.client import Client
from skerry.client.images.cache import BlobCache, cache_capacity, cache_path
from skerry.client.images.reader import ImageReader
from skerry.client.sources import read_release
from skerry.kit.errors import Missing
from skerry.kit.quantities import format_size
from skerry.spec.api import FleetPreview, JsonDocument, PreviewCombination, PreviewReason, PreviewRoom

EXIT_NOT_EVERYWHERE = 1
_FILE_SUFFIXES = (".yaml", ".yml", ".json")


@click.command(
    epilog=examples(
        "skerry release preview inspector@1.4.0 --selector region=north",
        "skerry release preview release.yaml --strict",
    )
)
@click.argument("release", metavar="APP[@VERSION]|FILE")
@click.option("-l", "--selector", default="*", show_default=True, help="The sites that are looked at.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a host gets nothing, or lacks disk or memory.")
@output_option("table", "json", "yaml")
@click.pass_context
def preview(context: click.Context, release: str, selector: str, strict: bool, output: str) -> None:
    """Say how many hosts would get which variants of a release, who gets none and why, and where room lacks.

    RELEASE is an application, whose newest release is meant, one of its releases, or a file that has not been
    pushed; nothing of it is stored. The hub goes by the facts that hosts last reported.
    """
    with connect() as client:
        view = _previewed(client, release, selector)
    if output in ("json", "yaml"):
        click.echo(format_data(view, output))
    else:
        for line in preview_lines(view, at=now()):
            click.echo(clean(line))
    if strict and (view.unmatched or view.disk.lacking or view.memory.lacking):
        context.exit(EXIT_NOT_EVERYWHERE)


def preview_lines(view: FleetPreview, *, at: datetime) -> Iterator[str]:
    """Yield a fleet's preview for people."""
    where = "all sites" if view.selector == "*" else f"sites of {view.selector}"
    hosts, sites = plural(view.hosts, "host"), plural(view.sites, "site")
    yield f"{view.release} on {hosts} at {sites} ({where}):"
    if view.combinations:
        yield from plain_table(view.combinations, _columns(view)).splitlines()
    if view.unmatched:
        yield f"{plural(view.unmatched, 'host')} would get nothing, because of one or more of:"
        yield from _reason_lines(view.reasons)
    if view.elsewhere:
        yield f"{plural(view.elsewhere, 'host')} its placement leaves out:"
        yield from _reason_lines(view.elsewhere_reasons)
    if view.excluded:
        yield f"{plural(len(view.excluded), 'site')} left out, for want of a binding:"
        yield from (f"  {site}: {why}" for site, why in sorted(view.excluded.items()))
    if view.without_facts:
        names = _names(view.without_facts_examples, view.without_facts)
        yield f"{plural(view.without_facts, 'host')} did not report facts yet: {names}"
    for what, places in view.misconfigured.items():
        yield f"its configuration: {what}, at {', '.join(places)}"
    for secret, lacking in sorted(view.lacking_secrets.items()):
        yield f"secret {secret} has no value at {plural(len(lacking), 'site')}: {_names(lacking[:3], len(lacking))}"
    for why, places in sorted({**view.route_conflicts, **view.binding_conflicts}.items()):
        yield f"{why}: at {plural(len(places), 'site')}: {_names(places[:3], len(places))}"
    for flow, alone in sorted(view.loose_topics.items()):
        yield f"it {flow}, at {plural(len(alone), 'site')}: {_names(alone[:3], len(alone))}"
    yield from _room_lines("disk", view.disk, at)
    yield from _room_lines("memory", view.memory, at)
    if view.oldest_facts_at:
        yield f"The oldest of these facts held {age(view.oldest_facts_at, at)}."


def _previewed(client: Client, release: str, selector: str) -> FleetPreview:
    if release.endswith(_FILE_SUFFIXES):
        return client.preview_document(_pinned(Path(release)), selector)
    if "@" in release:
        return client.preview(release, selector)
    releases = client.releases(release)
    if not releases:
        hint = "skerry get releases lists them"
        raise Missing("release.missing", f"there is no release of an application {release}", hint=hint)
    return client.preview(max(releases, key=lambda view: view.created_at).name, selector)


def _pinned(path: Path) -> JsonDocument:
    """Return the document that a push would make of a file: every file and image is read, nothing is sent."""
    cache = BlobCache(cache_path(os.environ), capacity_bytes=cache_capacity(os.environ))
    with PushDisplay(sys.stderr) as display, cache:
        images = ImageReader(cache, display.reading, environment=os.environ)
        prepared = read_release(path, display.hashing, images=images)
    return msgspec.json.decode(prepared.content, type=JsonDocument)


def _columns(view: FleetPreview) -> list[Column[PreviewCombination]]:
    models = sorted({name for found in view.combinations for name in found.models})
    images = sorted({name for found in view.combinations for name in found.images})
    return [
        Column("HOSTS", lambda v: str(v.hosts)),
        *(Column(f"MODEL {name}", _model_cell(name)) for name in models),
        *(Column(f"IMAGE {name}", _image_cell(name)) for name in images),
        Column("SIZE", lambda v: format_size(v.size_bytes)),
        Column("SUCH AS", lambda v: _names(v.examples, v.hosts)),
    ]


def _model_cell(name: str) -> Callable[[PreviewCombination], str]:
    return lambda view: view.models.get(name, "")


def _image_cell(name: str) -> Callable[[PreviewCombination], str]:
    return lambda view: view.images.get(name, "")


def _reason_lines(reasons: tuple[PreviewReason, ...]) -> Iterator[str]:
    for found in reasons:
        yield f"  {found.hosts:>5}  {found.reason}  ({_names(found.examples, found.hosts)})"


def _room_lines(what: str, room: PreviewRoom, at: datetime) -> Iterator[str]:
    if room.lacking:
        yield f"{plural(room.lacking, 'host')} would lack {what}, the worst first:"
    for lack in room.worst:
        needed, left = format_size(lack.needed_bytes), format_size(lack.left_bytes)
        yield f"  {lack.host} ({lack.site}): needs {needed}, has {left}, as of {age(lack.as_of, at)}"
    if room.lacking > len(room.worst):
        yield f"  and {room.lacking - len(room.worst)} more"
    if room.unknown:
        yield f"{plural(room.unknown, 'host')} did not say how much {what} there is"


def _names(names: tuple[str, ...], count: int) -> str:
    return ", ".join(names) + (", ..." if count > len(names) else "")
