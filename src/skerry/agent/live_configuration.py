"""The files of configurations as components find them: `configured/<instance>/files/...`, each replaced at one moment.

What a file is filled with that only the host knows, such as ports and the paths of secrets, is what it was when the
instance was started; it is kept beside the files, so that they can be written anew while it runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.agent.services.host_service import NOTHING, Given
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.runtime import Mount
from skerry.reconcile.configuring import Told, Unknown, started_with, tell_component
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component

CONFIG = "/skerry/config"
LABEL = "configuration"
"""The label of an instance that marks what it only learned when it was started."""


class LiveConfiguration:
    """Writes the files of one host's instances."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(
        self, application: str, fact: ReleaseFact, component: Component, local: Mapping[str, str]
    ) -> Given:
        """Place the files of a component that is about to be started, and return what it gets.

        Raises:
            Rejected: a reference has no value here (`component.unresolved`), or a variable cannot hold a value.
            Unavailable: no room.
        """
        if component.config is None or fact.configured is None:
            return NOTHING
        instance = fact.instance_id(application, component.name)
        folder = self._files(instance)
        seen = CONFIG if component.image is not None else str(folder)
        local = {**local, "config": seen}
        told = _told(component, fact, local)
        for name, value in told.env.items():
            if "\0" in value:
                raise Rejected("component.unresolved", f"the configuration's {name} has a zero character")
        self._write(instance, told, local)
        if not component.config.files:
            return Given(env=told.env)
        mounts = (Mount(folder, CONFIG),) if component.image is not None else ()
        return Given(env={**told.env, "SKERRY_CONFIG": seen}, values={"config": seen}, mounts=mounts)

    def rewrite(self, application: str, fact: ReleaseFact, component: Component) -> None:
        """Bring the files of a component that runs to what this release is configured with.

        Raises:
            Rejected, Unavailable: as `start`; files that were not reached are as they were.
        """
        if component.config is None or fact.configured is None:
            return
        instance = fact.instance_id(application, component.name)
        try:
            content = (self._directory / instance / "local.json").read_bytes()
            local = msgspec.json.decode(content, type=dict[str, str])
        except (OSError, *UNREADABLE) as error:
            raise Unavailable(
                "configuration.unplaced", "what it was started with is not known any more"
            ) from error
        self._write(instance, _told(component, fact, local), local)

    def mark(self, fact: ReleaseFact, component: Component) -> str:
        """Return the mark of what a component of this release only learns when it is started; empty for nothing."""
        if component.config is None or fact.configured is None:
            return ""
        return started_with(component, fact.configured.values)

    def forget(self, instances: AbstractSet[str]) -> None:
        """Remove the files of instances that are not there any more."""
        if self._directory.is_dir():
            for found in self._directory.iterdir():
                if found.name not in instances:
                    shutil.rmtree(found, ignore_errors=True)

    def _files(self, instance: str) -> Path:
        return self._directory / instance / "files"

    def _write(self, instance: str, told: Told, local: Mapping[str, str]) -> None:
        folder = self._files(instance)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_file(folder.parent / "local.json", msgspec.json.encode(dict(local)))
            for path, content in told.files.items():
                target = folder / path
                if target.is_file() and target.read_bytes() == content:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                beside = target.with_name(f".{target.name}.new")
                write_file(beside, content, mode=0o444)
                # A container's user has to read it, whatever the agent's umask is. No secret is in it.
                beside.chmod(0o444)
                beside.replace(target)
            for found in (folder, *(one for one in folder.rglob("*") if one.is_dir())):
                found.chmod(0o755)
        except OSError as error:
            raise Unavailable("disk.full", f"cannot write the configuration: {error.strerror}") from error


def _told(component: Component, fact: ReleaseFact, local: Mapping[str, str]) -> Told:
    assert fact.configured is not None
    told = tell_component(component, fact.configured.values, local)
    if isinstance(told, Unknown):
        names = ", ".join(f"${{{name}}}" for name in told.names)
        raise Rejected(
            "component.unresolved", f"its configuration names {names}, which this host has no value for"
        )
    return told
