"""How this host goes up: which upstreams in which order, and how they are dialled; kept in files, and followed.

The upstreams are in `identity.json`; how they are dialled is in `dialling.json`, readable by its owner alone, as a
proxy's password may be in it. An agent that runs takes changes of these files within seconds.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from skerry.agent.identity import Place, load_place, write_place
from skerry.carrier.upstreams import Upstreams
from skerry.carrier.ways_up import (
    NOTHING_STATED,
    StatedDialling,
    StatedWay,
    WayUp,
    links_of,
    load_dialling,
    save_dialling,
)
from skerry.kit.errors import Missing, as_failure
from skerry.ports.clock import Clock
from skerry.spec.carrier import TrustRoot

_log = structlog.get_logger()

LOOK_EVERY_S = 3.0
_FILES = ("identity.json", "dialling.json")


def load_way(data: Path, place: Place, stated: StatedWay = NOTHING_STATED) -> WayUp:
    """Return the way up of a host that has joined; what is stated counts more.

    Raises:
        Rejected: the file is damaged (`agent.dialling_damaged`).
    """
    upstreams = stated.upstreams or place.upstreams or (place.upstream,)
    return WayUp(upstreams, stated.dialling.over(load_dialling(data)))


def set_way(data: Path, stated: StatedWay) -> WayUp:
    """Change the way up of a host that has joined and return it; an agent that runs takes it.

    Raises:
        Missing: no host has joined a site in this directory (`agent.not_joined`).
        Rejected: an address, the proxy or the certificates are none, or there are too many.
    """
    place = load_place(data)
    if place is None:
        hint = "run skerry agent join with the token that skerry site token printed"
        raise Missing("agent.not_joined", f"no host has joined a site in {data}", hint=hint)
    way = load_way(data, place, stated)
    way.check()
    if stated.dialling != StatedDialling():
        save_dialling(data, way.dialling)
    first = way.upstreams[0]
    write_place(data, msgspec.structs.replace(place, upstream=first, upstreams=way.upstreams))
    return way


class WayFollower:
    """Has a running agent take the way up that the files say."""

    def __init__(
        self, data: Path, root: TrustRoot, up: Upstreams, clock: Clock, *, fixed: bool = False
    ) -> None:
        """`fixed`: what was stated at the start counts for as long as the agent runs."""
        self._data, self._root, self._up, self._clock = data, root, up, clock
        self._fixed = fixed
        self._seen = self._look()
        self._trouble = ""

    async def run_forever(self) -> None:
        """Look every few seconds, for ever; what cannot be used changes nothing."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self.step()

    def step(self) -> None:
        """Look once."""
        seen = self._look()
        if self._fixed or seen == self._seen:
            return
        try:
            place = load_place(self._data)
            if place is None:
                return
            way = load_way(self._data, place)
            way.check()
            links = links_of(way, self._root)
        except Exception as caught:
            error = as_failure(caught)
            if self._trouble != error.code:
                _log.warning("upstreams.unusable", code=error.code, reason=error.message)
            self._trouble = error.code
            return
        self._seen, self._trouble = seen, ""
        self._up.replace(links)
        _log.info("upstreams.changed", upstreams=list(way.upstreams))

    def _look(self) -> tuple[tuple[int, int], ...]:
        return tuple(_mark(self._data / name) for name in _FILES)


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_ino, found.st_mtime_ns
