"""Commands beside a container, with a time limit, and the multiplexed stream in which engines send output.

Form of the stream (Docker Engine API, "attach"): pieces, each with a header of eight bytes: the stream's
number, three zeros, and the length in four bytes, most significant first.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

from skerry.adapters.engine_api import Answer, EngineApi, EngineStream, part
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import ExecResult

NOT_THERE = 127
_TIMED_OUT = 124
_OUTPUT_BYTES = 4096
_KILL_LIMIT_S = 5.0
_APPEAR_LIMIT_S = 1.0
_HEADER_BYTES = 8
_MISSING = re.compile(r"executable file .*not found|no such file or directory|command that was not found")


def payloads(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what was written to output and error, in order, from a multiplexed stream."""
    header, left = bytearray(), 0
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if left:
                yield bytes(view[:left])
                taken = min(left, len(view))
                left -= taken
            else:
                taken = min(_HEADER_BYTES - len(header), len(view))
                header += view[:taken]
                if len(header) == _HEADER_BYTES:
                    left = int.from_bytes(header[4:], "big")
                    header.clear()
            view = view[taken:]


def execute(
    api: EngineApi, container: str, command: tuple[str, ...], *, timeout_s: float, sees_processes: bool
) -> ExecResult:
    """Run a command beside a running container; what runs past its time is killed.

    Its output is cut at 4 KiB. Engines have no call that ends a command: its process is killed, which needs
    this process to see and be allowed to signal it.

    Raises:
        Unavailable: the engine does not answer.
    """
    deadline = time.monotonic() + timeout_s
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
    answer = api.call("POST", f"/containers/{part(container)}/exec", body=body)
    if not answer.is_good:
        return ExecResult(NOT_THERE, answer.message.encode()[:_OUTPUT_BYTES])
    session = str(answer.json()["Id"])
    output = bytearray()
    try:
        with api.request(
            "POST",
            f"/exec/{part(session)}/start",
            body=b'{"Detach": false, "Tty": false}',
            timeout_s=max(0.05, deadline - time.monotonic()),
        ) as stream:
            if stream.status >= 300:
                return _refused(stream)
            for piece in payloads(stream.chunks()):
                output += piece[: _OUTPUT_BYTES - len(output)]
    except Unavailable:
        if time.monotonic() < deadline:
            raise
        _kill(api, session, may_kill=sees_processes)
        return ExecResult(_TIMED_OUT, bytes(output))
    return ExecResult(_exit_code(api, session), bytes(output))


def _refused(stream: EngineStream) -> ExecResult:
    reason = Answer(stream.status, stream.read_all(1 << 16)).message
    if _MISSING.search(reason) or stream.status in (404, 409):
        return ExecResult(NOT_THERE, reason.encode()[:_OUTPUT_BYTES])
    raise Unavailable("runtime.engine_failed", f"cannot run a command: {reason}")


def _exit_code(api: EngineApi, session: str) -> int:
    """Return the code once the engine knows it: the output may end a moment before."""
    limit = time.monotonic() + _KILL_LIMIT_S
    while True:
        answer = api.call("GET", f"/exec/{part(session)}/json")
        said: Any = answer.json() if answer.is_good else {}
        if not said.get("Running", False):
            # A session that is forgotten belonged to a container that has gone.
            code = said.get("ExitCode")
            return 137 if code is None else int(code)
        if time.monotonic() > limit:
            return _TIMED_OUT
        time.sleep(0.01)


def _kill(api: EngineApi, session: str, *, may_kill: bool) -> None:
    """End a command and its process group; one that was about to start as well."""
    begun = time.monotonic()
    has_run = False
    while time.monotonic() - begun < (_KILL_LIMIT_S if has_run else _APPEAR_LIMIT_S):
        answer = api.call("GET", f"/exec/{part(session)}/json")
        said: Any = answer.json() if answer.is_good else {}
        is_running, pid = bool(said.get("Running")), int(said.get("Pid") or 0)
        if not answer.is_good or not may_kill or (has_run and not is_running):
            return
        # Before its start and after its end a command looks the same to Podman.
        if is_running and pid > 1:
            has_run = True
            try:
                # It leads a session of its own, so that this reaches what it has started as well.
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:
                # Rootless, and under another user in the container: it ends with the container.
                return
        time.sleep(0.01)
