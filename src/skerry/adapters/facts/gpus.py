"""GPUs: NVIDIA by NVML or the driver's files, Jetson by the device tree, AMD and Intel by DRM.

Rules: a GPU counts when a driver that can compute holds it; one without is a problem, not a GPU. NVIDIA's come
first, as NVML numbers them, then the others by PCI address.
"""

from __future__ import annotations

import re
from typing import Any, cast

from skerry.adapters.facts.asking import Ask
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.pci import PciFunction, list_pci
from skerry.adapters.facts.system import compatible
from skerry.adapters.facts.tree import Tree, parse_number
from skerry.spec.facts import FactValue
from skerry.spec.hardware import Accelerator

NVIDIA = 0x10DE
DRIVER = "proc/driver/nvidia"

# Name and compute capability of the GPU within each chip: NVIDIA, "CUDA GPUs" and the Jetson Linux guide.
_jetson_chips = {
    "nvidia,tegra210": ("Tegra X1 (Maxwell)", "5.3"),
    "nvidia,tegra186": ("Tegra X2 (Pascal)", "6.2"),
    "nvidia,tegra194": ("Xavier (Volta)", "7.2"),
    "nvidia,tegra234": ("Orin (Ampere)", "8.7"),
    "nvidia,tegra264": ("Thor (Blackwell)", "11.0"),
}
_jetson_nodes = ("dev/nvhost-gpu", "dev/nvgpu/igpu0/ctrl", "dev/nvgpu/igpu0/channel")
_drm_drivers: dict[str, tuple[Accelerator, str]] = {
    "amdgpu": ("amd-gpu", "amd"),
    "i915": ("intel-gpu", "intel"),
    "xe": ("intel-gpu", "intel"),
}
_version_re = re.compile(r"Kernel Module(?: for \S+)?\s+([0-9]{1,4}(?:\.[0-9]{1,4}){1,3})\s")


def detect_gpus(tree: Tree, found: Findings, ask: Ask) -> None:
    """Find all GPUs."""
    if not _detect_jetson(tree, found):
        _detect_nvidia(tree, found, ask)
    _detect_drm(tree, found)


def _detect_jetson(tree: Tree, found: Findings) -> bool:
    """Find the GPU within a Jetson's chip; tell whether this is one."""
    chips = [chip for chip in compatible(tree) if chip in _jetson_chips]
    if not chips:
        return False
    name, compute = _jetson_chips[chips[0]]
    release = re.match(
        r"# R([0-9]{1,3}) \(release\), REVISION: ([0-9.]{1,12})", tree.text("etc/nv_tegra_release", 4096)
    )
    if release:
        found.add("jetson.l4t", f"{release[1]}.{release[2]}", "/etc/nv_tegra_release")
    node = next((node for node in _jetson_nodes if tree.exists(node)), "")
    if not node:
        found.add_problem(
            f"the GPU of {chips[0]} has no driver: none of /{', /'.join(_jetson_nodes)} is there"
        )
        return True
    memory = found.facts.get("memory_bytes")
    properties: dict[str, FactValue | None] = {
        "vendor": "nvidia",
        "name": name,
        "compute": compute,
        "memory_bytes": memory.value if memory else None,
        "shared_memory": True,
        "device": f"/{node}",
    }
    found.add_gpu("jetson", properties, "/sys/firmware/devicetree/base/compatible")
    found.add("gpu.0.driver", _driver_version(tree), f"/{DRIVER}/version")
    return True


def _driver_version(tree: Tree) -> str:
    match = _version_re.search(tree.text(f"{DRIVER}/version", 4096))
    return match[1] if match else ""


def _detect_nvidia(tree: Tree, found: Findings, ask: Ask) -> None:
    for function in list_pci(tree):
        if function.vendor == NVIDIA and function.is_display and function.driver != "nvidia":
            held = f"{function.driver} holds it" if function.driver else "no driver holds it"
            found.add_problem(f"NVIDIA GPU {function.ids} at {function.address} is not usable: {held}")
    if not tree.exists(DRIVER) and not tree.exists("dev/dxg"):
        return
    key = (
        tree.text(f"{DRIVER}/version", 4096),
        *tree.names(f"{DRIVER}/gpus"),
        *tree.names("dev/nvidia-caps"),
    )
    answer = ask("nvml", key)
    gpus = answer.get("gpus")
    if isinstance(gpus, list) and gpus:
        source = str(answer.get("source") or "NVML")
        found.add("gpu.cuda", _text(answer.get("cuda")), source)
        for gpu in cast(list[object], gpus)[:64]:
            if isinstance(gpu, dict):
                _add_nvml(found, cast(dict[str, Any], gpu), _text(answer.get("driver")), source)
        return
    if answer.get("problem"):
        found.add_problem(f"NVIDIA: {_text(answer.get('problem'))}")
    _add_by_driver_files(tree, found)


def _add_nvml(found: Findings, gpu: dict[str, Any], driver: str, source: str) -> None:
    memory, mig, instances = gpu.get("memory_bytes"), gpu.get("mig"), gpu.get("mig_instances")
    properties: dict[str, FactValue | None] = {
        "vendor": "nvidia",
        "name": _text(gpu.get("name")),
        "memory_bytes": memory if isinstance(memory, int) and memory > 0 else None,
        "compute": _text(gpu.get("compute")),
        "driver": driver,
        "mig": mig if isinstance(mig, bool) else None,
        "mig_instances": tuple(map(str, cast(list[object], instances)))
        if isinstance(instances, list)
        else None,
        "device": _text(gpu.get("device")),
        "bus": _text(gpu.get("bus")),
    }
    found.add_gpu("nvidia-gpu", properties, source)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _add_by_driver_files(tree: Tree, found: Findings) -> None:
    """Add what the driver says of its GPUs without NVML: neither memory nor compute capability."""
    driver = _driver_version(tree)
    for address in tree.names(f"{DRIVER}/gpus"):
        path = f"{DRIVER}/gpus/{address}/information"
        parts = [line.partition(":") for line in tree.text(path, 8192).splitlines()]
        told = {name.strip(): value.strip() for name, _, value in parts}
        minor = parse_number(told.get("Device Minor", ""))
        properties: dict[str, FactValue | None] = {
            "vendor": "nvidia",
            "name": told.get("Model", ""),
            "driver": driver,
            "device": f"/dev/nvidia{minor}" if minor is not None else "",
            "bus": address,
        }
        found.add_gpu("nvidia-gpu", properties, f"/{DRIVER}/gpus")


def _detect_drm(tree: Tree, found: Findings) -> None:
    functions = {function.address: function for function in list_pci(tree)}
    cards: list[tuple[str, str]] = []
    for card in tree.names("sys/class/drm"):
        if re.fullmatch(r"card[0-9]{1,3}", card):
            address = tree.real(f"sys/class/drm/{card}/device").rpartition("/")[2]
            cards.append((address, card))
    for address, card in sorted(cards):
        folder = f"sys/class/drm/{card}/device"
        kind = _drm_drivers.get(tree.target(f"{folder}/driver"))
        if kind is not None:
            _add_drm(tree, found, card, functions.get(address))


def _add_drm(tree: Tree, found: Findings, card: str, function: PciFunction | None) -> None:
    folder = f"sys/class/drm/{card}/device"
    driver = tree.target(f"{folder}/driver")
    kind, vendor = _drm_drivers[driver]
    render = next((node for node in tree.names(f"{folder}/drm") if node.startswith("renderD")), "")
    maker = {"amd": "AMD", "intel": "Intel"}[vendor]
    properties: dict[str, FactValue | None] = {
        "vendor": vendor,
        "name": tree.line(f"{folder}/product_name") or (f"{maker} {function.ids}" if function else maker),
        "memory_bytes": _drm_memory(tree, card),
        "driver": tree.line(f"sys/module/{driver}/version"),
        "device": f"/dev/dri/{render or card}",
        "bus": function.address if function else "",
    }
    found.add_gpu(kind, properties, f"/sys/class/drm/{card}")


def _drm_memory(tree: Tree, card: str) -> int | None:
    """Return a GPU's own memory: by amdgpu, i915 (`lmem`) or xe (per tile); one without has none to state."""
    for path in ("device/mem_info_vram_total", "lmem_total_bytes", "device/lmem_total_bytes"):
        if size := tree.number(f"sys/class/drm/{card}/{path}"):
            return size
    sizes = [
        tree.number(f"sys/class/drm/{card}/device/{tile}/physical_vram_size_bytes", 0)
        for tile in tree.names(f"sys/class/drm/{card}/device")
        if re.fullmatch(r"tile[0-9]{1,2}", tile)
    ]
    return sum(size or 0 for size in sizes) or None
