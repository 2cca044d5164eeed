"""What people write as requirements, taken apart into clauses; and, for one host, what of them is not met."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.kit.quantities import parse_size
from skerry.matching.clauses import (
    GPUS,
    Clause,
    GpuWanted,
    Unmet,
    Value,
    clause_holds,
    gpu_meets,
    gpus_of,
    read_subject,
    show,
    show_size,
    unmet,
)
from skerry.spec.facts import HostFacts
from skerry.spec.hardware import GpuRequirement, Requirements

# Image platforms (OCI image specification, GOARCH) by what the kernel calls the machine.
_PLATFORM_ARCHS = {
    "amd64": ("x86_64",),
    "386": ("i386", "i486", "i586", "i686"),
    "arm64": ("aarch64",),
    "arm64/v8": ("aarch64",),
    "arm": ("armv6l", "armv7l", "armv8l"),
    "arm/v6": ("armv6l", "armv7l", "armv8l"),
    "arm/v7": ("armv7l", "armv8l"),
    "arm/v8": ("armv8l",),
    "riscv64": ("riscv64",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
    "loong64": ("loongarch64",),
}


def clauses_of(requires: Requirements) -> tuple[Clause, ...]:
    """Return the conditions that requirements consist of, in a fixed order; all of them must hold."""
    return tuple(_clauses(requires))


def platform_clauses(platform: str) -> tuple[Clause, ...]:
    """Return what an image's platform such as `linux/arm64` asks; an unknown one is met by no host."""
    if not platform:
        return ()
    system, _, machine = platform.partition("/")
    wants = f"platform {platform}"
    if system == "linux" and machine.startswith("amd64/v") and machine.removeprefix("amd64/v") in "1234":
        level = f"x86-64-{machine.removeprefix('amd64/')}"
        return (
            Clause("arch", "one-of", _PLATFORM_ARCHS["amd64"], wants),
            Clause("arch_level", "level", level, wants),
        )
    archs = _PLATFORM_ARCHS.get(machine, ()) if system == "linux" else ()
    return (Clause("arch", "one-of", archs, wants),)


def match_requirements(requires: Requirements, facts: HostFacts) -> list[str]:
    """Return what is not met, each as `WHAT, has VALUE`; empty when everything holds. Unknown facts meet nothing."""
    return [str(lack) for lack in unmet_of(clauses_of(requires), facts)]


def unmet_of(clauses: tuple[Clause, ...], facts: HostFacts) -> list[Unmet]:
    """Return what of the clauses does not hold on a host."""
    found: list[Unmet] = []
    for clause in clauses:
        value = read_subject(facts, clause.subject)
        if not clause_holds(clause, value):
            found.extend(unmet(clause, value))
    return found


def describe_met(clauses: tuple[Clause, ...], facts: HostFacts) -> str:
    """Return in words why clauses that hold do."""
    parts = [_met(clause, read_subject(facts, clause.subject)) for clause in clauses]
    return ", ".join(dict.fromkeys(parts)) or "asks for nothing in particular"


def _met(clause: Clause, value: Value) -> str:
    match clause.kind:
        case "one-of" if not clause.wants.startswith("platform "):
            return f"{clause.subject} {show(clause.subject, value)}"
        case "at-least":
            what, _, bound = clause.wants.partition(" >= ")
            return f"{what} {show(clause.subject, value)} >= {bound}"
        case "level":
            return f"{clause.wants}: {show(clause.subject, value)}"
        case "gpu":
            assert isinstance(clause.wanted, GpuWanted)
            meeting = [gpu for gpu in gpus_of(value) if gpu_meets(gpu, clause.wanted)]
            best = max((gpu.memory_bytes or 0 for gpu in meeting), default=0)
            return f"{clause.wants}: has {len(meeting)}{f' with {show_size(best)}' if best else ''}"
        case _:
            return clause.wants


def _clauses(requires: Requirements) -> Iterator[Clause]:
    yield from _machine_clauses(requires)
    if requires.gpu is not None:
        yield _gpu_clause(requires.gpu)
    if requires.accelerators:
        kinds = " or ".join(requires.accelerators)
        yield Clause("accelerators", "any-of", requires.accelerators, f"accelerator {kinds}")
    for name, parts in sorted(requires.runtimes.items()):
        if parts:
            yield Clause(f"runtime:{name}", "any-of", parts, f"runtime {name} with {' or '.join(parts)}")
        else:
            yield Clause(f"runtime:{name}", "there", "", f"runtime {name}")
    for device in requires.devices:
        yield Clause(f"devices.{device}", "there", "", f"device {device}")
    for name, text in sorted(requires.facts.items()):
        yield Clause(name, "text", text, f"{name} = {text}")


def _machine_clauses(requires: Requirements) -> Iterator[Clause]:
    for subject, allowed in (("arch", requires.arch), ("os", requires.os)):
        if allowed:
            yield Clause(subject, "one-of", allowed, f"{subject} {' or '.join(allowed)}")
    if requires.arch_level:
        yield Clause("arch_level", "level", requires.arch_level, f"architecture level {requires.arch_level}")
    if requires.cpu_flags:
        flags = ", ".join(requires.cpu_flags)
        yield Clause("cpu_flags", "all-of", requires.cpu_flags, f"CPU flags {flags}")
    for subject, what, size in (
        ("memory_bytes", "memory", requires.memory),
        ("disk.free_bytes", "disk", requires.disk),
    ):
        if size is not None:
            bound = parse_size(size)
            yield Clause(subject, "at-least", bound, f"{what} >= {show_size(bound)}")


def _gpu_clause(gpu: GpuRequirement) -> Clause:
    wanted = GpuWanted(
        vendor=gpu.vendor or "",
        memory_bytes=parse_size(gpu.memory) if gpu.memory else 0,
        compute=gpu.compute,
        driver=gpu.driver,
        count=gpu.count,
    )
    head = f"{gpu.count} {gpu.vendor or ''}".strip() if gpu.count > 1 else gpu.vendor or ""
    kind = f"{head} GPU{'s' if gpu.count > 1 else ''}".strip()
    parts = [f"memory >= {show_size(wanted.memory_bytes)}"] if wanted.memory_bytes else []
    parts += [f"compute capability {gpu.compute}"] if gpu.compute else []
    parts += [f"driver {gpu.driver}"] if gpu.driver else []
    return Clause(GPUS, "gpu", wanted, f"{kind} with {' and '.join(parts)}" if parts else kind)
