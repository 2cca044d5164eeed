"""Logs: hosts are asked for theirs, and what they answer is read from here; and what they told unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.api.scope import Seen
from skerry.hub.services import Hub
from skerry.hub.telemetry_query import labels_of
from skerry.kit.errors import Missing, Rejected
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import HostRecord, SiteRecord
from skerry.ports.question_store import AnswerRecord, QuestionRecord
from skerry.spec.api_logs import (
    MAX_FOLLOW_S,
    CrashView,
    LogHostView,
    LogLine,
    LogsAnswer,
    LogsRequest,
    LogState,
    QuestionView,
)
from skerry.spec.logs import LogQuestion
from skerry.spec.questions import LOGS
from skerry.spec.site import Site
from skerry.telemetry.log_answers import unpack_crash, unpack_records
from skerry.telemetry.log_lines import clean_record

MAX_LINES = 4000
PARTS_AT_ONCE = 20
LONGEST_WAIT_S = 25.0
AT_ONCE = 8
SILENT_AFTER = timedelta(minutes=5)
"""An agent waits at its upstream for less than this."""


@post("/logs", status_code=201)
async def ask_logs(
    data: JSONBody[LogsRequest], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> QuestionView:
    """Ask hosts for lines of their logs; what they answer is read with `show_logs`."""
    await asyncio.to_thread(hub.backend.questions.check_pattern, data.grep)
    hosts = await _hosts(hub, seen, data)
    now = hub.clock.now()
    body = LogQuestion(
        application=data.application,
        component=data.component,
        since=now - timedelta(seconds=data.since_s),
        grep=data.grep,
        level=data.level,
        limit=data.limit,
        follow=data.follow,
    )
    wait_s = min(data.wait_s, MAX_FOLLOW_S) if data.follow else data.wait_s
    subject = f"logs:{data.application or 'agent'}@{','.join(sorted(set(hosts.values())))}"
    audit = audit_of(hub, request, "logs.ask", subject)
    record = await hub.backend.questions.ask(LOGS, body, hosts, wait_s=wait_s, audit=audit)
    await _issue(hub, record)
    return _view(hub, record, answered=0)


@get("/logs", sync_to_thread=True)
def list_questions(hub: TheHub, seen: TheSeen) -> list[QuestionView]:
    """List the questions about logs whose answers can still be read, the newest first."""
    names, since = seen.names(), hub.clock.now() - timedelta(days=1)
    return [
        _view(hub, record, answered=len(_ended(hub.store.answer_heads(record.id))))
        for record in reversed(hub.store.questions(since))
        if set(record.hosts.values()) & names
    ]


@get("/logs/{question:str}")
async def show_logs(
    question: FromPath[str],
    hub: TheHub,
    seen: TheSeen,
    after: FromQuery[int] = 0,
    wait_s: FromQuery[float] = 0.0,
) -> LogsAnswer:
    """Show how far hosts have answered, and the lines after a cursor; wait up to `wait_s` for the next."""
    deadline = hub.clock.monotonic() + min(wait_s, LONGEST_WAIT_S)
    while True:
        answer = await asyncio.to_thread(_answer, hub, seen, question, after)
        left_s = deadline - hub.clock.monotonic()
        if answer.cursor > after or answer.done or left_s <= 0:
            return answer
        await hub.backend.questions.wait(question, left_s)


@delete("/logs/{question:str}")
async def end_logs(question: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> None:
    """Let no host answer a question any more; what was answered can still be read."""
    record = await asyncio.to_thread(_question, hub, seen, question)
    if not set(record.hosts.values()) <= await asyncio.to_thread(seen.names):
        raise Missing("question.missing", f"there is no question {question[:64]} of these sites alone")
    audit = audit_of(hub, request, "logs.end", f"question:{record.id}")
    await hub.backend.questions.end(record, audit)
    await _issue(hub, record)


@get("/crashes", sync_to_thread=True)
def list_crashes(
    hub: TheHub,
    seen: TheSeen,
    application: FromQuery[str] = "",
    since_s: FromQuery[float] = 86_400.0,
    selector: FromQuery[str] = "*",
) -> list[CrashView]:
    """List components that ended by themselves and errors that they logged, with their last lines, newest first."""
    chosen = parse_selector(selector)
    names = {site.name for site in seen.sites() if chosen.matches(site.name, labels_of(site))}
    since = hub.clock.now() - timedelta(seconds=max(0.0, min(since_s, 90 * 86_400.0)))
    found: list[CrashView] = []
    for stored in hub.store.crashes(since, application=application):
        if stored.site not in names:
            continue
        view = CrashView(
            host=stored.host,
            site=stored.site,
            received_at=stored.received_at,
            crash=unpack_crash(stored.content),
        )
        found.append(view)
    return found


async def _hosts(hub: Hub, seen: Seen, asked: LogsRequest) -> dict[str, str]:
    """Return the hosts to ask, each with its site.

    Raises:
        Rejected: there are none (`question.nobody`).
    """
    sites = await asyncio.to_thread(_sites, seen, asked)
    hosts = await asyncio.to_thread(seen.hosts)
    found: dict[str, str] = {}
    for site in sites:
        here = [host.name for host in hosts if host.site == site.name]
        if asked.application:
            issued = await hub.issuer.issued(site.name)
            where = issued.where.get(asked.application)
            here = [name for name in here if where is not None and name in where.hosts]
        found |= {name: site.name for name in here if not asked.hosts or name in asked.hosts}
    if not found:
        what = f"runs {asked.application}" if asked.application else "is there"
        hint = "skerry get apps shows what runs where; sites reached by bundle cannot be asked"
        raise Rejected("question.nobody", f"no host of the chosen sites {what}", hint=hint)
    return found


def _sites(seen: Seen, asked: LogsRequest) -> list[SiteRecord]:
    chosen = parse_selector(asked.selector)
    if asked.sites:
        for name in asked.sites:
            seen.site(name)
    return [
        site
        for site in seen.sites()
        if (not asked.sites or site.name in asked.sites)
        and chosen.matches(site.name, labels_of(site))
        and msgspec.json.decode(site.document, type=Site).spec.reached_by != "bundle"
    ]


async def _issue(hub: Hub, record: QuestionRecord) -> None:
    """Bring a question, or its end, to the sites of its hosts."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def issue(site: str) -> None:
        async with turns:
            await hub.issuer.issue(site)

    await asyncio.gather(*(issue(site) for site in sorted(set(record.hosts.values()))))


def _question(hub: Hub, seen: Seen, name: str) -> QuestionRecord:
    record = hub.store.question(name)
    if record is None or not set(record.hosts.values()) & seen.names():
        hint = "answers are kept for a day after the question has expired; skerry logs --open lists them"
        raise Missing("question.missing", f"there is no question {name[:64]}", hint=hint)
    return record


def _answer(hub: Hub, seen: Seen, name: str, after: int) -> LogsAnswer:
    record = _question(hub, seen, name)
    sites = {site.name: site for site in seen.sites()}
    # Heads first: a part that comes in between is read with the next answer, and nothing is left unread.
    heads = hub.store.answer_heads(record.id)
    views = _host_views(hub, record, heads, sites)
    lines, cursor, unread = list[LogLine](), after, False
    for part in hub.store.answers(record.id, after=after, limit=PARTS_AT_ONCE):
        if len(lines) >= MAX_LINES:
            unread = True
            break
        cursor, unread = part.id, True
        if record.hosts.get(part.host) in sites and part.content:
            site = record.hosts[part.host]
            lines += [
                LogLine(host=part.host, site=site, record=clean_record(one))
                for one in unpack_records(part.content)
            ]
    unread = unread and any(head.id > cursor for head in heads)
    done = all(view.state == "answered" for view in views) or not _open(hub, record)
    return LogsAnswer(
        question=_view(hub, record, answered=sum(view.state == "answered" for view in views)),
        hosts=views,
        lines=tuple(lines),
        cursor=cursor,
        unread=unread,
        done=done and not unread,
    )


def _host_views(
    hub: Hub, record: QuestionRecord, heads: Sequence[AnswerRecord], sites: dict[str, SiteRecord]
) -> tuple[LogHostView, ...]:
    hosts = {host.name: host for host in hub.backend.presence.fresh(hub.store.hosts())}
    parts: dict[str, list[AnswerRecord]] = {}
    for head in heads:
        parts.setdefault(head.host, []).append(head)
    return tuple(
        _host_view(hub, hosts.get(name), sites[site], name, parts.get(name, []))
        for name, site in sorted(record.hosts.items())
        if site in sites
    )


def _host_view(
    hub: Hub, host: HostRecord | None, site: SiteRecord, name: str, parts: list[AnswerRecord]
) -> LogHostView:
    seen = host.last_seen_at if host is not None else None
    there = seen is not None and hub.clock.now() - seen < SILENT_AFTER
    state: LogState = "waiting" if there else "silent"
    if parts:
        state = "answered" if any(part.last for part in parts) else "answering"
    told = [part.since for part in parts if part.since is not None]
    return LogHostView(
        host=name,
        site=site.name,
        state=state,
        last_seen_at=host.last_seen_at if host is not None else None,
        answered_at=parts[0].received_at if parts else None,
        matched=max((part.matched for part in parts), default=0),
        more=any(part.more for part in parts),
        since=told[0] if told else None,
        problem=next((part.problem for part in parts if part.problem), ""),
    )


def _ended(heads: Sequence[AnswerRecord]) -> set[str]:
    return {head.host for head in heads if head.last}


def _open(hub: Hub, record: QuestionRecord) -> bool:
    return not record.ended and record.expires_at > hub.clock.now()


def _view(hub: Hub, record: QuestionRecord, *, answered: int) -> QuestionView:
    body = msgspec.json.decode(record.body, type=LogQuestion)
    return QuestionView(
        id=record.id,
        application=body.application,
        component=body.component,
        grep=body.grep,
        level=body.level,
        follow=body.follow,
        asked_by=record.asked_by,
        asked_at=record.asked_at,
        expires_at=record.expires_at,
        open=_open(hub, record) and answered < len(record.hosts),
        hosts=len(record.hosts),
        answered=answered,
    )


HANDLERS: list[Any] = [ask_logs, list_questions, show_logs, end_logs, list_crashes]
