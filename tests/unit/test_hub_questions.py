"""The hub asks hosts, takes each part of their answers once, and says who is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.hub.questions import MAX_CRASHES_OF_HOST, MAX_HOST_BYTES, MAX_PER_MINUTE
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected, Unavailable, Untrusted
from skerry.ports.hub_store import Audit, TokenRecord
from skerry.ports.question_store import QuestionRecord
from skerry.spec.api import Role
from skerry.spec.api_logs import CrashView, LogsAnswer, QuestionView
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.logs import CrashRecord, LogQuestion, LogRecord
from skerry.spec.metadata import Metadata
from skerry.spec.questions import MAX_HOSTS, MAX_OPEN_AT_SITE, AnswerPart
from skerry.spec.site import Site, SiteSpec
from skerry.telemetry.log_answers import pack_crash, pack_records
from skerry.testing.waiting import eventually
from skerry.trust.report import sign_answer, verify_metrics
from skerry.trust.tokens import hash_secret
from tests.unit.test_hub_backend import Harbour, Member
from tests.unit.test_log_service import World

SITES = tuple(f"line-{number}" for number in range(10))


class LoggingHost(World):
    """A host with an agent's real parts, whose way up is the hub's own backend."""

    def __init__(self, folder: Path, harbour: Harbour, member: Member) -> None:
        super().__init__(folder, harbour.clock, name=member.name)
        self.harbour = harbour
        self.member = member
        self.sequence = 1

    async def send(self, part: AnswerPart, *, sequence: int = 0) -> SyncAnswer:
        self.sequence += 1
        member = self.member
        named = msgspec.structs.replace(
            part, host=member.name, site=member.site, sequence=sequence or self.sequence
        )
        beside = sign_answer(named, member.key)
        request = SyncRequest(reports=(member.signed(self.sequence),), metrics=beside)
        return await self.harbour.backend.sync(request)

    async def _tell(self, part: AnswerPart) -> bool:
        answer = await self.send(part)
        return answer.metrics == self.sequence

    async def hear(self) -> None:
        """Take the newest DesiredState from the hub, as after a report."""
        self.sequence += 1
        answer = await self.harbour.sync(self.member.signed(self.sequence))
        desired = self.harbour.read(answer, self.member.site)
        await self.turn(*desired.questions)


class Fleet:
    """A hub with its API, and hosts as they join."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.harbour = Harbour(folder / "hub")
        self.hub = self.harbour.hub
        self.api = OperatorApi(self.hub)
        self.hosts: dict[str, LoggingHost] = {}
        for role in ("viewer", "operator"):
            self.token(role, role)
        self.token("line-1-only", "operator", sites="line=1")

    def token(self, name: str, role: Role, *, sites: str = "") -> None:
        now = self.harbour.clock.now()
        record = TokenRecord(
            id=name, name=name, hash=hash_secret(name), role=role, sites=sites, created_at=now
        )
        self.hub.store.add_token(record, Audit(at=now, who="test", action="test", subject=name))

    async def add(self, site: str) -> LoggingHost:
        document = Site(
            metadata=Metadata(name=site, labels={"line": site.rpartition("-")[2]}), spec=SiteSpec()
        )
        self.harbour.store.apply_documents(sites={site: encode_canonical(document)}, rollouts=(), audits=())
        member = await self.harbour.join(f"host-of-{site}", site)
        folder = self.folder / site
        folder.mkdir()
        made = self.hosts[site] = LoggingHost(folder, self.harbour, member)
        await made.begin()
        return made

    async def request(self, token: str, method: str, path: str, **more: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.api, client=("10.0.0.1", 1))  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(transport=transport, base_url="https://hub", headers=headers) as client:
            return await client.request(method, API_PATH + path, **more)

    async def ask(self, token: str = "operator", **asked: Any) -> QuestionView:
        answer = await self.request(token, "POST", "/logs", json=asked)
        assert answer.status_code == 201, answer.text
        return msgspec.json.decode(answer.content, type=QuestionView)

    async def read(self, question: QuestionView, *, after: int = 0, token: str = "operator") -> LogsAnswer:
        answer = await self.request(token, "GET", f"/logs/{question.id}", params={"after": str(after)})
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=LogsAnswer)

    async def until_answered(self, question: QuestionView, count: int) -> LogsAnswer:
        async def look() -> LogsAnswer | None:
            self.harbour.clock.advance(0.1)
            answer = await self.read(question)
            return answer if answer.question.answered >= count and not answer.unread else None

        return await eventually(look)

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.end()
        self.harbour.store.close()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncGenerator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    await made.close()


def part_of(question: QuestionView, **changes: Any) -> AnswerPart:
    part = AnswerPart(
        host="", site="", sequence=1, question=question.id, kind="logs", run="00000000", number=1, last=True
    )
    return msgspec.structs.replace(part, **changes)


def content(fleet: Fleet, message: str = "hello") -> bytes:
    (packed,) = pack_records([LogRecord(at=fleet.harbour.clock.now(), message=message)])
    return packed


@pytest.mark.rule("LOG-1")
async def test_nine_of_ten_sites_answer_at_once_and_the_tenth_on_its_return(fleet: Fleet) -> None:
    for site in SITES:
        await fleet.add(site)
        fleet.hosts[site].own.take({"event": "hello", "level": "error", "from": site})
        fleet.hosts[site].own.take({"event": "hello", "level": "info", "from": site})
    await fleet.hosts[SITES[9]].hear()
    question = await fleet.ask(grep="from=line-[0-9]", level="error", wait_s=86_400.0)
    assert question.hosts == 10
    for site in SITES[:9]:
        await fleet.hosts[site].hear()
    answer = await fleet.until_answered(question, 9)
    assert {line.site for line in answer.lines} == set(SITES[:9])
    assert all(line.record.level == "error" for line in answer.lines)
    (missing,) = [view for view in answer.hosts if view.state != "answered"]
    assert (missing.host, answer.done) == ("host-of-line-9", False)
    fleet.harbour.clock.advance(3 * 3600.0)
    (missing,) = [view for view in (await fleet.read(question)).hosts if view.state != "answered"]
    assert (missing.state, missing.last_seen_at is not None) == ("silent", True)
    await fleet.hosts[SITES[9]].hear()
    last = await fleet.until_answered(question, 10)
    assert ({line.site for line in last.lines}, last.done) == (set(SITES), True)
    late = await fleet.read(question, after=answer.cursor)
    assert [line.site for line in late.lines] == [SITES[9]]


@pytest.mark.rule("LOG-1")
async def test_a_question_leaves_the_state_of_a_site_once_all_there_have_answered(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    question = await fleet.ask()
    issued = fleet.hub.issuer
    assert [one.id for one in (await issued.desired("line-1")).questions] == [question.id]
    assert await issued.issue("line-1") is False
    await host.hear()
    await fleet.until_answered(question, 1)
    assert await issued.issue("line-1") is True
    assert (await issued.desired("line-1")).questions == ()


@pytest.mark.rule("LOG-1")
async def test_a_question_that_is_ended_or_has_expired_leaves_the_state(fleet: Fleet) -> None:
    await fleet.add("line-1")
    first, second = await fleet.ask(), await fleet.ask(wait_s=30.0)
    issued = fleet.hub.issuer
    assert (await fleet.request("operator", "DELETE", f"/logs/{first.id}")).status_code == 204
    assert [one.id for one in (await issued.desired("line-1")).questions] == [second.id]
    assert (await fleet.read(first)).done
    fleet.harbour.clock.advance(31.0)
    await issued.issue("line-1")
    assert (await issued.desired("line-1")).questions == ()


@pytest.mark.rule("LOG-1")
async def test_parts_count_once_and_those_of_a_run_that_began_again_take_their_place(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    question = await fleet.ask()
    hello = content(fleet)

    async def messages() -> list[str]:
        return [line.record.message for line in (await fleet.read(question)).lines]

    for _ in range(3):
        assert (await host.send(part_of(question, content=hello, last=False))).metrics == host.sequence
    assert await messages() == ["hello"]
    again = part_of(question, run="00000001", content=content(fleet, "again"))
    await host.send(again)
    assert await messages() == ["again"]
    await host.send(part_of(question, run="00000002", content=hello))
    await host.send(part_of(question, number=2, content=hello))
    assert await messages() == ["again"]
    assert (await fleet.read(question)).done


@pytest.mark.rule("LOG-1")
async def test_who_was_not_asked_or_comes_too_late_is_not_heard(fleet: Fleet) -> None:
    await fleet.add("line-1")
    other = await fleet.add("line-2")
    question = await fleet.ask(sites=["line-1"], wait_s=30.0)
    assert (await other.send(part_of(question, content=content(fleet)))).metrics == other.sequence
    nothing = await fleet.read(question)
    assert (nothing.lines, nothing.question.answered) == ((), 0)
    assert fleet.hub.store.answer_heads(question.id) == []
    fleet.harbour.clock.advance(2 * 3600.0)
    await fleet.hosts["line-1"].send(part_of(question, content=content(fleet)))
    assert (await fleet.read(question)).lines == ()


@pytest.mark.rule("LOG-1")
async def test_a_part_goes_with_its_own_report_and_by_its_hosts_own_key_alone(fleet: Fleet) -> None:
    host, other = await fleet.add("line-1"), await fleet.add("line-2")
    question = await fleet.ask()
    assert (await host.send(part_of(question), sequence=77)).metrics == 0
    report = host.member.report(9)
    named = part_of(question, host=report.host, site=report.site, sequence=9)
    key = host.member.key
    assert verify_metrics(sign_answer(named, key), key.verifier, report) == named
    with pytest.raises(Untrusted):
        verify_metrics(sign_answer(named, other.member.key), key.verifier, report)


@pytest.mark.rule("LOG-2")
async def test_a_host_that_lies_neither_breaks_nor_forges_an_answer(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    question = await fleet.ask()
    evil = LogRecord(
        at=fleet.harbour.clock.now(), application="x\ny", message="a\nb\x1b[2J", fields={"a\n": "\u202eb"}
    )
    (packed,) = pack_records([evil])
    await host.send(part_of(question, content=packed, last=False, problem="x\ny"))
    await host.send(part_of(question, content=b"nothing", number=2))
    answer = await fleet.read(question)
    (line,) = answer.lines
    assert (line.record.application, line.record.message) == ("?", "a\\nb\\x1b[2J")
    assert line.record.fields == {"a\\n": "\\u202eb"}
    assert answer.hosts[0].problem == "x\\ny"


@pytest.mark.rule("LOG-3")
async def test_what_a_host_answers_beyond_its_share_counts_without_its_lines(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    question = await fleet.ask()
    store, hello = fleet.hub.store, content(fleet)
    for number in (1, 2):
        await host.send(part_of(question, number=number, content=hello, last=False))
    record = store.answers(question.id, after=0, limit=1)[0]
    assert store.put_answer(msgspec.structs.replace(record, number=3), most_bytes=3 * len(hello) - 1)
    assert [len(one.content) > 0 for one in store.answers(question.id, after=0, limit=9)] == [
        True,
        True,
        False,
    ]
    assert (await fleet.read(question)).hosts[0].more
    assert MAX_HOST_BYTES == 8 << 20


@pytest.mark.rule("LOG-3")
async def test_too_many_questions_are_refused_until_some_are_answered(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    asked = [await fleet.ask() for _ in range(MAX_OPEN_AT_SITE)]
    refused = await fleet.request("operator", "POST", "/logs", json={})
    assert (refused.status_code, refused.json()["code"]) == (503, "question.too_many")
    await host.send(part_of(asked[0]))
    await fleet.ask()


@pytest.mark.rule("LOG-3")
async def test_questions_are_limited_in_a_minute_and_in_how_many_they_ask(fleet: Fleet) -> None:
    questions, now = fleet.hub.backend.questions, fleet.harbour.clock.now()
    audit = Audit(at=now, who="ann", action="logs.ask", subject="logs")
    for number in range(MAX_PER_MINUTE):
        record = QuestionRecord(
            id=f"q-{number:012x}",
            kind="logs",
            hosts={f"h{number}": f"s{number}"},
            body=b"{}",
            follow=False,
            asked_by="ann",
            asked_at=now,
            expires_at=now,
        )
        fleet.hub.store.add_question(record, audit)
    with pytest.raises(Unavailable):
        await questions.ask("logs", LogQuestion(), {"edge": "harbour"}, wait_s=60.0, audit=audit)
    fleet.harbour.clock.advance(61.0)
    await questions.ask("logs", LogQuestion(), {"edge": "harbour"}, wait_s=60.0, audit=audit)
    wide = {f"host-{number}": "harbour" for number in range(MAX_HOSTS + 1)}
    for hosts in ({}, wide):
        with pytest.raises(Rejected):
            await questions.ask("logs", LogQuestion(), hosts, wait_s=60.0, audit=audit)


@pytest.mark.rule("LOG-5")
async def test_a_token_for_some_sites_asks_and_reads_those_alone(fleet: Fleet) -> None:
    for site in ("line-1", "line-2"):
        host = await fleet.add(site)
        host.own.take({"event": "hello"})
    whole = await fleet.ask()
    mine = await fleet.ask("line-1-only")
    assert (whole.hosts, mine.hosts) == (2, 1)
    for host in fleet.hosts.values():
        await host.hear()
    await fleet.until_answered(whole, 2)
    seen = await fleet.read(whole, token="line-1-only")
    assert {line.site for line in seen.lines} == {view.site for view in seen.hosts} == {"line-1"}
    other = await fleet.ask(sites=["line-2"])
    for method, name in (("GET", other.id), ("DELETE", other.id), ("DELETE", whole.id)):
        assert (await fleet.request("line-1-only", method, f"/logs/{name}")).status_code == 404
    refused = await fleet.request("line-1-only", "POST", "/logs", json={"sites": ["line-2"]})
    assert refused.status_code == 404
    listed = await fleet.request("line-1-only", "GET", "/logs")
    assert {one["id"] for one in listed.json()} == {whole.id, mine.id}


@pytest.mark.rule("LOG-5")
async def test_only_operators_ask_and_each_question_is_in_the_audit(fleet: Fleet) -> None:
    await fleet.add("line-1")
    for method, path in (("POST", "/logs"), ("GET", "/logs"), ("GET", "/crashes")):
        assert (await fleet.request("viewer", method, path)).status_code == 403
    question = await fleet.ask(grep="secret")
    found = [one for one in fleet.hub.store.audits(100) if one.action == "logs.ask"]
    (entry,) = found
    assert (entry.who, entry.subject) == ("operator", f"question:{question.id}/logs:agent@line-1")


async def test_what_cannot_be_asked_is_refused_with_a_reason(fleet: Fleet) -> None:
    await fleet.add("line-1")
    for asked, code in (
        ({"grep": "(a"}, "pattern.malformed"),
        ({"application": "reader"}, "question.nobody"),
        ({"hosts": ["nobody"]}, "question.nobody"),
        ({"sites": ["nowhere"]}, "site.missing"),
    ):
        answer = await fleet.request("operator", "POST", "/logs", json=asked)
        assert answer.json()["code"] == code
    missing = await fleet.request("operator", "GET", "/logs/q-000000000009")
    assert missing.json()["code"] == "question.missing"


@pytest.mark.rule("LOG-3")
async def test_what_hosts_tell_unasked_is_kept_once_and_not_without_end(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    now = fleet.harbour.clock.now()

    def crash(number: int) -> AnswerPart:
        record = CrashRecord(
            id=f"{number:016x}",
            at=now - timedelta(seconds=number),
            kind="ended",
            application="reader",
            component="main",
            why="exit code 9\nforged",
        )
        return AnswerPart(
            host="", site="", sequence=1, kind="crash", run="00000000", number=1, content=pack_crash(record)
        )

    for _ in range(3):
        await host.send(crash(0))
    await host.send(msgspec.structs.replace(crash(0), content=b"nothing"))

    async def shown(**params: str) -> list[CrashView]:
        answer = await fleet.request("operator", "GET", "/crashes", params=params)
        return msgspec.json.decode(answer.content, type=list[CrashView])

    (view,) = await shown()
    assert (view.host, view.site, view.crash.why) == ("host-of-line-1", "line-1", "exit code 9\\nforged")
    assert await shown(application="other") == []
    assert await shown(selector="line=2") == []
    for number in range(1, MAX_CRASHES_OF_HOST + 10):
        await host.send(crash(number))
    assert len(await shown()) == MAX_CRASHES_OF_HOST
    fleet.harbour.clock.advance(91 * 86_400.0)
    await fleet.hub.backend.questions.trim()
    assert await shown(since_s=str(100 * 86_400)) == []


async def test_who_reads_waits_for_the_next_part(fleet: Fleet) -> None:
    host = await fleet.add("line-1")
    question = await fleet.ask()
    waiting = asyncio.create_task(
        fleet.request("operator", "GET", f"/logs/{question.id}", params={"wait_s": "20"})
    )
    notifier = fleet.harbour.notifier

    async def waits() -> bool:
        return notifier.waits_for(f"question:{question.id}")

    await eventually(waits)
    await host.send(part_of(question, content=content(fleet)))
    answer = msgspec.json.decode((await waiting).content, type=LogsAnswer)
    assert [line.record.message for line in answer.lines] == ["hello"]
