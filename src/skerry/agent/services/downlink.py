"""Publishes messages from the hub on the host's bus: each once, in time, and only to who takes them.

Rules: a message comes in the DesiredState, which the hub signs. It is published while an instance of its application
runs and the application's release takes it; until then it waits, and when it expires it is not published any more. That
it was published is remembered before anything else is told of it; a host that loses power in the moment between may
publish it once more.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.agent.bus_line import BusLine
from skerry.agent.services.host_service import HostService, Turn
from skerry.kit.errors import as_failure
from skerry.matching.topics import match_any_topic
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.spec.downlink import DownlinkMessage, DownlinkState
from skerry.spec.report import Observed
from skerry.spec.topics import TopicsSpec

_log = structlog.get_logger()

EVERY_S = 0.5
IDLE_S = 2.0
_KEY = "downlink"


class DownlinkParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the service works with; `rights` are what applications declare, `now` is the trusted time."""

    line: BusLine
    rights: Callable[[], Mapping[str, TopicsSpec]]
    store: AgentStore
    clock: Clock
    now: Callable[[], datetime]


class HostDownlink(HostService):
    """The service."""

    name = "downlink"

    def __init__(self, parts: DownlinkParts) -> None:
        super().__init__()
        self._parts = parts
        kept = parts.store.load(_KEY) or b"{}"
        self._published = msgspec.json.decode(kept, type=dict[str, datetime])
        self._messages: Sequence[DownlinkMessage] = ()
        self._running: frozenset[str] = frozenset()
        self._states: dict[str, DownlinkState] = {}
        self._failing = ""

    async def follow(self, turn: Turn) -> None:
        """Note which messages there are, and whose applications run."""
        views = turn.instances.values()
        running = {view.labels.get("application", "") for view in views if view.state == "running"}
        self._running = frozenset(running)
        self._messages = turn.desired.downlink if turn.desired is not None else ()
        self._states = self._states_now()

    def show(self, observed: Observed) -> Observed:
        """Return what is observed with what became of each message for an application of this host."""
        if not self._states:
            return observed
        return msgspec.structs.replace(observed, downlink=dict(self._states))

    async def run_forever(self) -> None:
        """Publish what comes, for ever."""
        while True:
            try:
                busy = await self.publish()
                self._failing = ""
            except Exception as caught:
                error, busy = as_failure(caught), True
                if error.code != self._failing:
                    _log.warning("downlink.unpublished", code=error.code, reason=str(error))
                self._failing = error.code
            await self._parts.clock.sleep(EVERY_S if busy else IDLE_S)

    async def publish(self) -> bool:
        """Publish what is there to be published; tell whether something waits.

        Raises:
            SkerryError: the bus or the disk is not there now.
        """
        self._forget()
        waiting = [one for one in self._messages if self._state(one) == "waiting"]
        ready = [one for one in waiting if one.application in self._running]
        if ready and await self._parts.line.hold():
            for one in ready:
                await self._parts.line.publish(one.topic, _payload(one))
                self._published[one.id] = one.expires_at
                self._remember()
        states = self._states_now()
        if states != self._states:
            self._states = states
            self.on_change()
        return bool(waiting)

    def _states_now(self) -> dict[str, DownlinkState]:
        here = self._parts.rights()
        return {one.id: self._state(one) for one in self._messages if one.application in here}

    def _state(self, one: DownlinkMessage) -> DownlinkState:
        if one.id in self._published:
            return "delivered"
        if one.expires_at <= self._parts.now():
            return "expired"
        topics = self._parts.rights().get(one.application)
        if topics is None or not match_any_topic(topics.downlink, one.topic):
            return "refused" if topics is not None else "waiting"
        return "waiting"

    def _forget(self) -> None:
        """Forget messages that have expired and are asked for no more: nobody can hand them down again."""
        asked, now = {one.id for one in self._messages}, self._parts.now()
        gone = [one for one, until in self._published.items() if until <= now and one not in asked]
        for one in gone:
            del self._published[one]
        if gone:
            self._remember()

    def _remember(self) -> None:
        self._parts.store.save({_KEY: msgspec.json.encode(self._published)})


def _payload(one: DownlinkMessage) -> bytes:
    try:
        return base64.b64decode(one.payload, validate=True)
    except (binascii.Error, ValueError):
        return b""
