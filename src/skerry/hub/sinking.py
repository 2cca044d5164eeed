"""Hands one sink what it asks for, batch by batch; and what is shown of sinks.

The position of a sink is stored after its place took a batch, never before. So a hub that dies in between hands the
batch over once more, with the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec

from skerry.hub.telemetry_query import labels_of
from skerry.hub.topic_messages import EVERY, view_message
from skerry.hub.views import as_json
from skerry.matching.selector import parse_selector
from skerry.matching.topics import match_topic
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore
from skerry.ports.sink import MAX_DELIVERY_S, SinkTarget
from skerry.ports.sink_store import SinkRecord, SinkStep
from skerry.spec.api_sink import SinkView
from skerry.spec.api_topics import TopicMessageView
from skerry.spec.sink import MAX_SINK_BATCH, Sink, SinkSpec

HOLD_FOR = timedelta(seconds=2 * MAX_DELIVERY_S)
"""Longer than any delivery: nobody else begins meanwhile."""
MAX_BATCH_BYTES = 1 << 20

MakeTarget = Callable[[Sink], SinkTarget]


class Batch(msgspec.Struct, frozen=True):
    """What a sink gets next, and how far it is then; `lost` were forgotten before, `more` are there."""

    messages: tuple[TopicMessageView, ...]
    position: int
    lost: int
    more: bool


class Sinking:
    """One sink, served by this replica of the hub where no other one does. One turn at a time."""

    def __init__(
        self,
        name: str,
        store: HubStore,
        clock: Clock,
        *,
        holder: str,
        make: MakeTarget,
        room: asyncio.Semaphore,
    ) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._holder = holder
        self._make = make
        self._room = room
        self._document = b""
        self._target: SinkTarget | None = None

    async def turn(self) -> bool:
        """Deliver the next batch; tell whether there is more.

        Raises:
            SkerryError: its place did not take it; the position is as before.
        """
        now = self._clock.now()
        record = await asyncio.to_thread(
            self._store.hold_sink, self._name, self._holder, now=now, until=now + HOLD_FOR
        )
        if record is None:
            await self.close()
            return False
        sink = msgspec.json.decode(record.document, type=Sink)
        async with self._room:
            batch = await asyncio.to_thread(next_batch, self._store, record, sink.spec)
        if batch.messages:
            await (await self._opened(record, sink)).deliver(batch.messages)
        if batch.position == record.position:
            return False
        step = SinkStep(
            before=record.position,
            position=batch.position,
            lost=batch.lost,
            delivered_at=self._clock.now() if batch.messages else None,
        )
        moved = await asyncio.to_thread(self._store.advance_sink, self._name, self._holder, step)
        return moved and batch.more

    async def note_trouble(self, trouble: str) -> None:
        """Let people see what hinders it."""
        await asyncio.to_thread(self._store.note_sink_trouble, self._name, self._holder, trouble[:500])

    async def close(self) -> None:
        """Let go of its place."""
        target, self._target = self._target, None
        if target is not None:
            await target.close()

    async def _opened(self, record: SinkRecord, sink: Sink) -> SinkTarget:
        if self._target is None or self._document != record.document:
            await self.close()
            self._target, self._document = self._make(sink), record.document
        return self._target


def next_batch(store: HubStore, record: SinkRecord, spec: SinkSpec) -> Batch:
    """Return what a sink gets next. Blocking."""
    most = spec.webhook.batch if spec.webhook else MAX_SINK_BATCH
    sites = _sites(store, spec)
    # Before the look: what comes meanwhile is no gap.
    newest = store.newest_topic_id()
    found = store.topic_messages(after=record.position, limit=MAX_SINK_BATCH)
    first = found[0].id if found else max(newest, record.position) + 1
    position, size = first - 1, 0
    chosen: list[TopicMessageView] = []
    for one in found:
        if (sites is None or one.site in sites) and _wants(spec, one.topic):
            size += len(one.payload)
            if len(chosen) == most or (chosen and size > MAX_BATCH_BYTES):
                break
            chosen.append(view_message(one))
        position = one.id
    return Batch(tuple(chosen), position, lost=first - 1 - record.position, more=position < newest)


def view_sink(store: HubStore, record: SinkRecord) -> SinkView:
    """Return a sink as it was written, and how far it is. Blocking."""
    spec = msgspec.json.decode(record.document, type=Sink).spec
    sites = _sites(store, spec)
    waiting = store.waiting_topics(record.position).items()
    place = spec.webhook or spec.mqtt
    return SinkView(
        name=record.name,
        document=as_json(record.document),
        topics=spec.topics,
        place=place.url if place else "",
        position=record.position,
        waiting=sum(
            n for (site, topic), n in waiting if (sites is None or site in sites) and _wants(spec, topic)
        ),
        delivered_at=record.delivered_at,
        lost=record.lost,
        trouble=record.trouble,
        changed_at=record.changed_at,
        changed_by=record.changed_by,
    )


def _wants(spec: SinkSpec, topic: str) -> bool:
    return any(pattern == EVERY or match_topic(pattern, topic) for pattern in spec.topics)


def _sites(store: HubStore, spec: SinkSpec) -> frozenset[str] | None:
    """Return the sites whose messages it gets; None is all there are, also those that are there no more."""
    chosen = parse_selector(spec.sites)
    if not chosen.terms:
        return None
    return frozenset(one.name for one in store.sites() if chosen.matches(one.name, labels_of(one)))
