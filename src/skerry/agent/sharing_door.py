"""Keeps a host's door to its neighbours: open where its heartbeats come from, while there is anybody to share with.

Rules: nothing listens at a site with a single host; a door that cannot be opened costs the sharing and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from skerry.agent.neighbourhood import Neighbourhood
from skerry.agent.sharing import Sharing
from skerry.agent.sharing_serving import Passes
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.clock import Clock
from skerry.ports.discovery import Announced, Discovery
from skerry.ports.sharing import Door, NearPlace, Served
from skerry.spec.desired import DesiredState, Neighbour
from skerry.trust.heartbeat import TAG_BYTES, SharingDoor, key_tag
from skerry.trust.keys import SigningKey

_log = structlog.get_logger()

TRY_AGAIN_S = 60.0


class DoorParts(msgspec.Struct, frozen=True):
    """What it works with. `discovery` is absent where nobody is looked for."""

    sharing: Sharing
    passes: Passes
    door: Door
    served: Served
    clock: Clock
    discovery: Discovery | None = None


class DoorKeeper:
    """One host's door; `port` is 0 for that of its heartbeats. All calls come from one event loop."""

    def __init__(self, parts: DoorParts, *, host: str, key: SigningKey, port: int = 0) -> None:
        self._parts, self._host, self._port = parts, host, port
        self._tag = key_tag(key.key_id).hex()
        self._neighbours: Mapping[str, Neighbour] = {}
        self._at = ""
        self._try_at = float("-inf")
        self._failing = ""
        self._announced = ""

    def take_key(self, key: SigningKey) -> None:
        """Sign tokens with another key, and be announced by it."""
        self._parts.passes.take_key(key)
        self._tag, self._announced = key_tag(key.key_id).hex(), ""

    def follow(self, desired: DesiredState | None) -> None:
        """Take who belongs to the site."""
        self._neighbours = desired.neighbours if desired else {}
        self._parts.passes.follow(self._neighbours)

    def look(self, hood: Neighbourhood, now: float) -> None:
        """Tell the downloads whom they can ask, and who may still speak up."""
        doors = hood.doors(now)
        places = {
            host: NearPlace(f"{address}:{door.port}", door.pin)
            for host, (address, door) in doors.items()
            if door is not None
        }
        silent = self._neighbours.keys() - doors.keys() - {self._host}
        self._parts.sharing.follow(places, named=silent | places.keys())

    async def keep(self, hood: Neighbourhood, host: str, port: int) -> None:
        """Have the door open at a host's address, and nowhere for an empty one; follow who is heard."""
        now = self._parts.clock.monotonic()
        at = f"{host}:{self._port or port}" if host else ""
        if at != self._at and (not at or now >= self._try_at):
            await self._move(hood, host, self._port or port)
        await self._announce(hood, host, port)
        self.look(hood, now)

    def end(self) -> None:
        """Close the door for good, and cut what comes from others."""
        self._parts.door.close()
        self._parts.sharing.close()

    async def _move(self, hood: Neighbourhood, host: str, port: int) -> None:
        door = self._parts.door
        hood.share(None)
        if not host:
            await asyncio.to_thread(door.close)
            self._at = ""
            return
        try:
            place = await asyncio.to_thread(door.open, host, port, self._parts.served)
        except Unavailable as error:
            self._at, self._try_at = "", self._parts.clock.monotonic() + TRY_AGAIN_S
            if self._failing != error.code:
                _log.warning("sharing.no_door", code=error.code, reason=str(error))
            self._failing = error.code
            return
        self._at, self._failing = f"{host}:{port}", ""
        hood.share(SharingDoor(int(place.address.rpartition(":")[2]), place.pin))
        _log.info("sharing.open", address=place.address)

    async def _announce(self, hood: Neighbourhood, host: str, port: int) -> None:
        """Announce where heartbeats are taken, and look for those of others."""
        discovery = self._parts.discovery
        bare = host.strip("[]")
        address = f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
        wanted = address if host and port else ""
        if discovery is None or wanted == self._announced:
            return
        self._announced = wanted
        if not wanted:
            await discovery.close()
            return

        def found(one: Announced) -> None:
            if one.tag != self._tag:
                hood.find(_tag_bytes(one.tag), one.address)

        try:
            await discovery.open(Announced(self._tag, wanted), found)
        except Unavailable as error:
            _log.warning("sharing.no_discovery", code=error.code, reason=str(error))


def parse_share(text: str) -> int | None:
    """Return the TCP port at which blobs are shared, 0 for that of the heartbeats, None where they are not.

    Raises:
        Rejected: it is neither `auto`, `off` nor a port (`share.malformed`).
    """
    if text in ("auto", "off"):
        return 0 if text == "auto" else None
    port = text.removeprefix(":")
    if port.isdecimal() and 0 < int(port[:6]) < 65536:
        return int(port)
    raise Rejected(
        "share.malformed",
        f"not a way to share: {text[:64]!r}",
        hint="write auto, off, or a TCP port such as 7946",
    )


def _tag_bytes(text: str) -> bytes:
    try:
        tag = bytes.fromhex(text)
    except ValueError:
        return b""
    return tag if len(tag) == TAG_BYTES else b""
