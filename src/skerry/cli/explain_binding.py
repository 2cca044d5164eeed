"""`skerry explain binding`: what an application is joined to at a site, and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now, plural
from skerry.spec.api_binding import BindingDecision, HostJoined


@click.command(epilog=examples("skerry explain binding sorter --site zurich"))
@click.argument("application", metavar="APP")
@click.option("--site", required=True, help="The site that offers the bindings.")
@output_option("table", "json", "yaml")
def binding(application: str, site: str, output: str) -> None:
    """Say which bindings of a site an application is joined to, on each host, and why not to others."""
    with connect() as client:
        decision = client.binding_decision(application, site)
    if output in ("json", "yaml"):
        click.echo(format_data(decision, output))
        return
    for line in binding_sentences(decision, at=now()):
        click.echo(clean(line))


def binding_sentences(decision: BindingDecision, *, at: datetime) -> Iterator[str]:
    """Yield a decision for people."""
    if not decision.needs:
        yield f"{decision.release} needs no binding."
        return
    offered = plural(decision.offered, "binding")
    yield f"{decision.release} needs {', '.join(decision.needs)}; site {decision.site} offers {offered}."
    if decision.excluded:
        yield f"No rollout brings it there: {decision.excluded}."
    for host in decision.hosts:
        yield from _host_sentences(host, at)


def _host_sentences(host: HostJoined, at: datetime) -> Iterator[str]:
    if host.reasons:
        yield f"On {host.host} it does not run:"
        yield from (f"  {reason}" for reason in host.reasons)
        return
    yield f"On {host.host} it gets:"
    for need, name in host.bindings.items():
        seen = host.seen.get(name)
        state = f" ({seen.state}" if seen is not None and seen.state != "unknown" else ""
        since = f", since {age(seen.since, at)}" if state and seen and seen.since else ""
        yield f"  {need}: {name}{state}{since}{')' if state else ''}"
    yield from (f"    {line}" for line in host.why)
