"""What of a release a host would run: a variant for every model and every image, or every reason why not.

The hub's preview and the host itself ask the same question with the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from skerry.matching.asking import Asked, Slot, ask
from skerry.matching.clauses import read_subject, unmet
from skerry.matching.devices import match_devices
from skerry.matching.pairing import Selection, goes_with, select
from skerry.matching.variants import Standing, explain_candidates, latencies_of, rank, variant_key
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice

__all__ = ["ReleaseMatch", "barred", "match_release", "network_reasons", "unpaired_reason", "variant_key"]


class ReleaseMatch(msgspec.Struct, frozen=True, kw_only=True):
    """The choices, models first; `devices` maps component and device name to what it gets; `reasons` say why not.

    With any reason the release cannot run there, and the rest is not to be relied on. `notes` are what the facts
    cannot tell and the host must see for itself.
    """

    choices: tuple[VariantChoice, ...] = ()
    devices: Mapping[str, Mapping[str, str]] = {}
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def match_release(
    release: Release,
    facts: HostFacts,
    *,
    policy: SitePolicy,
    pinned: tuple[VariantChoice, ...] = (),
    failed: Mapping[str, str] = {},
    taken: AbstractSet[str] = frozenset(),
) -> ReleaseMatch:
    """Return what a host with these facts would run of a release, or all reasons why it cannot.

    A `pinned` choice stays whatever the facts say now. `failed` maps `MODEL@VERSION/VARIANT` to why the variant
    failed its self-test there; such a variant is passed over. `taken` are devices that other applications hold,
    each for itself alone or marked by `mark_shared`.
    """
    asked = ask(release)
    holding = asked.index.holding(facts)
    pins = _pins(asked, pinned)
    latencies = [latencies_of(slot.candidates, facts) for slot in asked.slots]
    ranked = [
        [_position(slot, pins[n].variant)]
        if n in pins
        else rank(slot.candidates, slot.objective, holding, latencies[n], failed)
        for n, slot in enumerate(asked.slots)
    ]
    selection = select(asked, ranked)
    devices = match_devices(asked.devices, facts, taken)
    choices: list[VariantChoice] = []
    reasons: list[str] = []
    for n, slot in enumerate(asked.slots):
        position = selection.chosen[n]
        standing = Standing(holding, latencies[n], failed, barred(asked, n, ranked, selection))
        if n in pins:
            choices.append(pins[n])
        elif position is not None:
            why = explain_candidates(slot.candidates, position, slot.objective, facts, standing)
            choices.append(_choice(slot, position, why))
        elif not ranked[n]:
            lines = explain_candidates(slot.candidates, None, slot.objective, facts, standing)
            reasons.extend(f"{slot.where}: {line}" for line in lines or ("has no variant at all",))
    reasons.extend(unpaired_reason(asked, group, ranked) for group in selection.unpaired)
    for demand in asked.demands:
        if not demand.bit & holding:
            lacks = unmet(demand.clause, read_subject(facts, demand.clause.subject))
            reasons.extend(f"{demand.component}: needs {lack}" for lack in lacks)
    reasons.extend(network_reasons(asked, policy))
    reasons.extend(f"{component}: needs {lack}" for component, lack in devices.lacks)
    return ReleaseMatch(
        choices=tuple(choices), devices=devices.given, reasons=tuple(reasons), notes=devices.notes
    )


def network_reasons(asked: Asked, policy: SitePolicy) -> list[str]:
    """Return what the site's policy has against the release."""
    if policy.host_network:
        return []
    return [
        f"{component}: asks for the host's own network, which the site does not allow (host_network)"
        for component in asked.host_network
    ]


def unpaired_reason(asked: Asked, group: Sequence[int], ranked: Sequence[Sequence[int]]) -> str:
    """Say that what fits of a group does not go together."""
    texts: list[str] = []
    for position in group:
        slot = asked.slots[position]
        for candidate in (slot.candidates[n] for n in ranked[position]):
            if slot.kind == "model":
                texts.append(f"{slot.name} {candidate.name} fits")
            elif candidate.goes_with:
                goes = " and ".join(f"{m} {' or '.join(v)}" for m, v in sorted(candidate.goes_with.items()))
                texts.append(f"image {candidate.name} goes only with {goes}")
    images = ", ".join(asked.slots[n].name for n in group if asked.slots[n].kind == "image")
    return f"{images}: no image and model variants that fit go together: {'; '.join(texts)}"


def barred(
    asked: Asked, position: int, ranked: Sequence[Sequence[int]], selection: Selection
) -> Mapping[str, str]:
    """Return the variants of a slot that were better than the chosen one, but go with no other choice."""
    chosen = selection.chosen[position]
    slot = asked.slots[position]
    if chosen is None or chosen not in ranked[position] or chosen == ranked[position][0]:
        return {}
    before = ranked[position][: list(ranked[position]).index(chosen)]
    others = {
        n: c for n, c in enumerate(selection.chosen) if c is not None and asked.slots[n].kind == "model"
    }
    found: dict[str, str] = {}
    for candidate in (slot.candidates[n] for n in before):
        if slot.kind == "image" and not goes_with(slot, candidate, asked.slots, others):
            goes = " and ".join(f"{m} {' or '.join(v)}" for m, v in sorted(candidate.goes_with.items()))
            found[candidate.name] = f"goes only with {goes}"
        elif slot.kind == "model":
            found[candidate.name] = "goes with no image that fits and the other choices"
    return found


def _pins(asked: Asked, pinned: Sequence[VariantChoice]) -> dict[int, VariantChoice]:
    by_key = {(choice.kind, choice.model, choice.version): choice for choice in pinned}
    pins: dict[int, VariantChoice] = {}
    for n, slot in enumerate(asked.slots):
        choice = by_key.get((slot.kind, slot.name, slot.version))
        if choice is not None and any(c.name == choice.variant for c in slot.candidates):
            pins[n] = choice
    return pins


def _position(slot: Slot, variant: str) -> int:
    return next(n for n, candidate in enumerate(slot.candidates) if candidate.name == variant)


def _choice(slot: Slot, position: int, why: tuple[str, ...]) -> VariantChoice:
    return VariantChoice(
        model=slot.name,
        version=slot.version,
        variant=slot.candidates[position].name,
        why=why,
        kind=slot.kind,
    )
