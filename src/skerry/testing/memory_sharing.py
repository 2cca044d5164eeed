"""The doors of a site's hosts, and its multicast, in one process and without a network; ways are cut at will."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager

from skerry.kit.errors import Denied, Missing, SkerryError, Unavailable
from skerry.ports.discovery import Announced, Discovery
from skerry.ports.sharing import Door, Near, NearPlace, Served
from skerry.spec.sharing import SharingAnswer, SharingQuestion


class MemoryDoors:
    """Doors by address. `cut` holds (host, address) pairs between which nothing passes.

    Of a host in `wrong` the bytes come altered; one in `stalled` gives nothing and is found to be silent; `limits` is
    how many bytes an answer of a host has at the most. `on_ask` is called before each host is asked. `sent_bytes`
    counts what each host gave.
    """

    def __init__(self) -> None:
        self.open: dict[str, Served] = {}
        self.cut: set[tuple[str, str]] = set()
        self.wrong: set[str] = set()
        self.stalled: set[str] = set()
        self.limits: dict[str, int] = {}
        self.sent_bytes: dict[str, int] = {}
        self.asked = 0
        self.on_ask: Callable[[str, str], None] = lambda _, __: None

    def reach(self, host: str, place: NearPlace) -> Served:
        """Return what is served there."""
        if (host, place.address) in self.cut or place.address not in self.open:
            raise Unavailable("near.unreachable", f"cannot reach {place.address}")
        return self.open[place.address]


class MemoryDoor(Door):
    """One host's door."""

    def __init__(self, doors: MemoryDoors, pin: str = "0" * 64) -> None:
        self._doors, self._pin, self._at = doors, pin, ""

    def open(self, host: str, port: int, served: Served) -> NearPlace:
        self.close()
        self._at = f"{host}:{port}"
        self._doors.open[self._at] = served
        return NearPlace(self._at, self._pin)

    def close(self) -> None:
        self._doors.open.pop(self._at, None)
        self._at = ""


class MemoryNear(Near):
    """One host's way to the doors of others."""

    def __init__(self, doors: MemoryDoors, host: str) -> None:
        self._doors, self._host = doors, host

    def ask(
        self, places: Mapping[str, NearPlace], question: SharingQuestion, *, token: str
    ) -> Mapping[str, SharingAnswer | SkerryError]:
        answers: dict[str, SharingAnswer | SkerryError] = {}
        for host, place in places.items():
            self._doors.asked += 1
            self._doors.on_ask(self._host, host)
            try:
                served = self._doors.reach(self._host, place)
                answers[host] = served.answer(self._admitted(served, token), question)
            except SkerryError as error:
                answers[host] = error
        return answers

    @contextmanager
    def blob(
        self, place: NearPlace, digest: str, *, offset: int, size: int, token: str
    ) -> Generator[Iterator[bytes]]:
        served = self._doors.reach(self._host, place)
        self._admitted(served, token)
        if served.size(digest) is None:
            raise Missing("near.missing", f"{place.address} has nothing of it")
        yield self._chunks(place, served, digest, (offset, size))

    def close(self) -> None:
        """Hold nothing."""

    def _admitted(self, served: Served, token: str) -> str:
        try:
            return served.admit(token)
        except Denied as error:
            raise Denied("near.refused", error.message) from error

    def _chunks(
        self, place: NearPlace, served: Served, digest: str, span: tuple[int, int]
    ) -> Iterator[bytes]:
        doors, (offset, size), came = self._doors, span, 0
        if place.address in doors.stalled:
            raise Unavailable("near.stalled", f"{place.address} sends nothing")
        for chunk in served.chunks(digest, start=offset, end=size):
            left = doors.limits.get(place.address, size) - came
            given = chunk[: max(0, left)]
            if (self._host, place.address) in doors.cut:
                break
            came += len(given)
            doors.sent_bytes[place.address] = doors.sent_bytes.get(place.address, 0) + len(given)
            yield bytes(len(given)) if place.address in doors.wrong else given
            if len(given) < len(chunk):
                break
        if offset + came < size:
            raise Unavailable("near.cut", f"{place.address} left after {came} bytes")


class MemoryMulticast:
    """Whoever announces is found by all who look."""

    def __init__(self) -> None:
        self.looking: dict[str, Callable[[Announced], None]] = {}
        self.announced: dict[str, Announced] = {}
        self.fails = False


class MemoryDiscovery(Discovery):
    """One host's part of it."""

    def __init__(self, net: MemoryMulticast) -> None:
        self._net, self._tag = net, ""

    async def open(self, own: Announced, on_found: Callable[[Announced], None]) -> None:
        await self.close()
        if self._net.fails:
            raise Unavailable("lan.no_multicast", "no multicast here")
        self._tag = own.tag
        for other in self._net.announced.values():
            on_found(other)
        for look in self._net.looking.values():
            look(own)
        self._net.announced[own.tag], self._net.looking[own.tag] = own, on_found

    async def close(self) -> None:
        self._net.announced.pop(self._tag, None)
        self._net.looking.pop(self._tag, None)
