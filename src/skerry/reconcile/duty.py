"""Duty: whether it is this host's turn to run an application that is placed by turns, without any hub.

Hosts tell each other in every heartbeat what they say of the application: `out` (cannot run it), `able`,
`claim` (wants to run it, does not yet) or `run` (runs it, or ends it and has not finished). Rules:

- A host wants to run it while fewer than `count` hosts before it are heard and not `out`. The order is that of
  the ranks which hosts say themselves, so hosts of different generations agree on it.
- It first claims, and runs only when every host that it hears has answered having heard that claim, and the others
  that claim or run are fewer than `count`. Of two that claim, each knows of the other before either runs.
- Where somebody concerned is not heard, a claim also waits for a while: who can hear it gives way first.
- A neighbour is silent after four fifths of `takeover_s`, and the claim takes the last fifth.
- A host that hears another, but has not been heard by it for a while, lets it pass before it.
- `majority`: who has not lately been answered by enough hosts for more than half of all is `out`.

All times are of this host's monotonic clock. Pure; the caller passes the state back in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from skerry.spec.desired import SitePlacement

Says = Literal["out", "able", "claim", "run"]

LEAST_TAKEOVER_S = 1.0
BEAT_LEAST_S = 0.2
BEAT_MOST_S = 5.0
LOOK_AGAIN_S = 60.0
_EPSILON_S = 0.001


class Mine(msgspec.Struct, frozen=True, kw_only=True):
    """This host and the application: `able` to run it, and `alive` while anything of it runs or ends here."""

    host: str
    generation: int
    able: bool = False
    alive: bool = False


class HeardView(msgspec.Struct, frozen=True, kw_only=True):
    """The last that was heard from a neighbour about the application.

    `claim` is the newest claim of its own, `knows` the newest claim of this host that it has heard of;
    `knows_at`, when this host sent the newest heartbeat that it has heard, None if it has not heard any.
    """

    heard_at: float
    says: Says
    rank: int
    generation: int = 0
    claim: int = 0
    knows: int = 0
    knows_at: float | None = None


class DutyState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered between two decisions.

    `since` says since when each neighbour has been heard without a silence; `claim` is the number of the newest
    claim, made at `claimed_at` if it stands.
    """

    began: float
    claim: int = 0
    claimed_at: float | None = None
    entered: bool = False
    since: Mapping[str, float] = {}


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """The decision: whether to run it, why, what to say to the neighbours, and when to decide again."""

    active: bool
    why: str
    says: Says
    rank: int
    state: DutyState
    wake_in_s: float = LOOK_AGAIN_S


class Timing(msgspec.Struct, frozen=True):
    """The times that follow from `takeover_s`, all in seconds."""

    beat_s: float
    silent_s: float
    deaf_s: float
    hold_s: float


def timing_of(takeover_s: float) -> Timing:
    """Return the times; less than a second is taken for one."""
    whole_s = max(takeover_s, LEAST_TAKEOVER_S)
    beat_s = min(max(whole_s / 5, BEAT_LEAST_S), BEAT_MOST_S)
    return Timing(beat_s, whole_s * 0.8, whole_s * 0.6, whole_s * 0.2)


def begin_duty(*, alive: bool, now: float, claim: int = 0) -> DutyState:
    """Return the state of a host that begins to watch; what runs there already is taken for its turn at first.

    `claim` must be at least the number of every claim that this agent has made since its start.
    """
    return DutyState(began=now, entered=alive, claim=claim)


def decide_duty(
    placement: SitePlacement, mine: Mine, hearing: Mapping[str, HeardView], state: DutyState, *, now: float
) -> Duty:
    """Return whether it is this host's turn. `hearing` holds neighbours that ever said something about it."""
    run = _Look(placement, mine, hearing, state, now)
    rivals = run.rivals()
    reason = run.unable()
    wants = not reason and len(rivals) < placement.count
    state = msgspec.structs.replace(state, since=run.since)
    if not wants:
        state = msgspec.structs.replace(state, entered=False, claimed_at=None)
        return run.conclude(state, reason or f"standing by: {_names(rivals)} before it")
    if not state.entered:
        if state.claimed_at is None:
            state = msgspec.structs.replace(state, claim=state.claim + 1, claimed_at=now)
        obstacle = run.obstacle(state, rivals)
        if obstacle:
            return run.conclude(state, obstacle)
        state = msgspec.structs.replace(state, entered=True, claimed_at=None)
    return run.conclude(state, run.why_active())


class _Look:
    """One look at the neighbours."""

    def __init__(
        self,
        placement: SitePlacement,
        mine: Mine,
        hearing: Mapping[str, HeardView],
        state: DutyState,
        now: float,
    ) -> None:
        self.placement, self.mine, self.state, self.now = placement, mine, state, now
        self.times = timing_of(placement.takeover_s)
        self.others = [host for host in placement.hosts if host != mine.host]
        self.rank = placement.hosts.index(mine.host) if mine.host in placement.hosts else len(placement.hosts)
        self.wakes: list[float] = []
        self.heard = {
            host: view
            for host, view in sorted(hearing.items())
            if host != mine.host and self._within(view.heard_at, self.times.silent_s)
        }
        self.since = {host: state.since.get(host, view.heard_at) for host, view in self.heard.items()}
        self.deaf = {host for host, view in self.heard.items() if self._is_deaf(host, view)}
        # Nobody is silent yet who may only not have been heard so far.
        waiting = self._within(state.began, self.times.silent_s)
        self.unknown = {host for host in self.others if waiting and host not in hearing}
        self.taking = {host for host, view in self.heard.items() if view.says in ("claim", "run")}

    def unable(self) -> str:
        """Return why this host must not run it, whoever else does; empty when it may."""
        if self.mine.host not in self.placement.hosts:
            return "placed on other hosts"
        if not self.mine.able:
            return "it cannot run here"
        if self.placement.split == "majority" and not self._has_majority():
            return f"fewer than half of {len(self.placement.hosts)} hosts are connected with this one"
        return ""

    def rivals(self) -> list[str]:
        """Return who comes before this host: by order, or because it goes on without having heard of this one."""
        key = (self.rank, -self.mine.generation, self.mine.host)
        before = {
            host
            for host, view in self.heard.items()
            if view.says != "out" and (view.rank, -view.generation, host) < key
        }
        # What runs is not ended for somebody who has not been heard of.
        unknown = {host for host in self.unknown if self._listed_before(host) and not self.state.entered}
        return sorted(before | unknown | (self.taking & self.deaf))

    def obstacle(self, state: DutyState, rivals: list[str]) -> str:
        """Return why a claim is not good yet; empty when it is."""
        unanswered = [
            host for host, view in self.heard.items() if host not in self.deaf and view.knows < state.claim
        ]
        if unanswered:
            return f"its turn: waiting for an answer of {_names(unanswered)}"
        if len(self.taking | set(rivals)) >= self.placement.count:
            return f"its turn: waiting for {_names(sorted(self.taking))} to end it"
        absent = [host for host in self.others if host not in self.heard or host in self.deaf]
        assert state.claimed_at is not None
        if absent and self._within(state.claimed_at, self.times.hold_s):
            return f"its turn: listening for {_names(absent)}"
        return ""

    def why_active(self) -> str:
        """Return why it is this host's turn."""
        passed = [host for host in self.others if self._listed_before(host)]
        if self.rank < self.placement.count or not passed:
            return ""
        parts = [
            f"{host} {'cannot run it' if host in self.heard else 'is silent'}"
            for host in passed
            if host not in self.heard or self.heard[host].says == "out"
        ]
        return f"takes over: {', '.join(parts)}" if parts else "takes over"

    def conclude(self, state: DutyState, why: str) -> Duty:
        """Return the decision that follows from a state."""
        says: Says = "out"
        if state.entered or self.mine.alive:
            says = "run"
        elif state.claimed_at is not None:
            says = "claim"
        elif not self.unable():
            says = "able"
        wake_in_s = min([LOOK_AGAIN_S, *(at - self.now for at in self.wakes)])
        return Duty(
            active=state.entered,
            why=why,
            says=says,
            rank=self.rank,
            state=state,
            wake_in_s=wake_in_s + _EPSILON_S,
        )

    def _has_majority(self) -> bool:
        answered = [
            host
            for host in self.others
            if host in self.heard
            and (at := self.heard[host].knows_at) is not None
            and self._within(at, self.times.silent_s)
        ]
        if 2 * (1 + len(answered)) > len(self.placement.hosts):
            return True
        # After a restart of the agent what runs is not ended before anybody could answer.
        return self.state.entered and self._within(self.state.began, self.times.hold_s)

    def _is_deaf(self, host: str, view: HeardView) -> bool:
        known_at = view.knows_at if view.knows_at is not None else self.state.began
        return not self._within(max(known_at, self.since[host], self.state.began), self.times.deaf_s)

    def _listed_before(self, host: str) -> bool:
        return host in self.placement.hosts and self.placement.hosts.index(host) < self.rank

    def _within(self, since: float, limit_s: float) -> bool:
        """Tell whether `limit_s` has not passed since then, and look again when it has."""
        if self.now - since > limit_s:
            return False
        self.wakes.append(since + limit_s)
        return True


def _names(hosts: list[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "") or "nobody"
