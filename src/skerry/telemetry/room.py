"""What a host gives up when its buffer is full: detail first, then the oldest of what matters least.

Rules: blocks become coarser before any is dropped: those of the lowest priority first, and of these the oldest. Only
when nothing can become coarser are blocks dropped, in the same order. What is on its way to the hub is not changed:
it may have arrived. What is dropped is counted by the caller, sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from skerry.telemetry.windows import RESOLUTIONS_S

Priority = Literal["alerts", "quality", "metrics", "logs"]
PRIORITIES: tuple[Priority, ...] = ("alerts", "quality", "metrics", "logs")
"""What matters most comes first."""
STEPS_AT_ONCE = 64


class KeptBlock(NamedTuple):
    """A block as the buffer keeps it. `resolution_s` is 0 for what has no windows, and `sealed` for what was sent."""

    id: int
    priority: Priority
    begin: int
    resolution_s: int
    size_bytes: int
    sealed: bool = False


class GiveUp(NamedTuple):
    """What to do next: blocks to make coarser and to which length; and blocks to drop."""

    coarsen: tuple[tuple[KeptBlock, int], ...] = ()
    drop: tuple[KeptBlock, ...] = ()


def plan_room(kept: Iterable[KeptBlock], most_bytes: int) -> GiveUp:
    """Return what to do so that blocks fit into `most_bytes`; to be asked again until there is nothing to do.

    Some blocks at a time become coarser, because how small they get shows only then.
    """
    blocks = list(kept)
    surplus = sum(block.size_bytes for block in blocks) - most_bytes
    if surplus <= 0:
        return GiveUp()
    free = sorted((block for block in blocks if not block.sealed), key=_worth)
    coarse = [
        (block, longer)
        for block in free
        if (longer := next((one for one in RESOLUTIONS_S if one > block.resolution_s), 0))
        and block.resolution_s
    ]
    if coarse:
        lowest = _rank(coarse[0][0])
        finest = min(block.resolution_s for block, _ in coarse if _rank(block) == lowest)
        # Ten minutes of all days are worth more than an hour of some and a minute of others.
        chosen = (one for one in coarse if _rank(one[0]) == lowest and one[0].resolution_s == finest)
        return GiveUp(coarsen=tuple(chosen)[:STEPS_AT_ONCE])
    dropped: list[KeptBlock] = []
    for block in free:
        if surplus <= 0:
            break
        dropped.append(block)
        surplus -= block.size_bytes
    return GiveUp(drop=tuple(dropped))


def _rank(block: KeptBlock) -> int:
    return PRIORITIES.index(block.priority)


def _worth(block: KeptBlock) -> tuple[int, int, int]:
    """Return what puts the lowest priority and the oldest first."""
    return -_rank(block), block.begin, block.id
