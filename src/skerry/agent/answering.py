"""Answers one question: works out the lines, and hands up the parts one after the other until the last was taken.

Rules: a part goes up beside a report, within the link's budget, and again until it was taken or the question has
expired. Searching is done in a thread. What cannot be answered is said to be so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import msgspec

from skerry.agent.log_keeping import LogKeeper
from skerry.agent.retrying import Retry
from skerry.kit.errors import Rejected, SkerryError
from skerry.ports.clock import Clock
from skerry.ports.patterns import Patterns
from skerry.spec.logs import LogQuestion, LogRecord
from skerry.spec.questions import LOGS, MAX_PARTS, AnswerPart, Question
from skerry.telemetry.log_answers import Found, Search, match_record, pack_records

FOLLOW_EVERY_S = 1.0
MAX_FOLLOWED = 5000
"""Lines that wait for the link while a log is followed; the oldest go first."""


class AnswerLink(msgspec.Struct, frozen=True, kw_only=True):
    """The way up: `tell` says whether a part was taken; `failing` and `held` as in `Uplink`."""

    tell: Callable[[AnswerPart], Awaitable[bool]]
    failing: Callable[[], str]
    held: Callable[[int], str]


class AnswerParts(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to answer."""

    keeper: LogKeeper
    patterns: Patterns
    clock: Clock
    now: Callable[[], datetime]
    link: AnswerLink


class Answering:
    """One question, from its asking to the last part."""

    def __init__(self, parts: AnswerParts, question: Question) -> None:
        self._parts = parts
        self._question = question
        self._run = secrets.token_hex(4)
        self._number = 0

    @property
    def expired(self) -> bool:
        """Tell whether nobody waits for the answer any more."""
        return self._parts.now() >= self._question.expires_at

    async def answer(self) -> bool:
        """Answer; return False when the question expired before the last part was taken."""
        try:
            asked = self._read()
            search = await self._search(asked)
        except SkerryError as error:
            return await self._tell(last=True, problem=f"{error.code}: {error.message}"[:512])
        return await self._answer(asked, search)

    def _read(self) -> LogQuestion:
        if self._question.kind != LOGS:
            raise Rejected("question.unknown", f"this host does not know {self._question.kind} questions")
        try:
            return msgspec.convert(self._question.body, LogQuestion)
        except msgspec.ValidationError as error:
            raise Rejected("question.malformed", f"not a LogQuestion: {str(error)[:200]}") from error

    async def _search(self, asked: LogQuestion) -> Search | None:
        if not asked.grep:
            return None
        return await asyncio.to_thread(self._parts.patterns.compile, asked.grep)

    async def _answer(self, asked: LogQuestion, search: Search | None) -> bool:
        keeper, later = self._parts.keeper, list[LogRecord]()

        def listen(records: Sequence[LogRecord]) -> None:
            later.extend(one for one in records if match_record(one, asked, None))
            del later[:-MAX_FOLLOWED]

        await keeper.collect()
        if asked.follow:
            keeper.listeners.append(listen)
        try:
            found, oldest = await keeper.find(asked, search)
            told = await self._tell_lines(found, oldest, last=not asked.follow)
            return told and (not asked.follow or await self._follow(asked, search, later))
        finally:
            if asked.follow:
                keeper.listeners.remove(listen)

    async def _tell_lines(self, found: Found, oldest: datetime | None, *, last: bool) -> bool:
        contents = await asyncio.to_thread(pack_records, found.records)
        for number, content in enumerate(contents, 1):
            done = await self._tell(
                content=content,
                last=last and number == len(contents),
                matched=len(found.records),
                more=found.more,
                since=oldest,
            )
            if not done:
                return False
        return True

    async def _follow(self, asked: LogQuestion, search: Search | None, later: list[LogRecord]) -> bool:
        """Tell what is written until the question expires, or there is room for one part more alone."""
        while not self.expired and self._number < MAX_PARTS - 30:
            await self._parts.clock.sleep(FOLLOW_EVERY_S)
            await self._parts.keeper.collect()
            new = later[:]
            later.clear()
            matching = await asyncio.to_thread(_matching, new, asked, search)
            if matching and not await self._tell_lines(Found(tuple(matching), more=False), None, last=False):
                return False
        return await self._tell(last=True)

    async def _tell(
        self,
        *,
        content: bytes = b"",
        last: bool,
        matched: int = 0,
        more: bool = False,
        since: datetime | None = None,
        problem: str = "",
    ) -> bool:
        self._number += 1
        part = AnswerPart(
            host="",
            site="",
            sequence=1,
            question=self._question.id,
            kind=self._question.kind,
            run=self._run,
            number=self._number,
            last=last,
            content=content,
            matched=matched,
            more=more,
            since=since,
            problem=problem,
        )
        return await tell_until(self._parts, part, lambda: self.expired)


async def tell_until(parts: AnswerParts, part: AnswerPart, expired: Callable[[], bool]) -> bool:
    """Hand up a part until it was taken; return False when it was not, and nobody waits for it any more."""
    retry = Retry()
    while not expired():
        if parts.link.failing() or parts.link.held(len(part.content)):
            await parts.clock.sleep(1.0)
            continue
        try:
            if await parts.link.tell(part):
                return True
            wait_s = retry.next_wait_s()
        except SkerryError as error:
            wait_s = retry.next_wait_s(error)
        await parts.clock.sleep(wait_s)
    return False


def _matching(records: Sequence[LogRecord], asked: LogQuestion, search: Search | None) -> list[LogRecord]:
    return [one for one in records if match_record(one, asked, search)]
