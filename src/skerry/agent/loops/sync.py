"""The sync loop: hands reports up, takes desired state down, and learns the time.

Three callers share what an exchange is: the poller, which waits at the upstream for news, the flusher, which hands a
change up at once while the poller waits, and the teller of metrics, which neither waits for. Nothing here believes an
answer that is not signed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from skerry.agent.identity import Identity
from skerry.agent.measurements import Measurements
from skerry.agent.outbox import Outbox
from skerry.agent.retrying import Retry
from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.errors import Bug, SkerryError, Unavailable, Untrusted, as_failure
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.spec.facts import HostFacts
from skerry.spec.questions import AnswerPart
from skerry.spec.report import Event, Observed
from skerry.spec.telemetry import TelemetryBatch
from skerry.spec.uplink import TopicBatch
from skerry.trust.desired import verify_desired
from skerry.trust.envelope import verify_document
from skerry.trust.keys import SigningKey
from skerry.trust.report import claimed_key
from skerry.trust.timekeeping import TimeTrust, raise_floor, trusted_now, verify_time

_log = structlog.get_logger()

WAIT_S = 240.0
PAUSE_S = 0.2
TELL_METRICS_EVERY_S = 60.0


class _Told(msgspec.Struct, frozen=True):
    """What was told of how things stand, and with which report."""

    content: bytes
    sequence: int


_UNTOLD = _Told(b"", 0)


class Syncer:
    """What a host tells its upstream and hears from it."""

    def __init__(
        self, identity: Identity, store: AgentStore, link: Link, clock: Clock, *, session: str = ""
    ) -> None:
        """`session` names this run of the agent to the hub."""
        self._identity = identity
        self._store = store
        self._link = link
        self._clock = clock
        self._outbox = Outbox(identity, store, session)
        self._time = msgspec.json.decode(store.load("time") or b"{}", type=TimeTrust)
        self._observed = Observed()
        self._facts: HostFacts = {}
        self._known: dict[str, _Told] = {}
        self._acknowledged = 0
        self._told = 0
        self._token = ""
        self._want_token = False
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._failing = ""
        self.desired = self._load_desired()
        self.last_contact: datetime | None = None
        self.on_desired: Callable[[], None] = lambda: None
        self.upstreams: Callable[[], object] = lambda: None

    def now(self) -> datetime:
        """Return the time this host believes."""
        return trusted_now(self._clock.now(), self._time)

    @property
    def time(self) -> TimeTrust:
        """What the host knows of its clock."""
        return self._time

    @property
    def failing(self) -> str:
        """The code of the error that exchanges end with; empty when they succeed."""
        return self._failing

    def take_key(self, key: SigningKey) -> None:
        """Sign with another key from now on."""
        self._outbox.take_key(key)

    def token(self, *, renew: bool = False) -> str:
        """Return the blob token; `renew` asks for another at the next exchange, which it hastens."""
        if renew or not self._token:
            self._want_token = True
            # The fetcher asks from its threads.
            self._loop.call_soon_threadsafe(self._changed.set)
        return self._token

    def note(self, kind: str, message: str = "", *, application: str = "", component: str = "") -> None:
        """Remember an event for the hub."""
        facts = {"message": message, "application": application, "component": component}
        _log.info(kind, **{key: value for key, value in facts.items() if value})
        event = Event(
            at=self.now(), kind=kind, message=message[:4096], application=application, component=component
        )
        self._outbox.note(event)

    def tell(self, observed: Observed, facts: HostFacts) -> None:
        """Say how things stand now, and make noted events durable; a change goes up at once.

        Raises:
            Unavailable: the disk is full; nothing is lost.
        """
        if observed != self._observed or facts != self._facts:
            self._observed, self._facts = observed, facts
            self._changed.set()
        if self._outbox.flush(sent_at=self.now(), clock=self._clock.now()):
            self._changed.set()

    def take_carried(self, envelope: JsonEnvelope, acknowledged: int) -> None:
        """Take what came by hand, judged before: a DesiredState, and up to which report the hub has this host's.

        Raises:
            Untrusted: it is not to be taken after all (`desired.*`).
            Unavailable: the disk is full.
        """
        if acknowledged:
            self._outbox.acknowledge(acknowledged)
        self._take_desired(envelope)
        self.on_desired()

    def reports_to_carry(self) -> list[JsonEnvelope]:
        """Return all reports that the hub has not acknowledged, a fresh one that tells everything last."""
        self._outbox.flush(sent_at=self.now(), clock=self._clock.now())
        return self._outbox.everything(
            sent_at=self.now(),
            clock=self._clock.now(),
            generation=self.desired.generation if self.desired else 0,
            observed=self._observed,
            facts=self._facts,
        )

    def settle(self) -> None:
        """Make what was noted durable, when nothing will be told any more; a full disk keeps the rest from it."""
        with contextlib.suppress(Unavailable):
            while self._outbox.flush(sent_at=self.now(), clock=self._clock.now()):
                pass

    async def poll_forever(self) -> None:
        """Wait at the upstream for news, for ever; wait longer after each failure."""
        retry = Retry()
        while True:
            try:
                await self.exchange(WAIT_S)
                retry.reset()
                # An upstream that answers at once, whatever the reason, must not make us spin.
                await self._clock.sleep(PAUSE_S)
            except Exception as error:
                failure = as_failure(error)
                self._fail(failure)
                await self._clock.sleep(retry.next_wait_s(failure))

    async def flush_forever(self) -> None:
        """Hand changes up at once, at most five times a second; the poller retries what fails."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._failing:
                async with self._flushing:
                    try:
                        await self.exchange(0.0)
                    except Exception as error:
                        self._fail(as_failure(error))
            await self._clock.sleep(PAUSE_S)

    async def tell_metrics_forever(self, measurements: Measurements) -> None:
        """Hand up what was measured, about every minute, for ever; what was not taken is told again.

        A failure is no reason to hold changes back, which may well get through: the poller finds out what fails.
        """
        failing = ""
        while True:
            # From when this agent began: so a fleet's hosts, whose windows end at once, do not all come at once.
            await self._clock.sleep(TELL_METRICS_EVERY_S)
            more = not self._failing
            while more:
                try:
                    more = await self.tell_metrics(measurements)
                    failing = ""
                except Exception as caught:
                    error, more = as_failure(caught), False
                    if failing != error.code:
                        _log.warning("metrics.untold", code=error.code, reason=str(error))
                    failing = error.code
                await self._clock.sleep(PAUSE_S)

    async def tell_metrics(self, measurements: Measurements) -> bool:
        """Hand up some of what was measured; tell whether the hub took something, so that there may be more.

        Raises:
            SkerryError: what went wrong; what was not taken is kept.
        """
        telling = await asyncio.to_thread(measurements.next_telling)
        if not telling.rows:
            return False

        def sign(sequence: int) -> JsonEnvelope:
            return self._outbox.batch(sequence, telling.windows, telling.dropped)

        if not await self.hand_up_beside(sign):
            return False
        await asyncio.to_thread(measurements.note_told, telling)
        return True

    async def tell_batch(self, batch: TelemetryBatch | TopicBatch) -> bool:
        """Hand up a batch of telemetry, or of messages; tell whether it was taken.

        Raises:
            SkerryError: what went wrong.
        """
        return await self.hand_up_beside(lambda sequence: self._outbox.beside(sequence, batch))

    async def tell_answer(self, part: AnswerPart) -> bool:
        """Hand up a part of an answer; tell whether it was taken.

        Raises:
            SkerryError: what went wrong.
        """
        return await self.hand_up_beside(lambda sequence: self._outbox.answer(sequence, part))

    async def hand_up_beside(self, sign: Callable[[int], JsonEnvelope]) -> bool:
        """Hand up what `sign` makes for the sequence of a fresh report; tell whether the upstream took it.

        What is queued goes first; as long as that fills requests, nothing goes beside it.

        Raises:
            SkerryError: what went wrong.
        """
        async with self._flushing:
            # A change that is on its way must not be overtaken: it would have to be told again.
            envelopes, fresh = self._outbox.collect(
                sent_at=self.now(),
                clock=self._clock.now(),
                generation=self.desired.generation if self.desired else 0,
                observed=None,
                facts=None,
            )
        beside = None if fresh is None else sign(fresh)
        request = SyncRequest(reports=tuple(envelopes), want_token=self._want_token, metrics=beside)
        answer = await self._hand_up(request, fresh, {})
        return fresh is not None and answer.metrics == fresh

    async def exchange(self, wait_s: float) -> None:
        """Exchange once with the upstream.

        Raises:
            SkerryError: what went wrong; everything not acknowledged is kept.
        """
        body = {"observed": encode_canonical(self._observed), "facts": encode_canonical(self._facts)}
        news = {key for key, value in body.items() if self._known.get(key, _UNTOLD).content != value}
        envelopes, fresh = self._outbox.collect(
            sent_at=self.now(),
            clock=self._clock.now(),
            generation=self.desired.generation if self.desired else 0,
            observed=self._observed if "observed" in news else None,
            facts=self._facts if "facts" in news else None,
        )
        request = SyncRequest(
            reports=tuple(envelopes),
            wait_s=wait_s if fresh and not self._failing else 0.0,
            want_token=self._want_token,
        )
        await self._hand_up(request, fresh, {key: body[key] for key in news})

    async def _hand_up(self, request: SyncRequest, fresh: int | None, news: dict[str, bytes]) -> SyncAnswer:
        answer = await asyncio.to_thread(self._link.sync, request)
        self._outbox.acknowledge(
            answer.acknowledged, newest=answer.newest, held=answer.held, keeper=answer.keeper
        )
        self._acknowledged = max(self._acknowledged, answer.acknowledged)
        arrived = fresh is not None and fresh in (answer.acknowledged, answer.held if answer.keeper else 0)
        told = fresh if fresh is not None and arrived and fresh > self._told and news else 0
        again = answer.tell_all
        if self._outbox.entrust(answer.keeper, answer.held, told=told, again=again):
            self._forget_told(0 if again else self._acknowledged)
            # A relay's token opens that relay alone.
            self._want_token = self._want_token or (bool(self._token) and not again)
        if fresh is not None:
            self._note_told(fresh, news, arrived=arrived and not again)
        await self._follow_root(answer)
        self._take(answer, fresh)
        self._succeed()
        return answer

    def _note_told(self, fresh: int, news: dict[str, bytes], *, arrived: bool) -> None:
        """Note what is known above. Poller and flusher overtake each other; what is in doubt is told again."""
        if arrived and fresh > self._told:
            self._known.update({key: _Told(content, fresh) for key, content in news.items()})
        elif news:
            for key in news:
                self._known.pop(key, None)
            self._changed.set()
        self._told = max(self._told, fresh)

    def _forget_told(self, acknowledged: int) -> None:
        """Tell again, and soon, what the hub has not acknowledged."""
        self._known = {key: told for key, told in self._known.items() if told.sequence <= acknowledged}
        self._changed.set()

    async def _follow_root(self, answer: SyncAnswer) -> None:
        """Look for a newer root when the hub signs with a key that the one held does not name."""
        signed = [envelope for envelope in (answer.desired, answer.time) if envelope is not None]
        trust = self._identity.trust
        if all(trust.knows(claimed_key(envelope)) for envelope in signed):
            return
        token = answer.blob_token or self._token
        if not token:
            self._want_token = True
            return
        if await asyncio.to_thread(trust.follow_root, self._link, token):
            _log.info("root.followed", version=trust.root_version)

    def _take(self, answer: SyncAnswer, fresh: int | None) -> None:
        if answer.time is not None and fresh is not None:
            self._take_time(answer.time, fresh)
        if answer.blob_token:
            self._token, self._want_token = answer.blob_token, False
        if answer.desired is not None:
            self._take_desired(answer.desired)
        if answer.blob_token:
            self.on_desired()

    def _take_time(self, envelope: JsonEnvelope, fresh: int) -> None:
        keys = list(self._identity.trust.keys)
        system = self._clock.now()
        self._time = verify_time(
            envelope, keys, host=self._identity.place.host, sequence=fresh, system=system
        )
        with contextlib.suppress(Unavailable):
            # On a full disk it is believed until the agent restarts, and then learnt again.
            self._store.save({"time": msgspec.json.encode(self._time)})
        _log.warning("clock.corrected", offset_s=round(self._time.offset_s))

    def _take_desired(self, envelope: JsonEnvelope) -> None:
        held = self.desired.generation if self.desired else 0
        try:
            desired = verify_desired(
                envelope,
                self._identity.trust.keys,
                site=self._identity.place.site,
                held_generation=held,
                now=self.now(),
            )
        except Untrusted as error:
            if error.code == "desired.not_newer" and error.facts.get("generation") == held:
                return  # poller and flusher asked at the same time; the other was first
            raise
        self._time = raise_floor(self._time, desired.issued_at)
        self._store.save({"desired": msgspec.json.encode(envelope), "time": msgspec.json.encode(self._time)})
        self.desired = desired
        _log.info("desired.taken", generation=desired.generation)
        self.on_desired()

    def _load_desired(self) -> DesiredState | None:
        raw = self._store.load("desired")
        if raw is None:
            return None
        try:
            envelope = msgspec.json.decode(raw, type=JsonEnvelope)
            # What was taken stays taken: neither its age nor the clock nor a newer root matters, the signature does.
            return verify_document(
                envelope, DESIRED_STATE_TYPE, DesiredState, self._identity.trust.past_keys()
            )
        except (*UNREADABLE, Untrusted):
            _log.exception("desired.damaged")
            return None

    def _fail(self, error: SkerryError) -> None:
        if self._failing != error.code:
            cause = error.__cause__ if isinstance(error, Bug) else None
            _log.warning("sync.failing", code=error.code, reason=str(error), exc_info=cause)
            if isinstance(error, Untrusted):
                self.note("sync.untrusted", f"{error.code}: {error.message}")
        self._failing = error.code

    def _succeed(self) -> None:
        if self._failing:
            _log.info("sync.restored")
        self._failing = ""
        self.last_contact = self.now()
