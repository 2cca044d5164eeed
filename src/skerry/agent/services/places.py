"""The components that are needed on a host, or may be again: those a service keeps something for."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from skerry.agent.services.host_service import Turn
from skerry.kit.digests import short
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component


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


def places_of(
    turn: Turn, fact_of: Callable[[str], ReleaseFact | None], is_meant: Callable[[Component], bool]
) -> tuple[dict[str, ComponentPlace], bool]:
    """Return the components that are meant, by name of place; and whether that is all, as every document is here.

    They are those of releases that are good, were before, or are on trial, and of whatever runs.
    """
    wanted = {
        (name, digest) for name, r in turn.records.items() for digest in (r.good, r.previous, r.candidate)
    }
    wanted |= {
        (view.labels.get("application", ""), view.labels.get("release", ""))
        for view in turn.instances.values()
    }
    places: dict[str, ComponentPlace] = {}
    whole = True
    for application, digest in sorted(wanted):
        fact = fact_of(digest) if digest else None
        whole = whole and (fact is not None or not digest)
        for component in fact.components if fact else ():
            if fact is not None and is_meant(component):
                place = ComponentPlace(application, fact, component)
                places[place.name] = place
    return places, whole
