"""How lines of hosts' logs look, and what is said of who has answered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from skerry.cli.text import age, clean, colour
from skerry.spec.api_logs import CrashView, LogHostView, LogLine, LogsAnswer
from skerry.spec.logs import LogRecord

_colours = {"warning": "yellow", "error": "red", "critical": "red"}
MOST_NAMED = 10


def line_text(line: LogLine) -> str:
    """Return a line of a log: when, where, and what it says."""
    component = f"/{line.record.component}" if line.record.component else ""
    return f"{_instant(line.record.at)} {clean(line.host)}{component} {record_text(line.record)}"


def record_text(record: LogRecord) -> str:
    """Return what a line says, without when and where."""
    fields = "".join(f" {name}={value}" for name, value in record.fields.items())
    level = f"{colour(record.level.upper(), _colours.get(record.level, 'white'))} " if record.level else ""
    cut = f" [{record.cut} more bytes]" if record.cut else ""
    return f"{level}{clean(record.message + fields)}{cut}"


def summary_lines(answer: LogsAnswer, now: datetime) -> Iterator[str]:
    """Yield who has answered, who not and since when it is silent, and what is missing in answers."""
    told = [view for view in answer.hosts if view.state in ("answered", "answering")]
    missing = [view for view in answer.hosts if view.state not in ("answered", "answering")]
    parts = [f"{len(told)} of {len(answer.hosts)} hosts answered"]
    parts += [_absence(view, now) for view in missing[:MOST_NAMED]]
    if len(missing) > MOST_NAMED:
        parts.append(f"and {len(missing) - MOST_NAMED} more")
    yield "; ".join(parts)
    cut = [clean(view.host) for view in told if view.more]
    if cut:
        yield f"older lines matched and were left out: {', '.join(cut[:MOST_NAMED])} (see --tail)"
    for view in told[:100]:
        if view.problem:
            yield f"{clean(view.host)}: {clean(view.problem)}"


def crash_lines(view: CrashView) -> Iterator[str]:
    """Yield what a host told unasked, with its last lines."""
    crash = view.crash
    what = "ended" if crash.kind == "ended" else "logged an error"
    often = f", {crash.times} times within an hour" if crash.times > 1 else ""
    where = f"{clean(view.host)} {clean(crash.application)}/{clean(crash.component)}"
    release = f" of {clean(crash.release)}" if crash.release else ""
    yield f"{_instant(crash.at)} {where}{release} {what}: {clean(crash.why)}{often}"
    if crash.silenced:
        yield f"  ({crash.silenced} others of this host were not told: too many)"
    for record in crash.tail:
        yield f"  {_instant(record.at)} {record_text(record)}"


def _absence(view: LogHostView, now: datetime) -> str:
    seen = view.last_seen_at
    if view.state == "waiting":
        return f"{clean(view.host)} has not answered yet, seen {age(seen, now)}"
    return (
        f"{clean(view.host)} silent since {age(seen, now)}" if seen else f"{clean(view.host)} never heard of"
    )


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
