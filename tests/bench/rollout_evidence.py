"""The evidence of `skerry.rollout.sequences`, over arrays: for thousands of simulated rollouts at once.

It computes the same numbers; the benchmark compares some of them with the product's own before it believes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skerry.rollout.sequences import BERNSTEIN, CENTRES, EFFECTS, FLOOR, MIRRORED, SPLIT, STEPS

Floats = NDArray[np.float64]


class Sums(NamedTuple):
    """Samples of one release in many strata: how many, their sums and sums of squares; arrays of one shape."""

    samples: Floats
    total: Floats
    squares: Floats


def log_e(new: Sums, old: Sums, gather: Callable[[Floats], Floats]) -> Floats:
    """Return the log e-values against `mean(new) <= mean(old)`; `gather` adds up strata."""
    # Strata that only one release has say nothing, here because everything about them is 0.
    both = (new.samples > 0) & (old.samples > 0)
    new, old = (Sums(*(np.where(both, part, 0.0) for part in arm)) for arm in (new, old))
    whole = np.maximum(new.samples + old.samples, 1.0)
    terms = [np.float64(FLOOR)]
    for effect in EFFECTS:
        for ratio, weight in ((1 + effect, SPLIT), (1 / (1 + effect), MIRRORED)):
            b = -np.log1p(new.samples * (ratio - 1) / whole)
            first, second = new.total, old.total
            if ratio < 1:
                first, second = new.samples - first, old.samples - second
            terms.append(np.log(weight / len(EFFECTS)) + gather(first * (np.log(ratio) + b) + second * b))
    weight = np.log(BERNSTEIN / len(STEPS) / len(CENTRES))
    for step in STEPS:
        up, down = step * old.samples / whole, step * new.samples / whole
        rise, fall = -np.log1p(-up) - up, -np.log1p(-down) - down
        lean = gather(up * new.total - down * old.total)
        squares = gather(rise * new.squares + fall * old.squares)
        totals = gather(rise * new.total + fall * old.total)
        counts = gather(rise * new.samples + fall * old.samples)
        for centre in CENTRES:
            spread = squares - 2 * centre * totals + centre**2 * counts
            terms.append(weight + lean - np.maximum(spread, 0.0))
    return log_sum(terms)


def log_sum(terms: list[Floats] | list[np.float64]) -> Floats:
    """Return log(sum(exp(terms))) of arrays."""
    found = np.asarray(terms[0], dtype=np.float64)
    for term in terms[1:]:
        found = np.logaddexp(found, term)
    return found
