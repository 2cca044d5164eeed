"""What a release asks of a host, made ready once to be held against many hosts.

A slot is one choice to be made: the variant of a model that components mount, or of a component's image. A
model of one version is chosen once per release; the first component that mounts it says by which objective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from skerry.kit.quantities import parse_cpu, parse_size
from skerry.matching.clauses import Clause, show_size
from skerry.matching.devices import DeviceNeed
from skerry.matching.variants import Candidate, ClauseIndex, image_candidates, model_candidates
from skerry.spec.application import Component
from skerry.spec.hardware import Objective
from skerry.spec.release import Release


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One choice; `pairs` maps the models that an image is tied to, by name, to the positions of their slots."""

    kind: Literal["model", "image"]
    name: str
    version: str
    where: str
    objective: Objective
    candidates: tuple[Candidate, ...]
    pairs: Mapping[str, int] = {}


class Demand(msgspec.Struct, frozen=True):
    """What a component asks of its host beside variants."""

    component: str
    bit: int
    clause: Clause


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A release as questions. `groups` are positions of slots that must be chosen together, models first."""

    index: ClauseIndex
    slots: tuple[Slot, ...]
    groups: tuple[tuple[int, ...], ...]
    demands: tuple[Demand, ...]
    devices: tuple[DeviceNeed, ...]
    host_network: tuple[str, ...]


def ask(release: Release) -> Asked:
    """Return what a release asks, which must be valid (`check_release`)."""
    index = ClauseIndex()
    components = release.application.spec.components
    slots = [*_model_slots(release, index), *_image_slots(release, index)]
    return Asked(
        index=index,
        slots=tuple(slots),
        groups=tuple(_groups(slots)),
        demands=tuple(
            Demand(component.name, index.mask((clause,)), clause)
            for component in components
            for clause in _demands(component)
        ),
        devices=device_needs(release),
        host_network=tuple(c.name for c in components if c.image and c.container.network == "host"),
    )


def device_needs(release: Release) -> tuple[DeviceNeed, ...]:
    """Return the devices that the components of a release ask for."""
    return tuple(
        DeviceNeed(component.name, device, component.image is not None)
        for component in release.application.spec.components
        for device in component.devices
    )


def _model_slots(release: Release, index: ClauseIndex) -> Iterator[Slot]:
    mounts: dict[tuple[str, str], list[str]] = {}
    objectives: dict[tuple[str, str], Objective] = {}
    for component in release.application.spec.components:
        for mount in component.models:
            mounts.setdefault((mount.name, mount.version), []).append(component.name)
            objectives.setdefault((mount.name, mount.version), mount.objective)
    for (name, version), users in mounts.items():
        model = release.model(name, version)
        assert model is not None  # check_release has seen to it
        yield Slot(
            kind="model",
            name=name,
            version=version,
            where=f"{', '.join(users)}: model {name} {version}",
            objective=objectives[name, version],
            candidates=model_candidates(model.spec, name, index),
        )


def _image_slots(release: Release, index: ClauseIndex) -> Iterator[Slot]:
    components = release.application.spec.components
    mounted = dict.fromkeys((m.name, m.version) for c in components for m in c.models)
    positions = {key: position for position, key in enumerate(mounted)}
    for component in components:
        if component.image is None:
            continue
        candidates = image_candidates(component.image.variants, component.name, index)
        tied = {model for candidate in candidates for model in candidate.goes_with}
        yield Slot(
            kind="image",
            name=component.name,
            version="",
            where=f"{component.name}: image",
            objective=component.image.objective,
            candidates=candidates,
            pairs={m.name: positions[m.name, m.version] for m in component.models if m.name in tied},
        )


def _groups(slots: list[Slot]) -> Iterator[tuple[int, ...]]:
    """Yield what is tied together, directly or through another; each in the order of the slots."""
    groups: list[set[int]] = []
    for position, slot in enumerate(slots):
        tied = {position, *slot.pairs.values()}
        apart = [group for group in groups if not group & tied]
        joined = tied.union(*(group for group in groups if group & tied))
        groups = [*apart, joined]
    for group in sorted(groups, key=min):
        yield tuple(sorted(group))


def _demands(component: Component) -> Iterator[Clause]:
    if component.image is not None:
        yield Clause("engine", "there", "", "a container engine for its image")
    limits = component.resources
    if limits.memory:
        bound = parse_size(limits.memory)
        yield Clause("memory_bytes", "within", bound, f"memory for its limit of {show_size(bound)}")
    if limits.cpu:
        cpus = parse_cpu(limits.cpu)
        yield Clause("cpu_count", "within", cpus, f"processors for its limit of {limits.cpu}")
