"""What a decision about a rollout goes by, and what it says. Values only.

The shell says of each site which waves' selectors match it, so that nothing here reads labels but to group sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from skerry.spec.api_rollout import Control, Halt, RolloutState, SiteProgress, WaveProgress

Stage = Literal["", "downloading", "ready", "waiting_window", "held", "applying", "soaking"]
Outcome = Literal["pass", "fail", "inconclusive"]


class HostFact(msgspec.Struct, frozen=True):
    """What a rollout needs to know of a host.

    `holds_offer`: it acts on the newest desired state of its site. `stage`: how far it is with `candidate`.
    `standing_by`: it has made `running` and `candidate` ready and runs nothing, because it is not its turn. `as_of`:
    when the hub learnt it.
    """

    name: str
    holds_offer: bool
    running: str = ""
    candidate: str = ""
    refused: str = ""
    why: str = ""
    as_of: datetime | None = None
    standing_by: bool = False
    stage: Stage = ""


class SiteFact(msgspec.Struct, frozen=True):
    """What a rollout needs to know of a site.

    `hosts` are those that the release is for: the placed ones where it is placed. `turns` is how many of them shall
    run it while the others stand by; 0 means all. `unfit` says why it fits no host. `assigned` is the release of
    this application the site shall run, given by the rollout `assigned_by`; `taken_by` names a newer rollout of
    the same application that has the site, if there is one. `reachable`: one of its hosts was heard of within the
    site's tolerance; `by_hand`: what it is offered is carried there, so that nobody expects that. `waves` has a bit
    for each wave whose selector matches; `labels` are the site's.
    """

    name: str
    hosts: tuple[HostFact, ...] = ()
    assigned: str = ""
    assigned_by: str = ""
    taken_by: str = ""
    turns: int = 0
    unfit: str = ""
    reachable: bool = True
    by_hand: bool = False
    waves: int = -1
    labels: Mapping[str, str] = {}


class Amount(msgspec.Struct, frozen=True):
    """A number of sites, or a share of some: `of` says how many that is."""

    count: int = 0
    share: float | None = None

    def of(self, total: int) -> int:
        """Return the number out of `total`; a share is rounded up, and is one at least where there is any."""
        if self.share is None:
            return self.count
        return min(total, max(1, -int(-total * self.share // 1))) if self.share and total else 0


class WavePlan(msgspec.Struct, frozen=True):
    """A wave as its rollout states it, read. Times in seconds, `quorum` between 0 and 1."""

    name: str
    size: Amount = Amount(share=1.0)
    max_in_flight: Amount = Amount(share=1.0)
    group: str = ""
    group_limit: Amount = Amount(count=1)
    soak_s: float = 0.0
    manual: bool = False
    quorum: float = 1.0
    deadline_s: float = 86400.0


class Verdict(msgspec.Struct, frozen=True):
    """What the gates say of a wave; where there are none, it passes."""

    outcome: Outcome = "pass"
    why: str = ""


class RolloutFact(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout as written and as stored.

    Before `begin_at` nothing is offered, nor while it is `blocked`: that says why. `revoked` says why the release is
    trusted no more: then it is taken back. A rollout that is `gated` needs a verdict on each wave: without one nothing
    was measured yet.
    """

    name: str
    release: str
    waves: tuple[WavePlan, ...]
    state: RolloutState = "running"
    sites: Mapping[str, SiteProgress] = {}
    progress: tuple[WaveProgress, ...] = ()
    control: Control = Control()
    halt: Halt | None = None
    on_failure: Literal["rollback", "pause", "continue"] = "rollback"
    failure_budget: Amount = Amount()
    begin_at: datetime | None = None
    blocked: str = ""
    revoked: str = ""
    gated: bool = False
    verdicts: Mapping[int, Verdict] = {}


class Assign(msgspec.Struct, frozen=True, tag=True):
    """Give a site this release."""

    site: str
    release: str


class Unassign(msgspec.Struct, frozen=True, tag=True):
    """Take the application from a site that had none before this rollout."""

    site: str


Effect = Assign | Unassign


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, where everything stands then, when to look again, and why."""

    state: RolloutState
    why: str
    sites: Mapping[str, SiteProgress]
    waves: tuple[WaveProgress, ...] = ()
    halt: Halt | None = None
    effects: Sequence[Effect] = ()
    wake_at: datetime | None = None
