"""`skerry explain topics`: who is joined to whom by topics at a site, and which ends are loose."""

from __future__ import annotations

from collections.abc import Iterator

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.spec.api_topics import SiteTopics, TopicFlow


@click.command(epilog=examples("skerry explain topics --site zurich"))
@click.option("--site", required=True, help="The site whose message bus it is.")
@output_option("table", "json", "yaml")
def topics(site: str, output: str) -> None:
    """Say what each application of a site publishes and reads, who is at the other end, and where nobody is."""
    with connect() as client:
        found = client.topics(site)
    if output in ("json", "yaml"):
        click.echo(format_data(found, output))
        return
    for line in topic_sentences(found):
        click.echo(clean(line))


def topic_sentences(found: SiteTopics) -> Iterator[str]:
    """Yield a site's topics for people."""
    if not found.flows:
        yield f"No application of site {found.site} uses the message bus."
        return
    yield f"Site {found.site} has {found.broker} on each host whose applications use the bus."
    for flow in found.flows:
        yield f"{flow.application} {flow.does} {flow.topic}: {_ends(flow)}."
    for host, trouble in sorted(found.hosts.items()):
        yield f"On {host} {f'its trouble is: {trouble}' if trouble else 'it runs'}."
        for other, why in sorted(found.links.get(host, {}).items()):
            yield f"From {other} to {host} {f'nothing comes: {why}' if why else 'the link is open'}."


def _ends(flow: TopicFlow) -> str:
    if not flow.joined:
        return flow.trouble
    beyond = f", over a link between hosts with {', '.join(flow.linked)}" if flow.linked else ""
    return f"joined with {', '.join(flow.joined)}{beyond}"
