"""Which blobs the hosts behind a relay are assigned or will be, the most urgent first.

What a host will choose of a release is worked out from its facts, as previews do; what it has chosen already it says.
A host without facts, or one that a release does not fit, wants the release's document alone.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Sequence

import msgspec

from skerry.delivery.relatives import place_files
from skerry.matching.answering import Previewer, PreviewHost
from skerry.ports.hub_store import HostRecord, HubStore
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DesiredState, ReleaseRef
from skerry.spec.relay import WantedBlob
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, VariantChoice

URGENT, ASSIGNED, UPCOMING, RUNNING = range(4)


def find_wanted(store: HubStore, sites: Collection[str], hosts: Sequence[HostRecord]) -> list[WantedBlob]:
    """Return what the hosts of these sites are to get or have, by their sites' newest DesiredStates. Blocking.

    First what urgent rollouts bring, then what is assigned and not there yet, then what will be, then what runs.
    """
    looking = _Looking(store)
    ranks: dict[str, int] = {}
    sizes: dict[str, int] = {}
    by_site: dict[str, list[HostRecord]] = {}
    for host in hosts:
        by_site.setdefault(host.site, []).append(host)
    for site in sorted(sites):
        record = store.site(site)
        if record is None or record.desired is None:
            continue
        desired = _desired(record.desired)
        for host in by_site.get(site, ()):
            for rank, digest, size in looking.wants(host, desired):
                ranks[digest] = min(rank, ranks.get(digest, RUNNING))
                sizes[digest] = size
    # Within a rank in the order found: a release's document before its files. Sorting is stable.
    return [
        WantedBlob(digest=digest, size_bytes=sizes[digest])
        for digest in sorted(ranks, key=lambda digest: ranks[digest])
    ]


class _Looking:
    """One look; every release is decoded once, and asked once for hosts that are alike."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._releases: dict[str, tuple[Release, Previewer] | None] = {}
        self._files: dict[tuple[str, tuple[VariantChoice, ...]], dict[str, int]] = {}

    def wants(self, host: HostRecord, desired: DesiredState) -> Iterator[tuple[int, str, int]]:
        """Yield rank, digest and size of what a host is to get."""
        seen = host.observed.applications if host.observed else {}
        for assignment in desired.hosts.get(host.name, ()):
            view = seen.get(assignment.application)
            rank = RUNNING if view and view.release == assignment.release else ASSIGNED
            rank = URGENT if rank == ASSIGNED and assignment.urgent else rank
            yield from self._release(rank, assignment.release, desired, host, view)
        for upcoming in desired.upcoming.get(host.name, ()):
            yield from self._release(UPCOMING, upcoming.release, desired, host, None)

    def _release(
        self, rank: int, name: str, desired: DesiredState, host: HostRecord, view: ApplicationView | None
    ) -> Iterator[tuple[int, str, int]]:
        ref: ReleaseRef | None = desired.releases.get(name)
        if ref is None:
            return
        yield rank, str(ref.digest), ref.size_bytes
        loaded = self._load(name)
        if loaded is None:
            return
        release, previewer = loaded
        told = view.choices if view is not None and name in (view.release, view.candidate) else ()
        choices = told or self._choices(previewer, host, desired, view)
        if choices is None:
            return
        for digest, size in self._files_of(name, release, choices).items():
            yield rank, digest, size

    def _choices(
        self, previewer: Previewer, host: HostRecord, desired: DesiredState, view: ApplicationView | None
    ) -> tuple[VariantChoice, ...] | None:
        if not host.facts:
            return None
        failed = view.failed_variants if view else {}
        asked = PreviewHost(
            site=host.site,
            facts=host.facts,
            policy=desired.policy,
            failed=failed,
            name=host.name,
            bindings=desired.bindings,
        )
        answer = previewer.answer(asked)
        if answer.reasons:
            return None
        slots = zip(previewer.asked.slots, answer.chosen, strict=True)
        return tuple(
            VariantChoice(
                kind=slot.kind, model=slot.name, version=slot.version, variant=slot.candidates[number].name
            )
            for slot, number in slots
        )

    def _files_of(self, name: str, release: Release, choices: tuple[VariantChoice, ...]) -> dict[str, int]:
        # Why a host chose differs between hosts that chose alike.
        key = (name, tuple(msgspec.structs.replace(choice, why=()) for choice in choices))
        if key not in self._files:
            files = {file.digest: file.size_bytes for file in place_files(release, choices)}
            for model in release.models:
                for case in model.spec.self_test.cases if model.spec.self_test else ():
                    files.update((str(f.digest), f.size_bytes) for f in (case.input, case.expected))
            self._files[key] = files
        return self._files[key]

    def _load(self, name: str) -> tuple[Release, Previewer] | None:
        if name not in self._releases:
            record = self._store.release(name)
            release = msgspec.json.decode(record.document, type=Release) if record else None
            self._releases[name] = (release, Previewer(release)) if release else None
        return self._releases[name]


def _desired(content: bytes) -> DesiredState:
    """Return what was last issued. It is our own signature from our own database: read, not trusted."""
    envelope = msgspec.json.decode(content, type=JsonEnvelope)
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)
