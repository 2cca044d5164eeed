"""Which sites are in which wave, how many may be at work, and when a wave has passed.

Rules: a wave's members are drawn when it begins, out of sites that no wave has, those that are reachable first, so that
no wave is made of silence; the order is that of a hash of rollout and site, the same for everybody. What may be in
flight is never exceeded, overall or in a group. A wave begins when the one before it has passed.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.rollout.facts import SiteFact, Verdict, WavePlan
from skerry.rollout.states import AT_WORK
from skerry.spec.api_rollout import SiteProgress, WaveProgress


class Tally(msgspec.Struct):
    """How a wave's members stand: all of them, those that can be asked, and those that count as done."""

    members: int = 0
    reachable: int = 0
    succeeded: int = 0
    at_work: int = 0
    unreachable: int = 0
    waiting: int = 0
    failed: int = 0


def draw_members(
    rollout: str, number: int, plan: WavePlan, sites: Iterable[SiteFact], total: int
) -> list[SiteFact]:
    """Return the members of a wave out of sites that have none; `total` sites are what a share of it is of."""
    bit = 1 << number
    matching = [site for site in sites if site.waves & bit]
    matching.sort(
        key=lambda site: (not site.reachable, zlib.crc32(f"{rollout}/{site.name}".encode()), site.name)
    )
    return matching[: plan.size.of(total)]


def tally(sites: Mapping[str, SiteProgress], waves: int) -> list[Tally]:
    """Return how the members of each of so many waves stand."""
    found = [Tally() for _ in range(waves)]
    for progress in sites.values():
        if not 0 <= progress.wave < waves or progress.state == "superseded":
            continue
        wave = found[progress.wave]
        state = progress.state
        wave.members += 1
        if state == "unreachable":
            wave.unreachable += 1
            continue
        wave.reachable += 1
        if state == "succeeded":
            wave.succeeded += 1
        elif state in AT_WORK:
            wave.at_work += 1
        elif state == "pending":
            wave.waiting += 1
        else:
            wave.failed += 1
    return found


class Room:
    """How many more members of each wave may be at work, overall and in each group of sites."""

    def __init__(
        self, plans: Sequence[WavePlan], sites: Mapping[str, SiteProgress], fleet: Mapping[str, SiteFact]
    ) -> None:
        self._plans = plans
        self._busy: Counter[int] = Counter()
        self._members: Counter[int] = Counter()
        self._busy_in: Counter[tuple[int, str]] = Counter()
        self._members_in: Counter[tuple[int, str]] = Counter()
        grouped = [bool(plan.group) for plan in plans]
        for name, progress in sites.items():
            wave = progress.wave
            if not 0 <= wave < len(plans):
                continue
            self._members[wave] += 1
            busy = progress.state in AT_WORK
            self._busy[wave] += busy
            if grouped[wave] and (site := fleet.get(name)) is not None:
                group = wave, site.labels.get(plans[wave].group, "")
                self._members_in[group] += 1
                self._busy_in[group] += busy

    def take(self, site: SiteFact, wave: int) -> bool:
        """Tell whether one more member may be at work, and count it if so."""
        plan = self._plans[wave]
        if self._busy[wave] >= max(1, plan.max_in_flight.of(self._members[wave])):
            return False
        if plan.group:
            group = wave, site.labels.get(plan.group, "")
            if self._busy_in[group] >= max(1, plan.group_limit.of(self._members_in[group])):
                return False
            self._busy_in[group] += 1
        self._busy[wave] += 1
        return True


def judge_wave(
    plan: WavePlan, wave: WaveProgress, count: Tally, verdict: Verdict, now: datetime
) -> tuple[WaveProgress, datetime | None]:
    """Return where a wave that has begun is, and when to look again because of time alone.

    It has settled when every reachable member succeeded, or after its deadline the quorum of them; it passes when that
    has been so for its soak and the gates say pass. Somebody must have answered: silence proves nothing.
    """
    began_at = wave.began_at or now
    wave = msgspec.structs.replace(wave, members=count.members)
    deadline = began_at + timedelta(seconds=plan.deadline_s)
    late = now >= deadline
    missing = count.reachable - count.succeeded - count.failed
    enough = count.succeeded >= max(1, -int(-plan.quorum * count.reachable // 1))
    # Failures that did not halt it are tolerated; they are an answer, and silence is none.
    settled = (missing == 0 and count.reachable > 0) or (late and enough)
    if not settled:
        why = _unsettled(count, late=late, quorum=plan.quorum)
        again = None if late else deadline
        return msgspec.structs.replace(wave, state="running", settled_at=None, why=why), again
    since = wave.settled_at or now
    passes_at = since + timedelta(seconds=plan.soak_s)
    if now < passes_at:
        why = f"soaking until {passes_at:%Y-%m-%d %H:%M:%SZ}: {_counts(count)}"
        return msgspec.structs.replace(wave, state="soaking", settled_at=since, why=why), passes_at
    if verdict.outcome != "pass":
        why = f"waiting for the gates: {verdict.why or 'nothing measured yet'}"
        return msgspec.structs.replace(wave, state="soaking", settled_at=since, why=why), None
    why = _counts(count)
    return (
        msgspec.structs.replace(wave, state="passed", settled_at=since, passed_at=now, why=why),
        None,
    )


def _unsettled(count: Tally, *, late: bool, quorum: float) -> str:
    if count.members == 0:
        return "no site for it yet"
    if count.reachable == 0:
        return f"none of its {count.members} sites is reachable"
    rest = "its deadline is over and the quorum is not reached" if late else "at work"
    return f"{_counts(count)}; {rest}" + (f" ({quorum:.0%} of the reachable)" if late else "")


def _counts(count: Tally) -> str:
    parts = [f"{count.succeeded} of {count.reachable} reachable sites succeeded"]
    if count.unreachable:
        parts.append(f"{count.unreachable} not reachable follow later")
    if count.failed:
        parts.append(f"{count.failed} failed")
    return ", ".join(parts)
