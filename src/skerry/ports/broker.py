"""Broker: the message bus of one host, and a client of it. MQTT 3.1.1 is what both brokers speak.

Promises every broker keeps (tests/contract/test_broker.py):
- An account publishes to its patterns and reads from them, and nothing else; nobody is let in without an account.
- Accounts change while it runs: others stay connected, and who is gone is cut off.
- What it acknowledged with quality of service 1, and what is retained, outlives its end and a restart.
- Beyond this host it listens with TLS alone.
- It outlives the caller: another one finds it again. One that died is started anew by the next `apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class BusAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Who may connect, and what they may do; patterns are those of `skerry.spec.topics`."""

    user: str
    password: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say who it is, and nothing that opens anything."""
        return f"BusAccount({self.user!r})"


class BusTls(msgspec.Struct, frozen=True):
    """The broker's certificate with its chain, its key, and the authorities by which clients know it; PEM files."""

    certificate: Path
    key: Path
    authorities: Path
    mark: str = ""
    """Another one when the files hold something else: then the broker takes them anew."""


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker shall be. `listen` is an IP address; `native_port` is for its own protocol if it has one.

    `stored_bytes` bounds what it keeps on the disk, `message_bytes` one message.
    """

    accounts: tuple[BusAccount, ...] = ()
    listen: str = "127.0.0.1"
    port: int
    native_port: int = 0
    tls: BusTls | None = None
    stored_bytes: int = 256 << 20
    message_bytes: int = 256 << 10


class BrokerState(msgspec.Struct, frozen=True, kw_only=True):
    """How a broker is; `pid` is 0 when it does not run."""

    name: str
    version: str = ""
    pid: int = 0


class Broker(Protocol):
    """One broker on this host. Its data and its process outlive the caller."""

    async def apply(self, settings: BrokerSettings) -> None:
        """Make it run with exactly these settings; returns when they hold. Cheap when nothing has changed.

        Raises:
            Rejected: it would listen beyond this host without TLS (`broker.plain`).
            Unavailable: its program is not here (`broker.missing`), it does not come up (`broker.unready`), or
                nothing is in memory here to keep its accounts in (`broker.no_memory`).
        """
        ...

    async def state(self) -> BrokerState:
        """Return how it is now."""
        ...

    async def stop(self) -> None:
        """End it; what it keeps on the disk stays."""
        ...

    async def erase(self) -> None:
        """End it, and remove what it kept."""
        ...


class BusPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client finds a broker, and as whom it comes; `authorities` are a PEM file where there is TLS."""

    address: str
    port: int
    user: str
    password: str
    client: str
    authorities: Path | None = None

    def __repr__(self) -> str:
        """Say where and who, and nothing that opens anything."""
        return f"BusPlace({self.address}:{self.port} as {self.user})"


class BusMessage(msgspec.Struct, frozen=True):
    """What came. `number` is what `BusClient.taken` acknowledges; 0 when nothing is to be.

    `again`: the broker may have delivered it before, and was not told that it was taken.
    """

    topic: str
    payload: bytes
    number: int = 0
    retained: bool = False
    again: bool = False


class BusClient(Protocol):
    """A client of a broker that has to be up now. Blocking, with time limits; usable from several threads."""

    def open(self, place: BusPlace, *, take: Callable[[BusMessage], None], durable: bool = False) -> None:
        """Connect. `take` is called in a thread of the client. A `durable` one is kept its messages while away.

        Raises:
            Denied: the broker knows no such account (`bus.refused`).
            Unavailable: nothing answers (`bus.unreachable`).
        """
        ...

    def subscribe(self, patterns: Sequence[str]) -> None:
        """Read these patterns as well, with quality of service 1.

        Raises:
            Denied: one of them is beyond the account's rights (`bus.refused`).
            Unavailable: it does not answer (`bus.unreachable`).
        """
        ...

    def unsubscribe(self, patterns: Sequence[str]) -> None:
        """Read these patterns no more."""
        ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and return when the broker has it. What is beyond the account's rights is silently dropped.

        Raises:
            Unavailable: the broker does not acknowledge it (`bus.unreachable`).
        """
        ...

    def taken(self, message: BusMessage) -> None:
        """Acknowledge a message: the broker forgets it. What is not acknowledged comes again after a reconnect."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it is connected now; once cut it stays so, and is opened anew by its owner."""
        ...

    def close(self) -> None:
        """End the connection; a durable session stays."""
        ...
