"""`skerry rollout`: bring a release to sites, and follow it there."""

from __future__ import annotations

from typing import Any

import click

from skerry.cli.apply import print_changes
from skerry.cli.describe import show_described
from skerry.cli.explain import rollout as explain_rollout
from skerry.cli.output import output_option
from skerry.cli.rollout_document import make_rollout, refuse_wrong
from skerry.cli.rollout_preview import preview
from skerry.cli.rollout_steering import COMMANDS
from skerry.cli.rollout_watch import watch
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.cli.wave_preview import wave_sizes


@click.group(epilog=examples("skerry rollout start meter-reader@1.1.0 --sites region=north"))
def rollout() -> None:
    """Bring a release to sites, and follow it there."""


rollout.add_command(preview)
rollout.add_command(watch)
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
    spec: dict[str, object] = (
        {"sites": selector, "health": {name: said[name] for name in ("deadline", "soak")}}
        | {name: True for name in ("urgent", "prefetch") if said[name]}
        | ({"on_failure": said["on_failure"]} if said["on_failure"] != "rollback" else {})
        | ({"failure_budget": said["failure_budget"]} if said["failure_budget"] != "0" else {})
        | ({"waves": waves} if (waves := wave_sizes(said["waves"], said["wave_soak"])) else {})
        | ({"begin_at": said["begin_at"].isoformat()} if said["begin_at"] else {})
    )
    document = make_rollout(release, name, spec)
    with connect() as client:
        refuse_wrong(client, document)
        answer = client.apply([document], dry_run=dry_run, override_policy=said["override_policy"])
        print_changes(answer, output)
    if all(change.action == "unchanged" for change in answer.changes):
        click.echo("it has begun already, as it is: start another one with --name", err=True)
    elif output == "table" and not dry_run:
        click.echo(clean(f"follow it with: skerry rollout watch {document['metadata']['name']}"), err=True)


@rollout.command(epilog=examples("skerry rollout status spring"))
@click.argument("name")
@output_option("table", "json", "yaml")
def status(name: str, output: str) -> None:
    """Show where a rollout stands, site by site."""
    show_described("rollout", name, output)
