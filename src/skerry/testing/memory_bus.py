"""A message bus in memory: what applications and the agent find of a broker, without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from skerry.adapters.broker_process import check_listening
from skerry.kit.errors import Denied, Unavailable
from skerry.matching.topics import covers, match_any_topic, match_topic
from skerry.ports.broker import BrokerSettings, BrokerState, BusAccount, BusMessage, BusPlace


class _Session:
    """What the bus knows of a client: kept while a durable one is away."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.patterns: list[str] = []
        self.waiting: dict[int, BusMessage] = {}
        self.client: MemoryBusClient | None = None


class MemoryBus:
    """What brokers of one test are and hold, by port."""

    def __init__(self) -> None:
        self.settings: dict[int, BrokerSettings] = {}
        self.retained: dict[int, dict[str, bytes]] = {}
        self.sessions: dict[int, dict[str, _Session]] = {}
        self._numbers = 0

    def client(self) -> MemoryBusClient:
        """Return a client that is not connected yet."""
        return MemoryBusClient(self)

    def next_number(self) -> int:
        """Return a number for a message that is to be acknowledged."""
        self._numbers += 1
        return self._numbers

    def account(self, port: int, user: str) -> BusAccount | None:
        """Return an account of the broker at a port."""
        settings = self.settings.get(port)
        return next((a for a in settings.accounts if a.user == user), None) if settings else None

    def cut(self, port: int) -> None:
        """End the connections of those who have no account any more; of everybody when nothing runs there."""
        for session in self.sessions.get(port, {}).values():
            if self.account(port, session.user) is None and session.client is not None:
                session.client.cut()

    def publish(self, port: int, user: str, topic: str, payload: bytes, *, retain: bool) -> None:
        """Hand a message to all who read it and may."""
        account = self.account(port, user)
        if account is None or not match_any_topic(account.publish, topic):
            return
        if retain:
            self.retained.setdefault(port, {})[topic] = payload
        for session in list(self.sessions.get(port, {}).values()):
            reader = self.account(port, session.user)
            allowed = reader is not None and match_any_topic(reader.subscribe, topic)
            if allowed and match_any_topic(session.patterns, topic):
                message = BusMessage(topic, payload, self.next_number())
                session.waiting[message.number] = message
                if session.client is not None:
                    session.client.take(message)


class MemoryBroker:
    """`Broker` in memory. `fails` is raised by the next `apply`s."""

    def __init__(self, bus: MemoryBus, *, name: str = "memory") -> None:
        self._bus = bus
        self._name = name
        self._port = 0
        self.fails: Unavailable | None = None
        self.applied: list[BrokerSettings] = []

    async def apply(self, settings: BrokerSettings) -> None:
        check_listening(settings)
        if self.fails is not None:
            raise self.fails
        self._port = settings.port
        if self._bus.settings.get(settings.port) != settings:
            self.applied.append(settings)
        self._bus.settings[settings.port] = settings
        self._bus.cut(settings.port)

    async def state(self) -> BrokerState:
        return BrokerState(name=self._name, pid=1 if self._port in self._bus.settings else 0)

    async def stop(self) -> None:
        self._bus.settings.pop(self._port, None)
        self._bus.cut(self._port)

    async def erase(self) -> None:
        await self.stop()
        self._bus.retained.pop(self._port, None)
        self._bus.sessions.pop(self._port, None)


class MemoryBusClient:
    """`BusClient` of a `MemoryBus`; messages are taken in the thread of who publishes."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._port = 0
        self._name = ""
        self._session: _Session | None = None
        self._durable = False
        self.take: Callable[[BusMessage], None] = lambda _: None

    def open(self, place: BusPlace, *, take: Callable[[BusMessage], None], durable: bool = False) -> None:
        if place.port not in self._bus.settings:
            raise Unavailable("bus.unreachable", f"{place!r}: nothing runs there")
        account = self._bus.account(place.port, place.user)
        if account is None or account.password != place.password:
            raise Denied("bus.refused", f"{place!r}: no such account")
        sessions = self._bus.sessions.setdefault(place.port, {})
        session = sessions.get(place.client) if durable else None
        self._session = sessions[place.client] = session or _Session(place.user)
        self._session.client, self._port, self._name = self, place.port, place.client
        self.take, self._durable = take, durable
        for message in list(self._session.waiting.values()):
            take(msgspec.structs.replace(message, again=True))

    def subscribe(self, patterns: Sequence[str]) -> None:
        session = self._opened()
        account = self._bus.account(self._port, session.user)
        for pattern in patterns:
            if account is None or not any(covers(right, pattern) for right in account.subscribe):
                raise Denied("bus.refused", f"not allowed to read {pattern}")
            session.patterns.append(pattern)
            for topic, payload in self._bus.retained.get(self._port, {}).items():
                if match_topic(pattern, topic):
                    self.take(BusMessage(topic, payload, retained=True))

    def unsubscribe(self, patterns: Sequence[str]) -> None:
        session = self._opened()
        session.patterns = [pattern for pattern in session.patterns if pattern not in patterns]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._bus.publish(self._port, self._opened().user, topic, payload, retain=retain)

    def taken(self, message: BusMessage) -> None:
        if self._session is not None:
            self._session.waiting.pop(message.number, None)

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def cut(self) -> None:
        """Lose the connection."""
        session, self._session = self._session, None
        if session is not None:
            session.client = None

    def close(self) -> None:
        name, durable = self._name, self._durable
        self.cut()
        if not durable:
            self._bus.sessions.get(self._port, {}).pop(name, None)

    def _opened(self) -> _Session:
        if self._session is None:
            raise Unavailable("bus.unreachable", "not connected")
        return self._session
