"""ProcessHost: a directory with a ProcessRuntime in it, its real processes, and what tests do to them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from skerry.adapters.process_folder import InstanceFolder, KeeperFile
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.ports.runtime import InstanceSpec, InstanceView, Limits
from skerry.testing.processes import is_running, processes_of
from skerry.testing.waiting import eventually, eventually_sync

PATH = "/usr/local/bin:/usr/bin:/bin"
FOR_EVER = ("sh", "-c", "echo ready; exec sleep 3600")


class ProcessHost:
    """Instances below a temporary directory, and the processes they are made of."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.instances = place / "instances"
        self.work = place / "work"
        self.work.mkdir()
        self.runtime = ProcessRuntime(self.instances)

    def spec(self, command: tuple[str, ...], name: str = "one", limits: Limits | None = None) -> InstanceSpec:
        """Return a specification with a minimal environment."""
        return InstanceSpec(
            id=name, command=command, env={"PATH": PATH}, directory=self.work, limits=limits or Limits()
        )

    async def start(self, *command: str, name: str = "one") -> None:
        """Start a command; without one it prints `ready` and runs for ever."""
        await self.runtime.start(self.spec(command or FOR_EVER, name))

    async def view(self, name: str = "one") -> InstanceView:
        """Return what is known of an instance."""
        return (await self.runtime.instances())[name]

    async def clear(self) -> None:
        """Remove all instances and see that no process is left."""
        runtime = ProcessRuntime(self.instances)
        for instance_id in await runtime.instances():
            await runtime.remove(instance_id)

        async def is_empty() -> bool:
            return not processes_of(self.place)

        await eventually(is_empty, what="the end of all processes")

    def folder(self, name: str = "one") -> InstanceFolder:
        """Return an instance's files."""
        return InstanceFolder(self.instances / name)

    def keeper(self, name: str = "one") -> KeeperFile:
        """Return an instance's keeper.json."""
        found = self.folder(name).keeper.read()
        assert found is not None
        return found

    def components(self) -> set[int]:
        """Return the processes that work in the components' directory."""
        return set(processes_of(self.work))

    async def reaches(self, state: str, name: str = "one") -> InstanceView:
        """Wait for a state."""

        async def look() -> InstanceView | None:
            seen = await self.view(name)
            return seen if seen.state == state else None

        return await eventually(look, what=f"{name} {state}")

    async def has_printed(self, text: bytes, name: str = "one") -> bytes:
        """Wait for some output and return all of it."""

        async def look() -> bytes | None:
            output = await self.runtime.logs(name, tail_bytes=1 << 20)
            return output if text in output else None

        return await eventually(look, what=f"output {text!r}")

    def kill_keeper(self, name: str = "one") -> KeeperFile:
        """Kill a keeper as the kernel would when memory runs out, and return what it had written."""
        keeper = self.keeper(name)
        os.kill(keeper.keeper.pid, signal.SIGKILL)
        eventually_sync(lambda: not is_running(keeper.keeper.pid), what="the end of the keeper")
        return keeper
