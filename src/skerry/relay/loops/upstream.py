"""The way up: one request waits for news for all below, and short ones hand up what hosts have told.

Nothing here believes an answer that is not signed. What arrived above is forgotten only after the answer that says so;
what is in doubt is handed up again, and the hub ignores what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.carrier.retrying import Retry
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.errors import Bug, SkerryError, Unavailable, Untrusted, as_failure
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.ports.relay_store import Done, RelayStore
from skerry.relay.guests import Guests, is_passing
from skerry.relay.holdings import Holdings
from skerry.relay.identity import Identity
from skerry.relay.numbering import Numbering
from skerry.relay.queue import Batch, Queue
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.carrying import Carried, CarryAnswer, CarryRequest, HostAnswer
from skerry.spec.relay import MAX_RELAYS_BELOW, RelayView
from skerry.trust.relay import relay_subject
from skerry.trust.report import claimed_key
from skerry.trust.timekeeping import TimeTrust, raise_floor, trusted_now, verify_time

_log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

WAIT_S = 60.0
PAUSE_S = 0.2
GATHER_S = 0.05
TOKEN_RENEW = timedelta(minutes=40)
MAX_PASSING = 8
UP_THREADS = 2 * MAX_PASSING + 4
STUCK_ROUNDS = 5
NOT_TAKEN = "relay.not_taken"


class UpwardParts(msgspec.Struct, frozen=True):
    """What the way up works with."""

    identity: Identity
    store: RelayStore
    link: Link
    clock: Clock
    notifier: Notifier
    guests: Guests
    holdings: Holdings
    queue: Queue


class Upward:
    """Carries up and down. Lives in one event loop; `view` is asked for what the relay says of itself."""

    def __init__(self, parts: UpwardParts) -> None:
        self._parts = parts
        self._clock = parts.clock
        place = parts.identity.place
        self._numbering = Numbering(place.relay, parts.identity.key, parts.identity.tls_key, parts.store)
        self._time = msgspec.json.decode(parts.store.load("time") or b"{}", type=TimeTrust)
        self._token = ""
        self._token_at: datetime | None = None
        self._threads = ThreadPoolExecutor(UP_THREADS, "up")
        self._passing = asyncio.Semaphore(MAX_PASSING)
        self._news = asyncio.Event()
        self._news.set()
        self._restored = asyncio.Event()
        self._stuck: dict[str, int] = {}
        self._told_names: frozenset[str] = frozenset()
        self.failing = ""
        self.trouble = ""
        self.last_contact: datetime | None = None
        self.view: Callable[[], RelayView] = RelayView
        self.on_sent: Callable[[int], None] = lambda _: None
        parts.queue.on_taken = self._news.set

    def now(self) -> datetime:
        """Return the time this relay believes."""
        return trusted_now(self._clock.now(), self._time)

    def token(self) -> str:
        """Return the token that opens blobs above; empty while there is none. From any thread."""
        return self._token

    async def poll_forever(self) -> None:
        """Wait above for news, for ever; wait longer after each failure."""
        retry = Retry()
        while True:
            try:
                answer = await self.poll()
                retry.reset()
                if not answer.more:
                    # An upstream that answers at once, whatever the reason, must not make us spin.
                    await self._clock.sleep(PAUSE_S)
            except Exception as caught:
                error = as_failure(caught)
                self._fail(error)
                await self._clock.sleep(retry.next_wait_s(error))

    async def poll(self, wait_s: float = WAIT_S) -> CarryAnswer:
        """Ask once for news, in the name of all that are below.

        Raises:
            SkerryError: why no answer came.
        """
        holdings = self._parts.holdings
        name, state = self._parts.identity.place.relay, holdings.state
        sites = state.sites if state is not None else {}
        relays = state.relays if state is not None else {}
        return await self._carry(
            held={site: holdings.desired.get(site, 0) for site in sites},
            states={
                one: holdings.states.get(one, 0) for one in (name, *list(relays)[: MAX_RELAYS_BELOW - 1])
            },
            # While something is wrong, an answer is what says that it is over.
            wait_s=0.0 if self.failing else wait_s,
            view=self.view(),
        )

    async def hand_up_forever(self) -> None:
        """Hand up what hosts told, for ever; a failure holds nothing up for longer than the link is away."""
        retry = Retry()
        while True:
            await self._news.wait()
            self._news.clear()
            await self._clock.sleep(GATHER_S)  # what comes at once goes up at once
            more = True
            while more:
                try:
                    more = await self.hand_up()
                    retry.reset()
                except Exception as caught:
                    error = as_failure(caught)
                    if error.code != NOT_TAKEN:  # the way is open then
                        self._fail(error)
                    self._restored.clear()
                    await sleep_unless_woken(self._clock, retry.next_wait_s(error), self._restored)

    async def hand_up(self) -> bool:
        """Hand up one batch; tell whether there was something.

        Raises:
            SkerryError: why it did not arrive, or that some of it was not taken; that is kept.
        """
        parts = self._parts
        batch = await parts.queue.next_batch(self._clock.now().timestamp())
        if batch is None:
            if self._names() != self._told_names or any(one.has_view for one in parts.guests.relays()):
                await self._carry()
            return False
        hosts = [self._with_presence(carried) for carried in batch.hosts]
        answer = await self._carry(hosts=hosts)
        stuck = await self._settle(batch, {one.key: one for one in answer.hosts})
        if stuck:
            raise Unavailable(NOT_TAKEN, f"the upstream did not take the reports of {stuck} hosts")
        return True

    async def pass_on(self, hosts: Sequence[Carried], *, held: Mapping[str, int]) -> CarryAnswer:
        """Hand up in a request of its own what hosts say that are not known here, and return the answer.

        Raises:
            SkerryError: why no answer came.
        """
        if self._passing.locked():
            raise Unavailable("relay.busy", "too many unknown hosts at a time", retry_after_s=2)
        async with self._passing:
            return await self._carry(hosts=hosts, held=held, passing=True)

    @property
    def link(self) -> Link:
        """The link up, to be called by `ask`."""
        return self._parts.link

    def tell(self) -> None:
        """Tell above soon who dials this relay."""
        self._news.set()

    async def ask(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Make a call of the link in a thread of its own kind, so that none of them keeps the disk waiting."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: call(*arguments, **named)
        )

    async def acknowledge(self, acknowledged: Mapping[str, int]) -> None:
        """Note up to which sequence the hub has the reports of hosts, by their keys, and forget these."""
        for key, sequence in acknowledged.items():
            guest = self._parts.guests.host(key)
            if guest is not None and not guest.problem and sequence > guest.acknowledged:
                # What else the hub has said, and the host has not heard, stays.
                await self.hear(
                    HostAnswer(key=key, acknowledged=sequence, newest=guest.newest, time=guest.time)
                )
        await self._parts.queue.forget(
            [Done(key, reports=sequence) for key, sequence in acknowledged.items()]
        )

    def close(self) -> None:
        """Let go of the threads; calls under way end when the link is closed."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _carry(
        self,
        *,
        hosts: Sequence[Carried] = (),
        held: Mapping[str, int] | None = None,
        states: Mapping[str, int] | None = None,
        wait_s: float = 0.0,
        view: RelayView | None = None,
        passing: bool = False,
    ) -> CarryAnswer:
        parts, names = self._parts, self._names()
        if view is None and names != self._told_names:
            view = self.view()  # who dials this relay decides who stands behind it
        envelope, sequence = await asyncio.to_thread(
            lambda: self._numbering.report(
                sent_at=self.now(),
                clock=self._clock.now(),
                generation=parts.holdings.state.generation if parts.holdings.state else 0,
                view=view,
            )
        )
        reports = [(one, report) for one in parts.guests.relays() if (report := one.report) is not None]
        request = CarryRequest(
            relay=envelope,
            below=tuple(report for _, report in reports[:MAX_RELAYS_BELOW]),
            hosts=tuple(hosts),
            held=dict(held or {}),
            states=dict(states or {}),
            wait_s=wait_s,
            want_token=self._wants_token(),
        )
        self.on_sent(_rough_size(request))
        answer = await self.ask(parts.link.carry, request)
        if answer.acknowledged > self._numbering.newest:
            # Its own database was lost, or is an old copy: nothing was taken, and the next number is good.
            self._numbering.heard(answer.acknowledged)
            raise Unavailable("relay.old_number", "the upstream knows higher numbers of this relay")
        if view is not None:
            self._told_names = names
        for relay, report in reports:
            if relay.report is report:
                relay.report, relay.has_view = None, False
        await self._take(answer, sequence, states=not passing)
        self._succeed()
        return answer

    async def _take(self, answer: CarryAnswer, sequence: int, *, states: bool) -> None:
        """Take what is signed, refuse the rest, and hear what was said to hosts."""
        if answer.blob_token:
            self._token, self._token_at = answer.blob_token, self.now()
        refused: Untrusted | None = None
        await self._follow_root([*answer.desired, *answer.states, *([answer.time] if answer.time else [])])
        try:
            if answer.time is not None:
                self._take_time(answer.time, sequence)
        except Untrusted as error:
            refused = error
        holdings = self._parts.holdings
        for envelope in answer.states:
            try:
                if await holdings.take_state(envelope, now=self.now()) and holdings.state is not None:
                    self._time = raise_floor(self._time, holdings.state.issued_at)
            except Untrusted as error:
                refused = error
        for envelope in answer.desired:
            try:
                await holdings.take_desired(envelope)
            except Untrusted as error:
                # What was asked for an unknown host may be of a site that is not below yet.
                refused = error if states or error.code != "desired.wrong_site" else refused
        for host in answer.hosts:
            await self.hear(host)
        if refused is not None:
            raise refused

    async def hear(self, answer: HostAnswer) -> None:
        """Note what the hub said to a host, and wake it if that is worth it."""
        parts = self._parts
        guest = parts.guests.host(answer.key)
        if guest is None:
            return
        if answer.problem and is_passing(answer.problem):
            answer = msgspec.structs.replace(answer, problem="", detail="")
        if answer.problem or answer.tell_all:
            # What is above is not what this host has told: it is to begin again with what it has.
            guest.begun_again += 1
            guest.held = guest.telling = 0
            await parts.queue.let_go(answer.key)
        worth_waking = guest.take(answer, self._clock.monotonic())
        if not guest.came_by:
            if worth_waking:
                parts.notifier.notify(f"host:{guest.key}")
            return
        below = parts.guests.relay_named(guest.came_by)
        if below is not None:
            below.told.add(guest.key)
            if worth_waking and not below.urgent:
                below.urgent = True
                parts.notifier.notify("below")

    async def _settle(self, batch: Batch, answers: Mapping[str, HostAnswer]) -> int:
        """Forget what has arrived; return of how many hosts something was not taken."""
        done: list[Done] = []
        given_up: list[Done] = []
        stuck = 0
        for carried in batch.hosts:
            key = carried.key
            answer = answers.get(key)
            reports, metrics = batch.reports.get(key, 0), batch.metrics.get(key, 0)
            reached = max(answer.acknowledged, answer.held) if answer is not None else 0
            taken = answer.metrics if answer is not None else 0
            if answer is not None and answer.problem and not is_passing(answer.problem):
                given_up.append(Done(key, metrics=1 << 62))
                self._stuck.pop(key, None)
                if self._parts.guests.host(key) is None:
                    await self._parts.queue.let_go(key)
                continue
            done.append(Done(key, reports=reached, metrics=taken))
            if (reached >= reports and taken >= metrics) or (answer is not None and answer.tell_all):
                self._stuck.pop(key, None)
                continue
            stuck += 1
            if answer is None or not answer.problem:
                await self._give_back(key, given_up)
        await self._parts.queue.forget(done)
        await self._parts.queue.forget(given_up, given_up=True)
        return stuck

    async def _give_back(self, key: str, given_up: list[Done]) -> None:
        """Let a host begin again whose reports the upstream neither takes nor refuses, round after round."""
        self._stuck[key] = self._stuck.get(key, 0) + 1
        if self._stuck[key] < STUCK_ROUNDS:
            return
        del self._stuck[key]
        given_up.append(Done(key, metrics=1 << 62))
        guest = self._parts.guests.host(key)
        if guest is not None:
            guest.begun_again += 1
            guest.held, guest.tell_all = 0, True
        await self._parts.queue.let_go(key)
        _log.warning("reports.given_back", key=key, host=guest.name if guest is not None else "")

    def _with_presence(self, carried: Carried) -> Carried:
        guest = self._parts.guests.host(carried.key)
        return (
            msgspec.structs.replace(carried, there=True)
            if guest and (guest.waiting or guest.there)
            else carried
        )

    async def _follow_root(self, signed: Sequence[JsonEnvelope]) -> None:
        """Look for a newer root when the hub signs with a key that the one held does not name."""
        trust = self._parts.identity.trust
        if not self._token or all(trust.knows(claimed_key(envelope)) for envelope in signed):
            return
        if await self.ask(trust.follow_root, self._parts.link, self._token):
            _log.info("root.followed", version=trust.root_version)

    def _take_time(self, envelope: JsonEnvelope, sequence: int) -> None:
        identity = self._parts.identity
        self._time = verify_time(
            envelope,
            list(identity.trust.keys),
            host=relay_subject(identity.place.relay),
            sequence=sequence,
            system=self._clock.now(),
        )
        self._parts.store.save({"time": msgspec.json.encode(self._time)})
        _log.warning("clock.corrected", offset_s=round(self._time.offset_s))

    def _names(self) -> frozenset[str]:
        """Return who dials this relay, as its view tells."""
        guests, now = self._parts.guests, self._clock.monotonic()
        return frozenset((*guests.callers(now), *map(relay_subject, guests.callers_below(now))))

    def _wants_token(self) -> bool:
        return self._token_at is None or abs(self.now() - self._token_at) > TOKEN_RENEW

    def _fail(self, error: SkerryError) -> None:
        if self.failing != error.code:
            cause = error.__cause__ if isinstance(error, Bug) else None
            _log.warning("upstream.failing", code=error.code, reason=str(error), exc_info=cause)
        self.failing, self.trouble = error.code, str(error)[:500]

    def _succeed(self) -> None:
        if self.failing:
            _log.info("upstream.restored")
            self._restored.set()
        self.failing = self.trouble = ""
        self.last_contact = self.now()


def _rough_size(request: CarryRequest) -> int:
    """Return about how many bytes a request has, without writing it out once more."""
    envelopes = [request.relay, *request.below]
    for carried in request.hosts:
        envelopes.extend(carried.reports)
        if carried.metrics is not None:
            envelopes.append(carried.metrics)
    named = len(request.held) + len(request.states) + len(request.hosts)
    return sum(len(envelope["payload"]) + 350 for envelope in envelopes) + 40 * named
