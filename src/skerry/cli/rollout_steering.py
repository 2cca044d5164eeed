"""`skerry rollout pause|resume|approve|abort|retry`: what a person does with a rollout that is under way."""

from __future__ import annotations

import click

from skerry.cli.output import output_option, print_view
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.spec.api import RolloutView
from skerry.spec.api_rollout import AbortRequest


@click.command(epilog=examples('skerry rollout pause spring --why "the line is being cleaned"'))
@click.argument("name")
@click.option("--why", default="", help="Why; shown to everybody who looks.")
@output_option("table", "json", "yaml")
def pause(name: str, why: str, output: str) -> None:
    """Offer the release to no further site until the rollout is resumed. What has begun goes on."""
    with connect() as client:
        view = client.pause_rollout(name, why)
    _tell(view, "is paused", output)


@click.command(epilog=examples("skerry rollout resume spring"))
@click.argument("name")
@output_option("table", "json", "yaml")
def resume(name: str, output: str) -> None:
    """Go on with a paused rollout. Failures that paused it are accepted and pause it no more."""
    with connect() as client:
        view = client.resume_rollout(name)
    _tell(view, "goes on", output)


@click.command(epilog=examples("skerry rollout approve spring", "skerry rollout approve spring --wave rest"))
@click.argument("name")
@click.option("--wave", default="", help="Its name, or its number from 1; the next that waits if not given.")
@output_option("table", "json", "yaml")
def approve(name: str, wave: str, output: str) -> None:
    """Let a wave begin that waits for approval."""
    with connect() as client:
        view = client.approve_rollout(name, wave)
    approved = view.control.approved if view.control else ()
    _tell(view, f"may begin wave {', '.join(str(number + 1) for number in approved)}", output)


@click.command(epilog=examples("skerry rollout abort spring", "skerry rollout abort spring --keep"))
@click.argument("name")
@click.option("--keep", is_flag=True, help="Let sites that have switched keep the release.")
@output_option("table", "json", "yaml")
def abort(name: str, output: str, *, keep: bool) -> None:
    """End a rollout. The release is taken back from all sites, within the same limits, unless --keep.

    Sites that are away never meet it: when they come back they go straight to what is right then.
    """
    with connect() as client:
        view = client.abort_rollout(name, AbortRequest(then="keep" if keep else "revert"))
    _tell(view, "is aborted" if keep else "is being taken back", output)


@click.command(epilog=examples("skerry rollout retry spring"))
@click.argument("name")
@output_option("table", "json", "yaml")
def retry(name: str, output: str) -> None:
    """Try a failed or aborted rollout again at the sites that did not get there."""
    with connect() as client:
        view = client.retry_rollout(name)
    _tell(view, f"is tried again (attempt {view.attempt})", output)


def _tell(view: RolloutView, what: str, output: str) -> None:
    print_view(view, [clean(f"rollout/{view.name} {what}")], output)


COMMANDS = (pause, resume, approve, abort, retry)
