"""One variant for every slot, so that those that are tied to each other go together.

Each group of tied slots is searched by itself, in the order of preference: the first model's best variant first,
then the next model's; an image takes its best variant that goes with the models, and a model's second-best is
looked at only when no image goes with its best. The search is bounded; the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.matching.asking import Asked, Slot
from skerry.matching.variants import Candidate

MAX_STEPS = 20_000


class Selection(msgspec.Struct, frozen=True):
    """The position of the variant chosen for each slot, or None; `unpaired` are groups that do not go together."""

    chosen: tuple[int | None, ...]
    unpaired: tuple[tuple[int, ...], ...] = ()


def select(asked: Asked, ranked: Sequence[Sequence[int]]) -> Selection:
    """Return the best choice for every slot of those that fit, `ranked` best first."""
    chosen: list[int | None] = [None] * len(asked.slots)
    unpaired: list[tuple[int, ...]] = []
    for group in asked.groups:
        if len(group) == 1:
            chosen[group[0]] = next(iter(ranked[group[0]]), None)
            continue
        if not all(ranked[position] for position in group):
            for position in group:
                chosen[position] = next(iter(ranked[position]), None)
            continue
        found = _Search(asked.slots, group, ranked).run()
        if found is None:
            unpaired.append(group)
        else:
            for position, candidate in found.items():
                chosen[position] = candidate
    return Selection(tuple(chosen), tuple(unpaired))


def goes_with(slot: Slot, candidate: Candidate, slots: Sequence[Slot], chosen: dict[int, int]) -> bool:
    """Tell whether an image's variant goes with the models chosen so far."""
    for model, allowed in candidate.goes_with.items():
        position = slot.pairs.get(model)
        if position is None or position not in chosen:
            continue
        if slots[position].candidates[chosen[position]].name not in allowed:
            return False
    return True


class _Search:
    """A search in depth over one group."""

    def __init__(
        self, slots: Sequence[Slot], group: tuple[int, ...], ranked: Sequence[Sequence[int]]
    ) -> None:
        self._slots = slots
        self._models = [position for position in group if slots[position].kind == "model"]
        self._images = [position for position in group if slots[position].kind == "image"]
        self._ranked = ranked
        self._steps = 0

    def run(self) -> dict[int, int] | None:
        return self._descend(0, {})

    def _descend(self, depth: int, chosen: dict[int, int]) -> dict[int, int] | None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            return None
        images = {position: self._best_image(position, chosen) for position in self._images}
        if None in images.values():
            return None
        if depth == len(self._models):
            return {**chosen, **{position: found for position, found in images.items() if found is not None}}
        position = self._models[depth]
        for candidate in self._ranked[position]:
            found = self._descend(depth + 1, {**chosen, position: candidate})
            if found is not None:
                return found
        return None

    def _best_image(self, position: int, chosen: dict[int, int]) -> int | None:
        slot = self._slots[position]
        return next(
            (
                candidate
                for candidate in self._ranked[position]
                if goes_with(slot, slot.candidates[candidate], self._slots, chosen)
            ),
            None,
        )
