"""Starts one component, then becomes its keeper by exec, which frees the memory of what is imported here.

Rules:
- Only the standard library: run as `python -I -S -E process_launcher.py FOLDER LOCK_FD`, status on fd 1.
- The lock on LOCK_FD was taken by the caller; this process inherits it and holds it until it ends.
- No code of the component runs before keeper.json names it, and none outlives a killed keeper.
- SIGTERM and SIGCHLD stay blocked until the keeper proper handles them, so that no stop is lost.
"""

import ctypes
import errno
import importlib
import json
import os
import resource
import signal
import sys
import time
from typing import Any

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NO_EXEC = 127
# The script's path is among the arguments for people who look at `ps`, and for those who seek the keeper.
KEEPER = (
    "import sys; sys.path.append(sys.argv[1].rpartition('/')[0]); "
    "import process_keeper; process_keeper.main(sys.argv[2:])"
)

_libc = ctypes.CDLL(None, use_errno=True)


def main(folder: str, lock_fd: int) -> None:
    """Detach, start the component of `folder` and keep it; says `ok` or `error ERRNO PART` on fd 1."""
    # The component must not inherit the lock: it is this process whose life the lock tells.
    os.set_inheritable(lock_fd, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        # The caller waits for the first process; the second belongs to init and leaves the caller no zombie.
        if os.fork():
            os._exit(0)
        keeper = _start(folder, lock_fd)
    except (OSError, ValueError, TypeError, LookupError) as error:
        number = error.errno if isinstance(error, OSError) else None
        _say(f"error {number or errno.EIO} keeper")
        os._exit(1)
    _say("ok")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.execv(sys.executable, keeper)


def _start(folder: str, lock_fd: int) -> list[str]:
    """Start the component and return the keeper's command line."""
    with open(os.path.join(folder, "spec.json"), encoding="utf-8") as file:
        spec: dict[str, Any] = json.load(file)
    # A daemon that leaves the session comes back to this process, which can end it with the component.
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    log_r, log_w = os.pipe()
    go_r, go_w = os.pipe()
    failed_r, failed_w = os.pipe()
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(go_w)
        _become(spec, keeper, log_w, go_r, failed_w)
    for fd in (log_w, go_r, failed_w):
        os.close(fd)
    _write_keeper_file(folder, spec["run"], child, os.fstat(log_r).st_ino)
    os.write(go_w, b"!")
    os.close(go_w)
    # Ends at exec, which closes the other end.
    failure = os.read(failed_r, 100)
    os.close(failed_r)
    if failure:
        os.waitpid(child, 0)
        _say("error " + failure.decode())
        os._exit(1)
    for fd in (lock_fd, log_r):
        os.set_inheritable(fd, True)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "process_keeper.py")
    # Imported here so that its byte code is at hand: compiling would cost the keeper 0.6 MB for its life.
    sys.path.append(os.path.dirname(script))
    importlib.import_module("process_keeper")
    facts = (folder, spec["run"], child, lock_fd, log_r, spec["limits"]["log_bytes"], spec["cgroup"])
    return [sys.executable, "-I", "-S", "-E", "-c", KEEPER, script, *map(str, facts)]


def _become(spec: dict[str, Any], keeper: int, log: int, go: int, failed: int) -> None:
    """Turn this child into the component, or say on `failed` why not; never returns."""
    part = "component"
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The keeper may have been killed before the line above, then nothing would end this process.
        if os.getppid() != keeper or os.read(go, 1) != b"!":
            os._exit(NO_EXEC)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _limit(spec)
        os.umask(0o022)
        part = "directory"
        os.chdir(spec["directory"])
        # What is ignored stays so across exec. Python ignores some, and whoever started the agent may have ignored
        # others, as a shell does with SIGINT for its background: a component must be stoppable all the same.
        for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        part = "command"
        part = "secret"
        for name, path in spec["secret_env"].items():
            with open(path, "rb") as file:
                spec["env"][name] = os.fsdecode(file.read())
        part = "command"
        os.execve(spec["executable"], spec["command"], spec["env"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        number = error.errno if isinstance(error, OSError) else None
        os.write(failed, f"{number or errno.EINVAL} {part}".encode())
    finally:
        os._exit(NO_EXEC)


def _limit(spec: dict[str, Any]) -> None:
    if spec["cgroup"]:
        with open(os.path.join(spec["cgroup"], "cgroup.procs"), "w", encoding="ascii") as file:
            file.write("0")
    if spec["mechanisms"].get("memory") == "rlimit_data":
        size: int = spec["limits"]["memory_bytes"]
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard != resource.RLIM_INFINITY:
            size = min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _write_keeper_file(folder: str, run: str, child: int, pipe: int) -> None:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    content = {
        "run": run,
        "boot_id": boot_id,
        "keeper": {"pid": os.getpid(), "start": _start_ticks(os.getpid())},
        "child": {"pid": child, "start": _start_ticks(child)},
        "pipe": pipe,
        "started_at": time.time(),
    }
    path = os.path.join(folder, "keeper.json")
    # Not synced: it means something within one boot only.
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.rename(path + ".new", path)


def _start_ticks(pid: int) -> int:
    """Return field 22 of proc_pid_stat(5); the name in field 2 may hold spaces and brackets."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _say(text: str) -> None:
    try:
        os.write(1, text.encode() + b"\n")
    except OSError:
        # The caller is gone; the component runs and will be found.
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
