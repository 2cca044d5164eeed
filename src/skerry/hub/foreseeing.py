"""Foresees which deltas the hosts of a rollout will ask for, from what they last reported to run.

The same functions find relatives here as on hosts, so what is made ahead is what is asked for. A host that picks
another variant than before, or that comes back with an older release, asks for what nobody foresaw; that is made then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from skerry.delivery.relatives import find_bases, place_files, same_variants
from skerry.hub.deltas import Pair
from skerry.kit.editions import plain_release
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import HubStore, RolloutRecord
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site

MIN_LAYER_BYTES = 1 << 20
Choices = tuple[VariantChoice, ...]


def foresee_deltas(store: HubStore, rollout: RolloutRecord) -> list[Pair]:
    """Return base and target of each delta, those for most hosts first. Blocking."""
    running = Counter(_running(store, rollout))
    release = _release(store, rollout.release)
    if release is None:
        return []
    wanted: Counter[Pair] = Counter()
    for (name, choices), hosts in running.items():
        before = _release(store, name)
        for pair in delta_pairs(before, choices, release) if before else ():
            wanted[pair] += hosts
    return [pair for pair, _ in wanted.most_common()]


def foresee_release(release: Release) -> list[Pair]:
    """Return what hosts will ask for that get a new release as their first: its image layers, compressed.

    They are kept as they are, and take two or three times what a registry would send. Other files are mostly packed
    already, or weights, which gain too little to be made before somebody asks.
    """
    return [
        ((), str(layer.digest))
        for component in release.application.spec.components
        for image in (component.image.variants if component.image else ())
        for layer in image.layers
        if layer.size_bytes >= MIN_LAYER_BYTES
    ]


def delta_pairs(before: Release, choices: Choices, release: Release) -> Iterator[Pair]:
    """Yield the deltas that a host asks for first which goes from one release, with these choices, to another."""
    wanted = place_files(release, same_variants(release, choices))
    for target, bases in find_bases(list(wanted), list(place_files(before, choices))).items():
        yield bases[0], target


def _running(store: HubStore, rollout: RolloutRecord) -> Iterable[tuple[str, Choices]]:
    selector = parse_selector(msgspec.json.decode(rollout.document, type=Rollout).spec.sites)
    sites = {
        site.name
        for site in store.sites()
        if selector.matches(site.name, msgspec.json.decode(site.document, type=Site).metadata.labels)
    }
    for host in store.hosts():
        view = host.observed.applications.get(rollout.application) if host.observed else None
        if (
            host.site in sites
            and view
            and plain_release(view.release) not in ("", plain_release(rollout.release))
        ):
            # Why a host chose differs between hosts that chose alike.
            yield view.release, tuple(msgspec.structs.replace(choice, why=()) for choice in view.choices)


def _release(store: HubStore, name: str) -> Release | None:
    record = store.release(name)
    return msgspec.json.decode(record.document, type=Release) if record else None
