"""Rollouts as the operator API shows them: where each site and each wave is, and what a person has said."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Part

SiteRolloutState = Literal[
    "pending",
    "offered",
    "downloading",
    "ready",
    "waiting_window",
    "held",
    "applying",
    "soaking",
    "succeeded",
    "failed",
    "rolled_back",
    "unreachable",
    "superseded",
]
RolloutState = Literal["running", "paused", "reverting", "succeeded", "failed", "aborted", "superseded"]
WaveState = Literal["waiting", "running", "soaking", "passed"]


class SiteProgress(Part, frozen=True, kw_only=True):
    """Where one site is in a rollout, and why; `as_of` is when the hub learnt it.

    `previous` is what it had before. `wave` is the number of its wave, counted from 0; -1 before it has one.
    `going_back`: the release is being taken back.
    """

    state: SiteRolloutState
    why: str
    as_of: datetime | None = None
    previous: str = ""
    wave: int = -1
    going_back: bool = False


class WaveProgress(Part, frozen=True, kw_only=True):
    """Where a wave is, and why. `members` counts its sites; `settled_at` is when all that counts had succeeded."""

    name: str
    state: WaveState = "waiting"
    why: str = ""
    members: int = 0
    began_at: datetime | None = None
    settled_at: datetime | None = None
    passed_at: datetime | None = None


class Halt(Part, frozen=True, kw_only=True):
    """Why a rollout offers its release to nobody any more, since when, and what is done."""

    why: str
    at: datetime
    then: Literal["rollback", "pause"]


class Control(Part, frozen=True, kw_only=True):
    """What people have said: `paused` why, `aborted` how, and which waves (counted from 0) they approved.

    `forgiven` are sites whose failure they have accepted by resuming.
    """

    paused: Annotated[str, Meta(max_length=1024)] = ""
    aborted: Literal["", "keep", "revert"] = ""
    approved: tuple[int, ...] = ()
    forgiven: tuple[str, ...] = ()


class Steering(Part, frozen=True, kw_only=True):
    """What a rollout has beside its sites: where its waves are, what people have said, and why it was halted."""

    waves: tuple[WaveProgress, ...] = ()
    control: Control = Control()
    halt: Halt | None = None


class EffectView(Part, frozen=True, kw_only=True):
    """What a decision did: so many `sites` were given a release, or with none lost the application.

    `named` are the first of them.
    """

    release: str
    sites: int
    named: tuple[str, ...] = ()


class DecisionView(Part, frozen=True, kw_only=True):
    """A decision that changed something: its number in the rollout, where the rollout stood then, why, and its effects.

    `inputs` is the digest of all that went into it: the same inputs give the same decision.
    """

    number: int
    at: datetime
    state: RolloutState
    why: str
    inputs: str
    effects: tuple[EffectView, ...] = ()


class PauseRequest(Part, frozen=True, kw_only=True):
    """Pause a rollout."""

    why: Annotated[str, Meta(max_length=1024)] = ""


class ApproveRequest(Part, frozen=True, kw_only=True):
    """Approve a wave by its name or its number, counted from 1; empty for the one that waits."""

    wave: Annotated[str, Meta(max_length=64)] = ""


class AbortRequest(Part, frozen=True, kw_only=True):
    """End a rollout: sites that switched `keep` the release, or it is taken back from them (`revert`)."""

    then: Literal["keep", "revert"] = "revert"
