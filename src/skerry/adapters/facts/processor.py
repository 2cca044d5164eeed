"""Architecture, processor and memory."""

from __future__ import annotations

import os
import platform
import re

from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree

CPUINFO = "proc/cpuinfo"

# Each level needs those before it; flags by the kernel's names. x86-64 psABI, "Micro-Architecture Levels".
_x86_levels = (
    ("x86-64-v1", "cmov cx8 fpu fxsr mmx sse sse2 syscall"),
    ("x86-64-v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("x86-64-v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
# What the Arm architecture makes mandatory with an extension, as far as the kernel's HWCAPs tell it.
_arm_levels = (
    ("armv8-a", "fp asimd"),
    ("armv8.1-a", "atomics asimdrdm crc32"),
    ("armv8.2-a", "dcpop"),
    ("armv8.3-a", "jscvt fcma lrcpc"),
    ("armv8.4-a", "asimddp dit flagm ilrcpc uscat"),
    ("armv8.5-a", "dcpodp flagm2 frint sb"),
)
_arm_tops = (("armv9-a", "sve2"), ("armv8.6-a", "bf16 i8mm"))
# Of some hundred flags of an x86 processor those by which compilers and inference runtimes choose their code.
_x86_flag_re = re.compile(
    r"(s?sse\w*|avx\w*|amx_?\w*|fma4?|f16c|bmi[12]|abm|popcnt|movbe|aes|vaes|v?pclmulqdq|gfni|sha_ni|adx|mmx|cx16)"
)
_x86_renamed = {"pni": "sse3"}
# Implementer and part of MIDR_EL1, as Arm and others document them.
_arm_parts = {
    (0x41, 0xC07): "Arm Cortex-A7",
    (0x41, 0xC09): "Arm Cortex-A9",
    (0x41, 0xC0F): "Arm Cortex-A15",
    (0x41, 0xD03): "Arm Cortex-A53",
    (0x41, 0xD04): "Arm Cortex-A35",
    (0x41, 0xD05): "Arm Cortex-A55",
    (0x41, 0xD07): "Arm Cortex-A57",
    (0x41, 0xD08): "Arm Cortex-A72",
    (0x41, 0xD09): "Arm Cortex-A73",
    (0x41, 0xD0A): "Arm Cortex-A75",
    (0x41, 0xD0B): "Arm Cortex-A76",
    (0x41, 0xD0C): "Arm Neoverse-N1",
    (0x41, 0xD0D): "Arm Cortex-A77",
    (0x41, 0xD40): "Arm Neoverse-V1",
    (0x41, 0xD41): "Arm Cortex-A78",
    (0x41, 0xD42): "Arm Cortex-A78AE",
    (0x41, 0xD46): "Arm Cortex-A510",
    (0x41, 0xD47): "Arm Cortex-A710",
    (0x41, 0xD49): "Arm Neoverse-N2",
    (0x41, 0xD4B): "Arm Cortex-A78C",
    (0x41, 0xD4F): "Arm Neoverse-V2",
    (0x41, 0xD80): "Arm Cortex-A520",
    (0x41, 0xD81): "Arm Cortex-A720",
    (0x41, 0xD83): "Arm Neoverse-V3AE",
    (0x41, 0xD85): "Arm Cortex-X925",
    (0x41, 0xD87): "Arm Cortex-A725",
    (0x4E, 0x003): "NVIDIA Denver 2",
    (0x4E, 0x004): "NVIDIA Carmel",
    (0xC0, 0xAC3): "Ampere-1",
}


def detect_processor(tree: Tree, found: Findings) -> None:
    """Find architecture, level, model, cores and flags."""
    cpuinfo = tree.text(CPUINFO)
    source = f"/{CPUINFO}"
    arch = tree.line("proc/sys/kernel/arch")
    if arch:
        found.add("arch", arch, "/proc/sys/kernel/arch")
    elif tree.is_real:
        found.add("arch", platform.machine(), "uname")
    else:
        found.add("arch", _arch_of(cpuinfo), source)
    flags = parse_flags(cpuinfo)
    level = arm_level(flags, cpuinfo) if "CPU architecture" in cpuinfo else x86_level(flags)
    found.add("arch_level", level, source)
    found.add("cpu_flags", kept_flags(flags, x86="vendor_id" in cpuinfo), source)
    found.add("cpu_model", model_name(cpuinfo), source)
    if tree.is_real:
        found.add("cpu_count", len(os.sched_getaffinity(0)), "sched_getaffinity")
    else:
        found.add("cpu_count", len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None, source)
    found.add("cpu_cores", _count_cores(tree), "/sys/devices/system/cpu")


def detect_memory(tree: Tree, found: Findings) -> None:
    """Find the memory that the kernel hands out."""
    match = re.search(r"^MemTotal:\s*(\d{1,15}) kB$", tree.text("proc/meminfo"), re.MULTILINE | re.ASCII)
    if match:
        found.add("memory_bytes", int(match[1]) * 1024, "/proc/meminfo")


def parse_flags(cpuinfo: str) -> frozenset[str]:
    """Return what `flags` (x86), `Features` (Arm) or `isa` (RISC-V) of the first processor says."""
    if match := re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE):
        return frozenset(match[1].lower().split())
    if match := re.search(r"^isa\s*:\s*rv\d+(\w+)$", cpuinfo, re.MULTILINE):
        letters, *named = match[1].lower().split("_")
        return frozenset((*letters, *named))
    return frozenset()


def kept_flags(flags: frozenset[str], *, x86: bool) -> list[str]:
    """Return the flags that matter to inference; of other architectures than x86 there are few, and all are kept."""
    if not x86:
        return sorted(flags)
    renamed = {_x86_renamed.get(flag, flag) for flag in flags}
    return sorted(flag for flag in renamed if _x86_flag_re.fullmatch(flag))


def x86_level(flags: frozenset[str]) -> str:
    """Return the x86-64 level of some flags, or nothing."""
    return _highest(_x86_levels, flags)


def arm_level(flags: frozenset[str], cpuinfo: str) -> str:
    """Return the highest Arm architecture whose mandatory extensions are all there, or nothing."""
    level = _highest(_arm_levels, flags)
    if not level and re.search(r"^CPU architecture\s*:\s*7\s*$", cpuinfo, re.MULTILINE):
        return "armv7-a"
    if level == _arm_levels[-1][0]:
        return next((top for top, needed in _arm_tops if flags.issuperset(needed.split())), level)
    return level


def _arch_of(cpuinfo: str) -> str:
    """Return the architecture that a recorded tree of an old kernel shows by its processors."""
    if "vendor_id" in cpuinfo:
        return "x86_64" if "lm" in parse_flags(cpuinfo) else "i686"
    return "aarch64" if re.search(r"^CPU architecture\s*:\s*8\s*$", cpuinfo, re.MULTILINE) else ""


def _highest(levels: tuple[tuple[str, str], ...], flags: frozenset[str]) -> str:
    reached = ""
    for level, needed in levels:
        if not flags.issuperset(needed.split()):
            break
        reached = level
    return reached


def model_name(cpuinfo: str) -> str:
    """Return the processor's name: as x86 states it, on Arm by implementer and part, each kind of core once."""
    stated = re.search(r"^model name\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    if stated and not stated[1].startswith("ARMv"):  # as Jetson's kernels call any core
        return stated[1]
    makers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-f]{1,4})\s*$", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]{1,4})\s*$", cpuinfo, re.MULTILINE)
    kinds = dict.fromkeys((int(maker, 16), int(part, 16)) for maker, part in zip(makers, parts, strict=False))
    return " + ".join(_arm_parts.get(kind, f"implementer {kind[0]:#x} part {kind[1]:#x}") for kind in kinds)


def _count_cores(tree: Tree) -> int | None:
    cores: set[tuple[int | None, int | None, int]] = set()
    for name in tree.names("sys/devices/system/cpu"):
        if re.fullmatch(r"cpu[0-9]+", name):
            folder = f"sys/devices/system/cpu/{name}/topology"
            core = tree.number(f"{folder}/core_id")
            if core is not None:
                # Cores of two clusters of an Arm chip may have one number.
                package = tree.number(f"{folder}/physical_package_id")
                cluster = tree.number(f"{folder}/cluster_id")
                cores.add((package, cluster, core))
    return len(cores) or None
