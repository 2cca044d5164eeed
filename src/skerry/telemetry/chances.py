"""How likely a difference is by chance alone: tails of the chi-square and the Kolmogorov distribution.

Sources: NIST Digital Library of Mathematical Functions, 8.7.1 (series of the incomplete gamma function), 8.9.2 (its
continued fraction, evaluated by Lentz's method, 3.10), https://dlmf.nist.gov/8; A. Kolmogorov 1933 and N. Smirnov 1948
for the limit distribution of the largest difference of two empirical distributions.
"""

from __future__ import annotations

import math

_STEPS = 10_000
_SMALL = 1e-300
_NEAR = 1e-14


def chi_square_tail(value: float, degrees: int) -> float:
    """Return how likely a chi-square value is that large or larger, with so many degrees of freedom (1 or more)."""
    a, x = degrees / 2, max(value, 0.0) / 2
    if x == 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        return min(max(1.0 - scale * _lower_series(a, x), 0.0), 1.0)
    return min(max(scale * _upper_fraction(a, x), 0.0), 1.0)


def kolmogorov_tail(distance: float, one: int, other: int) -> float:
    """Return how likely two samples of one distribution, of such sizes, are that far apart or further; in the limit.

    Of samples that were sorted into bins the distance is no larger than it was before, so the answer is not smaller.
    """
    if not one or not other:
        return 1.0
    root = math.sqrt(one * other / (one + other)) * distance
    if root < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * root) ** 2) for k in range(1, 101))
    return min(max(math.fsum(terms), 0.0), 1.0)


def _lower_series(a: float, x: float) -> float:
    term = total = 1.0 / a
    for step in range(1, _STEPS):
        term *= x / (a + step)
        total += term
        if term < total * _NEAR:
            break
    return total


def _upper_fraction(a: float, x: float) -> float:
    b = x + 1 - a
    c, d = 1 / _SMALL, 1 / b
    found = d
    for step in range(1, _STEPS):
        factor = -step * (step - a)
        b += 2
        d = factor * d + b
        c = b + factor / c
        d = 1 / (d if abs(d) > _SMALL else _SMALL)
        c = c if abs(c) > _SMALL else _SMALL
        change = c * d
        found *= change
        if abs(change - 1) < _NEAR:
            break
    return found
