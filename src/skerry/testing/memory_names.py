"""MemoryNameServer and MemoryAnnouncer: names without a network; they say what they were told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skerry.kit.errors import Unavailable
from skerry.matching.names import Asked, ZoneAnswer
from skerry.ports.names import Announcer, Answer, NameServer, ServicePlace


class MemoryNameServer(NameServer):
    """Answers `ask`. Places in `taken` cannot be listened at; `beyond` is what upstreams say, None: nothing."""

    def __init__(self, beyond: Callable[[Asked], ZoneAnswer | None] = lambda _: None) -> None:
        self.taken: set[str] = set()
        self.beyond = beyond
        self.places: tuple[str, ...] = ()
        self.upstreams: tuple[str, ...] = ()
        self._answer: Answer | None = None

    @property
    def listening(self) -> tuple[str, ...]:
        return self.places

    async def serve(self, places: Sequence[str], upstreams: Sequence[str], answer: Answer) -> None:
        self._answer, self.upstreams = answer, tuple(upstreams)
        self.places = tuple(place for place in places if place not in self.taken)
        if gone := [place for place in places if place in self.taken]:
            raise Unavailable("names.unavailable", f"cannot listen at {gone[0]}: it is taken")

    async def close(self) -> None:
        self.places = ()

    def ask(self, name: str, kind: str = "A", *, near: bool = False) -> ZoneAnswer | None:
        """Return what a client nearby gets; None while nothing listens."""
        if not self.places or self._answer is None:
            return None
        asked = Asked(name, kind, near)
        return self._answer(asked) or self.beyond(asked) or ZoneAnswer(code="SERVFAIL")


class MemoryAnnouncer(Announcer):
    """Keeps what is announced."""

    def __init__(self) -> None:
        self.services: tuple[ServicePlace, ...] = ()
        self.at = ("", "")
        self.failing = False

    async def announce(self, address: str, host: str, services: Sequence[ServicePlace]) -> None:
        if self.failing:
            self.services = ()
            raise Unavailable("names.no_multicast", "multicast DNS does not work here")
        self.at, self.services = (address, host), tuple(services)

    async def close(self) -> None:
        self.services = ()
