"""One Podman with one small image, and what tests of containers ask of it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skerry.adapters.docker_images import DockerImages
from skerry.adapters.docker_runtime import DockerRuntime
from skerry.ports.runtime import ContainerSpec, InstanceSpec, InstanceView, Limits
from skerry.testing.images import TestImage, make_image
from skerry.testing.podman import PodmanService
from skerry.testing.waiting import eventually

WAITS = ("sh", "-c", "trap 'exit 143' TERM; trap 'exit 130' INT; echo ready; sleep 3600 & wait")
DEAF = ("sh", "-c", "trap '' TERM INT; echo ready; while :; do sleep 0.02; done")

_owners = itertools.count()


class DockerWorld:
    """A runtime of an owner of its own; others of the same owner are what a restarted agent has."""

    def __init__(self, podman: PodmanService, image: TestImage) -> None:
        self.podman = podman
        self.image = image
        self.owner = f"world-{next(_owners)}"
        self.runtime = self.again()

    def again(self) -> DockerRuntime:
        return DockerRuntime(self.podman.socket, owner=self.owner)

    def spec(
        self,
        *command: str,
        name: str = "one",
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        container: ContainerSpec | None = None,
    ) -> InstanceSpec:
        return InstanceSpec(
            id=name,
            command=command,
            env=env or {},
            directory=Path("/"),
            limits=limits or Limits(),
            container=container or self.container(),
        )

    def container(self, **changes: Any) -> ContainerSpec:
        return ContainerSpec(image=self.image.identity, **changes)

    async def start(self, *command: str, name: str = "one", **changes: Any) -> None:
        await self.runtime.start(self.spec(*command, name=name, container=self.container(**changes)))

    async def view(self, name: str = "one") -> InstanceView:
        return (await self.runtime.instances())[name]

    async def reaches(self, state: str, name: str = "one") -> InstanceView:
        async def look() -> InstanceView | None:
            seen = (await self.runtime.instances()).get(name)
            return seen if seen is not None and seen.state == state else None

        return await eventually(look, what=f"{name} {state}")

    async def is_ready(self, name: str = "one") -> None:
        async def look() -> bool:
            return b"ready\n" in await self.runtime.logs(name, tail_bytes=100)

        await eventually(look, what=f"{name} ready")

    async def output(self, *command: str, env: Mapping[str, str] | None = None, **changes: Any) -> str:
        """Run a command to its end in a container, remove it, and return what it wrote."""
        spec = self.spec(*command, name="job", env=env, container=self.container(**changes))
        await self.runtime.start(spec)
        seen = await self.reaches("exited", "job")
        written = (await self.runtime.logs("job", tail_bytes=100_000)).decode()
        await self.runtime.remove("job")
        assert seen.exit_code == 0, written
        return written

    async def inspect(self, name: str = "one") -> Any:
        """Return what podman's own program says of an instance's only container."""
        (container,) = self.containers(name)
        return json.loads(await asyncio.to_thread(self.podman.podman, "inspect", container))[0]

    def containers(self, name: str = "") -> list[str]:
        """Return the names of this owner's containers, or of one instance's."""
        wanted = [
            f"label=io.skerry.owner={self.owner}",
            *([f"label=io.skerry.instance={name}"] if name else []),
        ]
        filters = [word for value in wanted for word in ("--filter", value)]
        return self.podman.podman("ps", "--all", "--format", "{{.Names}}", *filters).split()

    def networks(self) -> list[str]:
        filters = ("--filter", f"label=io.skerry.owner={self.owner}")
        return self.podman.podman("network", "ls", "--format", "{{.Name}}", *filters).split()

    async def clear(self) -> None:
        runtime = self.again()
        for instance_id in await runtime.instances():
            await runtime.remove(instance_id)
        left = self.containers()
        if left:
            self.podman.podman("rm", "--force", "--time", "0", *left)


async def new_engine(place: Path) -> tuple[PodmanService, TestImage]:
    """Start a Podman with the test image loaded; the caller closes it."""
    image = make_image(
        place / "image", config={"Env": ["FROM_IMAGE=yes", "PATH=/bin"], "WorkingDir": "/data"}
    )
    podman = PodmanService(place / "podman")
    podman.__enter__()
    await DockerImages(podman.socket, owner="tests").load(image.parts, image.blob)
    return podman, image
