"""One condition on one thing a host is: whether it holds, and in words what is asked and what is there.

A clause names its `subject`, which is all that its outcome depends on: a fact by its name, or one of the
subjects that are put together from several facts, `gpu:all` and `runtime:NAME`. Equal clauses are equal values, so
that one that several variants share is looked at once. A fact that is not known meets nothing; only `within`,
which asks whether something is impossible, lets the unknown pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from skerry.kit.quantities import format_size
from skerry.spec.facts import FactValue, HostFacts
from skerry.spec.hardware import ARCH_LEVELS

Kind = Literal["one-of", "all-of", "any-of", "at-least", "within", "level", "there", "text", "gpu"]
MAX_GPUS = 64
GPUS = "gpu:all"
_BYTES = ("memory_bytes", "disk.free_bytes")
_part_re = re.compile(r"^\s*(>=|<=|>|<|==)?\s*(\d+(?:\.\d+)*)\s*$")
_version_re = re.compile(r"\d+(?:\.\d+)*")
_compare: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda has, bound: has >= bound,
    "<=": lambda has, bound: has <= bound,
    ">": lambda has, bound: has > bound,
    "<": lambda has, bound: has < bound,
    "==": lambda has, bound: has == bound,
}
_gpu_names = tuple(
    (f"gpu.{n}.vendor", f"gpu.{n}.memory_bytes", f"gpu.{n}.compute", f"gpu.{n}.driver")
    for n in range(MAX_GPUS)
)


class Gpu(NamedTuple):
    """A GPU as far as its facts say."""

    vendor: str | None
    memory_bytes: int | None
    compute: str | None
    driver: str | None


class GpuWanted(msgspec.Struct, frozen=True):
    """What each of `count` GPUs must be."""

    vendor: str = ""
    memory_bytes: int = 0
    compute: str = ""
    driver: str = ""
    count: int = 1


Value = FactValue | tuple[Gpu, ...] | None
"""What a subject is on a host; None is unknown."""


class Clause(msgspec.Struct, frozen=True):
    """One condition; `wants` is what it asks in words, such as `GPU memory >= 6 GiB`."""

    subject: str
    kind: Kind
    wanted: tuple[str, ...] | int | float | str | GpuWanted
    wants: str


class Unmet(NamedTuple):
    """What is asked and not met, and what is there instead."""

    wants: str
    has: str

    def __str__(self) -> str:
        return f"{self.wants}, {self.has}"


def read_subject(facts: HostFacts, subject: str) -> Value:
    """Return what a host's facts say about a subject."""
    if subject == GPUS:
        return _read_gpus(facts)
    if subject.startswith("runtime:"):
        return _read_runtime(facts, subject.removeprefix("runtime:"))
    fact = facts.get(subject)
    return None if fact is None else fact.value


def clause_holds(clause: Clause, value: Value) -> bool:
    """Tell whether a clause holds where its subject is `value`."""
    wanted = clause.wanted
    match clause.kind:
        case "one-of":
            return isinstance(wanted, tuple) and value in wanted
        case "all-of":
            return isinstance(wanted, tuple) and isinstance(value, tuple) and set(wanted) <= set(value)
        case "any-of":
            return (
                isinstance(wanted, tuple) and isinstance(value, tuple) and not set(wanted).isdisjoint(value)
            )
        case "at-least" | "within":
            if not isinstance(value, int) or isinstance(value, bool):
                return clause.kind == "within"
            return isinstance(wanted, int | float) and value >= wanted
        case "level":
            return isinstance(value, str) and wanted in ARCH_LEVELS.get(value, ())
        case "there":
            # A runtime that is there may have no providers; of anything else, nothing is nothing.
            runtime = clause.subject.startswith("runtime:")
            return value is not None and (runtime or value not in ("", (), False))
        case "text":
            return isinstance(wanted, str) and _is_text(value, wanted)
        case "gpu":
            assert isinstance(wanted, GpuWanted)
            gpus = gpus_of(value)
            return sum(gpu_meets(gpu, wanted) for gpu in gpus) >= wanted.count


def unmet(clause: Clause, value: Value) -> list[Unmet]:
    """Return what of a clause that does not hold is missing; several things of a GPU are told one by one."""
    if clause.kind == "gpu":
        assert isinstance(clause.wanted, GpuWanted)
        return _unmet_gpu(clause, clause.wanted, value)
    # An engine or a runtime whose fact is not there is not there; of anything else, nobody has looked.
    if value is None and (clause.kind != "there" or clause.subject.startswith("devices.")):
        if clause.subject in _BYTES:
            return [Unmet(clause.wants, "has an unknown amount")]
        return [Unmet(clause.wants, "which is unknown of this host")]
    if clause.kind == "all-of" and isinstance(value, tuple) and isinstance(clause.wanted, tuple):
        held = set(map(str, value))
        missing = ", ".join(name for name in clause.wanted if name not in held)
        return [Unmet(f"{clause.wants.split(' ')[0]} flags {missing}", "which this CPU does not have")]
    if clause.subject in _BYTES and isinstance(value, int) and isinstance(clause.wanted, int):
        return [Unmet(clause.wants, f"has {_against(value, clause.wanted, show(clause.subject, value))}")]
    return [Unmet(clause.wants, f"has {show(clause.subject, value)}")]


def _against(value: int, wanted: int, shown: str) -> str:
    """Rounded, 3.97 GiB would be the very 4 GiB that are asked for."""
    alike = show_size(value) == show_size(wanted) or 0 < wanted - value < wanted // 100
    return f"{show_size(wanted - value)} less" if alike else shown


def show(subject: str, value: Value) -> str:
    """Return what a subject is, for people."""
    if value is None or value == ():
        return "none"
    if subject in _BYTES and isinstance(value, int):
        return f"{show_size(value)}{' free' if subject.startswith('disk') else ''}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(str(part.vendor if isinstance(part, Gpu) else part) for part in value)
    return str(value)


def show_size(size_bytes: int) -> str:
    """Return a size without a needless fraction: `6 GiB`, `1.5 GiB`."""
    return format_size(size_bytes).replace(".0 ", " ")


def gpus_of(value: Value) -> tuple[Gpu, ...]:
    """Return the GPUs of the subject `GPUS`."""
    return tuple(gpu for gpu in value if isinstance(gpu, Gpu)) if isinstance(value, tuple) else ()


def gpu_meets(gpu: Gpu, wanted: GpuWanted) -> bool:
    """Tell whether one GPU is everything that is named."""
    return (
        (not wanted.vendor or gpu.vendor == wanted.vendor)
        and (not wanted.memory_bytes or (gpu.memory_bytes or 0) >= wanted.memory_bytes)
        and (not wanted.compute or version_within(gpu.compute, wanted.compute))
        and (not wanted.driver or version_within(gpu.driver, wanted.driver))
    )


@lru_cache(maxsize=4096)
def version_within(has: str | None, wanted: str) -> bool:
    """Tell whether a version such as `535.104.05` is in a range such as `>=525,<600`; parts compare as numbers.

    A bound without an operator must be met exactly. What does not begin with a number is in no range.
    """
    found = _version_re.match(has.strip()) if has else None
    if found is None:
        return False
    held = _parts(found[0])
    for text in wanted.split(","):
        bound = _part_re.match(text)
        if bound is None or not _compare[bound[1] or "=="](held, _parts(bound[2])):
            return False
    return True


def _parts(version: str) -> tuple[int, ...]:
    """Return the parts as numbers, without the zeros at the end: 8.0 is 8."""
    parts = [int(part[:18]) for part in version.split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _is_text(value: Value, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted.lower() == ("true" if value else "false")
    if isinstance(value, int):
        return wanted.strip() == str(value)
    return wanted in value if isinstance(value, tuple) else value == wanted


def _read_gpus(facts: HostFacts) -> Value:
    count = facts.get("gpu.count")
    if count is not None and isinstance(count.value, int):
        number = min(int(count.value), MAX_GPUS)
    else:
        number = next(
            (n for n, names in enumerate(_gpu_names) if not any(name in facts for name in names)), 0
        )
        if not number:
            return None
    return tuple(
        Gpu(_text(facts, vendor), _number(facts, memory), _text(facts, compute), _text(facts, driver))
        for vendor, memory, compute, driver in _gpu_names[:number]
    )


def _read_runtime(facts: HostFacts, name: str) -> Value:
    """A runtime's providers and devices; an empty tuple says that it is there and has none."""
    found: list[str] = []
    for part in ("providers", "devices"):
        fact = facts.get(f"runtime.{name}.{part}")
        if fact is not None and isinstance(fact.value, tuple):
            found.extend(fact.value)
    return tuple(found) if found or f"runtime.{name}" in facts else None


def _text(facts: HostFacts, name: str) -> str | None:
    fact = facts.get(name)
    return fact.value if fact is not None and isinstance(fact.value, str) else None


def _number(facts: HostFacts, name: str) -> int | None:
    fact = facts.get(name)
    return fact.value if fact is not None and type(fact.value) is int else None


def _unmet_gpu(clause: Clause, wanted: GpuWanted, value: Value) -> list[Unmet]:
    gpus = gpus_of(value)
    if not gpus:
        return [Unmet(clause.wants, "has none" if value is not None else "GPUs of this host are unknown")]
    candidates = [gpu for gpu in gpus if not wanted.vendor or gpu.vendor == wanted.vendor]
    many = f"{wanted.count} " if wanted.count > 1 else ""
    if len(candidates) < wanted.count:
        names = ", ".join(gpu.vendor or "unknown" for gpu in gpus)
        plural = f"{many}{wanted.vendor + ' ' if wanted.vendor else ''}GPU{'s' if many else ''}"
        return [Unmet(plural, f"has {len(candidates) or 'none'}{'' if candidates else f' ({names})'}")]
    found: list[Unmet] = []
    sizes = [gpu.memory_bytes for gpu in candidates if gpu.memory_bytes is not None]
    if sum(size >= wanted.memory_bytes for size in sizes) < wanted.count and wanted.memory_bytes:
        least = wanted.memory_bytes
        texts = [show_size(n) if n >= least else _against(n, least, show_size(n)) for n in sizes]
        has = " and ".join(texts) or "an unknown amount"
        found.append(Unmet(f"GPU memory >= {show_size(wanted.memory_bytes)}{_times(wanted)}", f"has {has}"))
    for what, bound, versions in (
        ("GPU compute capability", wanted.compute, [gpu.compute for gpu in candidates]),
        ("GPU driver", wanted.driver, [gpu.driver for gpu in candidates]),
    ):
        if bound and sum(version_within(version, bound) for version in versions) < wanted.count:
            has = " and ".join(sorted({version or "unknown" for version in versions}))
            found.append(Unmet(f"{what} {bound}{_times(wanted)}", f"has {has}"))
    meeting = sum(gpu_meets(gpu, wanted) for gpu in candidates)
    return found or [Unmet(clause.wants, f"has {meeting} that is all of this at once")]


def _times(wanted: GpuWanted) -> str:
    return f" {wanted.count} times" if wanted.count > 1 else ""
