"""How far a host is with a release, from what it says of the application."""

from __future__ import annotations

from collections.abc import Mapping

from skerry.rollout.facts import Stage
from skerry.spec.report import ApplicationView, Phase

# Of a candidate. Until its self-tests have passed nothing is ready, and what runs is not touched.
_stages: Mapping[Phase, Stage] = {
    "pending": "downloading",
    "fetching": "downloading",
    "preparing": "downloading",
    "testing": "downloading",
    "standing-by": "ready",
    "waiting-window": "waiting_window",
    "held": "held",
    "starting": "applying",
    "soaking": "soaking",
}


def stage_of(view: ApplicationView, release: str) -> Stage:
    """Return how far a host is with a release such as `meter@1.1.0`; empty while that is not what it works on.

    What it has proven or refused, or was not told to take, is not worked on. `ready` is a release that is made ready
    where it is another host's turn: elsewhere one that is ready is tried at once, or waits for something.
    """
    return _stages.get(view.phase, "") if view.candidate == release else ""
