"""What components take while they run: models, and files of their configuration (`live_configuration`).

`live/<family>/.versions/<release>/<model>/...` holds the files of each release beside each other, and the link
`live/<family>/current` names one of them, from one moment to the next. Which release a family has taken is
remembered only when every instance was told: after a crash in between they are told again, which is harmless.
Who has nothing new is not told.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.agent.asking import ask_to_take
from skerry.agent.live_configuration import LABEL, LiveConfiguration
from skerry.agent.releases import Releases, lay_file
from skerry.kit.digests import hex_of, short
from skerry.kit.editions import release_in
from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.agent_store import AgentStore
from skerry.ports.prober import Prober
from skerry.ports.runtime import InstanceView, Runtime
from skerry.reconcile.configuring import files_with
from skerry.reconcile.kinship import is_hot
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component, OnChange, OnConfigChange


class LiveModels:
    """The hot models of one host.

    `taken` maps a family to the release whose models it uses; `stale` says, by instance and run, why one did
    not take them.
    """

    def __init__(
        self, directory: Path, releases: Releases, store: AgentStore, runtime: Runtime, prober: Prober
    ) -> None:
        self._directory = directory
        self._releases = releases
        self._store = store
        self._runtime = runtime
        self._prober = prober
        self.configuration: LiveConfiguration | None = None
        self.taken: dict[str, str] = msgspec.json.decode(store.load("taken") or b"{}", type=dict[str, str])
        self.stale: dict[tuple[str, str], str] = {}

    def directory(self, family: str) -> Path:
        """Return what a container of this family is shown; `current/<model>` in it are the files."""
        return self._directory / short(family)

    async def take(self, application: str, fact: ReleaseFact) -> None:
        """Let a family go over to a release's models: new files, then the link, then tell whoever runs.

        Raises:
            Unavailable: no room for the files; nothing has changed then.
        """
        before = self._releases.fact(self.taken.get(fact.kin, ""))
        if any(is_hot(component) for component in fact.components):
            await asyncio.to_thread(self._switch, fact)
        views = await self._runtime.instances()
        for component in fact.components:
            instance = fact.instance_id(application, component.name)
            view = views.get(instance)
            if view is not None and view.state == "running":
                run = run_of(view)
                self.stale.pop((instance, run), None)
                if why := await self._take(application, fact, component, before=before, view=view):
                    self.stale[instance, run] = why
        self.taken = {**self.taken, fact.kin: fact.digest}
        self._store.save({"taken": msgspec.json.encode(self.taken)})

    def forget(self, families: AbstractSet[str], runs: AbstractSet[tuple[str, str]]) -> None:
        """Remove what no family and no run that is still there needs."""
        self.stale = {key: why for key, why in self.stale.items() if key in runs}
        if self.taken.keys() - families:
            self.taken = {family: digest for family, digest in self.taken.items() if family in families}
            self._store.save({"taken": msgspec.json.encode(self.taken)})
            keep = {short(family) for family in families}
            for folder in self._directory.iterdir() if self._directory.is_dir() else ():
                if folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)

    def _switch(self, fact: ReleaseFact) -> None:
        folder = self.directory(fact.kin)
        version = hex_of(release_in(fact.digest))
        place = folder / ".versions" / version
        try:
            if not place.exists():
                beside = place.with_name(version + ".new")
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir(parents=True)
                source = self._releases.folder(fact.digest) / "models"
                for file in source.rglob("*"):
                    if file.is_file():
                        lay_file(file, beside / file.relative_to(source))
                beside.replace(place)
            link, new = folder / "current", folder / ".current.new"
            before = str(link.readlink()) if link.is_symlink() else ""
            new.unlink(missing_ok=True)
            new.symlink_to(f".versions/{version}")
            new.replace(link)
        except OSError as error:
            raise Unavailable("disk.full", f"cannot lay out the models of {fact.name}: {error}") from error
        # The versions before stay while they may be taken back: the one before this and no other.
        for old in (folder / ".versions").iterdir():
            if old.name not in (version, Path(before).name):
                shutil.rmtree(old, ignore_errors=True)

    async def _take(
        self,
        application: str,
        fact: ReleaseFact,
        component: Component,
        *,
        before: ReleaseFact | None,
        view: InstanceView,
    ) -> str:
        """Let a component that runs take what is new to it; return why it did not."""
        same = before is not None and release_in(before.digest) == release_in(fact.digest)
        if component.on_change is not None and is_hot(component) and not same:
            why = await self._tell(component.on_change, view)
            if why:
                return why
        configuration, use = self.configuration, component.config
        if configuration is None or use is None or _files(before, component) == _files(fact, component):
            return ""
        if view.labels.get(LABEL, "") != configuration.mark(fact, component):
            return ""  # it is restarted, and finds them then
        try:
            await asyncio.to_thread(configuration.rewrite, application, fact, component)
        except SkerryError as error:
            return error.message
        return "" if use.on_change.none else await self._tell(use.on_change, view)

    async def _tell(self, change: OnChange | OnConfigChange, view: InstanceView) -> str:
        return await ask_to_take(view, change, runtime=self._runtime, prober=self._prober)


def _files(fact: ReleaseFact | None, component: Component) -> str | None:
    return files_with(component, fact.configured.values) if fact is not None and fact.configured else None


def run_of(view: InstanceView) -> str:
    """Return what tells one life of an instance from the next."""
    return f"{view.pid}@{view.started_at}"
