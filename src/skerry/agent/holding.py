"""Holds that a person sets at the host: no other release is taken while one is in force.

A hold is a file below the data directory, `holds/<application>.json`, or `holds/.all.json` for everything on the host.
Commands write and remove it, and the agent reads it each time it plans, so it works whether an agent runs or not, and
a kill leaves the old file or the new. No document of a hub comes near it.

Rules: what cannot be read holds, until somebody releases it or writes it anew; a hold that has ended by time is left
where it is and counts for nothing. Times are those the host believes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import sync_directory, write_file
from skerry.kit.errors import Missing, Rejected, Unavailable
from skerry.kit.ids import is_name
from skerry.spec.hold import MAX_BY, MAX_WHY, Hold, hold_text, instant_text

MAX_HOLDS = 256
MAX_BYTES = 64 << 10
_ALL = ".all"
_NOBODY = "nobody knows whom"


class Note(Protocol):
    """Remembers an event for the hub."""

    def __call__(self, kind: str, message: str = "", *, application: str = "") -> None: ...  # noqa: D102


class Holds:
    """The holds of one data directory. `now` is the time the host believes; what changes is told to `note`."""

    def __init__(self, data: Path, now: Callable[[], datetime], note: Note) -> None:
        self._data = data
        self._now = now
        self._note = note
        self.in_force: tuple[Hold, ...] = ()

    def look(self) -> None:
        """Read which holds are in force now, and remember them: those of one application first."""
        before, self.in_force = self.in_force, read_holds(self._data, self._now())
        if before != self.in_force:
            for hold in set(self.in_force) - set(before):
                self._note("hold.set", hold_text(hold), application=hold.application)
            still = {hold.application for hold in self.in_force}
            for hold in before:
                if hold.application not in still:
                    self._note("hold.ended", hold_text(hold), application=hold.application)

    def why(self, application: str) -> str:
        """Return what holds an application, as of the last look; empty when nothing does."""
        return next((hold_text(h) for h in self.in_force if h.application in ("", application)), "")


def read_holds(data: Path, now: datetime) -> tuple[Hold, ...]:
    """Return the holds that are in force at `now`: those of one application first, in the order of their names."""
    folder = data / "holds"
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.endswith(".json"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        return (_unreadable("", folder, error.strerror or "error"),)
    own = [name for name in names if name != f"{_ALL}.json"]
    # What goes beyond the bound cannot be told one by one, and holds all the same.
    beyond = [_unreadable("", folder, f"more than {MAX_HOLDS} holds")] if len(own) >= MAX_HOLDS else []
    whole = [f"{_ALL}.json"] if len(own) < len(names) and not beyond else []
    found = [_read(folder / name) for name in (*own[: MAX_HOLDS - 1], *whole)]
    return tuple(h for h in (*found, *beyond) if h is not None and (h.until is None or h.until > now))


def set_hold(data: Path, hold: Hold) -> None:
    """Hold one application of a host, or all of them, from now on; one that is there already is replaced.

    Raises:
        Rejected: the name, the reason or who says so cannot be kept, or it would have ended already.
        Unavailable: it cannot be written (`disk.unwritable`).
    """
    if hold.application and not is_name(hold.application):
        raise Rejected("application.bad_name", f"{hold.application[:120]!r} cannot be an application's name")
    if not hold.why.strip() or len(hold.why) > MAX_WHY or len(hold.by) > MAX_BY:
        hint = f"give one with --why, {MAX_WHY} characters at the most"
        raise Rejected("hold.no_why", "a hold needs a reason that others can read", hint=hint)
    if hold.until is not None and hold.until <= hold.since:
        raise Rejected("hold.past", f"{instant_text(hold.until)} is past, by the time this host believes")
    folder = data / "holds"
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_directory(data)
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot write {folder}: {error.strerror}") from error
    path = _path(folder, hold.application)
    write_file(path, msgspec.json.encode(hold))
    _hand_over(data, (folder, path))


def release_hold(data: Path, application: str = "") -> None:
    """Release the hold of one application, or the one of the whole host; each is released by itself.

    Raises:
        Missing: there is no such hold (`hold.missing`).
        Unavailable: it cannot be removed (`disk.unwritable`).
    """
    folder = data / "holds"
    try:
        _path(folder, application).unlink()
        sync_directory(folder)
    except FileNotFoundError as error:
        there = ", ".join(h.application or "the whole host" for h in read_holds(data, _EARLIEST)) or "nothing"
        what = application or "the host as a whole"
        raise Missing("hold.missing", f"{what} is not held here", hint=f"held here: {there}") from error
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot remove the hold: {error.strerror}") from error


def who_am_i(env: Mapping[str, str]) -> str:
    """Return the person at the keyboard, as far as the system knows: who became root, or who is logged in."""
    import pwd

    if env.get("SUDO_USER"):
        return env["SUDO_USER"][:MAX_BY]
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name[:MAX_BY]
    return f"user {os.getuid()}"


_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)


def _path(folder: Path, application: str) -> Path:
    # A name begins with a letter or a digit, so none is `.all` or leads elsewhere.
    if application and not is_name(application):
        raise Missing("hold.missing", f"{application[:120]!r} cannot be an application's name")
    return folder / f"{application or _ALL}.json"


def _read(path: Path) -> Hold | None:
    """Return a hold, or None when it was released just now. What cannot be read is one by nobody."""
    application = "" if path.name == f"{_ALL}.json" else path.name.removesuffix(".json")
    try:
        with path.open("rb") as file:
            hold = msgspec.json.decode(file.read(MAX_BYTES), type=Hold)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        return _unreadable(application, path, getattr(error, "strerror", None) or "it is damaged")
    # The name of the file counts: it is what releases it.
    return msgspec.structs.replace(hold, application=application)


def _unreadable(application: str, path: Path, why: str) -> Hold:
    try:
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        since = datetime.fromtimestamp(0, UTC)
    text = f"{path.name} cannot be read ({why}); release it, or hold anew"
    return Hold(since=since, by=_NOBODY, why=text, application=application[:63])


def _hand_over(data: Path, paths: tuple[Path, ...]) -> None:
    """Let the agent read what root wrote where it runs as somebody else; until then it is unreadable, and holds."""
    owner = data.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in paths:
            with contextlib.suppress(OSError):
                os.chown(path, owner.st_uid, owner.st_gid)
