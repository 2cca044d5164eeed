"""The components that are needed on a host, or may be again: those a service keeps something for."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from skerry.agent.services.host_service import Turn
from skerry.kit.digests import short
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component


def network_of(application: str, fact: ReleaseFact) -> str:
    """Return the name of the network that the containers of a release have to themselves."""
    return f"skerry-{application}-{short(fact.kin)}"


class ComponentPlace(msgspec.Struct, frozen=True):
    """A component of a release that is needed here. `name` is the same for releases of one family."""

    application: str
    fact: ReleaseFact
    component: Component

    @property
    def name(self) -> str:
        """What a directory of the component may be named."""
        return f"{self.application}.{self.component.name}.{short(self.fact.kin)}"

    @property
    def instance(self) -> str:
        """The id of the instance that the component has, or would have."""
        return self.fact.instance_id(self.application, self.component.name)


def releases_of(
    turn: Turn, fact_of: Callable[[str], ReleaseFact | None]
) -> tuple[list[tuple[str, ReleaseFact]], bool]:
    """Return applications with the releases that are good, were before, or are on trial, and with whatever runs.

    And whether that is all, as every document is here.
    """
    wanted = {
        (name, digest) for name, r in turn.records.items() for digest in (r.good, r.previous, r.candidate)
    }
    wanted |= {
        (view.labels.get("application", ""), view.labels.get("release", ""))
        for view in turn.instances.values()
    }
    found = [(application, fact_of(digest)) for application, digest in sorted(wanted) if digest]
    known = [(application, fact) for application, fact in found if fact is not None]
    return known, len(known) == len(found)


def places_of(
    turn: Turn, fact_of: Callable[[str], ReleaseFact | None], is_meant: Callable[[Component], bool]
) -> tuple[dict[str, ComponentPlace], bool]:
    """Return the components that are meant of all those releases, by name of place; and whether that is all."""
    releases, whole = releases_of(turn, fact_of)
    places = [
        ComponentPlace(application, fact, component)
        for application, fact in releases
        for component in fact.components
        if is_meant(component)
    ]
    return {place.name: place for place in places}, whole
