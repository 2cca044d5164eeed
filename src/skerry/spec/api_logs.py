"""The operator API's questions about logs, and its answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from skerry.spec.logs import MAX_GREP, MAX_LINES, CrashRecord, Level, LogRecord

NAME_OR_NOTHING = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"
MAX_WAIT_S = 7 * 86_400.0
MAX_FOLLOW_S = 600.0

LogState = Literal["answered", "answering", "waiting", "silent"]


class LogsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lines to ask which hosts for.

    `application` is empty for the agents' own logs, then hosts of all chosen sites are asked; else those that the
    application was issued to. `sites` and `hosts` narrow what `selector` selects. Hosts may answer for `wait_s`, also
    those that are not there now. `limit` is for each host.
    """

    application: Annotated[str, Meta(max_length=63, pattern=NAME_OR_NOTHING)] = ""
    component: Annotated[str, Meta(max_length=63)] = ""
    sites: Annotated[tuple[str, ...], Meta(max_length=500)] = ()
    hosts: Annotated[tuple[str, ...], Meta(max_length=500)] = ()
    selector: Annotated[str, Meta(max_length=1024)] = "*"
    since_s: Annotated[float, Meta(gt=0, le=31 * 86_400.0)] = 3600.0
    grep: Annotated[str, Meta(max_length=MAX_GREP)] = ""
    level: Level | Literal[""] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LINES)] = 500
    follow: bool = False
    wait_s: Annotated[float, Meta(gt=0, le=MAX_WAIT_S)] = 60.0


class QuestionView(msgspec.Struct, frozen=True, kw_only=True):
    """A question about logs, as it was asked; `open` tells whether hosts may still answer."""

    id: str
    application: str
    component: str
    grep: str
    level: str
    follow: bool
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    open: bool
    hosts: int
    answered: int


class LogHostView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a host has answered: `silent` has not, and was not heard of for five minutes.

    `more` says that older lines matched and were left out, `since` how far back the host has lines of the application.
    """

    host: str
    site: str
    state: LogState
    last_seen_at: datetime | None = None
    answered_at: datetime | None = None
    matched: int = 0
    more: bool = False
    since: datetime | None = None
    problem: str = ""


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a host."""

    host: str
    site: str
    record: LogRecord


class LogsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far all hosts have answered, and the lines that came after the `cursor` that was asked from.

    `done` tells that all have answered to the end, or that nobody may any more. `unread` says that there are more
    lines to be read at once.
    """

    question: QuestionView
    hosts: tuple[LogHostView, ...]
    lines: tuple[LogLine, ...]
    cursor: int
    unread: bool
    done: bool


class CrashView(msgspec.Struct, frozen=True, kw_only=True):
    """A component of a host that ended by itself, or an error that it logged, with its last lines."""

    host: str
    site: str
    received_at: datetime
    crash: CrashRecord
