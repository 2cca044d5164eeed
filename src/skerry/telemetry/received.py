"""Which numbered batches have arrived: once is enough, in whatever order and however often they come.

Rules: what arrived is ranges of numbers. They are bounded: beyond `MAX_RANGES` the oldest gap is closed, so what is
still missing there will never be taken. What is missing below the newest is counted, so that a loss on the way shows.
"""

from __future__ import annotations

MAX_RANGES = 64

Ranges = tuple[tuple[int, int], ...]
"""First and last numbers, rising and apart by more than one."""


def add_number(ranges: Ranges, number: int) -> tuple[Ranges, bool]:
    """Return the ranges with a number, and whether it is new."""
    before = [one for one in ranges if one[1] < number - 1]
    after = [one for one in ranges if one[0] > number + 1]
    touching = [one for one in ranges if one[1] >= number - 1 and one[0] <= number + 1]
    if any(first <= number <= last for first, last in touching):
        return ranges, False
    joined = (
        min([number, *(first for first, _ in touching)]),
        max([number, *(last for _, last in touching)]),
    )
    found = [*before, joined, *after]
    while len(found) > MAX_RANGES:
        found[:2] = [(found[0][0], found[1][1])]
    return tuple(found), True


def missing(ranges: Ranges) -> int:
    """Return how many numbers, of those from 1 up to the newest, have not arrived."""
    if not ranges:
        return 0
    return ranges[-1][1] - sum(last - first + 1 for first, last in ranges)
