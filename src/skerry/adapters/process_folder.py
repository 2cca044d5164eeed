"""One instance's folder: who owns it, what its files say, and the state that follows.

Rules:
- The lock file is the truth: it is held exclusively exactly as long as a keeper (or a start) lives.
- Files of an earlier run are told by their `run` and do not count; an unreadable file counts as absent.
- Formats and life cycle: docs/internals/process-runtime.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from skerry.adapters.process_identity import ProcessMark
from skerry.adapters.process_lock import is_owned
from skerry.kit.canonical import UNREADABLE
from skerry.kit.instants import from_epoch
from skerry.ports.runtime import InstanceView, Limits

State = Literal["running", "stopping", "exited", "lost"]
ALIVE = ("running", "stopping")
# Room for exit.json and stop.json, kept free from the start on.
RESERVED_BYTES = 256


class SpecFile(msgspec.Struct, frozen=True, kw_only=True):
    """spec.json: what one run is. Mode 0600. Of `secret_env` it has the files where the values are, and no value."""

    run: str
    id: str
    command: tuple[str, ...]
    executable: str
    env: Mapping[str, str]
    directory: str
    limits: Limits
    labels: Mapping[str, str]
    mechanisms: Mapping[str, str]
    cgroup: str
    secret_env: Mapping[str, str] = {}


class KeeperFile(msgspec.Struct, frozen=True, kw_only=True):
    """keeper.json: the processes of one run."""

    run: str
    boot_id: str
    keeper: ProcessMark
    child: ProcessMark
    pipe: int
    started_at: float


class StopFile(msgspec.Struct, frozen=True, kw_only=True):
    """stop.json: a stop that was asked; `deadline` is on the monotonic clock of this boot."""

    run: str
    signal: int
    deadline: float


class ExitFile(msgspec.Struct, frozen=True, kw_only=True):
    """exit.json: how a run ended."""

    run: str
    exit_code: int
    ended_at: float


T = TypeVar("T")


class CachedFile(Generic[T]):
    """A small JSON file that is parsed again only when it changed."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._known: tuple[tuple[int, int, int], T | None] | None = None

    def read(self) -> T | None:
        """Return the content; None when the file is absent or damaged."""
        try:
            stat = os.stat(self.path)
            sign = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            known = self._known
            if known is not None and known[0] == sign:
                return known[1]
            content = self.path.read_bytes()
        except OSError:
            return None
        try:
            value = self._decoder.decode(content)
        except UNREADABLE:
            value = None
        self._known = (sign, value)
        return value


class Sighting(msgspec.Struct, frozen=True):
    """One look at an instance; `keeper` may be that of an earlier run."""

    view: InstanceView
    run: str
    spec: SpecFile | None
    keeper: KeeperFile | None

    @property
    def is_alive(self) -> bool:
        """Tell whether the component runs, also if it was asked to stop."""
        return self.view.state in ALIVE


class InstanceFolder:
    """The files of one instance."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.spec = CachedFile(path / "spec.json", SpecFile)
        self.keeper = CachedFile(path / "keeper.json", KeeperFile)
        self.stop = CachedFile(path / "stop.json", StopFile)
        self.exit = CachedFile(path / "exit.json", ExitFile)

    def look(self) -> Sighting:
        """Return what is known; never raises for what the files hold."""
        for _ in range(3):
            # The lock is read first: a keeper writes exit.json before it lets go.
            owned = is_owned(self.lock)
            sighting = self._read(owned=owned)
            # A start may have come between lock and files; what is starting is not lost.
            if sighting.view.state != "lost" or not is_owned(self.lock):
                return sighting
        return self._read(owned=True)

    def _read(self, *, owned: bool) -> Sighting:
        spec, keeper = self.spec.read(), self.keeper.read()
        run = spec.run if spec else keeper.run if keeper else ""
        now = keeper if keeper is not None and keeper.run == run else None
        ended = self.exit.read()
        if ended is not None and ended.run != run:
            ended = None
        asked = self.stop.read()
        state: State = "exited" if ended else "running" if owned else "lost"
        if state == "running" and asked is not None and asked.run == run:
            state = "stopping"
        view = InstanceView(
            id=self.path.name,
            state=state,
            pid=now.child.pid if now and state in ALIVE else 0,
            started_at=from_epoch(now.started_at) if now else None,
            ended_at=from_epoch(ended.ended_at) if ended else None,
            exit_code=ended.exit_code if ended else None,
            labels=spec.labels if spec else {},
            limits=spec.mechanisms if spec else {},
        )
        return Sighting(view, run, spec, keeper)

    def prepare(self, spec: SpecFile) -> None:
        """Write what a new run needs, durably, and reserve room for its end; OSError when there is none."""
        for name in ("exit.json", "stop.json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path / f"{name}.new")
            replace_file(self.path / f"{name}.new", b" " * RESERVED_BYTES, rename=False)
        replace_file(self.path / "spec.json", msgspec.json.encode(spec), sync=True)

    def ask_stop(self, request: StopFile) -> None:
        """Write stop.json, also when the disk is full: into reserved room, or over the earlier request."""
        # One key per line: the keeper reads it without a JSON parser.
        lines = (
            f'"run": "{request.run}"',
            f'"signal": {request.signal}',
            f'"deadline": {request.deadline:.3f}',
        )
        content = ("{\n" + ",\n".join(lines) + "\n}").encode()
        path = self.path / "stop.json"
        try:
            replace_file(path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
                raise
            path.write_bytes(content)

    def tail(self, size: int) -> bytes:
        """Return the last bytes of both log files together."""
        newer, newer_tail = self.path / "log", b""
        for _ in range(5):
            older_tail = b""
            newer_tail, inode = _read_tail(newer, size)
            if len(newer_tail) < size:
                older_tail, _ = _read_tail(self.path / "log.1", size - len(newer_tail))
            # The keeper may have renamed one to the other between the two reads.
            if inode == _inode(newer):
                return older_tail + newer_tail
        return newer_tail


def whole_env(spec: SpecFile) -> Mapping[str, str]:
    """Return the environment of a run, its secrets included; one whose file has gone is left out."""
    env = dict(spec.env)
    for name, path in spec.secret_env.items():
        with contextlib.suppress(OSError):
            env[name] = os.fsdecode(Path(path).read_bytes())
    return env


def replace_file(path: Path, content: bytes, *, sync: bool = False, rename: bool = True) -> None:
    """Replace a file whole or not at all, through `<name>.new`; room reserved there is used first."""
    new = path.with_name(path.name + ".new") if rename else path
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        done = 0
        while done < len(content):
            done += os.pwrite(fd, content[done:], done)
        os.ftruncate(fd, len(content))
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if rename:
        os.rename(new, path)


def _read_tail(path: Path, size: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            file.seek(max(0, stat.st_size - size))
            return file.read(size), stat.st_ino
    except OSError:
        return b"", 0


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
