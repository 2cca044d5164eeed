r"""What an application writes, as records: lines are bounded, JSON is recognised, and no text has control characters.

Rules: what is written cannot forge another line, another field or another time, nor steer a terminal: control
characters, line separators and those that change the direction of text are shown as `\x1b`, never passed on. Nothing is
left out without being counted.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal, cast

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.spec.logs import Level, LogRecord

MAX_LINE_BYTES = 16 << 10
MAX_MESSAGE = 8192
MAX_FIELDS = 32
MAX_NAME = 64
MAX_VALUE = 512

_colour = re.compile(r"\x1b\[[0-9;]{0,32}m")
_unsafe = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_named = {"\n": "\\n", "\r": "\\r"}
_levels: dict[str, Level] = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "information": "info",
    "notice": "info",
    "warn": "warning",
    "warning": "warning",
    "err": "error",
    "error": "error",
    "exception": "error",
    "critical": "critical",
    "crit": "critical",
    "fatal": "critical",
    "panic": "critical",
    "emergency": "critical",
    "alert": "critical",
}
_in_text = re.compile(
    r"\b(?:level=\"?([a-zA-Z]{3,11})\b|(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|PANIC)\b)"
)
_level_names = ("level", "lvl", "severity", "levelname", "log.level")
_message_names = ("message", "msg", "event")
_TRACEBACK = "Traceback (most recent call last)"


class LineSplitter:
    """Cuts a stream of bytes into lines of at most `MAX_LINE_BYTES`; of a longer one the beginning is kept."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._cut = 0

    def feed(self, content: bytes) -> list[tuple[bytes, int]]:
        """Return the lines that have ended, each with how many bytes of it were left out."""
        *ended, rest = content.split(b"\n")
        found: list[tuple[bytes, int]] = []
        for piece in ended:
            self._take(piece)
            found += self.end()
        self._take(rest)
        return [(line, cut) for line, cut in found if line or cut]

    def end(self) -> list[tuple[bytes, int]]:
        """Return what is held as the last line."""
        line, cut = bytes(self._held), self._cut
        self._held.clear()
        self._cut = 0
        return [(line, cut)] if line or cut else []

    def _take(self, piece: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._held)
        self._held += piece[:room]
        self._cut += max(0, len(piece) - room)


def clean_text(text: str, most: int) -> tuple[str, int]:
    """Return a text without control characters, at most `most` characters, and how many were left out."""
    plain = _unsafe.sub(_shown, _colour.sub("", text[: 2 * most])).replace("\t", "    ")
    lost = max(0, len(text) - 2 * most)
    return plain[:most], lost + max(0, len(plain) - most)


def parse_line(
    line: bytes, at: datetime, *, application: str, component: str = "", cut: int = 0
) -> LogRecord:
    """Return the record of a line; JSON if it is an object, else text."""
    text = line.decode(errors="replace").rstrip("\r")
    found = _parse_object(text) if text.startswith("{") and not cut else None
    if found is None:
        message, lost = clean_text(text, MAX_MESSAGE)
        return LogRecord(
            at=at,
            application=application,
            component=component,
            level=_level_of_text(text),
            message=message,
            cut=cut + lost,
        )
    return record_of(found, at, application=application, component=component)


def record_of(found: dict[str, Any], at: datetime, *, application: str, component: str = "") -> LogRecord:
    """Return the record of a line that was an object, or of an event of our own log."""
    rest = dict(found)
    level = next((str(rest.pop(name)) for name in _level_names if isinstance(rest.get(name), str)), "")
    named = next((name for name in _message_names if isinstance(rest.get(name), str)), "")
    message, lost = clean_text(str(rest.pop(named)) if named else "", MAX_MESSAGE)
    fields: dict[str, str] = {}
    for name, value in rest.items():
        if len(fields) >= MAX_FIELDS:
            lost += len(str(name))
            continue
        shown, beyond = clean_text(_plain(value), MAX_VALUE)
        fields[clean_text(str(name), MAX_NAME)[0]] = shown
        lost += beyond
    return LogRecord(
        at=at,
        application=application,
        component=component,
        level=_levels.get(level.lower(), ""),
        message=message,
        fields=fields,
        cut=lost,
    )


def clean_record(record: LogRecord) -> LogRecord:
    """Return a record of somebody else's making as it may be shown."""
    return LogRecord(
        at=record.at,
        application=record.application if record.application.isprintable() else "?",
        component=clean_text(record.component, MAX_NAME)[0],
        level=record.level,
        message=clean_text(record.message, MAX_MESSAGE)[0],
        fields={
            clean_text(name, MAX_NAME)[0]: clean_text(value, MAX_VALUE)[0]
            for name, value in list(record.fields.items())[:MAX_FIELDS]
        },
        cut=record.cut,
    )


def searched_text(record: LogRecord) -> str:
    """Return the text of a record that is searched: the message, and `name=value` of each field."""
    return " ".join([record.message, *(f"{name}={value}" for name, value in record.fields.items())])


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(text)
    except UNREADABLE:
        return None
    return cast(dict[str, Any], found) if isinstance(found, dict) else None


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, RecursionError):
        return repr(value)[: 2 * MAX_VALUE]


def _level_of_text(text: str) -> Level | Literal[""]:
    if text.startswith(_TRACEBACK):
        return "error"
    found = _in_text.search(text[:160])
    return _levels.get((found[1] or found[2]).lower(), "") if found else ""


def _shown(found: re.Match[str]) -> str:
    char = found[0]
    return _named.get(char) or (f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}")
