"""What the agent and the process that copies and compares say to each other."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from skerry.ports.proxy import ShadowCounts
from skerry.spec.shadow import Shadow

MAX_LINE_BYTES = 4 << 20


class Pair(msgspec.Struct, frozen=True):
    """A live backend and the one on trial, by id and port, and the Unix socket at which requests for the first come."""

    id: str
    beside: str
    socket: str
    live_port: int
    port: int
    rule: Shadow


class Told(msgspec.Struct, frozen=True):
    """What to do from now on: serve these pairs; None changes nothing."""

    pairs: tuple[Pair, ...] | None = None


class Said(msgspec.Struct, frozen=True):
    """What came of copies, by the id of the pair, and what went wrong."""

    counts: Mapping[str, ShadowCounts] = {}
    problem: str = ""
