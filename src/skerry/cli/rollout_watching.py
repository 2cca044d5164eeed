"""Follows a rollout until it ends, and tells whoever shows it what has changed.

Rules: the hub is asked once a second, and a hub that is away is waited for; nothing here knows where it is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal, Protocol

import click
import msgspec

from skerry.cli.text import age, clean, colour, local_time, now
from skerry.client.client import Client
from skerry.kit.errors import Unavailable
from skerry.spec.api import RolloutView

POLL_S = 1.0
ENDED = ("succeeded", "failed", "aborted", "superseded")


class RolloutChange(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was, seen `at`: the rollout, a wave or a site of it, or whether the hub answers.

    `as_of` is how old what is said of a site is; `before` is the state it had, empty for what was not there.
    """

    kind: Literal["rollout", "wave", "site", "hub"]
    rollout: str
    name: str
    state: str
    why: str
    at: datetime
    before: str = ""
    as_of: datetime | None = None


class Display(Protocol):
    """Whoever shows a rollout that is followed."""

    def seen(self, view: RolloutView, at: datetime) -> None:
        """Show the rollout as the hub told it just now."""
        ...

    def away(self, why: str, at: datetime) -> None:
        """Show that the hub did not answer."""
        ...


def follow(
    client: Client,
    name: str,
    *,
    timeout_s: float | None,
    display: Display,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RolloutView:
    """Show a rollout until it ends, and return it as it ended. A hub that is away is waited for.

    Raises:
        Unavailable: it has not ended after `timeout_s` seconds (`rollout.timeout`).
    """
    ends_at = clock() + timeout_s if timeout_s is not None else None
    while True:
        try:
            view = client.rollout(name)
        except Unavailable as error:
            display.away(error.message, now())
        else:
            display.seen(view, now())
            if view.state in ENDED:
                return view
        if ends_at is not None and clock() >= ends_at:
            hint = "it goes on without you; `skerry rollout status` shows it"
            raise Unavailable("rollout.timeout", f"rollout {name} has not ended yet", hint=hint)
        sleep(POLL_S)


class Changes:
    """A display of changes: each is handed on once."""

    def __init__(self, rollout: str, tell: Callable[[RolloutChange], None]) -> None:
        self._rollout = rollout
        self._tell = tell
        self._before: RolloutView | None = None
        self._seen_at: datetime | None = None
        self._away_since: datetime | None = None

    def seen(self, view: RolloutView, at: datetime) -> None:
        """Tell what is not as it was."""
        if self._away_since is not None:
            self._tell_hub("there", f"the hub answers again, after {_since(self._away_since, at)}", at)
        self._away_since = None
        for change in changes_of(self._before, view, at):
            self._tell(change)
        self._before, self._seen_at = view, at

    def away(self, why: str, at: datetime) -> None:
        """Tell once that the hub is away, and how old what is known is."""
        if self._away_since is None:
            self._away_since = at
            known = f", what is shown is as of {age(self._seen_at, at)}" if self._seen_at else ""
            self._tell_hub("away", f"{why}; still trying{known}", at)

    def _tell_hub(self, state: str, why: str, at: datetime) -> None:
        before = "there" if state == "away" else "away"
        self._tell(
            RolloutChange(
                kind="hub", rollout=self._rollout, name="hub", state=state, why=why, at=at, before=before
            )
        )


def changes_of(before: RolloutView | None, view: RolloutView, at: datetime) -> Iterator[RolloutChange]:
    """Yield each thing that is not as it was: waves, then sites, then the rollout. Waves that wait are not news."""
    waves = {wave.name: wave for wave in before.waves} if before else {}
    for wave in view.waves:
        past = waves.get(wave.name)
        if wave.state != "waiting" and wave != past:
            yield RolloutChange(
                kind="wave",
                rollout=view.name,
                name=wave.name,
                state=wave.state,
                why=wave.why,
                at=at,
                before=past.state if past else "",
            )
    for name, site in sorted(view.sites.items()):
        was = before.sites.get(name) if before else None
        if was is None or (was.state, was.why) != (site.state, site.why):
            yield RolloutChange(
                kind="site",
                rollout=view.name,
                name=name,
                state=site.state,
                why=site.why,
                at=at,
                before=was.state if was else "",
                as_of=site.as_of,
            )
    if before is None or (before.state, before.why) != (view.state, view.why):
        state = before.state if before else ""
        yield RolloutChange(
            kind="rollout",
            rollout=view.name,
            name=view.name,
            state=view.state,
            why=view.why,
            at=at,
            before=state,
        )


def print_line(change: RolloutChange) -> None:
    """Print a change for people."""
    click.echo(f"{colour(local_time(change.at), 'bright_black')}  {clean(change_line(change))}")


def print_json(change: RolloutChange) -> None:
    """Print a change for programs: one JSON object in one line."""
    click.echo(msgspec.json.encode(change))


def change_line(change: RolloutChange) -> str:
    """Return a change in one line."""
    if change.kind == "hub":
        return change.why
    named = change.name if change.kind == "site" else f"{change.kind} {change.name}"
    return f"{named}: {change.state}: {change.why}"


def _since(begin: datetime, at: datetime) -> str:
    return age(begin, at).removesuffix(" ago").replace("just now", "a moment")
