"""A host keeps what runs there writes, answers what it is asked, and tells of crashes and errors unasked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.re2_patterns import Re2Patterns
from skerry.adapters.sqlite_log_ring import SqliteLogRing
from skerry.agent.answering import AnswerLink, AnswerParts
from skerry.agent.log_keeping import FLUSH_AFTER_S, LogKeeper
from skerry.agent.own_log import OwnLog
from skerry.agent.services.host_service import Turn
from skerry.agent.services.logs import HostLogs
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import InstanceSpec
from skerry.spec.desired import DesiredState
from skerry.spec.logs import CrashRecord, LogQuestion, LogRecord
from skerry.spec.questions import AnswerPart, Question
from skerry.telemetry.log_answers import unpack_crash, unpack_records
from skerry.testing.clock import SimulatedClock
from skerry.testing.fake_runtime import FakeHost, FakeRuntime
from skerry.testing.waiting import eventually

NAME = "q-000000000001"


class World:
    """A host at simulated time; `told` is what its upstream took."""

    def __init__(
        self,
        folder: Path,
        clock: SimulatedClock | None = None,
        host: FakeHost | None = None,
        *,
        name: str = "edge",
    ) -> None:
        self.folder = folder
        self.clock = clock or SimulatedClock()
        self.host = host or FakeHost()
        self.runtime = FakeRuntime(self.clock, self.host)
        self.own = OwnLog()
        self.told: list[AnswerPart] = []
        self.failing = ""
        self.held = ""
        self.refusals = 0
        self.ring = SqliteLogRing.open(folder / "logs.db", self.clock.now)
        self.keeper = LogKeeper(
            self.ring, self.runtime, now=self.clock.now, monotonic=self.clock.monotonic, own=self.own
        )
        link = AnswerLink(tell=self._tell, failing=lambda: self.failing, held=lambda _: self.held)
        parts = AnswerParts(
            keeper=self.keeper, patterns=Re2Patterns(), clock=self.clock, now=self.clock.now, link=link
        )
        self.service = HostLogs(name, parts, self.ring)
        self.running: asyncio.Task[None] | None = None

    async def _tell(self, part: AnswerPart) -> bool:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("link.cut", "no link")
        self.told.append(part)
        return True

    async def begin(self) -> None:
        await self.service.begin()
        self.running = asyncio.create_task(self.service.run_forever())

    async def end(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        await self.service.close()

    async def start(self, name: str = "reader-main") -> None:
        labels = {"application": "reader", "component": "main", "release": "sha256:1"}
        await self.runtime.start(
            InstanceSpec(id=name, command=("run",), env={}, directory=self.folder, labels=labels)
        )
        await self.turn()

    def write(self, *lines: str, name: str = "reader-main") -> None:
        self.host.output[name] = (
            self.host.output.get(name, b"") + "".join(f"{one}\n" for one in lines).encode()
        )

    async def turn(self, *questions: Question) -> None:
        desired = DesiredState(
            site="harbour",
            generation=1,
            issued_at=self.clock.now(),
            expires_at=self.clock.now() + timedelta(days=1),
            questions=questions,
        )
        await self.service.follow(Turn(desired=desired, records={}, instances=await self.runtime.instances()))

    def question(self, name: str = NAME, *, kind: str = "logs", host: str = "edge", **asked: Any) -> Question:
        body = msgspec.to_builtins(LogQuestion(application="reader", **asked))
        expires_at = self.clock.now() + timedelta(hours=1)
        return Question(id=name, kind=kind, hosts=(host,), expires_at=expires_at, body=body)

    async def answered(self, name: str = NAME) -> list[AnswerPart]:
        """Return the parts of an answer once the last one is there; time goes on meanwhile."""

        async def done() -> list[AnswerPart]:
            self.clock.advance(0.5)
            parts = [part for part in self.told if part.question == name]
            return parts if parts and parts[-1].last else []

        return await eventually(done)

    async def crashes(self, count: int) -> list[CrashRecord]:
        async def found() -> list[CrashRecord]:
            self.clock.advance(1.0)
            told = [unpack_crash(part.content) for part in self.told if part.kind == "crash"]
            return told if len(told) >= count else []

        return await eventually(found)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    made = World(tmp_path)
    await made.begin()
    yield made
    await made.end()


def lines(parts: list[AnswerPart]) -> list[LogRecord]:
    return [one for part in parts if part.content for one in unpack_records(part.content)]


def messages(parts: list[AnswerPart]) -> list[str]:
    return [one.message for one in lines(parts)]


@pytest.mark.rule("LOG-1")
async def test_who_is_asked_answers_once_with_what_matches(world: World) -> None:
    await world.start()
    world.write("ready", '{"level": "warn", "msg": "late", "gate": 7}', "INFO late, too", "ERROR other")
    asked = world.question(grep="late")
    await world.turn(asked)
    parts = await world.answered()
    assert messages(parts) == ["late", "INFO late, too"]
    assert lines(parts)[0].fields == {"gate": "7"}
    assert (parts[-1].matched, parts[-1].more, parts[-1].problem) == (2, False, "")
    count = len(world.told)
    await world.turn()
    await world.turn(asked)
    await world.turn(asked, world.question("q-000000000002", level="error"))
    assert messages(await world.answered("q-000000000002")) == ["ERROR other"]
    assert [part.question for part in world.told[count:] if part.kind == "logs"] == ["q-000000000002"]


@pytest.mark.rule("LOG-1")
async def test_a_host_that_is_not_asked_or_too_late_says_nothing(world: World) -> None:
    await world.start()
    late = msgspec.structs.replace(world.question("q-000000000003"), expires_at=world.clock.now())
    await world.turn(world.question(host="other"), late, world.question("q-000000000002"))
    await world.answered("q-000000000002")
    assert {part.question for part in world.told} == {"q-000000000002"}


async def test_what_cannot_be_answered_is_said_to_be_so(world: World) -> None:
    unknown = world.question("q-000000000001", kind="weather")
    malformed = msgspec.structs.replace(world.question("q-000000000002"), body={"limit": "many"})
    wrong = world.question("q-000000000003", grep="(a")
    await world.turn(unknown, malformed, wrong)
    problems = [(await world.answered(one.id))[-1].problem for one in (unknown, malformed, wrong)]
    assert [text.partition(":")[0] for text in problems] == [
        "question.unknown",
        "question.malformed",
        "pattern.malformed",
    ]


@pytest.mark.rule("LOG-1")
async def test_an_answer_is_handed_up_until_it_was_taken_part_after_part(world: World) -> None:
    await world.start()
    world.write(*("x" * 2000 for _ in range(300)))
    world.refusals, world.failing = 3, "link.cut"
    await world.turn(world.question(limit=5000))
    for _ in range(5):
        world.clock.advance(1.0)
        await asyncio.sleep(0)
    assert world.told == []
    world.failing = ""
    parts = await world.answered()
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) > 1
    assert len(lines(parts)) == 300
    assert len({part.run for part in parts}) == 1


async def test_a_budget_that_is_used_up_holds_an_answer_back(world: World) -> None:
    await world.start()
    world.held = "the link's budget is used up"
    await world.turn(world.question())
    for _ in range(20):
        world.clock.advance(1.0)
        await asyncio.sleep(0)
    assert world.told == []
    world.held = ""
    assert (await world.answered())[-1].last


async def test_a_log_is_followed_until_the_question_goes(world: World) -> None:
    await world.start()
    world.write("before")
    await world.turn(world.question(follow=True))

    async def told(count: int) -> list[str]:
        world.clock.advance(0.5)
        found = messages([part for part in world.told if part.question == NAME])
        return found if len(found) >= count else []

    assert await eventually(lambda: told(1)) == ["before"]
    world.write("after", "and more")
    assert await eventually(lambda: told(3)) == ["before", "after", "and more"]
    await world.turn()
    world.write("unheard")
    await world.turn(world.question("q-000000000002"))
    assert messages(await world.answered("q-000000000002"))[-1] == "unheard"
    assert (await told(0))[-1] == "and more"


@pytest.mark.rule("LOG-1")
async def test_after_a_restart_lines_are_neither_lost_nor_doubled_and_no_answer_is_given_again(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.begin()
    await world.start()
    world.write("one", "two")
    asked = world.question()
    await world.turn(asked)
    await world.answered()
    world.clock.advance(FLUSH_AFTER_S)
    world.write("three")
    await world.end()
    again = World(tmp_path, world.clock, world.host)
    await again.begin()
    again.write("four")
    await again.turn(asked, again.question("q-000000000002"))
    assert messages(await again.answered("q-000000000002")) == ["one", "two", "three", "four"]
    assert {part.question for part in again.told} == {"q-000000000002"}
    await again.end()


async def test_the_agents_own_log_is_asked_for_like_any_other(world: World) -> None:
    world.own.take({"event": "sync.failing", "level": "warning", "timestamp": "x", "message": "no link"})
    own = msgspec.structs.replace(world.question(), body={"application": "", "level": "warning"})
    await world.turn(own)
    (found,) = lines(await world.answered())
    assert (found.application, found.message, found.level, found.fields) == (
        "",
        "sync.failing",
        "warning",
        {"said": "no link"},
    )


@pytest.mark.rule("LOG-3")
async def test_a_component_that_ends_by_itself_is_told_once_with_its_last_lines(world: World) -> None:
    for number in range(3):
        await world.start()
        world.write(f"run {number}", "about to fall")
        world.runtime.crash("reader-main", 9)
        await world.turn()
        world.clock.advance(1.0)
    (crash,) = await world.crashes(1)
    assert (crash.kind, crash.why, crash.application, crash.component) == (
        "ended",
        "exit code 9",
        "reader",
        "main",
    )
    assert [one.message for one in crash.tail][:2] == ["run 0", "about to fall"]
    world.clock.advance(3600.0)
    await world.start()
    world.runtime.crash("reader-main", 9)
    await world.turn()
    assert (await world.crashes(2))[1].times == 3


async def test_a_component_that_was_asked_to_end_is_no_crash(world: World) -> None:
    await world.start()
    world.runtime.crash("reader-main", -15)
    await world.turn()
    await world.start()
    world.runtime.crash("reader-main", 1)
    await world.turn()
    (crash,) = await world.crashes(1)
    assert crash.why == "exit code 1"


@pytest.mark.rule("LOG-3")
async def test_errors_without_end_are_told_few_times(world: World) -> None:
    await world.start()
    world.write("fine", *(f"ERROR timeout after {number} ms" for number in range(200)))
    await world.turn(world.question(limit=1))
    await world.answered()
    (crash,) = await world.crashes(1)
    assert (crash.kind, crash.why) == ("error", "ERROR timeout after 0 ms")
    assert crash.tail[0].message == "fine"
    await world.turn(world.question("q-000000000002", limit=1))
    await world.answered("q-000000000002")
    assert len(await world.crashes(1)) == 1
