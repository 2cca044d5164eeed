"""`skerry explain`: why things are as they are, in sentences made from what the hub knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click

from skerry.cli.explain_binding import binding
from skerry.cli.explain_choices import choice_now, choice_sentences, placement_sentences
from skerry.cli.explain_delivery import delivery
from skerry.cli.explain_drift import drift
from skerry.cli.explain_history import show_history
from skerry.cli.explain_name import name
from skerry.cli.explain_path import path
from skerry.cli.explain_policy import policy
from skerry.cli.explain_rollout import only_site, rollout_sentences
from skerry.cli.explain_route import route
from skerry.cli.explain_secret import secret
from skerry.cli.explain_topics import topics
from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now
from skerry.kit.digests import short
from skerry.kit.errors import Missing
from skerry.spec.api import HostView


@click.group(
    epilog=examples(
        "skerry explain variant meter-reader --host press-3",
        "skerry explain placement meter-reader --site zurich",
        "skerry explain rollout spring",
        "skerry explain delivery meter-reader@1.1.0 --host press-3",
        "skerry explain policy meter-reader@1.1.0",
        "skerry explain drift meter-reader --site zurich",
        "skerry explain path zurich",
        "skerry explain topics --site zurich",
        "skerry explain route https://meter-reader.site.internal/ --site zurich",
        "skerry explain name meter-reader.site.internal --site zurich",
        "skerry explain secret db-password --site zurich",
        "skerry explain binding sorter --site zurich",
    )
)
def explain() -> None:
    """Say in sentences why a variant, a host or a way to it was chosen, or a rollout stands where it does."""


explain.add_command(binding)
explain.add_command(delivery)
explain.add_command(name)
explain.add_command(drift)
explain.add_command(path)
explain.add_command(policy)
explain.add_command(route)
explain.add_command(secret)
explain.add_command(topics)


@explain.command(epilog=examples("skerry explain variant meter-reader --host press-3"))
@click.argument("application", metavar="APP")
@click.option("--host", required=True, help="The host whose choice it is.")
def variant(application: str, host: str) -> None:
    """Say which variants an application uses on a host and why not the others, and what would be chosen now.

    What the host says of itself comes first. For an application that it has not reported, the newest release
    is held against its facts.
    """
    with connect() as client:
        view = client.host(host)
        chosen = choice_now(client, view, application)
    sentences = choice_sentences(view, application, chosen)
    for line in (*variant_sentences(view, application, at=now(), known=chosen is not None), *sentences):
        click.echo(clean(line))


@explain.command(epilog=examples("skerry explain placement meter-reader --site zurich"))
@click.argument("application", metavar="APP")
@click.option("--site", required=True, help="The site in which it is placed.")
def placement(application: str, site: str) -> None:
    """Say on which hosts of a site an application runs, which stand by, and why not the others."""
    with connect() as client:
        views, hosts = client.placements(site), client.hosts(site)
    for line in placement_sentences(views, hosts, application=application, site=site, at=now()):
        click.echo(clean(line))


@explain.command(
    epilog=examples("skerry explain rollout spring --site zurich", "skerry explain rollout spring --history")
)
@click.argument("name")
@click.option("--site", default="", help="Only this site.")
@click.option("--history", is_flag=True, help="Show the decisions that led there instead, the newest last.")
@output_option("table", "json", "yaml")
def rollout(name: str, site: str, output: str, *, history: bool) -> None:
    """Say where a rollout and its waves stand, and why each site is where it is; or what was decided about it."""
    if history:
        if site:
            raise click.UsageError("a decision is about all sites: leave out --site")
        show_history(name, output)
        return
    with connect() as client:
        view = client.rollout(name)
    if output in ("json", "yaml"):
        click.echo(format_data(only_site(view, site), output))
        return
    for line in rollout_sentences(view, site, at=now()):
        click.echo(clean(line))


def variant_sentences(
    view: HostView, application: str, *, at: datetime, known: bool = False
) -> Iterator[str]:
    """Yield why a host uses the variants it uses; `known` says that there is more to tell than it has reported.

    Raises:
        Missing: the host has said nothing about the application.
    """
    seen = view.applications.get(application)
    if seen is None and known:
        yield f"{view.name} has not reported an application {application}."
        return
    if seen is None:
        names = ", ".join(sorted(view.applications)) or "none"
        hint = f"applications it has reported: {names}"
        raise Missing("app.missing", f"{view.name} has not reported an application {application}", hint=hint)
    yield f"As of {age(view.observed_at, at)}, {view.name} says about {application}:"
    if not seen.choices:
        yield "It has chosen no variant" + (
            f": {seen.why}." if seen.why else ", because no component mounts a model or has an image."
        )
    for choice in seen.choices:
        whose = (
            f"model {choice.model} {choice.version}"
            if choice.kind == "model"
            else f"the image of {choice.model}"
        )
        if choice.variant:
            yield f"Of {whose} it uses the variant {choice.variant}."
        else:
            yield f"Of {whose} no variant fits this host."
        yield "It looked at the variants in their author's order:"
        yield from (f"  {reason}" for reason in choice.why)
    for key, reason in sorted(seen.failed_variants.items()):
        yield f"{key} failed its self-test there: {reason}"
    for digest, reason in sorted(seen.refused.items()):
        yield f"It refused release {short(digest)}: {reason}"
