"""The answer of `match_release` for many hosts, with the work shared between them.

The release's requirements are taken apart into distinct clauses, each of which reads one subject. For every
distinct value of a subject its clauses are evaluated once; figures such as memory, which may be different on
every host, count only by the bounds they pass. What holds on a host is then one number, and hosts of the same
number, with latencies in the same order and the same failures, get the same answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime

import msgspec

from skerry.matching.asking import Asked, ask
from skerry.matching.bindings import NoBinding, match_bindings
from skerry.matching.capacity import Need, need_of
from skerry.matching.clauses import (
    GPUS,
    Clause,
    Gpu,
    GpuWanted,
    Value,
    clause_holds,
    gpus_of,
    read_subject,
)
from skerry.matching.devices import match_devices
from skerry.matching.pairing import select
from skerry.matching.releases import network_reasons, unpaired_reason
from skerry.matching.requirements import clauses_of
from skerry.matching.variants import latencies_of, rank
from skerry.spec.binding import BindingSpec
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.release import Release

_NOTHING: frozenset[str] = frozenset()


class PreviewHost(msgspec.Struct, frozen=True, kw_only=True):
    """A host as the hub knows it. `holds` are the digests it has; `reserved` is what other applications set aside.

    `bindings` are those that its site offers.
    """

    site: str
    facts: HostFacts
    policy: SitePolicy = SitePolicy()
    holds: frozenset[str] = _NOTHING
    reserved: Need = Need()
    failed: Mapping[str, str] = {}
    taken: AbstractSet[str] = _NOTHING
    as_of: datetime | None = None
    name: str = ""
    bindings: tuple[BindingSpec, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """What a host gets: a position per slot, or why it gets nothing; `elsewhere` when its placement is what fails."""

    chosen: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    elsewhere: bool = False


class Previewer:
    """A release made ready for many hosts; what has been found out is kept for the next."""

    def __init__(self, release: Release) -> None:
        self.asked: Asked = ask(release)
        index = self.asked.index
        # Before the subjects are gathered: what the placement asks has its bits in the same numbers.
        placement = clauses_of(release.application.spec.placement.requires)
        self._placement_bits = [(index.mask((clause,)), clause) for clause in placement]
        # By slot, of each candidate: its key, its name and what it wants, each clause with its bit.
        self._wants = [
            [
                (
                    candidate.key,
                    f"{slot.where}: {candidate.name}",
                    [
                        (index.mask((c,)), f"{slot.where}: {candidate.name}: needs {c.wants}")
                        for c in candidate.clauses
                    ],
                )
                for candidate in slot.candidates
            ]
            for slot in self.asked.slots
        ]
        self._timed = [slot for slot in self.asked.slots if slot.objective == "fastest"]
        self._subjects = _subjects(index.clauses)
        self._answers: dict[tuple[object, ...], Answer] = {}
        self._sizes: dict[tuple[tuple[int, ...], frozenset[str]], tuple[int, int]] = {}
        self._files = _files_of(release, self.asked)
        self.need = need_of(release.application.spec)
        self._needs = release.application.spec.needs

    def answer(self, host: PreviewHost) -> Answer:
        """Return what a host gets."""
        facts = host.facts
        if self._needs:
            joined = match_bindings(self._needs, host.bindings, host=host.name)
            if isinstance(joined, NoBinding):
                return Answer((), joined.reasons, True)
        holding = 0
        for subject in self._subjects:
            holding |= subject.holding(facts)
        ranks = self._latency_ranks(facts, holding)
        failed = frozenset(host.failed) if host.failed else _NOTHING
        lacks: tuple[str, ...] = ()
        if self.asked.devices:
            match = match_devices(self.asked.devices, facts, host.taken)
            lacks = tuple(f"{component}: needs {lack.wants}" for component, lack in match.lacks)
        key = (holding, ranks, failed, host.policy.host_network, lacks)
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = self._decide(holding, ranks, host, lacks)
        return found

    def missing_bytes(self, chosen: tuple[int, ...], holds: frozenset[str]) -> tuple[int, int]:
        """Return the bytes of what a host gets and does not hold: that travel, and that it needs on its disk.

        An image takes its room twice: as blobs, and in the engine that it is loaded into.
        """
        key = (chosen, holds)
        found = self._sizes.get(key)
        if found is None:
            always, per_slot = self._files
            files, images = dict(always), dict[str, int]()
            for slot, position in enumerate(chosen):
                files.update(per_slot[slot][position])
                images.update(per_slot[slot][position] if self.asked.slots[slot].kind == "image" else {})
            travel = sum(size for digest, size in files.items() if digest not in holds)
            found = (travel, travel + sum(size for digest, size in images.items() if digest not in holds))
            self._sizes[key] = found
        return found

    def _latency_ranks(self, facts: HostFacts, holding: int) -> tuple[tuple[int, ...], ...]:
        """Return how the latencies of what fits compare, by slot: only their order counts, not the figures."""
        found: list[tuple[int, ...]] = []
        for slot in self._timed:
            measured = latencies_of(slot.candidates, facts)
            if not measured:
                found.append(())
                continue
            figures = [
                measured.get(c.key, c.latency_us) if c.needs & holding == c.needs else -1.0
                for c in slot.candidates
            ]
            order = {figure: n for n, figure in enumerate(sorted(set(figures)))}
            found.append(tuple(order[figure] for figure in figures))
        return tuple(found)

    def _decide(
        self,
        holding: int,
        ranks: tuple[tuple[int, ...], ...],
        host: PreviewHost,
        lacks: tuple[str, ...],
    ) -> Answer:
        unwanted = [clause.wants for bit, clause in self._placement_bits if not bit & holding]
        if unwanted:
            return Answer((), tuple(f"the placement needs {wants}" for wants in unwanted), True)
        asked = self.asked
        latencies = {
            c.key: float(position)
            for slot, order in zip(self._timed, ranks, strict=True)
            for c, position in zip(slot.candidates, order, strict=False)
        }
        ranked = [
            rank(slot.candidates, slot.objective, holding, latencies, host.failed) for slot in asked.slots
        ]
        selection = select(asked, ranked)
        reasons: list[str] = []
        for n, slot in enumerate(asked.slots):
            if not ranked[n]:
                reasons.extend(self._slot_reasons(n, holding, host.failed))
                reasons.extend([] if slot.candidates else [f"{slot.where}: has no variant at all"])
        reasons.extend(unpaired_reason(asked, group, ranked) for group in selection.unpaired)
        reasons.extend(f"{d.component}: needs {d.clause.wants}" for d in asked.demands if not d.bit & holding)
        reasons.extend(network_reasons(asked, host.policy))
        reasons.extend(lacks)
        if reasons:
            return Answer((), tuple(dict.fromkeys(reasons)))
        return Answer(tuple(position for position in selection.chosen if position is not None))

    def _slot_reasons(self, n: int, holding: int, failed: Mapping[str, str]) -> Iterator[str]:
        for key, where, wants in self._wants[n]:
            lacks = [text for bit, text in wants if not bit & holding]
            yield from lacks
            if not lacks and key in failed:
                yield f"{where}: failed its self-test"


class _Subject:
    """All clauses that read one subject, and which of them hold for each of its values seen so far."""

    def __init__(self, name: str, clauses: list[tuple[int, Clause]]) -> None:
        self._name = name
        self._clauses = clauses
        self._known: dict[object, int] = {}
        figures = [c.wanted for _, c in clauses if c.kind in ("at-least", "within")]
        self._bounds = (
            sorted({bound for bound in figures if isinstance(bound, int | float)})
            if len(figures) == len(clauses)
            else None
        )
        sizes = [c.wanted.memory_bytes for _, c in clauses if isinstance(c.wanted, GpuWanted)]
        self._gpu_bounds = sorted(set(sizes)) if name == GPUS else None

    def holding(self, facts: HostFacts) -> int:
        """Return the bits of the clauses that hold."""
        fact = facts.get(self._name)
        value: Value = fact.value if fact is not None else read_subject(facts, self._name)
        key: object = value
        if self._bounds is not None:
            key = bisect_right(self._bounds, value) if type(value) is int else None
        elif self._gpu_bounds is not None:
            key = tuple(self._reduced(gpu) for gpu in gpus_of(value))
        else:
            key = (type(value), value)  # True is 1 to a dictionary, but not to a clause
        known = self._known.get(key)
        if known is None:
            known = 0
            for bit, clause in self._clauses:
                if clause_holds(clause, value):
                    known |= bit
            self._known[key] = known
        return known

    def _reduced(self, gpu: Gpu) -> tuple[object, ...]:
        assert self._gpu_bounds is not None
        passed = None if gpu.memory_bytes is None else bisect_right(self._gpu_bounds, gpu.memory_bytes)
        return gpu.vendor, passed, gpu.compute, gpu.driver


def _subjects(clauses: list[Clause]) -> list[_Subject]:
    by_name: dict[str, list[tuple[int, Clause]]] = {}
    for position, clause in enumerate(clauses):
        by_name.setdefault(clause.subject, []).append((1 << position, clause))
    return [_Subject(name, found) for name, found in by_name.items()]


def _files_of(release: Release, asked: Asked) -> tuple[dict[str, int], list[list[dict[str, int]]]]:
    """Return the sizes by digest of what every host gets, and of each variant of each slot."""
    always: dict[str, int] = {}
    images = {c.name: c.image for c in release.application.spec.components if c.image}
    for component in release.application.spec.components:
        for file in component.bundle.files if component.bundle else ():
            always[str(file.digest)] = file.size_bytes
    per_slot: list[list[dict[str, int]]] = []
    for slot in asked.slots:
        model = release.model(slot.name, slot.version) if slot.kind == "model" else None
        if model is not None:
            tested = any(
                c.self_test and any(m.name == slot.name for m in c.models)
                for c in release.application.spec.components
            )
            tests = model.spec.self_test.cases if tested and model.spec.self_test else ()
            always.update(
                (str(f.digest), f.size_bytes) for case in tests for f in (case.input, case.expected)
            )
            per_slot.append([{str(f.digest): f.size_bytes for f in v.files} for v in model.spec.variants])
            continue
        per_slot.append(
            [
                {str(f.digest): f.size_bytes for f in (v.config, *v.layers) if f is not None}
                for v in images[slot.name].variants
            ]
        )
    return always, per_slot
