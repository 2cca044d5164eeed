"""The relay behind the carrier API: to hosts and to relays below it answers as a hub does, from what it holds.

Rules: what is taken was verified, and is on disk before it is said to be held; what is handed down was verified, too.
Enrolment and changes of keys go through to the hub. Nothing is ever dialled downwards.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from skerry.kit.errors import Denied, SkerryError, Unavailable, Untrusted
from skerry.ports.blobs import ReadableBlobs
from skerry.ports.carrier_backend import Gone
from skerry.ports.link import Link
from skerry.relay.cache import BlobCache
from skerry.relay.files import FAILING_PATIENCE_S, MetadataFiles
from skerry.relay.guests import Below
from skerry.relay.hosting import Hosting, HostingParts, verified
from skerry.relay.identity import Identity
from skerry.relay.loops.upstream import Upward
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    JsonEnvelope,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import (
    MAX_CARRIED,
    MAX_DESIRED,
    Carried,
    CarryAnswer,
    CarryRequest,
    HostAnswer,
    RelayEnrollAnswer,
    RelayEnrollRequest,
)
from skerry.spec.relay import RelayReport, RelayState
from skerry.trust.relay import relay_subject, verify_relay_report
from skerry.trust.report import claimed_key
from skerry.trust.timekeeping import OFFSET_WORTH_CORRECTING
from skerry.trust.tokens import verify_blob_token

_log = structlog.get_logger()

MAX_DESIRED_BYTES = 3 << 20
"""Well below what a relay takes as an answer."""
NO_ROOM = "relay.queue_full"
ASK_TIME_EVERY_S = 10.0
DELTA_PATIENCE_S = 10.0
"""Less than what relays and hosts wait for an answer, and more than a satellite link takes."""


class RelayBackend:
    """A `CarrierBackend` of a relay."""

    def __init__(
        self, parts: HostingParts, identity: Identity, *, link: Link, cache: BlobCache, files: MetadataFiles
    ) -> None:
        self._parts = parts
        self._identity = identity
        self._link = link
        self._cache = cache
        self._files = files
        self.hosting = Hosting(parts)
        parts.holdings.on_news = self._on_news

    @property
    def blobs(self) -> ReadableBlobs:
        """Where blobs are read."""
        return self._cache

    @property
    def _upward(self) -> Upward:
        return self._parts.upward

    async def trust_root(self, digest: str) -> bytes:
        """Return the bytes of the TrustRoot with a digest."""
        return await self._files.trust_root(digest)

    async def metadata(self, name: str) -> bytes:
        """Return a metadata file, from here or from above."""
        return await self._files.metadata(name)

    async def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Let the hub give a host its place."""
        return await self._upward.ask(self._link.enroll, request)

    async def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Let the hub put a host's new keys in the place of the old ones."""
        return await self._upward.ask(self._link.change_keys, request)

    async def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Let the hub take in a relay below."""
        return await self._upward.ask(self._link.enroll_relay, request)

    async def deltas(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        """Return which deltas the hub has; none while it is away, or silent: whoever asks has a limit of its own."""
        token = self._upward.token()
        if not token:
            return DeltaAnswer()
        try:
            async with asyncio.timeout(FAILING_PATIENCE_S if self._upward.failing else DELTA_PATIENCE_S):
                return await self._upward.ask(self._link.deltas, request, token=token)
        except (Unavailable, Denied, TimeoutError):
            return DeltaAnswer()

    def hosts_behind(self, holder: str) -> int:
        """Return for how many hosts the holder of a blob token asks."""
        below = self._parts.guests.relay_named(holder.partition(":")[2])
        return 1 if below is None else sum(one.came_by == below.name for one in self._parts.guests.hosts())

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        """Take a host's reports, and answer with what is new."""
        return await self.hosting.sync(request, gone=gone)

    def check_blob_token(self, token: str) -> str:
        """Return the host or relay of a good token, of the hub's or of this relay's own."""
        keys = {key.keyid: key for key in (*self._identity.trust.keys, self._identity.key.verifier)}
        claims = verify_blob_token(token, keys, self._upward.now())
        if claims.key == self._identity.key.key_id and not self._is_below(claims.host):
            raise Denied("blob_token.invalid", f"{claims.host} does not belong here any more")
        return claims.host

    async def carry(self, request: CarryRequest) -> CarryAnswer:
        """Take what is below a relay below, and answer with what is new for it."""
        below = self._parts.guests.relay(claimed_key(request.relay))
        if below is None:
            return await self._pass_on(request)
        report = verify_relay_report(request.relay, below.key, relay=below.name)
        if not below.is_new(report.sequence):
            return CarryAnswer(acknowledged=below.sequence)
        self._note_report(below, request.relay, report)
        if below.heard_at is None or not below.direct:
            self._upward.tell()
        below.heard_at, below.direct = self._parts.clock.monotonic(), True
        for envelope in request.below:
            self._note_below(envelope)
        timed = await self._ask_time(below, request, report)
        answers, passed = await self._take_hosts(below, request)
        answers += timed.hosts
        deadline = self._parts.clock.monotonic() + (0.0 if answers or timed.time else request.wait_s)
        while True:
            desired, more = await self._newer_desired(request.held)
            states = await self._newer_states(request.states)
            left_s = deadline - self._parts.clock.monotonic()
            news = desired or states or passed or below.urgent or request.want_token
            if news or left_s <= 0 or self._parts.notifier.closed:
                break
            await self._parts.notifier.wait("below", left_s)
        give_token = request.want_token
        return CarryAnswer(
            acknowledged=below.sequence,
            hosts=(*answers, *self._told(below, room=2 * MAX_CARRIED - len(answers))),
            desired=(*desired, *passed)[:MAX_DESIRED],
            states=tuple(states),
            blob_token=self.hosting.token(relay_subject(below.name), "") if give_token else "",
            time=timed.time,
            more=more or bool(below.told),
        )

    async def _ask_time(self, below: Below, request: CarryRequest, report: RelayReport) -> CarryAnswer:
        """Ask above what time it is for a relay below whose clock seems to be off; nothing while nobody answers.

        What else the hub says to it comes with that, and is handed on.
        """
        now, nothing = self._parts.clock.monotonic(), CarryAnswer(acknowledged=0)
        off = abs(report.sent_at - self._upward.now()) > OFFSET_WORTH_CORRECTING
        if not off or self._upward.failing or now < below.time_asked_at + ASK_TIME_EVERY_S:
            return nothing
        below.time_asked_at = now
        try:
            return await self._upward.ask(self._link.carry, CarryRequest(relay=request.relay))
        except SkerryError as error:
            _log.info("relay.no_time", relay=below.name, code=error.code)
            return nothing

    async def _take_hosts(
        self, below: Below, request: CarryRequest
    ) -> tuple[list[HostAnswer], tuple[JsonEnvelope, ...]]:
        """Keep what hosts told a relay below; what is not of a host that is known goes up at once.

        Returns also the states that the upstream has for hosts that are not known.
        """
        guests, held = self._parts.guests, self._parts.holdings.desired
        known = [carried for carried in request.hosts if guests.host(carried.key) is not None]
        strangers = [carried for carried in request.hosts if guests.host(carried.key) is None]
        answers = list(await asyncio.gather(*(self._take_host(below, carried) for carried in known)))
        if not strangers:
            return answers, ()
        unknown = {site: generation for site, generation in request.held.items() if site not in held}
        passed = await self._upward.pass_on(strangers, held=unknown)
        return [*answers, *passed.hosts], passed.desired

    async def _take_host(self, below: Below, carried: Carried) -> HostAnswer:
        guest = self._parts.guests.host(carried.key)
        assert guest is not None
        now = self._parts.clock.monotonic()
        guest.came_by, guest.there = below.name, carried.there
        guest.heard_at = now - min(carried.age_s, now)
        if guest.problem and now < guest.problem_until:
            return HostAnswer(key=guest.key, problem=guest.problem, detail=guest.detail)
        if not carried.reports:
            return guest.hear(0)
        try:
            reports = await asyncio.to_thread(verified, guest, carried.reports)
        except Untrusted as error:
            return HostAnswer(key=guest.key, problem=error.code, detail=error.message[:1024])
        metrics = await self.hosting.take(
            guest, reports, carried.reports, metrics=carried.metrics, age_s=carried.age_s
        )
        below.told.discard(guest.key)
        heard = guest.hear(reports[-1].sequence)
        missed = max(heard.held, heard.acknowledged) < reports[-1].sequence and not heard.tell_all
        return msgspec.structs.replace(
            heard,
            metrics=metrics,
            problem=NO_ROOM if missed else "",
            detail="the relay above has no room" if missed else "",
        )

    def _told(self, below: Below, *, room: int) -> list[HostAnswer]:
        """Return what the hub has said to hosts of a relay below, each once."""
        answers: list[HostAnswer] = []
        while below.told and len(answers) < room:
            guest = self._parts.guests.host(below.told.pop())
            if guest is not None and guest.came_by == below.name:
                answers.append(guest.hear(0))
        below.urgent = bool(below.told)
        return answers

    async def _newer_desired(self, held: dict[str, int]) -> tuple[list[JsonEnvelope], bool]:
        """Return the states that are newer than what a relay below holds; True when there are more."""
        generations = self._parts.holdings.desired
        newer = [site for site, generation in held.items() if generations.get(site, 0) > generation]
        found: list[JsonEnvelope] = []
        size = 0
        for site in newer:
            envelope = await self._parts.holdings.envelope("desired", site)
            if envelope is None:
                continue
            size += len(envelope["payload"])
            if len(found) >= MAX_DESIRED or (found and size > MAX_DESIRED_BYTES):
                return found, True
            found.append(envelope)
        return found, False

    async def _newer_states(self, held: dict[str, int]) -> list[JsonEnvelope]:
        generations = self._parts.holdings.states
        own = self._identity.place.relay
        found: list[JsonEnvelope] = []
        size = 0
        for name, generation in held.items():
            if name == own or generations.get(name, 0) <= generation:
                continue
            envelope = await self._parts.holdings.envelope("relay-state", name)
            if envelope is None:
                continue
            size += len(envelope["payload"])
            if found and size > MAX_DESIRED_BYTES:
                break  # the rest is newer still when it asks again
            found.append(envelope)
        return found

    def _note_below(self, envelope: JsonEnvelope) -> None:
        """Note the report of a relay further below, to be handed up; what does not verify is left out."""
        try:
            below = self._parts.guests.relay(claimed_key(envelope))
            if below is None:
                return
            report = verify_relay_report(envelope, below.key, relay=below.name)
        except SkerryError as error:
            _log.warning("relay_report.refused", code=error.code, reason=error.message)
            return
        if below.is_new(report.sequence):
            below.direct = False
            self._note_report(below, envelope, report)

    def _note_report(self, below: Below, envelope: JsonEnvelope, report: RelayReport) -> None:
        # One that tells how it stands is not given up for a newer one that does not.
        if report.view is not None or below.report is None or not below.has_view:
            below.report, below.has_view = envelope, report.view is not None

    async def _pass_on(self, request: CarryRequest) -> CarryAnswer:
        """Let the hub itself answer a relay that is not known here (yet): in its own name, and at once."""
        answer = await self._upward.ask(self._link.carry, msgspec.structs.replace(request, wait_s=0.0))
        if not (answer.hosts or answer.desired or answer.states or answer.blob_token) and request.wait_s > 0:
            await self._parts.notifier.wait("state", request.wait_s)
        return answer

    def _is_below(self, host: str) -> bool:
        guests = self._parts.guests
        kind, colon, name = host.partition(":")
        return guests.relay_named(name) is not None if colon and kind else guests.has_host(host)

    def _on_news(self, key: str) -> None:
        self._parts.notifier.notify(key)
        self._parts.notifier.notify("below")

    def follow(self, state: RelayState) -> None:
        """Know whom a newer state of this relay names; wake who waits to be known."""
        self._parts.guests.follow(state)
        self._parts.notifier.notify("state")
        self._parts.notifier.notify("below")
