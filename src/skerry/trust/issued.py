"""What DesiredState and RelayState have in common: the hub issues them by generation, from an instant to another."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from skerry.kit.errors import Untrusted
from skerry.spec.desired import DesiredState
from skerry.spec.relay import RelayState

CLOCK_TOLERANCE = timedelta(minutes=5)
_MINUTE = "%Y-%m-%d %H:%MZ"


def check_issued(
    document: DesiredState | RelayState,
    code: Literal["desired", "relay_state"],
    *,
    held_generation: int,
    now: datetime,
) -> None:
    """Refuse a signed document that may not be taken now; `now` is the trusted time of whoever would take it.

    Raises:
        Untrusted: it is not newer than `held_generation` (`CODE.not_newer`), expired (`CODE.expired`) or dated ahead
            (`CODE.from_the_future`).
    """
    generation = document.generation
    if generation <= held_generation:
        message = f"generation {generation} is not newer than {held_generation}"
        raise Untrusted(f"{code}.not_newer", message, generation=generation, held=held_generation)
    if now > document.expires_at:
        message = f"generation {generation} expired at {document.expires_at:{_MINUTE}}, now {now:{_MINUTE}}"
        hint = "if the clock here is wrong, it is corrected at the next sync"
        raise Untrusted(f"{code}.expired", message, hint=hint)
    if document.issued_at > now + CLOCK_TOLERANCE:
        message = f"generation {generation} is dated {document.issued_at:{_MINUTE}}, now {now:{_MINUTE}}"
        raise Untrusted(f"{code}.from_the_future", message, hint="the clock here may be behind")
