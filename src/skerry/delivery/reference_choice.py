"""Which ranges a piece may refer to, from where its parts were found.

Content is divided into cells of 32 KiB; each match votes for the cells it lies in, by its length, and less for those
around it. The best cells become references, in the order of their places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from skerry.delivery.anchors import Match
from skerry.delivery.delta_format import OLD, Reference
from skerry.delivery.delta_limits import MAX_REFERENCE_BYTES, MAX_REFERENCES

_CELL_BYTES = 32 << 10
# Between two matches that keep about their distance lies what was changed.
_DRIFT_BYTES = 256 << 10
_LEAST_BYTES = 256 << 10


def choose_references(
    matches: Sequence[Match], size: int, *, base_size: int, output_size: int
) -> tuple[Reference, ...]:
    """Return references for a piece of `size` bytes, in order and apart from each other."""
    votes = _count_votes(matches, size)
    budget = min(MAX_REFERENCE_BYTES, 4 * size + _LEAST_BYTES) // _CELL_BYTES
    best = sorted(votes, key=lambda cell: (-votes[cell], cell))[:budget]
    return tuple(_join(sorted(best), base_size, output_size))[-MAX_REFERENCES:]


def _count_votes(matches: Sequence[Match], size: int) -> dict[tuple[int, int], int]:
    votes: dict[tuple[int, int], int] = defaultdict(int)
    last: Match | None = None
    for match in matches:
        first, final = match.offset // _CELL_BYTES, (match.offset + match.size - 1) // _CELL_BYTES
        weight = min(match.size, _CELL_BYTES)
        # Of what is longer than any piece, only the ends are near it.
        near = range(first, final + 1)
        if len(near) > 2 * size // _CELL_BYTES + 4:
            near_size = size // _CELL_BYTES + 2
            cells: Iterable[int] = (*near[:near_size], *near[-near_size:])
        else:
            cells = near
        for cell in cells:
            votes[match.source, cell] += weight
        votes[match.source, first - 1] += weight // 4
        votes[match.source, final + 1] += weight // 4
        if last is not None and last.source == match.source:
            gap = match.offset - last.offset - last.size
            if 0 < gap < size + _DRIFT_BYTES:
                for cell in range((last.offset + last.size) // _CELL_BYTES, first + 1):
                    votes[match.source, cell] += min(weight, last.size) // 2 + 1
        last = match
    return votes


def _join(cells: list[tuple[int, int]], base_size: int, output_size: int) -> Iterable[Reference]:
    open_source = begins = ends = -1
    for source, cell in cells:
        limit = base_size if source == OLD else output_size
        cell_begins, cell_ends = max(cell * _CELL_BYTES, 0), min((cell + 1) * _CELL_BYTES, limit)
        if cell_begins >= cell_ends:
            continue
        if source == open_source and cell_begins == ends:
            ends = cell_ends
            continue
        if ends > begins:
            yield Reference(open_source, begins, ends - begins)
        open_source, begins, ends = source, cell_begins, cell_ends
    if ends > begins:
        yield Reference(open_source, begins, ends - begins)
