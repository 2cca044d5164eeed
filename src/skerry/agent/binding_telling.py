"""Tells components that run of bindings that have changed, and of devices that came or went, until they take note.

What an instance was started with is remembered over restarts of the agent, so that each change is told once; after a
crash in between it may be told again, which is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from skerry.agent.asking import ask_to_take
from skerry.agent.binding_files import Joined
from skerry.agent.chores import Chores
from skerry.agent.live_models import run_of
from skerry.kit.errors import Unavailable
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.prober import Prober
from skerry.ports.runtime import InstanceView, Runtime
from skerry.spec.binding import BindingNeed, DeviceState

_KEY = "bindings_told"


class Known(msgspec.Struct, frozen=True):
    """What an instance knows of a binding."""

    mark: str
    state: DeviceState = "unknown"


class BindingTelling:
    """What the instances of one host know of their bindings, by instance and need."""

    def __init__(self, store: AgentStore, runtime: Runtime, prober: Prober, clock: Clock) -> None:
        self._store = store
        self._runtime = runtime
        self._prober = prober
        self._chores = Chores("tell_binding", clock)
        self._knows: dict[str, dict[str, Known]] = msgspec.json.decode(
            store.load(_KEY) or b"{}", type=dict[str, dict[str, Known]]
        )
        self.note: Callable[..., None] = lambda *_: None
        self._chores.on_trouble = lambda error: self.note("binding.untold", error.message)

    def note_launch(self, instance: str, joined: Mapping[str, Joined]) -> None:
        """Note with which bindings, by need, an instance is about to be started."""
        self._knows[instance] = {need: Known(one.mark, one.state) for need, one in joined.items()}
        self._save()

    def what_is_new(self, instance: str, need: BindingNeed, joined: Joined) -> str:
        """Say what an instance does not know yet: that its binding `changed`, or its `device`; empty for nothing.

        What it was started with is forgotten only with the agent's database: then it is told, and not restarted.
        """
        known = self._knows.get(instance, {}).get(need.name)
        if known is not None and known.mark != joined.mark:
            return "changed"
        return "device" if known is None or known.state != joined.state else ""

    def tell(self, instance: str, view: InstanceView, need: BindingNeed, joined: Joined) -> None:
        """Tell an instance by signal or request, in the background and until that succeeds; or take it as known."""
        change = need.on_change
        if change.signal is None and change.http is None:
            self._take_note(instance, need, joined)
            return
        key = f"{instance}|{run_of(view)}|{need.name}|{joined.state}|{joined.mark}"
        self._chores.want(key, lambda: self._tell(instance, view, need, joined))

    def forget(self, instances: Mapping[str, InstanceView]) -> None:
        """Forget what instances knew that have gone."""
        kept = {key: known for key, known in self._knows.items() if key in instances}
        if kept != self._knows:
            self._knows = kept
            self._save()

    async def close(self) -> None:
        """Stop telling."""
        await self._chores.close()

    async def _tell(self, instance: str, view: InstanceView, need: BindingNeed, joined: Joined) -> None:
        why = await ask_to_take(view, need.on_change, runtime=self._runtime, prober=self._prober)
        if why:
            raise Unavailable("binding.untold", f"{instance} did not take binding {need.name}: {why}")
        self._take_note(instance, need, joined)

    def _take_note(self, instance: str, need: BindingNeed, joined: Joined) -> None:
        self._knows.setdefault(instance, {})[need.name] = Known(joined.mark, joined.state)
        self._save()

    def _save(self) -> None:
        self._store.save({_KEY: msgspec.json.encode(self._knows)})
