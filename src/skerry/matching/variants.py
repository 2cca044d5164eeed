"""Which variant of a model fits a host, and why.

Variants are looked at in the order in which their author wrote them; the first that fits is taken. Every
variant gets one line of reason, so that the choice can be explained.
"""

from __future__ import annotations

import msgspec

from skerry.kit.quantities import format_size, parse_size
from skerry.spec.facts import FactValue, HostFacts
from skerry.spec.model import ModelSpec, Requirements, Variant


class Choice(msgspec.Struct, frozen=True):
    """The variant to run, and one line per variant that was looked at."""

    variant: Variant
    why: tuple[str, ...]


class NoMatch(msgspec.Struct, frozen=True):
    """No variant fits; one line of reason per variant."""

    reasons: tuple[str, ...]


def match_variant(model: ModelSpec, facts: HostFacts) -> Choice | NoMatch:
    """Return the first variant whose requirements hold on a host with these facts."""
    why: list[str] = []
    for variant in model.variants:
        unmet = match_requirements(variant.requires, facts)
        if not unmet:
            why.append(f"{variant.name}: fits ({_describe(variant.requires, facts)})")
            why.extend(f"{later.name}: less preferred" for later in model.variants[len(why) :])
            return Choice(variant, tuple(why))
        why.append(f"{variant.name}: needs {'; '.join(unmet)}")
    return NoMatch(tuple(why))


def match_requirements(requires: Requirements, facts: HostFacts) -> list[str]:
    """Return what is not met, each as `WHAT, has VALUE`; empty when everything holds. Unknown facts meet nothing."""
    unmet: list[str] = []
    for name, allowed in (("arch", requires.arch), ("os", requires.os)):
        if allowed and _value(facts, name) not in allowed:
            unmet.append(f"{name} {' or '.join(allowed)}, has {_shown(_value(facts, name))}")
    if requires.cpu_flags:
        flags = _value(facts, "cpu_flags")
        held = set(flags) if isinstance(flags, tuple) else set[str]()
        if missing := [flag for flag in requires.cpu_flags if flag not in held]:
            unmet.append(f"CPU flags {', '.join(missing)}, which this CPU does not have")
    if requires.memory is not None:
        memory = _value(facts, "memory_bytes")
        if not isinstance(memory, int) or isinstance(memory, bool) or memory < parse_size(requires.memory):
            shown = format_size(memory) if isinstance(memory, int) else "an unknown amount"
            unmet.append(f"memory >= {requires.memory}, has {shown}")
    return unmet


def _describe(requires: Requirements, facts: HostFacts) -> str:
    parts: list[str] = []
    if requires.arch:
        parts.append(f"arch {_shown(_value(facts, 'arch'))}")
    if requires.os:
        parts.append(f"os {_shown(_value(facts, 'os'))}")
    if requires.cpu_flags:
        parts.append(f"CPU flags {', '.join(requires.cpu_flags)}")
    memory = _value(facts, "memory_bytes")
    if requires.memory is not None and isinstance(memory, int):
        parts.append(f"memory {format_size(memory)} >= {requires.memory}")
    return ", ".join(parts) or "asks for nothing in particular"


def _value(facts: HostFacts, name: str) -> FactValue | None:
    fact = facts.get(name)
    return fact.value if fact else None


def _shown(value: FactValue | None) -> str:
    return "unknown" if value is None else str(value)
