"""What people do with a rollout that is under way: pause, resume, approve, abort, and try again.

Each is one change of the stored rollout under its version, with an audit entry; what follows is decided by the loop. A
dry run stores nothing: it is refused as the change would be, and returns the rollout as it would be stored.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from skerry.hub.fleet_facts import rollout_fact
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.ports.hub_store import Audit, HubStore, RolloutRecord
from skerry.rollout.decide import ENDED, retry_rollout
from skerry.spec.api_rollout import AbortRequest, Control

_replace = msgspec.structs.replace
Change = Callable[[RolloutRecord], RolloutRecord]

ATTEMPTS = 5


def pause(store: HubStore, name: str, audit: Audit, why: str, *, dry_run: bool = False) -> RolloutRecord:
    """Offer the release to nobody until it is resumed; what has begun goes on.

    Raises:
        Missing: there is no such rollout.
        Conflict: it has ended (`rollout.ended`).
    """
    said = why or f"by {audit.who}"
    return _change(store, name, audit, lambda record: _controlled(record, paused=said), dry_run=dry_run)


def resume(store: HubStore, name: str, audit: Audit, *, dry_run: bool = False) -> RolloutRecord:
    """Go on with a paused rollout. Failures that paused it are accepted: they pause it no more.

    Raises:
        Missing, Conflict: as `pause`; Conflict: it goes back everywhere already (`rollout.reverting`).
    """

    def change(record: RolloutRecord) -> RolloutRecord:
        if record.steering.halt is not None and record.steering.halt.then == "rollback":
            hint = "skerry rollout retry offers it again when it has ended"
            raise Conflict("rollout.reverting", f"rollout {name} is being taken back", hint=hint)
        failed = tuple(sorted(site for site, one in record.sites.items() if one.state == "failed"))
        steering = _replace(record.steering, halt=None)
        return _controlled(_replace(record, steering=steering), paused="", forgiven=failed)

    return _change(store, name, audit, change, dry_run=dry_run)


def approve(store: HubStore, name: str, audit: Audit, wave: str, *, dry_run: bool = False) -> RolloutRecord:
    """Let a wave begin that waits for approval, or will.

    Raises:
        Missing, Conflict: as `pause`.
        Rejected: there is no such wave, or none waits for approval (`rollout.no_wave`).
    """

    def change(record: RolloutRecord) -> RolloutRecord:
        number = _wave_number(record, wave)
        approved = tuple(sorted({*record.steering.control.approved, number}))
        return _controlled(record, approved=approved)

    return _change(store, name, audit, change, dry_run=dry_run)


def abort(
    store: HubStore, name: str, audit: Audit, asked: AbortRequest, *, dry_run: bool = False
) -> RolloutRecord:
    """End a rollout, and keep the release where it is or take it back.

    Raises:
        Missing, Conflict: as `pause`.
    """
    return _change(
        store, name, audit, lambda record: _controlled(record, aborted=asked.then), dry_run=dry_run
    )


def retry(store: HubStore, name: str, audit: Audit, now: datetime, *, dry_run: bool = False) -> RolloutRecord:
    """Offer the release again where it did not succeed; hosts that refused it take it once more.

    Raises:
        Missing: there is no such rollout.
        Conflict: it has not failed (`rollout.not_failed`).
    """

    def change(record: RolloutRecord) -> RolloutRecord:
        if record.state not in ("failed", "aborted"):
            raise Conflict("rollout.not_failed", f"rollout {name} has not failed: it is {record.state}")
        sites, waves = retry_rollout(rollout_fact(record), now)
        steering = _replace(record.steering, waves=waves, halt=None, control=Control())
        return _replace(
            record,
            state="running",
            why="to be tried again",
            ended_at=None,
            attempt=record.attempt + 1,
            sites=dict(sites),
            steering=steering,
        )

    return _change(store, name, audit, change, ended=True, dry_run=dry_run)


def _change(
    store: HubStore,
    name: str,
    audit: Audit,
    change: Change,
    *,
    ended: bool = False,
    dry_run: bool = False,
) -> RolloutRecord:
    """Store a change; the loop may have moved the rollout meanwhile, then it is made once more."""
    for attempt in range(ATTEMPTS):
        record = store.rollout(name)
        if record is None:
            hint = "skerry get rollouts lists them"
            raise Missing("rollout.missing", f"there is no rollout {name}", hint=hint)
        if record.state in ENDED and not ended:
            raise Conflict("rollout.ended", f"rollout {name} has ended: it {record.state}")
        changed = change(record)
        if dry_run:
            return changed
        try:
            store.advance_rollout(changed, audit=audit)
        except Conflict as error:
            if error.code != "rollout.moved" or attempt == ATTEMPTS - 1:
                raise
        else:
            return changed
    raise AssertionError("unreachable")


def _controlled(record: RolloutRecord, **changes: object) -> RolloutRecord:
    control = _replace(record.steering.control, **changes)
    return _replace(record, steering=_replace(record.steering, control=control))


def _wave_number(record: RolloutRecord, text: str) -> int:
    waves = record.steering.waves
    plans = rollout_fact(record).waves
    if not text:
        approved = record.steering.control.approved
        for number, plan in enumerate(plans):
            begun = number < len(waves) and waves[number].state != "waiting"
            if plan.manual and not begun and number not in approved:
                return number
        raise Rejected("rollout.no_wave", f"no wave of rollout {record.name} waits for approval")
    for number, plan in enumerate(plans):
        if text in (plan.name, str(number + 1)):
            return number
    known = ", ".join(plan.name for plan in plans)
    raise Rejected(
        "rollout.no_wave", f"rollout {record.name} has no wave {text!r}", hint=f"its waves: {known}"
    )
