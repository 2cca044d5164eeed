"""`skerry rollout pause|resume|approve|abort|retry`: what a person does with a rollout that is under way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import click

from skerry.cli.output import output_option, print_view
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, plural
from skerry.rollout.decide import NOT_SWITCHED
from skerry.spec.api import RolloutView
from skerry.spec.api_rollout import AbortRequest

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would come of it, change nothing.")
SHOWN = 8


@click.command(epilog=examples('skerry rollout pause spring --why "the line is being cleaned"'))
@click.argument("name")
@click.option("--why", default="", help="Why; shown to everybody who looks.")
@_dry_run
@output_option("table", "json", "yaml")
def pause(name: str, why: str, output: str, *, dry_run: bool) -> None:
    """Offer the release to no further site until the rollout is resumed. What has begun goes on."""
    with connect() as client:
        view = client.pause_rollout(name, why, dry_run=dry_run)
    _tell(view, "would be paused" if dry_run else "is paused", output)


@click.command(epilog=examples("skerry rollout resume spring"))
@click.argument("name")
@_dry_run
@output_option("table", "json", "yaml")
def resume(name: str, output: str, *, dry_run: bool) -> None:
    """Go on with a paused rollout. Failures that paused it are accepted and pause it no more."""
    with connect() as client:
        view = client.resume_rollout(name, dry_run=dry_run)
    _tell(view, "would go on" if dry_run else "goes on", output, *(forgiven_lines(view) if dry_run else ()))


@click.command(epilog=examples("skerry rollout approve spring", "skerry rollout approve spring --wave rest"))
@click.argument("name")
@click.option("--wave", default="", help="Its name, or its number from 1; the next that waits if not given.")
@_dry_run
@output_option("table", "json", "yaml")
def approve(name: str, wave: str, output: str, *, dry_run: bool) -> None:
    """Let a wave begin that waits for approval."""
    with connect() as client:
        view = client.approve_rollout(name, wave, dry_run=dry_run)
    approved = view.control.approved if view.control else ()
    numbers = ", ".join(str(number + 1) for number in approved)
    _tell(view, f"{'might' if dry_run else 'may'} begin wave {numbers}", output)


@click.command(epilog=examples("skerry rollout abort spring --dry-run", "skerry rollout abort spring --keep"))
@click.argument("name")
@click.option("--keep", is_flag=True, help="Let sites that have switched keep the release.")
@_dry_run
@output_option("table", "json", "yaml")
def abort(name: str, output: str, *, keep: bool, dry_run: bool) -> None:
    """End a rollout. The release is taken back from all sites, within the same limits, unless --keep.

    Sites that are away never meet it: when they come back they go straight to what is right then.
    """
    then: Literal["keep", "revert"] = "keep" if keep else "revert"
    with connect() as client:
        view = client.abort_rollout(name, AbortRequest(then=then), dry_run=dry_run)
    if dry_run:
        _tell(view, "would be aborted" if keep else "would be taken back", output, *abort_lines(view))
    else:
        _tell(view, "is aborted" if keep else "is being taken back", output)


@click.command(epilog=examples("skerry rollout retry spring --dry-run", "skerry rollout retry spring"))
@click.argument("name")
@_dry_run
@output_option("table", "json", "yaml")
def retry(name: str, output: str, *, dry_run: bool) -> None:
    """Try a failed or aborted rollout again at the sites that did not get there."""
    with connect() as client:
        view = client.retry_rollout(name, dry_run=dry_run)
    would = "would be" if dry_run else "is"
    _tell(
        view,
        f"{would} tried again (attempt {view.attempt})",
        output,
        *(retry_lines(view) if dry_run else ()),
    )


def abort_lines(view: RolloutView) -> Iterator[str]:
    """Yield what an abort would come to, by where the sites are as of now."""
    keep = view.control is not None and view.control.aborted == "keep"
    states = {name: one.state for name, one in sorted(view.sites.items())}
    untouched = [name for name, state in states.items() if state in NOT_SWITCHED]
    switched = [name for name, state in states.items() if state in ("applying", "soaking", "succeeded")]
    away = [name for name, one in view.sites.items() if one.state == "unreachable" and one.wave >= 0]
    never = [name for name, state in states.items() if state == "pending"]
    yield from _group(untouched, "taken back at once, because the old release still runs")
    if keep:
        yield from _group(switched, "kept where it runs or is being tried")
    else:
        yield from _group(switched, "taken back within the waves' limits")
    yield from _group(sorted(away), "away: what was not switched to is never met")
    yield from _group(never, "not offered yet, and never will be")


def retry_lines(view: RolloutView) -> Iterator[str]:
    """Yield what a retry would come to."""
    again = sorted(name for name, one in view.sites.items() if one.state == "pending")
    done = sorted(name for name, one in view.sites.items() if one.state == "succeeded")
    yield from _group(again, f"offered {view.release} when it is the wave's turn")
    yield from _group(done, "there already")


def forgiven_lines(view: RolloutView) -> Iterator[str]:
    """Yield whose failure would be accepted."""
    yield from _group(view.control.forgiven if view.control else (), "failed, which is accepted")


def _group(names: tuple[str, ...] | list[str], what: str) -> Iterator[str]:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"  {what}: {plural(len(names), 'site')}: {', '.join(names[:SHOWN])}{more}"


def _tell(view: RolloutView, what: str, output: str, *lines: str) -> None:
    print_view(view, [clean(line) for line in (f"rollout/{view.name} {what}", *lines)], output)


COMMANDS = (pause, resume, approve, abort, retry)
