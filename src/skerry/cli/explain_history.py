"""`skerry rollout explain --history`: what was decided about a rollout, the newest last, as a log is read."""

from __future__ import annotations

import click

from skerry.cli.output import Column, print_views
from skerry.cli.session import connect
from skerry.cli.text import local_time
from skerry.spec.api_rollout import DecisionView, EffectView

MOST = 1000


def show_history(name: str, output: str) -> None:
    """Print the decisions that are kept of a rollout."""
    with connect() as client:
        decisions = client.rollout_decisions(name, limit=MOST)
    print_views(
        decisions[::-1],
        _COLUMNS,
        output,
        name=lambda view: str(view.number),
        empty="nothing has been decided yet",
    )
    if output == "table" and (gap := _left_out(decisions)):
        click.echo(f"{gap} decisions in between are not kept", err=True)


def effect_text(effects: tuple[EffectView, ...]) -> str:
    """Return what a decision did, such as `reader@2 to zurich, basel and 3 more`."""
    return "; ".join(
        f"{effect.release} to {_sites(effect)}" if effect.release else f"taken away from {_sites(effect)}"
        for effect in effects
    )


def _sites(effect: EffectView) -> str:
    more = effect.sites - len(effect.named)
    return ", ".join(effect.named) + (f" and {more} more" if more else "")


def _left_out(decisions: list[DecisionView]) -> int:
    """Return how many decisions are not there any more; the newest comes first."""
    return decisions[0].number - len(decisions) if decisions else 0


_COLUMNS = (
    Column[DecisionView]("NUMBER", lambda view: str(view.number)),
    Column[DecisionView]("AT", lambda view: local_time(view.at)),
    Column[DecisionView]("STATE", lambda view: view.state),
    Column[DecisionView]("DID", lambda view: effect_text(view.effects) or "-"),
    Column[DecisionView]("WHY", lambda view: view.why),
    Column[DecisionView]("INPUTS", lambda view: view.inputs.removeprefix("sha256:")[:12], 1),
)
