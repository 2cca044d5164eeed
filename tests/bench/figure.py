"""What a benchmark yields: one figure.

A group is a module `tests/bench/bench_<name>.py` with `def figures() -> Iterable[Figure]`. The first line of
its docstring becomes the text above its table. `make bench NAME=<name>` runs it.
"""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured value. `peer` names what it is compared with, with its value: `sqlite3 direct: 8 us`."""

    name: str
    value: float
    unit: str
    peer: str = ""
