"""Hands messages of the host's bus up to the hub, by what its applications declare: kept on disk until it is taken.

Rules: the broker is told that a message was taken only when it is on the disk; one that comes again because the broker
was not told in time is known by a mark. Nothing here keeps a report or telemetry waiting: a batch goes up only when
nothing else waits and the link's budget has room. What is not kept is counted, with the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog

from skerry.agent.bus_line import Arrived, BusLine
from skerry.agent.services.host_service import HostService
from skerry.kit.errors import as_failure
from skerry.kit.quantities import parse_size
from skerry.matching.topics import match_topic
from skerry.ports.clock import Clock
from skerry.ports.topic_queue import Dropped, NewTopicMessage, TopicQueue, WindowName
from skerry.spec.topics import TopicsSpec, UplinkSpec
from skerry.spec.uplink import TopicBatch
from skerry.telemetry.reducing import (
    Bucket,
    Window,
    add_message,
    is_due,
    is_over,
    reduce_window,
    sample_of,
    take_one,
)

_log = structlog.get_logger()

STORE_EVERY_S = 0.25
TELL_EVERY_S = 1.0
AFTER_FAILING_S = (0.0, 5.0)
IDLE_S = 2.0
AT_ONCE = 1000
MAX_TOPICS = 1000
DOUBT_S = 10.0
"""How long the broker may not know yet that a message is kept, while the connection holds."""


class UplinkParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the service works with.

    `open` opens the queue, making it where there is none, which `exists` tells; `rights` are what applications declare.
    `tell` hands up a batch and says whether it was taken; `failing` is the code of the error that exchanges end with;
    `held` says why so many bytes may not be sent now.
    """

    open: Callable[[], TopicQueue]
    exists: Callable[[], bool]
    line: BusLine
    rights: Callable[[], Mapping[str, TopicsSpec]]
    clock: Clock
    now: Callable[[], float]
    tell: Callable[[TopicBatch], Awaitable[bool]]
    failing: Callable[[], str]
    held: Callable[[int], str]


class _Keeping:
    """What a step puts into the queue."""

    def __init__(self) -> None:
        self.messages: list[NewTopicMessage] = []
        self.windows: dict[WindowName, Window | None] = {}
        self.drops: Counter[Dropped] = Counter()
        self.marks: dict[bytes, float] = {}


class HostUplink(HostService):
    """The service."""

    name = "uplink"

    def __init__(self, parts: UplinkParts) -> None:
        super().__init__()
        self._parts = parts
        self._queue: TopicQueue | None = None
        self._windows: dict[WindowName, Window] = {}
        self._marks: dict[bytes, float] = {}
        self._again: Counter[bytes] = Counter()
        self._connection = 0
        self._since = 0.0
        self._buckets: dict[Dropped, Bucket] = {}
        self._told: set[Dropped] = set()
        self._overflown = 0
        self._troubles: dict[str, str] = {}

    async def run_forever(self) -> None:
        """Keep and hand up, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_forever())
            group.create_task(self._tell_forever())

    async def close(self) -> None:
        """Keep what has come, and let go of the bus."""
        await self._parts.line.close()
        if self._queue is not None:
            self._queue.close()

    async def keep(self) -> bool:
        """Put what has come on the disk, once; tell whether there is anything to hand up at all.

        Raises:
            SkerryError: the bus or the disk is not there now; the broker keeps what it was not told to be kept.
        """
        rules = _rules(self._parts.rights())
        if self._queue is None and not rules and not self._parts.exists():
            return False
        queue = self._opened()
        try:
            await self._parts.line.hold()
        finally:
            await asyncio.to_thread(self._keep, queue, rules)
        return bool(rules)

    async def tell(self) -> bool:
        """Hand up the next batch if it is time and the link may carry it; tell whether there may be more.

        Raises:
            SkerryError: what went wrong; the batch is kept.
        """
        parts, queue = self._parts, self._queue
        if queue is None or parts.failing():
            return False
        waiting = await asyncio.to_thread(queue.waiting)
        if not is_due(waiting, now=parts.now()):
            return False
        kept = await asyncio.to_thread(queue.next_batch)
        if kept is None:
            return False
        if parts.held(sum(len(one.payload) for one in kept.messages)):
            return False
        batch = TopicBatch(
            host="",
            site="",
            sequence=1,
            stream=queue.stream,
            batch=kept.number,
            messages=kept.messages,
            dropped=tuple(await asyncio.to_thread(queue.dropped)),
            waiting=sum(one.count for one in waiting) - len(kept.messages),
        )
        if not await parts.tell(batch):
            return False
        await asyncio.to_thread(queue.forget, kept.number)
        return True

    # ── keeping ──────────────────────────────────────────────────────────────────────────────────────────

    def _opened(self) -> TopicQueue:
        if self._queue is None:
            queue = self._parts.open()
            self._windows, self._marks = dict(queue.windows()), dict(queue.marks())
            self._queue = queue
        return self._queue

    def _keep(self, queue: TopicQueue, rules: Sequence[tuple[str, UplinkSpec]]) -> None:
        arrived = self._parts.line.arrived(AT_ONCE)
        now, keeping = self._parts.now(), _Keeping()
        unmark = self._forgettable(now)
        again = Counter(self._again)
        for one in arrived:
            if not self._is_double(one, keeping, again):
                self._add(one, rules, keeping)
        for name, window in self._windows.items():
            self._end_window(name, window, rules, keeping, now)
        lost, self._overflown = self._parts.line.overflown - self._overflown, self._parts.line.overflown
        if lost:
            keeping.drops[Dropped("", "", "too many at once")] += lost
        if keeping.messages or keeping.windows or keeping.drops or keeping.marks or unmark:
            queue.put(
                keeping.messages,
                windows=keeping.windows,
                drops=keeping.drops,
                marks=keeping.marks,
                unmark=unmark,
            )
        self._note_drops(keeping.drops)
        self._again = again
        self._windows = {
            name: window
            for name, window in {**self._windows, **keeping.windows}.items()
            if window is not None
        }
        self._marks = {
            **{name: at for name, at in self._marks.items() if name not in unmark},
            **keeping.marks,
        }
        self._parts.line.taken(arrived)

    def _forgettable(self, now: float) -> list[bytes]:
        """Return the marks of messages that the broker has been told of: the connection has held since."""
        connection = self._parts.line.connection
        if connection != self._connection:
            self._connection, self._since, self._again = connection, now, Counter()
        if now - self._since < DOUBT_S:
            return []
        return [name for name, at in self._marks.items() if not now - DOUBT_S < at <= now]

    def _is_double(self, one: Arrived, keeping: _Keeping, again: Counter[bytes]) -> bool:
        """Tell whether a message was kept before; mark one that was not. Equal ones are told apart by counting."""
        if not one.message.number:
            return False
        digest = hashlib.blake2b(one.message.payload, digest_size=16, key=b"skerry.uplink")
        digest.update(one.message.topic.encode())
        key = digest.digest()
        if one.message.again:
            number = again[key]
            again[key] += 1
            if _mark(key, number) in self._marks:
                return True
        number = 0
        while (mark := _mark(key, number)) in self._marks or mark in keeping.marks:
            number += 1
        keeping.marks[mark] = one.at
        return False

    def _add(self, one: Arrived, rules: Sequence[tuple[str, UplinkSpec]], keeping: _Keeping) -> None:
        message = one.message
        for application, rule in rules:
            if not match_topic(rule.topic, message.topic):
                continue
            name = WindowName(application, rule.topic, message.topic)
            if len(message.payload) > parse_size(rule.max_size):
                keeping.drops[Dropped(application, rule.topic, "too large")] += 1
            elif rule.reduce is None:
                self._pass_on(name, rule, keeping, payload=message.payload, at=one.at)
            else:
                self._reduce(name, rule, keeping, one)

    def _reduce(self, name: WindowName, rule: UplinkSpec, keeping: _Keeping, one: Arrived) -> None:
        window = keeping.windows.get(name, self._windows.get(name) if name not in keeping.windows else None)
        if window is None and len(self._windows) + len(keeping.windows) >= MAX_TOPICS:
            keeping.drops[Dropped(name.application, name.pattern, "too many topics")] += 1
            return
        every = sample_of(rule.reduce)
        if not every and window is not None and is_over(window, rule, now=one.at):
            self._close(name, window, rule, keeping, at=one.at)
            window = None
        window = add_message(window, one.message.payload, at=one.at)
        if every and window.count >= every:
            keeping.windows[name] = None
            self._pass_on(name, rule, keeping, payload=one.message.payload, at=one.at, count=window.count)
        else:
            keeping.windows[name] = window

    def _end_window(
        self,
        name: WindowName,
        window: Window,
        rules: Sequence[tuple[str, UplinkSpec]],
        keeping: _Keeping,
        now: float,
    ) -> None:
        """End a window whose time is over, or whose rule is there no more."""
        if name in keeping.windows:
            return
        rule = next((r for app, r in rules if (app, r.topic) == (name.application, name.pattern)), None)
        if rule is None or not rule.reduce:
            keeping.windows[name] = None
        elif not sample_of(rule.reduce) and is_over(window, rule, now=now):
            keeping.windows[name] = None
            self._close(name, window, rule, keeping, at=now)

    def _close(
        self, name: WindowName, window: Window, rule: UplinkSpec, keeping: _Keeping, *, at: float
    ) -> None:
        found = reduce_window(window, rule.reduce or "last")
        if found.unreadable:
            keeping.drops[Dropped(name.application, name.pattern, "no number")] += found.unreadable
        if found.payload is not None:
            self._pass_on(name, rule, keeping, payload=found.payload, at=at, count=found.count)

    def _pass_on(
        self,
        name: WindowName,
        rule: UplinkSpec,
        keeping: _Keeping,
        *,
        payload: bytes,
        at: float,
        count: int = 1,
    ) -> None:
        whose = Dropped(name.application, name.pattern, "too many")
        bucket, may = take_one(self._buckets.get(whose), rule.max_rate, now=self._parts.clock.monotonic())
        self._buckets[whose] = bucket
        if not may:
            keeping.drops[whose] += count
            return
        keeping.messages.append(
            NewTopicMessage(
                application=name.application,
                topic=name.topic,
                pattern=name.pattern,
                at=at,
                payload=payload,
                priority=rule.priority,
                count=count,
            )
        )

    def _note_drops(self, drops: Mapping[Dropped, int]) -> None:
        for one in drops:
            if one not in self._told:
                self._told.add(one)
                _log.warning(
                    "uplink.dropping", application=one.application, topic=one.pattern, reason=one.why
                )

    # ── loops ────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep_forever(self) -> None:
        while True:
            busy = await self._try("keep", self.keep)
            await self._parts.clock.sleep(STORE_EVERY_S if busy else IDLE_S)

    async def _tell_forever(self) -> None:
        failed = False
        while True:
            if self._parts.failing():
                failed = True
            elif failed:
                # A fleet that comes back does not come all at once.
                failed = False
                await self._parts.clock.sleep(random.uniform(*AFTER_FAILING_S))  # noqa: S311 (guards nothing)
            await self._try("tell", self.tell)
            await self._parts.clock.sleep(TELL_EVERY_S)

    async def _try(self, what: str, call: Callable[[], Awaitable[bool]]) -> bool:
        try:
            found = await call()
        except Exception as caught:
            error = as_failure(caught)
            if self._troubles.get(what) != error.code:
                _log.warning(
                    f"uplink.un{'told' if what == 'tell' else 'kept'}", code=error.code, reason=str(error)
                )
            self._troubles[what] = error.code
            return False
        self._troubles.pop(what, None)
        return found


def _rules(rights: Mapping[str, TopicsSpec]) -> list[tuple[str, UplinkSpec]]:
    return [(application, rule) for application, topics in rights.items() for rule in topics.uplink]


def _mark(key: bytes, number: int) -> bytes:
    return key + number.to_bytes(4, "big")
