"""Asks hosts, and takes what they answer.

Rules: a question travels in the DesiredState of each site that has hosts to answer it, and leaves it again when all of
them have, or it has expired. An answer is taken from a host that was asked, in time, once, and within a size. What
hosts tell unasked is kept once, and not without end.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.hub.site_use import SiteUse
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.clock import Clock
from skerry.ports.hub_store import Audit, HubStore
from skerry.ports.question_store import AnswerRecord, QuestionRecord, StoredCrash
from skerry.spec.desired import DesiredState
from skerry.spec.questions import CRASH, LOGS, MAX_HOSTS, MAX_OPEN_AT_SITE, AnswerPart, Question
from skerry.telemetry.log_answers import pack_crash, unpack_crash, unpack_records
from skerry.telemetry.log_lines import clean_record, clean_text

_log = structlog.get_logger()

MAX_OPEN = 64
MAX_PER_MINUTE = 60
MAX_HOST_BYTES = 8 << 20
MAX_CRASHES_OF_HOST = 200
LATE = timedelta(hours=1)
"""An answer that relays held for so long after the question expired is still taken."""
KEEP_ANSWERS = timedelta(days=1)
KEEP_CRASHES = timedelta(days=90)


class Questions:
    """Lives in the event loop; `add` is for threads.

    `check_pattern` raises when a text is no pattern that hosts can use.
    """

    def __init__(self, store: HubStore, clock: Clock, notifier: Notifier) -> None:
        self._store = store
        self._clock = clock
        self._notifier = notifier
        self.check_pattern: Callable[[str], object] = lambda _: None

    async def ask(
        self, kind: str, body: msgspec.Struct, hosts: Mapping[str, str], *, wait_s: float, audit: Audit
    ) -> QuestionRecord:
        """Store a question to hosts, each with its site. Their sites are to be issued after it.

        Raises:
            Rejected: to nobody, or to too many (`question.nobody`, `question.too_wide`).
            Unavailable: there are too many questions (`question.too_many`).
        """
        if not hosts:
            raise Rejected("question.nobody", "there is no host to ask")
        if len(hosts) > MAX_HOSTS:
            hint = "choose sites with --site or --selector"
            message = f"{len(hosts)} hosts are too many to ask at once: {MAX_HOSTS} at most"
            raise Rejected("question.too_wide", message, hint=hint)
        now = self._clock.now()
        record = QuestionRecord(
            id=f"q-{secrets.token_hex(6)}",
            kind=kind,
            hosts=dict(hosts),
            body=msgspec.json.encode(body),
            follow=bool(getattr(body, "follow", False)),
            asked_by=audit.who,
            asked_at=now,
            expires_at=now + timedelta(seconds=wait_s),
        )
        audit = msgspec.structs.replace(audit, subject=f"question:{record.id}/{audit.subject}"[:500])
        await asyncio.to_thread(self._ask, record, audit)
        return record

    def _ask(self, record: QuestionRecord, audit: Audit) -> None:
        now, minute = self._clock.now(), timedelta(minutes=1)
        recent = self._store.questions(now - minute)
        opened = [one for one in recent if one.expires_at > now and not self._is_answered(one)]
        at_site = dict.fromkeys(record.hosts.values(), 0)
        for one in opened:
            for site in set(one.hosts.values()) & at_site.keys():
                at_site[site] += 1
        crowded = [site for site, count in at_site.items() if count >= MAX_OPEN_AT_SITE]
        lately = sum(one.asked_at > now - minute for one in recent)
        if crowded or len(opened) >= MAX_OPEN or lately >= MAX_PER_MINUTE:
            where = f"at site {crowded[0]}" if crowded else "at this hub"
            hint = "end one with skerry logs --end ID, or wait; skerry logs --open lists them"
            raise Unavailable("question.too_many", f"too many questions {where}", hint=hint, retry_after_s=10)
        self._store.add_question(record, audit)

    async def end(self, record: QuestionRecord, audit: Audit) -> None:
        """Let nobody answer any more."""
        await asyncio.to_thread(self._store.end_question, record.id, audit)
        self._notifier.notify(waiting_key(record.id))

    async def wait(self, name: str, seconds: float) -> None:
        """Return when a part of an answer has come here, or another replica may have taken one."""
        await self._notifier.wait(waiting_key(name), min(seconds, 1.0))

    def add(self, use: SiteUse, desired: DesiredState) -> DesiredState:
        """Return the DesiredState with what the site's hosts shall answer."""
        now, found = self._clock.now(), list[Question]()
        for record in self._store.questions(now):
            hosts = sorted(host for host, site in record.hosts.items() if site == use.site.name)
            if record.ended or not hosts or record.expires_at <= now:
                continue
            if self._is_answered(record, hosts):
                continue
            question = Question(
                id=record.id,
                kind=record.kind,
                hosts=tuple(hosts),
                expires_at=record.expires_at,
                body=msgspec.json.decode(record.body, type=dict[str, Any]),
            )
            found.append(question)
        return msgspec.structs.replace(desired, questions=tuple(found[:MAX_OPEN_AT_SITE]))

    def _is_answered(self, record: QuestionRecord, hosts: list[str] | None = None) -> bool:
        if record.ended:
            return True
        done = {head.host for head in self._store.answer_heads(record.id) if head.last}
        return done >= set(hosts if hosts is not None else record.hosts)

    async def take(self, host: str, site: str, part: AnswerPart) -> bool:
        """Take a part of an answer, or what a host tells unasked; tell whether it was new.

        What is not wanted is not taken, and never asked for again.
        """
        if part.kind == CRASH and not part.question:
            return await asyncio.to_thread(self._take_crash, host, site, part)
        new = await asyncio.to_thread(self._take, host, part)
        if new:
            self._notifier.notify(waiting_key(part.question))
        return new

    def _take(self, host: str, part: AnswerPart) -> bool:
        record, now = self._store.question(part.question), self._clock.now()
        if record is None or host not in record.hosts or now > record.expires_at + LATE:
            _log.info("answer.unwanted", host=host, question=part.question)
            return False
        content, problem = part.content, clean_text(part.problem, 512)[0]
        try:
            if part.kind == LOGS and content:
                unpack_records(content)
        except Rejected as error:
            content, problem = b"", f"{error.code}: {error.message}"
        answer = AnswerRecord(
            question=part.question,
            host=host,
            run=part.run,
            number=part.number,
            last=part.last,
            matched=part.matched,
            more=part.more,
            since=part.since,
            problem=problem,
            received_at=now,
            content=content,
        )
        return self._store.put_answer(answer, most_bytes=MAX_HOST_BYTES)

    def _take_crash(self, host: str, site: str, part: AnswerPart) -> bool:
        try:
            found = unpack_crash(part.content)
        except Rejected as error:
            _log.warning("crash.refused", host=host, code=error.code, reason=error.message)
            return False
        now = self._clock.now()
        cleaned = msgspec.structs.replace(
            found,
            component=clean_text(found.component, 63)[0],
            release=clean_text(found.release, 192)[0],
            why=clean_text(found.why, 512)[0],
            tail=tuple(map(clean_record, found.tail)),
        )
        record = StoredCrash(
            host=host,
            id=found.id,
            site=site,
            application=found.application,
            at=min(found.at, now + timedelta(days=1)),
            received_at=now,
            content=pack_crash(cleaned),
        )
        self._store.put_crash(record, keep=MAX_CRASHES_OF_HOST)
        return True

    async def trim(self) -> None:
        """Forget what is old; run now and then."""
        now: datetime = self._clock.now()
        await asyncio.to_thread(self._store.trim_questions, now - KEEP_ANSWERS, now - KEEP_CRASHES)


def waiting_key(question: str) -> str:
    """Return what who waits for answers to a question waits for; no name of a site has a colon."""
    return f"question:{question}"
