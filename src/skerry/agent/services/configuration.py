"""Configurations as a service of the host: keeps what is desired before it is tried, and says who is restarted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skerry.agent.configurations import Configurations
from skerry.agent.live_configuration import LABEL, LiveConfiguration
from skerry.agent.services.host_service import HostService, Turn
from skerry.kit.editions import configuration_in
from skerry.reconcile.records import ReleaseFact


class HostConfiguration(HostService):
    """The configurations of one host. `taken` maps a family to the edition its instances go by."""

    name = "configuration"

    def __init__(
        self,
        host: str,
        kept: Configurations,
        files: LiveConfiguration,
        *,
        fact_of: Callable[[str], ReleaseFact | None],
        taken: Callable[[], Mapping[str, str]],
    ) -> None:
        self._host = host
        self._kept = kept
        self._files = files
        self._fact_of = fact_of
        self._taken = taken
        self._outdated: Mapping[str, str] = {}
        super().__init__()

    @property
    def outdated(self) -> Mapping[str, str]:
        """Instances that run with other variables or files than the edition they are to go by says."""
        return self._outdated

    async def follow(self, turn: Turn) -> None:
        """Keep what assignments name, forget what nothing names, and see which instances lag behind.

        Raises:
            Unavailable: no room for a configuration.
        """
        desired = turn.desired
        own = desired.hosts.get(self._host, ()) if desired else ()
        wanted = {one.configuration for one in own if one.configuration}
        named = {edition for r in turn.records.values() for edition in (r.good, r.previous, r.candidate)}
        named |= {view.labels.get("release", "") for view in turn.instances.values()}
        named |= set(self._taken().values())
        # First what goes: a disk that is full must not keep the new one out.
        self._kept.forget(wanted | {configuration_in(edition) for edition in named})
        self._files.forget(turn.instances.keys() | self._starting(turn))
        self._outdated = self._lagging(turn)
        if desired is not None:
            held = desired.configurations
            self._kept.keep((digest, held[digest]) for digest in sorted(wanted) if digest in held)

    def _starting(self, turn: Turn) -> set[str]:
        """Return the ids of instances that may be started next: their files may be there already."""
        found: set[str] = set()
        for name, record in turn.records.items():
            for edition in (record.good, record.candidate):
                fact = self._fact_of(edition) if edition else None
                found |= {fact.instance_id(name, one.name) for one in fact.components} if fact else set()
        return found

    def _lagging(self, turn: Turn) -> dict[str, str]:
        found: dict[str, str] = {}
        taken = self._taken()
        for key, view in turn.instances.items():
            edition = taken.get(view.labels.get("family", ""), "")
            fact = self._fact_of(edition) if edition else None
            name = view.labels.get("component", "")
            component = next((one for one in fact.components if one.name == name), None) if fact else None
            if fact is None or component is None or view.state != "running":
                continue
            if view.labels.get(LABEL, "") != self._files.mark(fact, component):
                found[key] = "its configuration has changed"
        return found
