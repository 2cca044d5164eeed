"""Runtime on plain processes: each component has a keeper of its own, so that nothing depends on the agent.

Rules:
- An instance is a folder (process_folder.py); all that is known is read from there, nothing is remembered.
- Who holds the folder's lock runs (process_lock.py). `start` takes it and passes it on to the keeper.
- Nothing is signalled by its number alone (process_identity.py).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal as signals
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from skerry.adapters.process_execute import NOT_THERE, run_command
from skerry.adapters.process_folder import InstanceFolder, Sighting, SpecFile, StopFile, whole_env
from skerry.adapters.process_identity import signal_process
from skerry.adapters.process_launch import GaveUp, check_spec, is_safe_id, launch, no_room
from skerry.adapters.process_limits import confine, release
from skerry.adapters.process_lock import own
from skerry.adapters.process_orphans import find_keeper, kill_orphans
from skerry.adapters.process_output import read_output
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.runtime import Engine, ExecResult, InstanceSpec, InstanceView, Output

_END_LIMIT_S = 5.0
_EXECUTIONS = 8
# As good as for ever, and still a number in JSON.
_GRACE_LIMIT_S = 1e9


class ProcessRuntime:
    """Components as child processes of small keepers, one folder each below `directory`.

    `cgroup_root` is a cgroup v2 directory delegated to us (`find_cgroup_root`); without one memory is
    limited per process and CPU is not. `python` runs the keepers.
    """

    def __init__(
        self, directory: Path, *, cgroup_root: Path | None = None, python: str = sys.executable
    ) -> None:
        self._directory = directory
        self._cgroup_root = cgroup_root
        self._python = python
        self._folders: dict[str, InstanceFolder] = {}
        # Calls about one instance follow each other; the lock on disk does the same between processes.
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        # Health commands may take their full time; they must not hold up what reads and starts.
        self._pool = ThreadPoolExecutor(_EXECUTIONS, thread_name_prefix="skerry-execute")
        # By id, the run and state whose loose ends this object has dealt with.
        self._settled: dict[str, tuple[str, str]] = {}

    async def start(self, spec: InstanceSpec) -> None:
        """See `Runtime.start`; a start that fails after its preparation leaves no instance."""
        if spec.container is not None:
            raise Rejected("runtime.cannot", "a container image needs a container engine", id=spec.id)
        async with self._turn(spec.id):
            await asyncio.to_thread(self._start, spec)

    async def stop(self, instance_id: str, *, signal: str, grace_s: float) -> None:
        """See `Runtime.stop`; asked again, the earlier deadline counts.

        Raises:
            Rejected: the signal is unknown (`runtime.signal_unknown`).
        """
        number = _signal_number(signal)
        async with self._turn(instance_id):
            await asyncio.to_thread(self._stop, instance_id, number, grace_s)

    async def signal(self, instance_id: str, signal: str) -> None:
        """See `Runtime.signal`."""
        number = _signal_number(signal)
        await asyncio.to_thread(self._signal, instance_id, number)

    async def remove(self, instance_id: str) -> None:
        """See `Runtime.remove`.

        Raises:
            Unavailable: it cannot be killed now (`runtime.still_running`).
        """
        async with self._turn(instance_id):
            await asyncio.to_thread(self._remove, instance_id)

    async def instances(self) -> Mapping[str, InstanceView]:
        """See `Runtime.instances`; costs some small file reads for each."""
        return await asyncio.to_thread(self._instances)

    async def execute(self, instance_id: str, command: tuple[str, ...], *, timeout_s: float) -> ExecResult:
        """See `Runtime.execute`; 127 also for an instance that does not run."""
        found = await asyncio.to_thread(self._running, instance_id)
        if found is None:
            return ExecResult(NOT_THERE, f"{instance_id} does not run".encode())
        return await asyncio.get_running_loop().run_in_executor(
            self._pool,
            lambda: run_command(
                command, env=whole_env(found), directory=Path(found.directory), timeout_s=timeout_s
            ),
        )

    async def logs(self, instance_id: str, *, tail_bytes: int) -> bytes:
        """See `Runtime.logs`; the output of earlier runs of the same id is in it as well."""
        folder = self._folder(instance_id)
        return await asyncio.to_thread(folder.tail, tail_bytes) if folder else b""

    async def output(self, instance_id: str, *, mark: str, limit: int) -> Output:
        """See `Runtime.output`; a file and how far it was read. When a piece was written is not known."""
        folder = self._folder(instance_id)
        if folder is None:
            return Output((), mark)
        return await asyncio.to_thread(read_output, folder.path, mark, limit)

    async def engine(self) -> Engine:
        """See `Runtime.engine`."""
        return Engine(name="process", can=frozenset({"processes"}))

    async def gateways(self, networks: Sequence[str]) -> Mapping[str, str]:
        """See `Runtime.gateways`; processes have no networks of their own."""
        return {}

    async def watch(self, on_change: Callable[[], None]) -> None:
        """See `Runtime.watch`; nobody tells of processes, so this waits for ever."""
        await asyncio.Event().wait()

    def _turn(self, instance_id: str) -> asyncio.Lock:
        return self._turns.setdefault(instance_id, asyncio.Lock())

    def _folder(self, instance_id: str) -> InstanceFolder | None:
        """Return the folder if it is there, with what was read from it before."""
        path = self._directory / instance_id
        if not is_safe_id(instance_id) or not path.is_dir():
            return None
        return self._folders.setdefault(instance_id, InstanceFolder(path))

    def _instances(self) -> Mapping[str, InstanceView]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            names = []
        for gone in set(self._folders) - set(names):
            self._folders.pop(gone, None)
        views: dict[str, InstanceView] = {}
        for name in names:
            folder = self._folder(name)
            if folder is not None:
                sighting = folder.look()
                views[name] = sighting.view
                self._settle(folder, sighting)
        return views

    def _settle(self, folder: InstanceFolder, sighting: Sighting) -> None:
        """Finish, once, what an earlier agent or a killed keeper left undone."""
        name, state, keeper = sighting.view.id, sighting.view.state, sighting.keeper
        if state not in ("stopping", "lost") or self._settled.get(name) == (sighting.run, state):
            return
        if state == "lost":
            kill_orphans(folder)
        elif keeper is not None and keeper.run == sighting.run:
            # The agent that asked may have been killed before it told the keeper; telling twice is harmless.
            signal_process(keeper.keeper, signals.SIGTERM)
        self._settled[name] = (sighting.run, state)

    def _running(self, instance_id: str) -> SpecFile | None:
        folder = self._folder(instance_id)
        sighting = folder.look() if folder else None
        return sighting.spec if sighting and sighting.is_alive else None

    def _signal(self, instance_id: str, number: int) -> None:
        folder = self._folder(instance_id)
        sighting = folder.look() if folder else None
        if (
            sighting is not None
            and sighting.is_alive
            and sighting.keeper
            and sighting.keeper.run == sighting.run
        ):
            signal_process(sighting.keeper.child, number)

    def _start(self, spec: InstanceSpec) -> None:
        known = self._folder(spec.id)
        if known is not None and known.look().is_alive:
            return
        executable = check_spec(spec)
        folder = InstanceFolder(self._directory / spec.id)
        is_new = not folder.spec.path.exists()
        try:
            folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _own_unless_running(folder)
        except OSError as error:
            raise no_room(error) from error
        if lock is None:
            return
        try:
            kill_orphans(folder, owned=True)
            self._launch(folder, spec, executable, lock)
        except GaveUp as failure:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise failure.error from failure
        except OSError as error:
            if is_new:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise no_room(error) from error
        finally:
            # Not unlocked: the keeper has the same lock, and goes on holding it.
            os.close(lock)

    def _launch(self, folder: InstanceFolder, spec: InstanceSpec, executable: Path, lock: int) -> None:
        confinement = confine(self._cgroup_root, spec.id, spec.limits)
        try:
            folder.prepare(
                SpecFile(
                    run=secrets.token_hex(8),
                    id=spec.id,
                    command=spec.command,
                    executable=str(executable),
                    env=spec.env,
                    directory=str(spec.directory),
                    limits=spec.limits,
                    labels=spec.labels,
                    mechanisms=confinement.mechanisms,
                    cgroup=confinement.cgroup,
                    secret_env={name: str(file) for name, file in spec.secret_env.items()},
                )
            )
            launch(folder.path, spec, lock, python=self._python)
        except (OSError, GaveUp):
            release(confinement.cgroup)
            raise

    def _stop(self, instance_id: str, number: int, grace_s: float) -> None:
        folder = self._folder(instance_id)
        sighting = folder.look() if folder else None
        if folder is None or sighting is None or not sighting.is_alive:
            return
        try:
            _ask_stop(folder, sighting.run, number, grace_s)
        except OSError as error:
            raise no_room(error) from error
        keeper = find_keeper(folder, sighting)
        if keeper is not None:
            signal_process(keeper, signals.SIGTERM)

    def _remove(self, instance_id: str) -> None:
        folder = self._folder(instance_id)
        if folder is None:
            return
        lock = _own_by_force(folder)
        try:
            kill_orphans(folder, owned=True)
            spec = folder.spec.read()
            release(spec.cgroup if spec else "")
            # Renamed first, so that a crash midway leaves no half of an instance behind.
            folder.path.rename(self._directory / f".removed-{secrets.token_hex(8)}")
        except OSError as error:
            raise no_room(error) from error
        finally:
            os.close(lock)
        self._folders.pop(instance_id, None)
        self._settled.pop(instance_id, None)
        for grave in self._directory.glob(".removed-*"):
            shutil.rmtree(grave, ignore_errors=True)


def _signal_number(name: str) -> int:
    try:
        return signals.Signals[name]
    except KeyError:
        raise Rejected(
            "runtime.signal_unknown", f"there is no signal {name!r}", hint="for example SIGTERM"
        ) from None


def _ask_stop(folder: InstanceFolder, run: str, number: int, grace_s: float) -> None:
    """Write the request; an earlier deadline stays, so that asking again and again does not prolong it."""
    deadline = time.monotonic() + min(max(0.0, grace_s), _GRACE_LIMIT_S)
    asked = folder.stop.read()
    if asked is not None and asked.run == run:
        deadline = min(deadline, asked.deadline)
    folder.ask_stop(StopFile(run=run, signal=number, deadline=deadline))


def _own_unless_running(folder: InstanceFolder) -> int | None:
    """Return the lock, or None when the instance runs; waits for a keeper that is about to end."""
    limit = time.monotonic() + _END_LIMIT_S
    while time.monotonic() < limit:
        lock = own(folder.lock)
        if lock is not None:
            return lock
        if folder.look().is_alive:
            return None
        time.sleep(0.002)
    raise Unavailable("runtime.busy", "the instance has ended, but its keeper has not", id=folder.path.name)


def _own_by_force(folder: InstanceFolder) -> int:
    """Return the lock after killing what holds it: the component through its keeper, then the keeper."""
    for step in ("keeper", "kill"):
        lock = own(folder.lock)
        if lock is not None:
            return lock
        sighting = folder.look()
        keeper = find_keeper(folder, sighting)
        if step == "keeper" and keeper is not None:
            try:
                _ask_stop(folder, sighting.run, signals.SIGKILL, 0.0)
                signal_process(keeper, signals.SIGTERM)
            except OSError:
                # No room to ask; the next step does not need any.
                continue
        elif keeper is not None:
            signal_process(keeper, signals.SIGKILL)
        limit = time.monotonic() + _END_LIMIT_S
        while time.monotonic() < limit:
            lock = own(folder.lock)
            if lock is not None:
                return lock
            time.sleep(0.002)
    raise Unavailable("runtime.still_running", "the instance cannot be killed now", id=folder.path.name)
