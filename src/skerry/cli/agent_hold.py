"""`skerry agent hold` and `release-hold`: keep this host from taking another release, and let it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from skerry.cli.agent_options import data_option
from skerry.cli.output import format_data, output_option
from skerry.cli.text import clean, examples
from skerry.kit.quantities import parse_duration
from skerry.spec.hold import hold_text, instant_text


class WhenType(click.ParamType[datetime | float]):
    """An instant with its time zone, or a duration from now, handed over in seconds."""

    name = "when"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | float:
        """Return the instant or the seconds, or fail with what they look like."""
        if isinstance(value, datetime | float):
            return value
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            try:
                return float(parse_duration(str(value)))
            except ValueError:
                self.fail(
                    "give a duration such as 8h, or an instant such as 2026-03-01T06:00+01:00", param, ctx
                )
        if instant.tzinfo is None:
            self.fail(f"{value} has no time zone; write it as {value}+01:00 or {value}Z", param, ctx)
        return instant


_application = click.option(
    "--application", default="", metavar="NAME", help="Only this application; all of the host if not given."
)


@click.command(
    epilog=examples(
        "skerry agent hold --why 'stocktaking until Friday' --until 2026-03-06T18:00+01:00",
        "skerry agent hold --application meter-reader --why 'inspector on site' --until 8h",
    )
)
@click.option("--why", required=True, help="The reason, for those who wait for the update.")
@_application
@click.option(
    "--until",
    type=WhenType(),
    help="End by itself: after a duration, or at an instant. If not given it holds until it is released.",
)
@data_option()
@output_option("table", "json")
def hold(why: str, application: str, until: datetime | float | None, data: Path, output: str) -> None:
    """Let this host take no other release until the hold ends or is released; needs no hub.

    New releases are fetched, verified and self-tested meanwhile. What runs is kept running, and a trial that has begun
    is finished. Neither an urgent rollout nor anything else that comes from the hub ends a hold.
    """
    from skerry.agent.hold_commands import hold_updates
    from skerry.agent.holding import who_am_i

    changed = hold_updates(data.absolute(), application, why=why, by=who_am_i(os.environ), until=until)
    if output == "json":
        click.echo(format_data(changed, output))
        return
    until_text = f" until {instant_text(changed.hold.until)}" if changed.hold and changed.hold.until else ""
    click.echo(f"{application or 'this host'} takes no other release{until_text or ' until it is released'}")
    for line in _agent_lines(changed.agent):
        click.echo(line)
    if changed.under_way:
        click.echo(f"had begun before, and is finished: {clean(', '.join(changed.under_way))}")


@click.command("release-hold", epilog=examples("skerry agent release-hold --application meter-reader"))
@_application
@data_option()
@output_option("table", "json")
def release_hold(application: str, data: Path, output: str) -> None:
    """End a hold: the one of NAME, or the one of the whole host. Each is released by itself."""
    from skerry.agent.hold_commands import release_updates

    changed = release_updates(data.absolute(), application)
    if output == "json":
        click.echo(format_data(changed, output))
        return
    click.echo(f"released: {application or 'this host'}")
    for other in changed.left:
        click.echo(clean(f"still, {other.application or 'this host'}: {hold_text(other)}"))
    for line in _agent_lines(changed.agent):
        click.echo(line)


def _agent_lines(agent: str) -> Iterator[str]:
    if agent == "does not run":
        yield "the agent does not run; it goes by this when it does"
    elif agent == "has not said so":
        yield "the agent has not said that it knows; see skerry agent status"
