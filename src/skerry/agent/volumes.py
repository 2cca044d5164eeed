"""Volumes: data of components that outlives updates, below `volumes/<application>/<component>/`.

`.data` is the component's own directory, beside it one for each volume by name. `volumes/.wiped/<application>`
says how often an application's volumes were emptied.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable
from skerry.kit.quantities import format_size, parse_size
from skerry.ports.clock import Clock
from skerry.spec.application import Component

_log = structlog.get_logger()

LOOK_EVERY_S = 5.0


class Volumes:
    """The volumes of one host. `full` says which `application.component` holds more than it may."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._limits: dict[str, dict[Path, int]] = {}
        self._unburied = ""
        self._unread: set[str] = set()
        self.full: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / ".wiped").mkdir(exist_ok=True)

    def own(self, application: str, component: str) -> Path:
        """Return, and make if need be, a component's own directory."""
        return self._made(self._directory / application / component / ".data")

    def place(self, application: str, component: str, volume: str) -> Path:
        """Return, and make if need be, where a volume is."""
        return self._made(self._directory / application / component / volume)

    def watch(self, components: Mapping[str, Component]) -> None:
        """Look after the limits of these components (`application.component` -> component) and no others."""
        self._limits = {}
        for key, component in components.items():
            application = key.removesuffix(f".{component.name}")
            limits = {
                self._directory / application / component.name / volume.name: parse_size(volume.size)
                for volume in component.volumes
                if volume.size
            }
            if limits:
                self._limits[key] = limits

    def wiped(self) -> dict[str, int]:
        """Return how often each application's volumes were emptied; no end of times where that can no longer be read.

        When in doubt the data stays: counted as never, it would be emptied once more for a wipe of long ago.
        """
        counts: dict[str, int] = {}
        for file in (self._directory / ".wiped").iterdir():
            if file.suffix:
                continue  # on its way
            try:
                counts[file.name] = int(file.read_text(encoding="ascii"))
            except (OSError, ValueError) as error:
                counts[file.name] = sys.maxsize
                if file.name not in self._unread:
                    _log.error(
                        "volumes.count_unread", application=file.name, file=str(file), reason=str(error)
                    )
                    self._unread.add(file.name)
            else:
                self._unread.discard(file.name)
        return counts

    def wipe(self, application: str, count: int) -> None:
        """Empty an application's volumes, and remember that it was done `count` times; again is harmless.

        What they held is out of reach at once, and removed by `bury`.

        Raises:
            Unavailable: it cannot be noted (`disk.unwritable`), and is to be done again.
        """
        folder = self._directory / application
        if folder.exists():
            try:
                folder.rename(self._directory / f".removed-{application}-{count}-{secrets.token_hex(4)}")
            except OSError as error:
                raise Unavailable("disk.unwritable", f"cannot empty {folder}: {error.strerror}") from error
        write_file(self._directory / ".wiped" / application, str(count).encode())

    def bury(self) -> None:
        """Remove what was emptied, also by an earlier agent that was ended meanwhile. Blocking.

        Raises:
            OSError: something cannot be removed; the next time it is tried again.
        """
        for grave in self._directory.glob(".removed-*"):
            shutil.rmtree(grave)

    async def run_forever(self) -> None:
        """Measure now and then what has a limit."""
        while True:
            if self._limits or self.full:
                before = dict(self.full)
                self.full = await asyncio.to_thread(_measure, dict(self._limits))
                if before.keys() != self.full.keys():
                    self.on_change()
            try:
                await asyncio.to_thread(self.bury)
                self._unburied = ""
            except OSError as error:
                if self._unburied != str(error):
                    _log.warning("volumes.not_removed", reason=str(error))
                self._unburied = str(error)
            await self._clock.sleep(LOOK_EVERY_S)

    def _made(self, place: Path) -> Path:
        if not place.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            # Whoever a container runs as may write; the directory above keeps everybody else out.
            place.chmod(0o777)
        return place


def _measure(limits: Mapping[str, Mapping[Path, int]]) -> dict[str, str]:
    full: dict[str, str] = {}
    for key, places in limits.items():
        for place, limit in places.items():
            used = _used(place)
            if used > limit:
                text = f"volume {place.name} holds {format_size(used)} and may hold {format_size(limit)}"
                full[key] = text
    return full


def _used(place: Path) -> int:
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118  (hot path)
            except OSError:
                continue
    return total
