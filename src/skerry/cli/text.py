"""Text for a terminal: safe to print, coloured only where that is wanted, with ages instead of instants."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from skerry.kit.quantities import format_duration, format_size

# Names and reasons come from hosts: they must not be able to steer the terminal of whoever reads them.
_control_re = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

STATE_COLOURS = {
    "online": "green",
    "running": "green",
    "ready": "green",
    "succeeded": "green",
    "ok": "green",
    "silent": "yellow",
    "expected-silent": "yellow",
    "degraded": "yellow",
    "failing": "red",
    "offered": "yellow",
    "applying": "yellow",
    "downloading": "yellow",
    "soaking": "yellow",
    "paused": "yellow",
    "reverting": "yellow",
    "held": "yellow",
    "unreachable": "yellow",
    "rolled_back": "red",
    "aborted": "red",
    "unready": "yellow",
    "returning": "yellow",
    "failed": "red",
    "backoff": "red",
    "exited": "red",
    "never": "bright_black",
    "superseded": "bright_black",
}

_state_re = re.compile(rf"(: +|\()({'|'.join(STATE_COLOURS)})\b")
_head_re = re.compile(r"^[A-Z][A-Za-z ]{0,20}:")


def clean(text: str) -> str:
    """Return one line without control characters; tabs become spaces."""
    return _control_re.sub("�", text.replace("\r\n", " ").replace("\n", " ").replace("\t", " "))


def colours_wanted(*, err: bool = False) -> bool:
    """Tell whether to colour: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def colour(text: str, name: str, *, err: bool = False) -> str:
    """Return the text in a colour, where colours are wanted."""
    return click.style(text, fg=name) if colours_wanted(err=err) else text


def painted(line: str) -> str:
    """Return a cleaned line of a description with its head and the states in it coloured, where that is wanted."""
    line = clean(line)
    if not colours_wanted():
        return line
    line = _state_re.sub(lambda match: match[1] + click.style(match[2], fg=STATE_COLOURS[match[2]]), line)
    return _head_re.sub(lambda match: click.style(match[0], bold=True), line)


def examples(*lines: str) -> str:
    """Return the last part of a command's help: how it is used, each example on its own line."""
    # The backspace is click's mark for lines that are not to be wrapped.
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def now() -> datetime:
    """Return the present instant on this machine, against which ages are told."""
    return datetime.now(UTC)


def age(instant: datetime | None, at: datetime) -> str:
    """Return how long before `at` something was: `3m ago`, `just now`, or `never`."""
    if instant is None:
        return "never"
    seconds = (at - instant).total_seconds()
    # Clocks differ; what seems to come from the near future has just happened.
    return "just now" if seconds < 2 else f"{format_duration(seconds).split()[0]} ago"


def until(instant: datetime | None, at: datetime) -> str:
    """Return how long after `at` something will be: `in 3h`, `expired`, or `never`."""
    if instant is None:
        return "never"
    seconds = (instant - at).total_seconds()
    return f"in {format_duration(seconds).split()[0]}" if seconds > 0 else "expired"


def local_time(instant: datetime) -> str:
    """Return an instant in the reader's own time zone, to the second."""
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plural(count: int, noun: str) -> str:
    """Return `1 site`, `2 sites`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def download(fetch: Mapping[str, Any]) -> str:
    """Return how far a download is: `12.0 MiB of 50.0 MiB (24 %) fetched, 64.0 KiB/s, 10m 8s to go`."""
    done, total = int(fetch.get("done_bytes", 0)), int(fetch.get("total_bytes", 0))
    full = int(fetch.get("full_bytes", 0))
    less = f" in place of {format_size(full)}" if full > total else ""
    text = f"{format_size(done)} of {format_size(total)}{less} ({100 * done // max(1, total)} %) fetched"
    rate, left = fetch.get("rate", 0), fetch.get("left_s")
    if not rate:
        return f"{text}, nothing flows now"
    return f"{text}, {format_size(rate)}/s" + (
        "" if left is None else f", {format_duration(max(1, left))} to go"
    )
