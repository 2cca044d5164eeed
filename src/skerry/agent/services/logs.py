"""Keeps the logs of what runs on the host, answers questions about them, and tells of crashes and errors unasked.

Rules: nothing here keeps the reconcile loop or a report waiting. Logs stay on the host; what goes up is what was asked
for, or a bounded tail, within the link's budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.agent.answering import Answering, AnswerParts, tell_until
from skerry.agent.services.host_service import HostService, Turn
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import SkerryError, as_failure
from skerry.ports.log_ring import LogRing
from skerry.ports.runtime import InstanceView
from skerry.spec.logs import CrashRecord, LogQuestion, LogRecord
from skerry.spec.questions import CRASH, AnswerPart, Question
from skerry.telemetry.crashes import CrashRoom, shape_of, tail_of
from skerry.telemetry.log_answers import pack_crash

_log = structlog.get_logger()

COLLECT_EVERY_S = 5.0
MAX_WAITING = 32
ASKED_TO_END = {0, -2, -15, 130, 143}
"""How a component ends that was asked to, by SIGINT or SIGTERM."""
ANSWERED, WAITING = "answered", "crashes"


class HostLogs(HostService):
    """The service. Lives in the event loop."""

    name = "logs"

    def __init__(self, host: str, parts: AnswerParts, ring: LogRing) -> None:
        super().__init__()
        self._host = host
        self._parts = parts
        self._ring = ring
        self._asked: dict[str, Question] = {}
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._answered: dict[str, float] = {}
        self._states: dict[str, tuple[str, str]] = {}
        self._room = CrashRoom()
        self._waiting: list[CrashRecord] = []
        self._ended: list[InstanceView] = []
        self._wake = asyncio.Event()
        self._crashed = asyncio.Event()
        self._failing = ""
        self.release_named: Callable[[str], str] = lambda digest: digest
        parts.keeper.listeners.append(self._look_for_errors)

    async def begin(self) -> None:
        """Find out what was answered before, and what has not been told."""
        answered, waiting = await asyncio.to_thread(
            lambda: (self._ring.load(ANSWERED), self._ring.load(WAITING))
        )
        with contextlib.suppress(*UNREADABLE):
            self._answered = msgspec.json.decode(answered or b"{}", type=dict[str, float])
            self._waiting = msgspec.json.decode(waiting or b"[]", type=list[CrashRecord])
        self._crashed.set()

    async def follow(self, turn: Turn) -> None:
        """Note what runs, what has ended by itself, and what is asked."""
        self._parts.keeper.instances = turn.instances
        for key, view in turn.instances.items():
            before = self._states.get(key)
            begun = str(view.started_at)  # one that has ended has no pid
            if before == ("running", begun) and _crashed(view):
                self._ended.append(view)
                self._crashed.set()
            self._states[key] = (view.state, begun)
        self._states = {key: state for key, state in self._states.items() if key in turn.instances}
        questions = turn.desired.questions if turn.desired is not None else ()
        asked = {one.id: one for one in questions if self._host in one.hosts}
        if asked != self._asked:
            self._asked = asked
            self._wake.set()

    async def run_forever(self) -> None:
        """Collect, answer and tell, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._collect_forever())
            group.create_task(self._answer_forever())
            group.create_task(self._tell_crashes_forever())

    async def close(self) -> None:
        """Store what is in memory."""
        for task in self._answers.values():
            task.cancel()
        await asyncio.gather(*self._answers.values(), return_exceptions=True)
        with contextlib.suppress(SkerryError):
            await self._parts.keeper.collect()
            await self._parts.keeper.store(everything=True)
        self._ring.close()

    async def _collect_forever(self) -> None:
        while True:
            try:
                await self._parts.keeper.collect(patient=True)
                await self._parts.keeper.store()
            except Exception as caught:
                error = as_failure(caught)
                if self._failing != error.code:
                    _log.warning("logs.unkept", code=error.code, reason=str(error)[:200])
                self._failing = error.code
            else:
                self._failing = ""
            await self._parts.clock.sleep(COLLECT_EVERY_S)

    async def _answer_forever(self) -> None:
        """Begin and end answers as questions come and go."""
        try:
            while True:
                self._wake.clear()
                for name in [name for name in self._answers if name not in self._asked]:
                    self._answers.pop(name).cancel()
                for name, question in self._asked.items():
                    done = self._answered.get(name) is not None or name in self._answers
                    if not done and question.expires_at > self._parts.now():
                        self._answers[name] = asyncio.create_task(self._answer(question))
                await self._wake.wait()
        finally:
            for task in self._answers.values():
                task.cancel()

    async def _answer(self, question: Question) -> None:
        try:
            if await Answering(self._parts, question).answer():
                now = self._parts.now().timestamp()
                self._answered = {name: at for name, at in self._answered.items() if at > now}
                self._answered[question.id] = question.expires_at.timestamp()
                content = msgspec.json.encode(self._answered)
                await asyncio.to_thread(self._ring.save, {ANSWERED: content})
        except Exception as caught:
            error = as_failure(caught)
            _log.warning(
                "question.unanswered", question=question.id, code=error.code, reason=str(error)[:200]
            )

    async def _tell_crashes_forever(self) -> None:
        while True:
            self._crashed.clear()
            try:
                await self._look_at_ends()
                while self._waiting:
                    await self._tell_crash(self._waiting[0])
            except Exception as caught:
                error = as_failure(caught)
                _log.warning("crash.untold", code=error.code, reason=str(error)[:200])
            await sleep_unless_woken(self._parts.clock, 60.0, self._crashed)

    async def _tell_crash(self, record: CrashRecord) -> None:
        part = AnswerPart(
            host="",
            site="",
            sequence=1,
            kind=CRASH,
            run=secrets.token_hex(4),
            number=1,
            last=True,
            content=pack_crash(record),
        )
        await tell_until(self._parts, part, lambda: record not in self._waiting)
        self._waiting = [one for one in self._waiting if one.id != record.id]
        await self._save_waiting()

    async def _look_at_ends(self) -> None:
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        await self._parts.keeper.collect()
        for view in ended:
            await self._note_end(view)
        await self._save_waiting()

    async def _note_end(self, view: InstanceView) -> None:
        application, component = _names(view)
        question = LogQuestion(application=application, component=component, limit=100)
        found, _ = await self._parts.keeper.find(question, None)
        tail = tail_of(found.records)
        how = f"exit code {view.exit_code}" if view.exit_code is not None else "lost"
        said = shape_of(tail[-1].message) if tail else ""
        self._note("ended", view, why=how, shape=f"{how} {said}", tail=tail, at=self._parts.now())

    def _look_for_errors(self, records: Sequence[LogRecord]) -> None:
        """Note errors among new lines, with those around them."""
        views = {_names(view): view for view in self._parts.keeper.instances.values()}
        noted = False
        for number, record in enumerate(records):
            view = views.get((record.application, record.component))
            if record.level not in ("error", "critical") or view is None:
                continue
            beside = [
                one
                for one in records[max(0, number - 20) : number + 20]
                if (one.application, one.component) == (record.application, record.component)
            ]
            shape = shape_of(record.message)
            noted |= self._note(
                "error", view, why=record.message[:200], shape=shape, tail=tail_of(beside), at=record.at
            )
        if noted:
            self._crashed.set()

    def _note(
        self,
        kind: str,
        view: InstanceView,
        *,
        why: str,
        shape: str,
        tail: tuple[LogRecord, ...],
        at: datetime,
    ) -> bool:
        application, component = _names(view)
        release = self.release_named(view.labels.get("release", ""))
        told = self._room.admit((kind, application, component, release, shape), at, is_error=kind == "error")
        if told is None or not application:
            return False
        named = f"{kind}\n{application}\n{component}\n{at.isoformat()}\n{shape}"
        record = CrashRecord(
            id=hashlib.sha256(named.encode()).hexdigest()[:16],
            at=at,
            kind="error" if kind == "error" else "ended",
            application=application,
            component=component,
            release=release,
            why=why,
            times=told.times,
            silenced=told.silenced,
            tail=tail,
        )
        self._waiting = [*self._waiting[-MAX_WAITING + 1 :], record]
        return True

    async def _save_waiting(self) -> None:
        content = msgspec.json.encode(self._waiting)
        await asyncio.to_thread(self._ring.save, {WAITING: content})


def _names(view: InstanceView) -> tuple[str, str]:
    labels: Mapping[str, str] = view.labels
    return labels.get("application", ""), labels.get("component", "")


def _crashed(view: InstanceView) -> bool:
    return view.state == "lost" or (view.state == "exited" and view.exit_code not in ASKED_TO_END)
