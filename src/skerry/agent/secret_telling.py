"""Tells components that run about new values of their secrets and certificates, until they have taken note.

What an instance was started with or told is remembered, so that each is told once; after a crash in between it may be
told again, which is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from skerry.agent.asking import ask_to_take
from skerry.agent.chores import Chores
from skerry.agent.live_models import run_of
from skerry.kit.errors import Unavailable
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.prober import Prober
from skerry.ports.runtime import InstanceView, Runtime
from skerry.spec.application import SecretUse
from skerry.trust.secret_choice import InUse


class SecretTelling:
    """What the instances of one host know of their secrets, or of their certificates."""

    def __init__(
        self, store: AgentStore, runtime: Runtime, prober: Prober, clock: Clock, *, what: str = "secret"
    ) -> None:
        """`what` is told of; those who tell of different things remember apart."""
        self._what = what
        self._store_key = f"{what}s_told"
        self._store = store
        self._runtime = runtime
        self._prober = prober
        self._chores = Chores(f"tell_{what}", clock)
        self._launched: dict[str, dict[str, str]] = {}
        self._knows: dict[str, str] = msgspec.json.decode(
            store.load(self._store_key) or b"{}", type=dict[str, str]
        )
        self.note: Callable[..., None] = lambda *_: None
        self._chores.on_trouble = lambda error: self.note(f"{what}.untold", error.message)

    def note_launch(self, instance: str, ids: Mapping[str, str]) -> None:
        """Note which versions, by name, an instance is about to be started with."""
        self._launched[instance] = dict(ids)

    def is_due(self, instance: str, view: InstanceView, use: SecretUse, chosen: InUse) -> bool:
        """Tell whether an instance that runs has to be told of the version that is used now."""
        change = use.on_change
        if not (change.restart or change.signal or change.http):
            return False
        known = self._knows.get(_key(instance, view, use))
        if known is None and (launched := self._launched.get(instance)) is not None:
            known = launched.get(use.name)
        if known is not None:
            return known != chosen.id
        # An agent before this one started it: with what was in use then.
        return view.started_at is None or view.started_at < chosen.since

    def tell(self, instance: str, view: InstanceView, use: SecretUse, chosen: InUse) -> None:
        """Tell an instance by signal or request, in the background and until that succeeds."""
        key = _key(instance, view, use)
        self._chores.want(f"{key}|{chosen.id}", lambda: self._tell(instance, view, use, chosen))

    def forget(self, instances: Mapping[str, InstanceView]) -> None:
        """Forget what instances knew that have gone."""
        runs = {f"{instance}|{run_of(view)}" for instance, view in instances.items()}
        self._launched = {key: ids for key, ids in self._launched.items() if key in instances}
        kept = {key: known for key, known in self._knows.items() if key.rpartition("|")[0] in runs}
        if kept != self._knows:
            self._knows = kept
            self._save()

    async def close(self) -> None:
        """Stop telling."""
        await self._chores.close()

    async def _tell(self, instance: str, view: InstanceView, use: SecretUse, chosen: InUse) -> None:
        why = await ask_to_take(view, use.on_change, runtime=self._runtime, prober=self._prober)
        if why:
            message = f"{instance} did not take {self._what} {use.name}: {why}"
            raise Unavailable(f"{self._what}.untold", message)
        self._knows[_key(instance, view, use)] = chosen.id
        self._save()

    def _save(self) -> None:
        self._store.save({self._store_key: msgspec.json.encode(self._knows)})


def _key(instance: str, view: InstanceView, use: SecretUse) -> str:
    return f"{instance}|{run_of(view)}|{use.name}+{use.path or use.env}"
