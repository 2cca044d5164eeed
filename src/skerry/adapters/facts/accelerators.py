"""NPUs and Edge TPUs, by device nodes, drivers and vendor ids.

Rules: as with GPUs, one counts when its driver has made a device node; one without is a problem.
"""

from __future__ import annotations

import re

from skerry.adapters.facts.asking import Answer, Ask
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.pci import list_pci
from skerry.adapters.facts.system import compatible
from skerry.adapters.facts.tree import Tree
from skerry.spec.hardware import Accelerator

HAILO = 0x1E60
CORAL_PCIE = (0x1AC1, 0x089A)
# Before its firmware is loaded, and after.
CORAL_USB = ("1a6e:089a", "18d1:9302")

_accel_drivers: dict[str, Accelerator] = {
    "intel_vpu": "intel-npu",
    "amdxdna": "amd-npu",
    "qaic": "qualcomm-npu",
    "rocket": "rockchip-npu",
}
_qualcomm_nodes = ("adsprpc-smd", "fastrpc-cdsp", "fastrpc-cdsp-secure", "fastrpc-cdsp1")
_hailo_devices: dict[int, Accelerator] = {0x2864: "hailo-8l", 0x26A2: "hailo-10"}
_hailo_named: dict[str, Accelerator] = {"HAILO8": "hailo-8", "HAILO8L": "hailo-8l", "HAILO10H": "hailo-10"}


def detect_accelerators(tree: Tree, found: Findings, ask: Ask) -> None:
    """Find all accelerators that are no GPUs, but for those on USB."""
    if tree.exists("sys/class"):
        found.look_for(("gpu", "npu", "tpu"), "/sys/class")
    for name in tree.names("sys/class/accel"):
        driver = tree.target(f"sys/class/accel/{name}/device/driver")
        if not re.fullmatch(r"accel[0-9]{1,3}", name):
            continue
        if driver in _accel_drivers:
            found.add_accelerator(
                _accel_drivers[driver], [f"/dev/accel/{name}"], f"/sys/class/accel ({driver})"
            )
        else:
            found.add_devices("npu", [f"/dev/accel/{name}"], "/sys/class/accel")
    nodes = tree.names("dev")
    _detect_hailo(tree, found, ask, [node for node in nodes if re.fullmatch(r"hailo[0-9]{1,3}", node)])
    apex = [f"/dev/{node}" for node in nodes if re.fullmatch(r"apex_[0-9]{1,3}", node)]
    if apex:
        found.add_accelerator("coral-pcie", apex, "/dev/apex_*")
    elif any((function.vendor, function.device) == CORAL_PCIE for function in list_pci(tree)):
        found.add_problem("Coral Edge TPU 1ac1:089a has no driver: there is no /dev/apex_0")
    _detect_on_chip(tree, found, set(nodes))


def _detect_on_chip(tree: Tree, found: Findings, nodes: set[str]) -> None:
    """Find NPUs within systems on chip, whose drivers differ from kernel to kernel."""
    rockchip: list[str] = [f"/dev/{node}" for node in ("rknpu",) if node in nodes]
    for node in tree.names("sys/class/drm"):
        is_npu = tree.target(f"sys/class/drm/{node}/device/driver") == "RKNPU"
        if is_npu and re.fullmatch(r"renderD[0-9]{1,4}", node):
            rockchip.append(f"/dev/dri/{node}")
    if rockchip:
        found.add_accelerator("rockchip-npu", rockchip, "RKNPU")
    if qualcomm := [f"/dev/{node}" for node in _qualcomm_nodes if node in nodes]:
        found.add_accelerator("qualcomm-npu", qualcomm, "/dev/fastrpc-cdsp")
    nxp = [f"/dev/{node}" for node in sorted(nodes) if re.fullmatch(r"(ethosu|neutron)[0-9]", node)]
    chips = compatible(tree)
    if "galcore" in nodes and "fsl,imx8mp" in chips:  # drives the NPU beside the GPU
        nxp.append("/dev/galcore")
    if nxp and any(chip.startswith("fsl,") for chip in chips):
        found.add_accelerator("nxp-npu", nxp, "/dev")


def _detect_hailo(tree: Tree, found: Findings, ask: Ask, nodes: list[str]) -> None:
    """Find Hailo modules. Hailo-8 and Hailo-8L have one PCI id: the firmware tells them apart, if it is asked.

    Where it cannot be asked the module counts as a Hailo-8L: what is compiled for that runs on both.
    """
    functions = [function for function in list_pci(tree) if function.vendor == HAILO]
    if not nodes:
        for function in functions:
            found.add_problem(
                f"Hailo {function.ids} at {function.address} has no driver: there is no /dev/hailo0"
            )
        return
    by_address = {function.address: function for function in functions}
    answer: Answer = ask("hailo", (*nodes, *by_address)) if functions else {}
    for node in nodes:
        address = tree.real(f"sys/class/hailo_chardev/{node}/device").rpartition("/")[2]
        candidates = [by_address[address]] if address in by_address else functions
        if not candidates:
            found.add_devices("npu", [f"/dev/{node}"], "/dev")
            continue
        function = candidates[0]
        told = str(answer.get(function.address) or "")
        kind = _hailo_named.get(told) or _hailo_devices.get(function.device)
        if kind is None:
            found.add_problem(f"Hailo {function.ids} at {function.address} is of an unknown kind")
            found.add_devices("npu", [f"/dev/{node}"], "/dev")
            continue
        if not told and kind == "hailo-8l":
            found.add_problem(
                f"Hailo at {function.address}: 8 or 8L cannot be told without hailortcli; taken for an 8L"
            )
        source = "hailortcli fw-control identify" if told else f"PCI id {function.ids}"
        found.add_accelerator(kind, [f"/dev/{node}"], source)
