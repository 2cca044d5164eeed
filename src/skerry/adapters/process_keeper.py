"""Keeps one component: writes its bounded log, stops it when asked, says how it ended; then ends itself.

Rules:
- Only the standard library, and little of it: one such process lives beside every component.
- Nothing is imported after the start: the files may have been replaced by an upgrade meanwhile.
- Run by process_launcher.py through exec, so the component is its child already, and it is the one
  (PR_SET_CHILD_SUBREAPER) to whom the component's orphans come back.
- A full disk costs log lines, never the component.
"""

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    # The `signal` module wraps this one in enums, which costs 0.8 MB for each component.
    import _signal as signal

CHUNK = 1 << 16
DEFAULT_GRACE_S = 10.0
REAP_LIMIT_S = 10.0


class RingLog:
    """Two files of at most half the limit each; the older one is dropped when both are full."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.half = max(1, limit // 2) if limit else 0
        self.fd = -1
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append; what finds no room on the disk is lost."""
        try:
            while data:
                data = data[self._append(data) :]
        except OSError:
            pass

    def _append(self, data: bytes) -> int:
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self.size = os.fstat(self.fd).st_size
        room = self.half - self.size if self.half else len(data)
        if room <= 0:
            os.rename(self.path, self.path + ".1")
            os.close(self.fd)
            self.fd = -1
            return 0
        written = os.write(self.fd, data[:room])
        self.size += written
        return written


class Keeper:
    """The state of one run."""

    def __init__(self, folder: str, run: str, child: int, pipe: int, log: RingLog) -> None:
        self.folder = folder
        self.run = run
        self.child = child
        self.pipe = pipe
        self.log = log
        self.sent = 0
        self.deadline = 0.0

    def keep(self, wakeup: int) -> None:
        """Return when the component has ended; it is not reaped then, so its process group is still its."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        poll.register(self.pipe, select.POLLIN)
        while not self._ended():
            left = max(0.0, self.deadline - time.monotonic()) if self.deadline else None
            # Longer waits than some weeks overflow poll(2).
            for fd, _ in poll.poll(None if left is None else min(left, 3600.0) * 1000 + 1):
                if fd == wakeup:
                    if signal.SIGTERM in os.read(wakeup, CHUNK):
                        self._stop()
                elif not self._copy():
                    poll.unregister(self.pipe)
            if self.deadline and time.monotonic() >= self.deadline:
                self._signal(signal.SIGKILL)
                # A process that hangs in the kernel dies later; ask again, but not a thousand times a second.
                self.deadline = time.monotonic() + 1.0

    def finish(self) -> int:
        """Kill what the component left behind, copy the last output and return the exit code."""
        self._signal(signal.SIGKILL)
        limit = time.monotonic() + REAP_LIMIT_S
        while time.monotonic() < limit:
            orphans = [pid for pid in _children(os.getpid()) if pid != self.child]
            if not orphans:
                break
            for pid in orphans:
                _kill(pid)
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        while self._copy():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])

    def _copy(self) -> bool:
        """Move output from pipe to log; False when there is none now, or never more."""
        try:
            data = os.read(self.pipe, CHUNK)
        except BlockingIOError:
            return False
        self.log.write(data)
        return bool(data)

    def _ended(self) -> bool:
        """Reap ended orphans, but not the component: as long as it is a zombie its number is not reused."""
        while True:
            how = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if how is None:
                return False
            if how.si_pid == self.child:
                return True
            os.waitpid(how.si_pid, os.WNOHANG)

    def _stop(self) -> None:
        """Do what stop.json asks. Being asked again can shorten the grace, and never prolongs it."""
        number, deadline = _read_stop(os.path.join(self.folder, "stop.json"), self.run)
        self.deadline = min(self.deadline or deadline, deadline)
        if number != self.sent:
            self.sent = number
            self._signal(number)

    def _signal(self, number: int) -> None:
        """Signal the component's process group, which it leads since before its first instruction."""
        try:
            os.killpg(self.child, number)
        except OSError:
            # A component that changed its user is out of reach; its cgroup, if it has one, ends it.
            pass


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        # It has gone by itself, or changed its user; then its cgroup, if it has one, ends it.
        pass


def _read_stop(path: str, run: str) -> tuple[int, float]:
    """Return (signal, deadline on the monotonic clock); the default when nobody wrote a request."""
    facts: dict[str, str] = {}
    try:
        with open(path, "rb") as file:
            # One `"key": value` per line, so that no JSON parser is needed here.
            for line in file.read(4096).decode("ascii", "replace").splitlines():
                key, _, value = line.partition(":")
                facts[key.strip(' "')] = value.strip(' ",')
        if facts.get("run") == run:
            return int(facts["signal"]), float(facts["deadline"])
    except (OSError, ValueError, KeyError):
        pass
    return signal.SIGTERM, time.monotonic() + DEFAULT_GRACE_S


def _children(parent: int) -> list[int]:
    """Return the children of a process (proc_pid_stat(5): field 4), zombies among them."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read(512).rpartition(b")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if int(fields[1]) == parent:
                found.append(int(name))
    return found


def _write_exit(folder: str, run: str, exit_code: int) -> None:
    """Write exit.json into the room reserved at the start, so that a full disk does not hide the end."""
    path = os.path.join(folder, "exit.json")
    text = f'{{"run": "{run}", "exit_code": {exit_code}, "ended_at": {time.time():.3f}}}\n'
    for room in ("", os.path.join(folder, "log.1"), os.path.join(folder, "log")):
        try:
            if room:
                os.unlink(room)
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT, 0o600)
            os.pwrite(fd, text.encode(), 0)
            os.ftruncate(fd, len(text))
            os.fsync(fd)
            os.rename(path + ".new", path)
            return
        except OSError:
            continue  # no room: the next round gives up a part of the log for it


def _end_cgroup(path: str) -> None:
    """Kill what is left in a control group and remove it, as far as this kernel and our rights go."""
    for name in ("cgroup.kill", ""):
        try:
            if name:
                fd = os.open(os.path.join(path, name), os.O_WRONLY)
                os.write(fd, b"1")
                os.close(fd)
            else:
                os.rmdir(path)
        except OSError:
            # Kernels before 5.14 have no cgroup.kill; and a group whose last processes still end stays
            # until the next start.
            pass


def _woken(_number: int, _frame: object) -> None:
    """Do nothing: the wakeup descriptor has told the loop already."""


def main(argv: list[str]) -> None:
    """Keep the component that the launcher started."""
    folder, run, child, _, pipe, log_bytes, cgroup = argv
    awake_r, awake_w = os.pipe()
    for fd in (awake_r, awake_w, int(pipe)):
        os.set_blocking(fd, False)
    # A hangup or an interrupt is meant for somebody at a terminal, not for what runs by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(awake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, _woken)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGCHLD))
    os.chdir("/")
    log = RingLog(os.path.join(folder, "log"), int(log_bytes))
    keeper = Keeper(folder, run, int(child), int(pipe), log)
    keeper.keep(awake_r)
    if cgroup:
        _end_cgroup(cgroup)
    exit_code = keeper.finish()
    if cgroup:
        _end_cgroup(cgroup)
    _write_exit(folder, run, exit_code)
