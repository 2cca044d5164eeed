"""`skerry rollout`: bring a release to sites, and follow it there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from skerry.cli.apply import print_changes
from skerry.cli.describe import show_described
from skerry.cli.explain import rollout as explain_rollout
from skerry.cli.options import DURATION
from skerry.cli.output import output_option
from skerry.cli.rollout_preview import preview
from skerry.cli.rollout_steering import COMMANDS
from skerry.cli.session import connect
from skerry.cli.text import clean, colour, examples, local_time, now
from skerry.cli.wave_preview import default_name, wave_sizes
from skerry.client.client import Client
from skerry.kit.errors import Unavailable
from skerry.spec.api import RolloutView
from skerry.spec.metadata import API_VERSION
from skerry.spec.parsing import parse_raw

_POLL_S = 1.0
ENDED = ("succeeded", "failed", "aborted", "superseded")


@click.group(epilog=examples("skerry rollout start meter-reader@1.1.0 --sites region=north"))
def rollout() -> None:
    """Bring a release to sites, and follow it there."""


rollout.add_command(preview)
rollout.add_command(explain_rollout, "explain")
for _command in COMMANDS:
    rollout.add_command(_command)


@rollout.command(
    epilog=examples(
        "skerry rollout start meter-reader@1.1.0 --sites region=north",
        'skerry rollout start meter-reader@1.1.0 --sites "*" --name spring --soak 10m',
    )
)
@click.argument("release")
@click.option("--sites", "selector", required=True, help="Which sites, by their labels; * for all.")
@click.option("--name", default="", help="Name of the rollout; made from the release if not given.")
@click.option("--deadline", default="5m", show_default=True, help="How long a host may take to get ready.")
@click.option(
    "--soak", default="30s", show_default=True, help="How long it must stay ready to keep the release."
)
@click.option(
    "--waves",
    default="",
    metavar="SIZES",
    help="Sizes of the waves, such as 1,10%,100%; by default 1% (at least one site), 10% and the rest.",
)
@click.option(
    "--wave-soak", default="", metavar="DURATION", help="How long each wave is watched; 5m by default."
)
@click.option(
    "--on-failure",
    type=click.Choice(["rollback", "pause", "continue"]),
    default="rollback",
    show_default=True,
    help="What becomes of the other sites when more fail than may.",
)
@click.option(
    "--failure-budget", default="0", show_default=True, help="How many sites may fail, or which share."
)
@click.option(
    "--urgent",
    is_flag=True,
    help="Let hosts fetch it before everything else and switch outside their sites' windows; holds hold.",
)
@click.option(
    "--at",
    "begin_at",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z"]),
    help="Begin no earlier, such as 2026-03-01T02:00+01:00.",
)
@click.option(
    "--prefetch", is_flag=True, help="Let hosts fetch its files before it is their turn, after all else."
)
@click.option(
    "--override-policy",
    metavar="REASON",
    default="",
    help="Start it although policies are not satisfied; for admins. The reason is kept.",
)
@click.option("--dry-run", is_flag=True, help="Check it, start nothing.")
@output_option("table", "json", "yaml")
def start(release: str, selector: str, name: str, output: str, *, dry_run: bool, **said: Any) -> None:
    """Bring RELEASE, APPLICATION@VERSION, to the sites a selector names."""
    document = {
        "apiVersion": API_VERSION,
        "kind": "Rollout",
        "metadata": {"name": name or default_name(release)},
        "spec": {
            "release": release,
            "sites": selector,
            "health": {name: said[name] for name in ("deadline", "soak")},
        }
        | {name: True for name in ("urgent", "prefetch") if said[name]}
        | ({"on_failure": said["on_failure"]} if said["on_failure"] != "rollback" else {})
        | ({"failure_budget": said["failure_budget"]} if said["failure_budget"] != "0" else {})
        | ({"waves": waves} if (waves := wave_sizes(said["waves"], said["wave_soak"])) else {})
        | ({"begin_at": said["begin_at"].isoformat()} if said["begin_at"] else {}),
    }
    parse_raw(document)
    with connect() as client:
        answer = client.apply([document], dry_run=dry_run, override_policy=said["override_policy"])
        print_changes(answer, output)
    if output == "table" and not dry_run:
        click.echo(clean(f"follow it with: skerry rollout watch {name or default_name(release)}"), err=True)


@rollout.command(epilog=examples("skerry rollout status spring"))
@click.argument("name")
@output_option("table", "json", "yaml")
def status(name: str, output: str) -> None:
    """Show where a rollout stands, site by site."""
    show_described("rollout", name, output)


@rollout.command(epilog=examples("skerry rollout watch spring --timeout 30m"))
@click.argument("name")
@click.option("--timeout", type=DURATION, default=None, help="Give up after so long; exit code 69.")
@click.pass_context
def watch(context: click.Context, name: str, timeout: float | None) -> None:
    """Follow a rollout until it ends: one line per change. The exit code is 0 if it succeeded, else 1."""
    with connect() as client:
        view = follow(client, name, timeout_s=timeout, say=click.echo)
    context.exit(0 if view.state == "succeeded" else 1)


def follow(
    client: Client,
    name: str,
    *,
    timeout_s: float | None,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RolloutView:
    """Say every change of a rollout until it ends, and return it as it ended. A hub that is away is waited for.

    Raises:
        Unavailable: it has not ended after `timeout_s` seconds (`rollout.timeout`).
    """
    ends_at = clock() + timeout_s if timeout_s is not None else None
    before: RolloutView | None = None
    away = False
    while True:
        try:
            view = client.rollout(name)
        except Unavailable as error:
            if not away:
                say(_stamped(f"{error.message}; still trying"))
            away = True
        else:
            away = False
            for line in change_lines(before, view):
                say(_stamped(line))
            before = view
            if view.state in ENDED:
                return view
        if ends_at is not None and clock() >= ends_at:
            hint = "it goes on without you; `skerry rollout status` shows it"
            raise Unavailable("rollout.timeout", f"rollout {name} has not ended yet", hint=hint)
        sleep(_POLL_S)


def change_lines(before: RolloutView | None, view: RolloutView) -> Iterator[str]:
    """Yield one line for each thing that is not as it was."""
    waves = {wave.name: wave for wave in before.waves} if before else {}
    for wave in view.waves:
        if wave.state != "waiting" and wave != waves.get(wave.name):
            yield f"wave {wave.name}: {wave.state}: {wave.why}"
    for site, progress in sorted(view.sites.items()):
        past = before.sites.get(site) if before else None
        if past is None or (past.state, past.why) != (progress.state, progress.why):
            yield f"{site}: {progress.state}: {progress.why}"
    if before is None or (before.state, before.why) != (view.state, view.why):
        yield f"rollout {view.name}: {view.state}: {view.why}"


def _stamped(line: str) -> str:
    return f"{colour(local_time(now()), 'bright_black')}  {clean(line)}"
