"""A Podman of a test's own: private configuration, storage, networks and service, and nothing left behind.

Rules:
- Nothing of the system's Podman is read or changed; all files are below one folder, except two that Podman
  keeps at a fixed place for networks and takes away with the last container.
- The service can be killed and started again at any time; containers do not depend on it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from skerry.adapters.engine_api import answers_ping
from skerry.testing.processes import processes_of
from skerry.testing.waiting import eventually_sync

_START_LIMIT_S = 30.0
_COMMAND_LIMIT_S = 60.0


def can_run_podman() -> bool:
    """Tell whether Podman's programs are here and this process may use them."""
    programs = ("podman", "runc", "conmon", "iptables", "/bin/busybox")
    return os.geteuid() == 0 and all(shutil.which(program) for program in programs)


class PodmanService:
    """`podman system service` on a storage of its own below `folder`, which is made.

    `network` is a network namespace's file in which the engine and its containers are to be.
    """

    def __init__(self, folder: Path, *, network: Path | None = None) -> None:
        self.folder = folder
        # Not `ip netns exec`: that hides the control groups below /sys.
        self._prefix = ("nsenter", f"--net={network}") if network else ()
        self.socket = folder / "podman.sock"
        # Podman refuses long paths for what it keeps while running: the sockets in there have names of 64.
        self._run_folder = Path(tempfile.mkdtemp(prefix="skpod-"))
        # Addresses of its own, so that two services at once do not pick the same for their networks.
        self._pool = f"10.{100 + zlib.crc32(str(folder).encode()) % 100}."
        self._service: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configure()
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which the podman program uses this storage."""
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "TMPDIR": str(self.folder / "tmp"),
        }

    @property
    def pid(self) -> int:
        """The service's process; 0 while it does not run."""
        return self._service.pid if self._service is not None else 0

    def start(self) -> None:
        """Start the service and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(
                (*self._prefix, "podman", "system", "service", "--time=0", f"unix://{self.socket}"),
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A process group of its own: Ctrl-C at the tests must not reach it before they are done.
                start_new_session=True,
            )
        eventually_sync(
            lambda: answers_ping(self.socket), limit_s=_START_LIMIT_S, what="the answer of podman's service"
        )

    def kill(self) -> None:
        """Kill the service as a power cut would; containers go on."""
        if self._service is not None:
            self._service.kill()
            self._service.wait(_COMMAND_LIMIT_S)
            self._service = None

    def pause(self) -> None:
        """Stop the service from answering, without ending it."""
        if self._service is not None:
            self._service.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused service go on."""
        if self._service is not None:
            self._service.send_signal(signal.SIGCONT)

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run the podman program on the same storage and return what it printed.

        Raises:
            AssertionError: it failed, and `check` is set.
        """
        done = subprocess.run(
            (*self._prefix, "podman", *arguments),
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_COMMAND_LIMIT_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"podman {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def power_cut(self) -> None:
        """End the service, all containers and their conmons at once, and forget what a boot forgets.

        Mounts go as well; the storage stays as it was.
        """
        self.kill()
        namespaces = self._namespaces()
        # Stopped first, all of them: a conmon that outlived its container for a moment would note how that ended.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in self._all_processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        eventually_sync(lambda: not self._all_processes(), what="the end of all containers")
        self._forget_networks(namespaces)
        self._forget_runs()
        self._unmount()
        shutil.rmtree(self._run_folder, ignore_errors=True)
        self._run_folder.mkdir(mode=0o700)

    def close(self) -> None:
        """Remove all containers, networks, mounts and files, and end every process of this storage."""
        self.resume()
        self.kill()
        namespaces = self._namespaces()
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.podman("rm", "--all", "--force", "--time", "0", "--volumes", check=False)
            self.podman("network", "prune", "--force", check=False)
        limit = time.monotonic() + _START_LIMIT_S
        while (left := self._all_processes()) and time.monotonic() < limit:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self._forget_networks(namespaces)
        self._forget_runs()
        self._unmount()
        shutil.rmtree(self._run_folder, ignore_errors=True)
        # Layers may hold files that nobody may change, such as read-only directories.
        shutil.rmtree(self.folder / "graph", ignore_errors=True)

    def _all_processes(self) -> set[int]:
        """Return the service, the conmons, what runs in the containers and the clean-up programs."""
        found = set(processes_of(self._run_folder)) | set(processes_of(self.folder / "graph"))
        for conmon in tuple(found):
            found |= _descendants(conmon)
        return found

    def _namespaces(self) -> set[int]:
        """Return the network namespaces of our containers, without that of this process."""
        found: set[int] = set()
        for pid in self._all_processes():
            with contextlib.suppress(OSError):
                found.add(Path(f"/proc/{pid}/ns/net").stat().st_ino)
        return found - {Path("/proc/self/ns/net").stat().st_ino}

    def _forget_runs(self) -> None:
        """Take away what runc keeps of our containers in its one fixed place below /run."""
        ours = os.fsencode(f"bundle={self.folder}/")
        for state in Path("/run/runc").glob("*/state.json"):
            with contextlib.suppress(OSError):
                if ours in state.read_bytes():
                    shutil.rmtree(state.parent)

    def _forget_networks(self, namespaces: set[int]) -> None:
        """Take away what killed containers left of their networks in the kernel and below /run."""
        for place in Path("/run/netns").glob("netns-*"):
            with contextlib.suppress(OSError):
                if place.stat().st_ino in namespaces:
                    subprocess.run(("umount", "--lazy", str(place)), check=False, capture_output=True)
                    place.unlink()
        for line in _printed("ip", "-oneline", "-4", "address", "show").splitlines():
            words = line.split()
            if words[1].startswith("podman") and words[3].startswith(self._pool):
                _printed("ip", "link", "delete", words[1])
        for table in ("nat", "filter"):
            for rule in _printed("iptables", "--table", table, "--list-rules").splitlines():
                if rule.startswith("-A ") and f" {self._pool}" in rule:
                    _printed("iptables", "--table", table, "-D", *shlex.split(rule)[1:])
        for network in (self.folder / "networks").glob("*.json"):
            Path("/run/containers/networks/aardvark-dns", network.stem).unlink(missing_ok=True)

    def _unmount(self) -> None:
        """Undo the mounts below our folders, the inner ones first."""
        places = (str(self.folder), str(self._run_folder))
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        for line in reversed(lines):
            target = line.split()[1]
            if target.startswith(tuple(f"{place}/" for place in places)):
                subprocess.run(("umount", "--lazy", target), check=False, capture_output=True)

    def _configure(self) -> None:
        run, folder = self._run_folder, self.folder
        (folder / "tmp").mkdir(exist_ok=True)
        (folder / "containers.conf").write_text(
            "[containers]\n"
            'default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]\n'
            "[engine]\n"
            'runtime = "runc"\n'
            'cgroup_manager = "cgroupfs"\n'
            'events_logger = "file"\n'
            f'tmp_dir = "{run}/libpod"\n'
            "[network]\n"
            'network_backend = "netavark"\n'
            f'network_config_dir = "{folder}/networks"\n'
            f'default_subnet_pools = [{{"base" = "{self._pool}0.0/16", "size" = 24}}]\n',
            encoding="utf-8",
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{run}/storage"\n',
            encoding="utf-8",
        )


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for word in children.read_text(encoding="ascii").split():
                found |= {int(word)} | _descendants(int(word))
    return found


def _printed(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout
