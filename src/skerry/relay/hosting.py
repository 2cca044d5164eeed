"""What a relay does for the hosts that dial it: takes their reports, and answers with what it holds for them.

A host that is known here is answered whether or not the upstream is there. What one that is not known says is handed
up at once, and the hub's answer handed back; nothing of it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.kit.errors import Untrusted
from skerry.ports.carrier_backend import Gone
from skerry.ports.clock import Clock
from skerry.ports.relay_store import KeptMetrics, KeptReport, Taking
from skerry.relay.guests import Guest, Guests, problem_error, unverified
from skerry.relay.holdings import Holdings
from skerry.relay.loops.upstream import Upward
from skerry.relay.queue import Queue, tells_something
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.carrying import Carried
from skerry.spec.report import Report
from skerry.trust.keys import SigningKey
from skerry.trust.report import claimed_key, unbroken, verify_metrics, verify_report
from skerry.trust.timekeeping import OFFSET_WORTH_CORRECTING
from skerry.trust.tokens import issue_blob_token

_log = structlog.get_logger()

BLOB_TOKEN_TTL = timedelta(hours=1)
REPLAY_PAUSE_S = 2.0
TIME_PATIENCE_S = 10.0
"""For so long is waited above all for the hub's time, without which a host can believe nothing else."""
CLOCK_IS_OFF = 2 * OFFSET_WORTH_CORRECTING
"""Relay and host may be off by as much as the hub corrects nobody for, in opposite directions."""


class HostingParts(msgspec.Struct, frozen=True):
    """What is needed to answer hosts. `keeper` names this relay and its database."""

    guests: Guests
    queue: Queue
    holdings: Holdings
    upward: Upward
    notifier: Notifier
    clock: Clock
    key: SigningKey
    keeper: str


class Hosting:
    """Answers hosts. Lives in one event loop."""

    def __init__(self, parts: HostingParts) -> None:
        self._parts = parts
        self._now: Callable[[], float] = parts.clock.monotonic

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        """Take a host's reports, and answer with what is new, waiting up to `request.wait_s` for it, or until `gone`.

        Raises:
            Untrusted, Denied: the reports are not the host's, or the hub refuses it.
            Unavailable: the host is not known here, and the upstream is not there.
        """
        guest = self._parts.guests.host(claimed_key(request.reports[0]))
        if guest is None:
            return await self._pass_on(request)
        guest.refuse(self._now())
        reports = await asyncio.to_thread(verified, guest, request.reports)
        newest = reports[-1]
        replayed = newest.sequence <= max(guest.held, guest.acknowledged)
        guest.heard_at, guest.came_by, guest.there = self._now(), "", False
        taken_metrics = await self.take(guest, reports, request.reports, metrics=request.metrics)
        if replayed:
            # Perhaps a host whose database was lost, perhaps somebody else: what is signed helps only the one.
            await self._parts.notifier.wait(f"host:{guest.key}", min(request.wait_s, REPLAY_PAUSE_S))
            return await self._answer(guest, newest, metrics=taken_metrics, token=False)
        if abs(newest.sent_at - self._parts.upward.now()) > CLOCK_IS_OFF:
            await self._wait_for_time(guest, newest, gone)
        if not self._hurries(guest, newest, request):
            await self._wait(guest, request.wait_s, gone)
        guest.refuse(self._now())
        return await self._answer(guest, newest, metrics=taken_metrics, token=request.want_token)

    async def take(
        self,
        guest: Guest,
        reports: Sequence[Report],
        envelopes: Sequence[JsonEnvelope],
        *,
        metrics: JsonEnvelope | None,
        age_s: float = 0.0,
    ) -> int:
        """Keep a host's verified reports; return the sequence of the metrics that are kept, 0 if none are.

        When some are missing before them, nothing is kept and the host is asked to hand over everything again.
        """
        newest, begun = reports[-1], guest.begun_again
        if len(unbroken(reports, max(guest.held, guest.acknowledged))) < len(reports):
            guest.tell_all, guest.begun_again = True, begun + 1
            guest.held = guest.telling = 0
            await self._parts.queue.let_go(guest.key)
            return 0
        taking = self._taking(guest, reports, envelopes, metrics, age_s)
        taken = await self._parts.queue.take(taking)
        if taken.reports and guest.begun_again == begun:
            guest.held = max(guest.held, newest.sequence)
            telling = [report.sequence for report in reports if tells_something(report)]
            guest.telling = max(guest.telling, *telling, 0) if telling else guest.telling
        return taking.metrics.sequence if taken.metrics and taking.metrics is not None else 0

    def _taking(
        self,
        guest: Guest,
        reports: Sequence[Report],
        envelopes: Sequence[JsonEnvelope],
        metrics: JsonEnvelope | None,
        age_s: float,
    ) -> Taking:
        taken_at = self._parts.clock.now().timestamp() - age_s
        kept = tuple(
            KeptReport(
                guest.key,
                report.sequence,
                not tells_something(report),
                msgspec.json.encode(envelope),
                taken_at,
            )
            for report, envelope in zip(reports, envelopes, strict=True)
            if report.sequence > guest.acknowledged
        )
        if metrics is None:
            return Taking(guest.key, kept)
        try:
            batch = verify_metrics(metrics, guest.verify_with(), reports[-1])
        except Untrusted as error:
            _log.warning("metrics.refused", host=guest.name, code=error.code, reason=error.message)
            return Taking(guest.key, kept)
        encoded, report = msgspec.json.encode(metrics), msgspec.json.encode(envelopes[-1])
        return Taking(guest.key, kept, KeptMetrics(guest.key, batch.sequence, encoded, report, taken_at))

    def _hurries(self, guest: Guest, newest: Report, request: SyncRequest) -> bool:
        return request.want_token or request.wait_s <= 0 or self._has_news(guest, newest)

    def _has_news(self, guest: Guest, newest: Report) -> bool:
        generation = self._parts.holdings.desired.get(guest.site, 0)
        return generation > newest.generation or guest.has_news(newest.sequence)

    async def _wait(self, guest: Guest, wait_s: float, gone: Gone | None) -> None:
        """Wait for news of a host or of its site; whatever wakes it is worth an answer."""
        guest.waiting += 1
        try:
            await self._parts.notifier.wait(f"host:{guest.key}", wait_s, also=f"site:{guest.site}", gone=gone)
        finally:
            guest.waiting -= 1

    async def _wait_for_time(self, guest: Guest, newest: Report, gone: Gone | None) -> None:
        """Wait until the hub has said what time it is to a host whose clock is off, if the hub is there.

        The hub's time answers one report: a host that is given its newer state at once refuses it, for its date, and
        asks again with another report, so that it never heard the time.
        """
        parts = self._parts
        deadline = self._now() + TIME_PATIENCE_S
        while guest.held >= newest.sequence and not (
            parts.upward.failing or guest.problem or guest.has_news(newest.sequence)
        ):
            left_s = deadline - self._now()
            woken = left_s > 0 and await parts.notifier.wait(f"host:{guest.key}", left_s, gone=gone)
            if not woken:
                return

    async def _answer(self, guest: Guest, newest: Report, *, metrics: int, token: bool) -> SyncAnswer:
        parts = self._parts
        problem, detail = guest.problem, guest.detail
        heard = guest.hear(newest.sequence)
        guest.problem, guest.detail = problem, detail
        desired: JsonEnvelope | None = None
        if parts.holdings.desired.get(guest.site, 0) > newest.generation:
            desired = await parts.holdings.envelope("desired", guest.site)
        wanted = token or (desired is not None and newest.sequence >= guest.held)
        return SyncAnswer(
            acknowledged=heard.acknowledged,
            desired=desired,
            time=heard.time,
            blob_token=self.token(guest.name, guest.site) if wanted else "",
            tell_all=heard.tell_all,
            newest=heard.newest,
            metrics=metrics,
            held=heard.held,
            keeper=parts.keeper,
        )

    def token(self, host: str, site: str) -> str:
        """Return a token of this relay's own, which opens blobs here whether or not the upstream is there."""
        return issue_blob_token(host, site, self._parts.upward.now() + BLOB_TOKEN_TTL, self._parts.key)

    async def _pass_on(self, request: SyncRequest) -> SyncAnswer:
        """Let the hub itself answer a host that is not known here (yet)."""
        parts = self._parts
        key = claimed_key(request.reports[0])
        said = unverified(request.reports[-1], Report)
        carried = Carried(
            key=key,
            reports=request.reports,
            metrics=request.metrics,
            there=request.wait_s > 0,
            want_token=request.want_token,
        )
        held = {said.site: said.generation} if said is not None else {}
        answer = await parts.upward.pass_on((carried,), held=held)
        found = next((one for one in answer.hosts if one.key == key), None)
        if found is not None and found.problem:
            raise problem_error(found.problem, found.detail)
        if found is not None and said is not None and parts.guests.note_passed(said.host, self._now()):
            parts.upward.tell()
        desired = next(iter(answer.desired), None)
        says = found is not None and (found.tell_all or found.time or found.newest or found.blob_token)
        if desired is None and not says and request.wait_s > 0:
            # It may become known any moment; until then it is not to ask without a pause.
            await parts.notifier.wait("state", request.wait_s)
        if found is None:
            return SyncAnswer(acknowledged=0, desired=desired)
        return SyncAnswer(
            acknowledged=found.acknowledged,
            desired=desired,
            time=found.time,
            blob_token=found.blob_token,
            tell_all=found.tell_all,
            newest=found.newest,
            metrics=found.metrics,
        )


def verified(guest: Guest, envelopes: Sequence[JsonEnvelope]) -> list[Report]:
    """Return the reports of a host's envelopes.

    Raises:
        Untrusted: one is not signed by the host, or of another host or site.
    """
    key = guest.verify_with()
    return [verify_report(envelope, key, host=guest.name, site=guest.site) for envelope in envelopes]
