"""What a relay hands up and is handed: the hub's side of `POST /v1/carry`.

- A relay is believed for what it says of itself alone. Each host's reports are taken as if the host had come itself,
  and what is wrong with one host is said in its answer and matters to no other.
- A relay is handed the DesiredStates of the sites behind it, and the RelayStates of itself and those below it: only
  those that it asks for, and only newer ones.
- A request whose RelayReport is not new gets its number acknowledged, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.hub.hearing import Heard, Hearing, KnownHost
from skerry.hub.issuing import Issuer
from skerry.hub.relays import KnownRelay, Relays
from skerry.kit.errors import SkerryError, Unauthenticated, Unavailable, Untrusted
from skerry.ports.clock import Clock
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.carrying import MAX_DESIRED, Carried, CarryAnswer, CarryRequest, HostAnswer
from skerry.spec.relay import MAX_RELAYS_BELOW, RelayReport
from skerry.trust.relay import relay_subject, verify_relay_report
from skerry.trust.report import claimed_key
from skerry.trust.timekeeping import OFFSET_WORTH_CORRECTING

_log = structlog.get_logger()

AT_A_TIME = 64
"""Hosts of one request whose reports are taken together: their changes are stored in one step."""
ANSWER_BYTES = 4 << 20
MOST_NEWS = 500
NOTE_EVERY = timedelta(minutes=10)


class Taken(msgspec.Struct, frozen=True):
    """What a request's hosts are answered, and those whose reports were new: they came by this relay."""

    answers: tuple[HostAnswer, ...]
    heard: tuple[KnownHost, ...]


class Carrying:
    """Takes what relays hand up, and answers what is new for them.

    `on_present` is called with a host that waits at a relay now, or whose reports have just come, and the time.
    """

    def __init__(
        self, hearing: Hearing, relays: Relays, issuer: Issuer, clock: Clock, notifier: Notifier
    ) -> None:
        self._hearing = hearing
        self._relays = relays
        self._issuer = issuer
        self._clock = clock
        self._notifier = notifier
        self._news: dict[str, dict[str, KnownHost]] = {}
        self.on_present: Callable[[str, datetime], None] = lambda _host, _at: None
        hearing.on_session = self.tell_of

    async def carry(self, request: CarryRequest) -> CarryAnswer:
        """Take what is below a relay, then answer with what is new, waiting for it up to `request.wait_s`.

        Raises:
            Unauthenticated: the relay is unknown (`relay.unknown`).
            Untrusted: it has not signed its report.
        """
        relay = await self._relays.known(claimed_key(request.relay))
        report = verify_relay_report(request.relay, relay.key, relay=relay.name)
        if not await self._relays.hear(relay, report):
            return CarryAnswer(acknowledged=relay.record.sequence)
        relay.dialled_at = self._clock.now()
        below = await self._hear_below(relay, request.below)
        taken = await self._take(request.hosts)
        self._note_ways(relay, taken.heard)
        await self._relays.ways.flush()
        answer = await self._news_for(relay, request)
        off = abs(report.sent_at - self._clock.now()) > OFFSET_WORTH_CORRECTING
        hurry = off or request.want_token or _says_more(taken.answers)
        if request.wait_s > 0 and not hurry and not _has_news(answer):
            # While it was gathered, something that had been looked at may have changed. Now all is at hand, and
            # nothing can change between this look and the wait.
            answer = await self._news_for(relay, request)
            if not _has_news(answer):
                await self._wait(relay, request)
                answer = await self._news_for(relay, request)
            taken = self._still_good(taken)
        told = {told.key for told in taken.answers}
        return msgspec.structs.replace(
            answer,
            acknowledged=relay.record.sequence,
            below=below,
            hosts=(*taken.answers, *(news for news in answer.hosts if news.key not in told)),
            blob_token=self._hearing.token_for(relay.waiting_key, "") if request.want_token else "",
            time=self._hearing.time_for(relay_subject(relay.name), report.sequence) if off else None,
        )

    def tell_of(self, host: KnownHost) -> None:
        """Tell the relays that a host is behind of what the hub says of it now, such as that it is in quarantine."""
        for name in self._relays.names:
            known = self._relays.get(name)
            if known is None or self._relays.ways.host_came(name, host.name, self._clock.now()) is None:
                continue
            news = self._news.setdefault(name, {})
            if len(news) < MOST_NEWS:  # who is not told learns it when the host next reports
                news[host.name] = host
            self._notifier.notify(known.waiting_key)
        self._relays.issuing.mark_site(host.site)  # hosts in quarantine are left out

    async def _hear_below(self, relay: KnownRelay, envelopes: Sequence[JsonEnvelope]) -> dict[str, int]:
        """Take the reports of relays below; return which number of each the hub has."""
        heard = await asyncio.gather(*(self._hear_one(relay, envelope) for envelope in envelopes))
        self._note_below(relay, [lower for lower, new in heard if lower is not None and new])
        return {lower.name: lower.record.sequence for lower, _ in heard if lower is not None}

    async def _hear_one(self, relay: KnownRelay, envelope: JsonEnvelope) -> tuple[KnownRelay | None, bool]:
        """Take the report of one relay below; return the relay if there is one, and whether the report was new."""
        try:
            lower = await self._relays.known(claimed_key(envelope))
            report: RelayReport = verify_relay_report(envelope, lower.key, relay=lower.name)
            if lower is relay:
                return None, False
            return lower, await self._relays.hear(lower, report)
        except (Untrusted, Unauthenticated) as error:
            _log.warning("relay.below_refused", relay=relay.name, code=error.code, reason=error.message)
            return None, False

    def _note_below(self, relay: KnownRelay, lowers: Sequence[KnownRelay]) -> None:
        """Note that relays came by another, and by those between them that list them, with the hosts they list."""
        now, ways = self._clock.now(), self._relays.ways
        changed = {low.name for low in lowers if ways.note_relay(relay.name, low.name, now)}
        all_below = self._relays.below(relay.name) if lowers else frozenset[str]()
        between = [known for name in all_below if (known := self._relays.get(name)) is not None]
        for lower in lowers:
            for known in between:
                view = known.record.view
                if known is not lower and view is not None and lower.name in view.relays:
                    changed |= {lower.name} if ways.note_relay(known.name, lower.name, now) else set()
            view = lower.record.view
            for host in view.hosts if view is not None else ():
                came = ways.host_came(relay.name, host, now)
                site = ways.site_of(relay.name, host)
                if came is not None and site and ways.note_host(lower.name, host, site, came):
                    changed.add(lower.name)
        for name in changed:
            for one in (name, *self._relays.above(name)):
                self._relays.issuing.mark(one)

    def _note_ways(self, relay: KnownRelay, hosts: Iterable[KnownHost]) -> None:
        """Note that hosts came by a relay, and by the relay below it that lists them."""
        now, ways = self._clock.now(), self._relays.ways
        due: list[KnownHost] = []
        for host in hosts:
            came = ways.host_came(relay.name, host.name, now)
            if ways.note_host(relay.name, host.name, host.site, now):
                self._relays.issuing.mark_site(host.site)
            if came is None or now - came >= NOTE_EVERY:
                due.append(host)
        if not due:
            return
        for name in self._relays.below(relay.name):
            lower = self._relays.get(name)
            view = lower.record.view if lower is not None else None
            for host in due if view is not None and lower is not None else ():
                if (
                    view is not None
                    and host.name in view.hosts
                    and ways.note_host(name, host.name, host.site, now)
                ):
                    self._relays.issuing.mark_site(host.site)

    async def _take(self, items: Sequence[Carried]) -> Taken:
        """Take what hosts handed over, many at a time, but what is of one host in its order."""
        by_key: dict[str, list[Carried]] = {}
        for item in items:
            by_key.setdefault(item.key, []).append(item)
        heard: list[KnownHost] = []
        turns = asyncio.Semaphore(AT_A_TIME)

        async def take(key: str) -> HostAnswer:
            answer = HostAnswer(key=key)
            async with turns:
                for item in by_key[key]:
                    answer = await self._take_one(item, heard)
                    if answer.problem:
                        break
            return answer

        answers = await asyncio.gather(*(take(key) for key in by_key))
        return Taken(tuple(answers), tuple(heard))

    async def _take_one(self, item: Carried, heard_of: list[KnownHost]) -> HostAnswer:
        try:
            host = await self._hearing.known(item.key)
            if not item.reports:
                self._hearing.identities.refuse(host.name)
                if item.there:
                    self.on_present(host.name, self._clock.now())
                return HostAnswer(key=item.key, acknowledged=host.sequence)
            heard = await self._hearing.take(host, item.reports, item.metrics, age_s=item.age_s)
        except Unavailable:
            raise  # not this host's fault: the relay keeps it all and comes again
        except SkerryError as error:
            _log.warning("relay.host_refused", key=item.key[:16], code=error.code, reason=error.message)
            return _refused(item.key, error)
        if heard.fresh:
            heard_of.append(host)
            if item.there or item.age_s < OFFSET_WORTH_CORRECTING.total_seconds():
                self.on_present(host.name, self._clock.now())
        return self._answer(host, heard, item)

    def _answer(self, host: KnownHost, heard: Heard, item: Carried) -> HostAnswer:
        hearing, newest = self._hearing, heard.newest
        if heard.replayed:
            return HostAnswer(
                key=item.key,
                acknowledged=heard.acknowledged,
                newest=hearing.identities.news_for(newest),
                metrics=heard.metrics,
                tell_all=heard.broken,
            )
        off = hearing.is_off(newest, item.age_s)
        time = hearing.time_for(host.name, newest.sequence) if off else None
        if self._issuer.recovering.is_from_before(newest):
            return HostAnswer(key=item.key, acknowledged=heard.acknowledged, metrics=heard.metrics, time=time)
        return HostAnswer(
            key=item.key,
            acknowledged=heard.acknowledged,
            newest=hearing.identities.news_for(newest),
            tell_all=hearing.has_forgotten(host, newest),
            metrics=heard.metrics,
            time=time,
            blob_token=hearing.blob_token(host) if item.want_token else "",
        )

    def _still_good(self, taken: Taken) -> Taken:
        """Return what hosts are answered after a wait: one may be in quarantine, or removed, by now."""
        answers: list[HostAnswer] = []
        hosts = {host.key.keyid: host for host in taken.heard}
        for answer in taken.answers:
            host = hosts.get(answer.key)
            try:
                if host is not None:
                    self._hearing.refuse(host)
            except SkerryError as error:
                answer = _refused(answer.key, error)
            answers.append(answer)
        return Taken(tuple(answers), taken.heard)

    async def _wait(self, relay: KnownRelay, request: CarryRequest) -> None:
        relays = (relay_subject(name) for name in request.states)
        hosts = (host.key for host in request.hosts)
        keys = [*request.held, *relays, *(key for key in map(self._hearing.waiting_key, hosts) if key)]
        relay.waiting += 1
        try:
            await self._notifier.wait(relay.waiting_key, request.wait_s, also=keys)
        finally:
            relay.waiting -= 1
        if not self._relays.is_current(relay):
            hint = "it was removed, or other keys took its place: join again with a new token"
            raise Unauthenticated("relay.unknown", "no relay with this key is enrolled here", hint=hint)

    async def _news_for(self, relay: KnownRelay, request: CarryRequest) -> CarryAnswer:
        """Return what is newer than what a relay holds, as much as fits into one answer."""
        room = ANSWER_BYTES
        states, desired = list[JsonEnvelope](), list[JsonEnvelope]()
        more = False
        for envelope in await self._newer_states(relay, request):
            room -= len(envelope["payload"])
            more = more or (room < 0 and bool(states))
            if not more and len(states) < MAX_RELAYS_BELOW:
                states.append(envelope)
        behind: frozenset[str] | None = None
        for site, generation in request.held.items():
            issued = await self._issuer.issued(site)
            if issued.generation <= generation or issued.envelope is None:
                continue
            if behind is None:
                behind = self._relays.sites_behind(relay.name)
            if site not in behind or not self._may_hand(site, generation, issued.generation):
                continue
            room -= len(issued.envelope["payload"])
            if len(desired) >= MAX_DESIRED or (room < 0 and (desired or states)):
                more = True
                break
            desired.append(issued.envelope)
        return CarryAnswer(
            hosts=self._take_news(relay.name), states=tuple(states), desired=tuple(desired), more=more
        )

    async def _newer_states(self, relay: KnownRelay, request: CarryRequest) -> list[JsonEnvelope]:
        """Return the newer RelayStates that a relay may have, its own first."""
        found: list[JsonEnvelope] = []
        below: frozenset[str] | None = None
        for name in sorted(request.states, key=lambda name: (name != relay.name, name)):
            issued = await self._relays.issuing.issued(name)
            if issued.envelope is None or issued.generation <= request.states[name]:
                continue
            if name != relay.name and below is None:
                below = self._relays.below(relay.name)
            if name == relay.name or (below is not None and name in below):
                found.append(issued.envelope)
        return found

    def _may_hand(self, site: str, held: int, stored: int) -> bool:
        """Tell whether a site may be handed what is issued: it, or its relay, may be ahead of a restored hub."""
        recovering = self._issuer.recovering
        if recovering.held(site) is not None or recovering.is_lost(site, held, stored):
            return False
        return self._hearing.knows_enough(site)

    def _take_news(self, relay: str) -> tuple[HostAnswer, ...]:
        answers: list[HostAnswer] = []
        for host in self._news.pop(relay, {}).values():
            answer = HostAnswer(key=host.key.keyid, acknowledged=host.sequence)
            try:
                self._hearing.refuse(host)
                newest = self._hearing.identities.newest(host.name)
                answer = msgspec.structs.replace(answer, newest=newest)
            except SkerryError as error:
                answer = _refused(answer.key, error)
            answers.append(answer)
        return tuple(answers)


def _refused(key: str, error: SkerryError) -> HostAnswer:
    return HostAnswer(key=key, problem=error.code[:64], detail=error.message[:1024])


def _says_more(answers: Sequence[HostAnswer]) -> bool:
    """Tell whether a host is to hear something at once, beyond that its reports are here."""
    return any(a.problem or a.newest or a.tell_all or a.time or a.blob_token for a in answers)


def _has_news(answer: CarryAnswer) -> bool:
    return bool(answer.hosts or answer.states or answer.desired)
