"""Checks a component's command, runs the launcher for it and turns its answer into an error of the port."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import time
from pathlib import Path

from skerry.adapters.process_execute import find_executable
from skerry.kit.errors import Rejected, SkerryError, Unavailable
from skerry.ports.runtime import InstanceSpec

_LAUNCHER = Path(__file__).with_name("process_launcher.py")
_LIMIT_S = 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_NO_PROCESS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class GaveUp(Exception):
    """The launcher failed and nothing runs; what the folder says is not worth keeping."""

    def __init__(self, error: SkerryError) -> None:
        super().__init__(str(error))
        self.error = error


def is_safe_id(instance_id: str) -> bool:
    """Tell whether an id can name a folder, and a cgroup; those with a leading dot are ours."""
    return (
        0 < len(instance_id.encode()) <= 200 and instance_id[0] != "." and not set(instance_id) & {"/", "\0"}
    )


def check_spec(spec: InstanceSpec) -> Path:
    """Return the file to execute; reads directories.

    Raises:
        Rejected: the instance cannot be run as stated (`runtime.*`).
    """
    if not is_safe_id(spec.id):
        raise Rejected("runtime.id_invalid", f"{spec.id!r} cannot name an instance")
    if any("\0" in text for text in (*spec.command, *spec.env, *spec.env.values())):
        raise Rejected("runtime.command_invalid", "a zero byte in command or environment", id=spec.id)
    if any("=" in name or not name for name in spec.env):
        raise Rejected("runtime.command_invalid", "a variable's name is empty or has `=` in it", id=spec.id)
    if not spec.directory.is_dir():
        raise _rejected("directory", spec)
    name = spec.command[0] if spec.command else ""
    file, allowed = find_executable(name, env=spec.env, directory=spec.directory)
    if file is None:
        raise _rejected("missing", spec)
    if not allowed:
        raise _rejected("forbidden", spec)
    return file


def launch(folder: Path, spec: InstanceSpec, lock: int, *, python: str) -> None:
    """Start the component of a prepared folder under a keeper that inherits `lock`.

    Raises:
        GaveUp: nothing runs.
        Unavailable: no answer in time (`runtime.start_slow`); it may start yet, and is found then.
        OSError: the launcher itself could not be started.
    """
    process = subprocess.Popen(
        [python, "-I", "-S", "-E", str(_LAUNCHER), str(folder), str(lock)],
        # What the dynamic loader needs to find Python's own library, and nothing else of the agent's.
        env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(lock,),
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as status:
        word = _read_word(status.fileno())
    if word is None:
        raise Unavailable(
            "runtime.start_slow", f"no answer from the keeper within {_LIMIT_S:g} s", id=spec.id
        )
    # The launcher has left this process to the keeper, so it is as good as gone; it must not stay a zombie.
    process.wait()
    if word != "ok":
        raise GaveUp(_failure(word, spec))


def no_room(error: OSError) -> Unavailable:
    """Return the port's error for one of the operating system."""
    if error.errno in _FULL:
        return Unavailable("disk.full", "no room left on the disk", file=str(error.filename or ""))
    code = "runtime.no_process" if error.errno in _NO_PROCESS else "runtime.failed"
    return Unavailable(code, f"the system refused: {error.strerror}", file=str(error.filename or ""))


def _read_word(fd: int) -> str | None:
    """Return the launcher's line, an empty one if it ended without, or None when the time was up."""
    limit = time.monotonic() + _LIMIT_S
    text = b""
    while not text.endswith(b"\n"):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(max(0.0, limit - time.monotonic()) * 1000):
            return None
        data = os.read(fd, 256)
        if not data:
            break
        text += data
    return text.decode("ascii", "replace").strip()


def _failure(word: str, spec: InstanceSpec) -> SkerryError:
    """Turn `error ERRNO PART` into the port's error."""
    match word.split():
        case ["error", number, part]:
            code = int(number)
        case _:
            return Unavailable("runtime.keeper_failed", "the keeper ended without a word", id=spec.id)
    if part in ("keeper", "component") or code in (*_FULL, *_NO_PROCESS):
        return no_room(OSError(code, os.strerror(code)))
    if part == "directory":
        return _rejected("directory", spec)
    if part == "secret":
        return Unavailable("runtime.secret_missing", "the file of a secret is not there", id=spec.id)
    # An interpreter that a script names and that is not there is reported as if the script were missing.
    return _rejected("missing" if code in _MISSING else "forbidden", spec)


def _rejected(what: str, spec: InstanceSpec) -> Rejected:
    name = spec.command[0] if spec.command else ""
    if what == "directory":
        return Rejected("runtime.directory_missing", f"no directory {spec.directory}", id=spec.id)
    if what == "missing":
        return Rejected(
            "runtime.command_missing",
            f"no command {name!r}, or no interpreter for it",
            hint="commands are looked for along PATH of the stated environment",
            id=spec.id,
        )
    return Rejected("runtime.not_executable", f"{name!r} cannot be executed", id=spec.id)
