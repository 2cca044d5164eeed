"""What time a host believes.

Devices without a clock battery start in 1970, and batteries fail. The trusted time is the system clock plus
an offset learnt from a signed answer, and never before the newest signed document seen (the floor).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from securesystemslib.signer import Key

from skerry.kit.errors import Untrusted
from skerry.spec.carrier import TIME_TYPE, HubTime
from skerry.trust.envelope import verify_document

OFFSET_WORTH_CORRECTING = timedelta(seconds=30)


class TimeTrust(msgspec.Struct, frozen=True):
    """What a host has learnt about time: the offset to add to its clock, and the floor."""

    offset_s: float = 0.0
    floor: datetime | None = None


def trusted_now(system: datetime, trust: TimeTrust) -> datetime:
    """Return the time to believe when the system clock shows `system`."""
    try:
        now = system + timedelta(seconds=trust.offset_s)
    except OverflowError:
        now = system
    return max(now, trust.floor) if trust.floor else now


def raise_floor(trust: TimeTrust, seen: datetime) -> TimeTrust:
    """Return the trust after a signed document of instant `seen`."""
    if trust.floor and trust.floor >= seen:
        return trust
    return msgspec.structs.replace(trust, floor=seen)


def verify_time(
    envelope: dict[str, Any], keys: list[Key], *, host: str, sequence: int, system: datetime
) -> TimeTrust:
    """Return the new trust from the hub's answer to the report `sequence`, received at clock `system`.

    The hub's word also resets a floor that a wrong clock had pushed too far: it is signed and fresh.

    Raises:
        Untrusted: not signed by the hub (`envelope.*`), or an answer to another report (`time.replayed`).
    """
    answer = verify_document(envelope, TIME_TYPE, HubTime, keys)
    if (answer.host, answer.sequence) != (host, sequence):
        raise Untrusted("time.replayed", "the time answers another report")
    return TimeTrust(offset_s=(answer.now - system).total_seconds(), floor=answer.now)
