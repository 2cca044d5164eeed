"""Lines of a log as they are kept, asked for and answered."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Name, Part
from skerry.spec.report import Instant

MAX_LINES = 5000
MAX_GREP = 512

Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error", "critical")
Component = Annotated[str, Meta(max_length=63)]


class LogRecord(Part, frozen=True, kw_only=True):
    """A line of an application's output, or of the agent's own log, whose `application` is empty.

    `at` is when the host took it, by its trusted time, or when the container engine did. `level` is empty where the
    line says none. `fields` are what a line of JSON says beside level and message. `cut` counts the bytes that were
    left out because the line is too long. No text in it has control characters.
    """

    at: Instant
    application: Annotated[str, Meta(max_length=63)] = ""
    component: Component = ""
    level: Level | Literal[""] = ""
    message: str = ""
    fields: dict[str, str] = {}
    cut: Annotated[int, Meta(ge=0)] = 0


class LogQuestion(Part, frozen=True, kw_only=True):
    """Which lines a host shall answer with: the newest `limit` of those that match everything.

    `application` is empty for the agent's own log; `component` for all. `level` is the lowest; a line that says no
    level counts as info. `grep` is a regular expression in the syntax of RE2, searched in the message and the fields.
    With `follow`, lines that come later are answered with as well, until the question expires.
    """

    application: Annotated[str, Meta(max_length=63)] = ""
    component: Component = ""
    since: Instant | None = None
    until: Instant | None = None
    grep: Annotated[str, Meta(max_length=MAX_GREP)] = ""
    level: Level | Literal[""] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LINES)] = 500
    follow: bool = False


class CrashRecord(Part, frozen=True, kw_only=True):
    """The last lines before a component ended by itself, or around an error that it logged.

    `times` counts how often the like of it happened within an hour, `silenced` what else was not told in that time
    because there was too much of it. `id` is the same when it is told again.
    """

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
    at: Instant
    kind: Literal["ended", "error"]
    application: Name
    component: Component
    release: Annotated[str, Meta(max_length=192)] = ""
    why: Annotated[str, Meta(max_length=512)] = ""
    times: Annotated[int, Meta(ge=1)] = 1
    silenced: Annotated[int, Meta(ge=0)] = 0
    tail: Annotated[tuple[LogRecord, ...], Meta(max_length=100)] = ()
