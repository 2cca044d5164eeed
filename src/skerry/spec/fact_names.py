"""The table of all facts: what each means, its type, where it comes from, and how it looks.

Detectors, stated facts and the reference page follow this table; `skerry.spec.facts` says what a fact is.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

FactKind = Literal["text", "number", "size", "flag", "list"]
"""`size` is a number of bytes, `flag` true or false, `list` a list of texts; `text` may be any of them in `custom.`."""


class FactName(NamedTuple):
    """A fact's name with `N`, `KIND`, `NAME` or `MODEL@VERSION/VARIANT` for what varies, and all about it."""

    name: str
    kind: FactKind
    meaning: str
    source: str
    example: str


FACT_NAMES: tuple[FactName, ...] = (
    FactName(
        "arch", "text", "Architecture, as `uname -m` names it", "/proc/sys/kernel/arch, uname", "x86_64"
    ),
    FactName(
        "arch_level",
        "text",
        "Micro-architecture level: `x86-64-v1` to `v4` of the x86-64 psABI; on Arm `armv7-a`, `armv8-a` to"
        " `armv8.6-a`, `armv9-a`",
        "/proc/cpuinfo",
        "x86-64-v3",
    ),
    FactName("cpu_model", "text", "The processor's name", "/proc/cpuinfo", "Arm Cortex-A76"),
    FactName("cpu_count", "number", "Logical processors the agent may use", "sched_getaffinity", "8"),
    FactName("cpu_cores", "number", "Physical cores", "/sys/devices/system/cpu", "4"),
    FactName(
        "cpu_flags",
        "list",
        "Instruction sets by the kernel's names, in lower case; on x86 vector, matrix, bit and crypto ones only",
        "/proc/cpuinfo",
        "avx2,avx512_vnni,fma",
    ),
    FactName("memory_bytes", "size", "Usable main memory", "/proc/meminfo", "8GiB"),
    FactName(
        "disk.free_bytes",
        "size",
        "What the agent may still write in its data directory; steps of 1 % of the disk",
        "statvfs",
        "20GiB",
    ),
    FactName("disk.total_bytes", "size", "Size of the data directory's file system", "statvfs", "64GiB"),
    FactName(
        "disk.class",
        "text",
        "`nvme`, `ssd`, `hdd`, `sd` or `emmc`; not there for virtual disks",
        "/sys/dev/block",
        "nvme",
    ),
    FactName("os", "text", "Distribution", "/etc/os-release", "debian"),
    FactName("os_version", "text", "Its version", "/etc/os-release", "12"),
    FactName("kernel", "text", "Kernel release", "/proc/sys/kernel/osrelease", "6.12.25+rpt-rpi-2712"),
    FactName("hostname", "text", "Host name", "/proc/sys/kernel/hostname", "press-1"),
    FactName(
        "machine",
        "text",
        "The board's or product's own name",
        "/sys/firmware/devicetree/base/model, /sys/class/dmi/id",
        "Raspberry Pi 5 Model B Rev 1.0",
    ),
    FactName("keys", "text", "How the host's private keys are kept: `tpm` or `file`", "the agent", "tpm"),
    FactName("lan_address", "text", "Address of heartbeats between hosts", "the agent", "10.0.0.7:7443"),
    FactName(
        "bus_address", "text", "Address of links between the buses of hosts", "the agent", "10.0.0.7:8884"
    ),
    FactName("ingress", "text", "Program and version of the ingress proxy", "the agent", "envoy 1.40.0"),
    FactName("ingress.https", "number", "Port of routes with TLS", "the agent", "443"),
    FactName("ingress.http", "number", "Port of routes without TLS", "the agent", "80"),
    FactName(
        "ports.taken",
        "list",
        "TCP ports below the ephemeral ones that programs other than Skerry's listen on",
        "/proc/net/tcp, /proc/net/tcp6",
        "22,631",
    ),
    FactName(
        "link.metered",
        "flag",
        "Whether each byte of the link upwards costs; a Site's `link` may keep to less then. Only found to be true",
        "/proc/net/route, /proc/net/ipv6_route, /sys/class/net",
        "true",
    ),
    FactName("jetson.l4t", "text", "Release of Jetson Linux", "/etc/nv_tegra_release", "36.3.0"),
    FactName("engine", "text", "Container engine: `podman` or `docker`", "the engine", "podman"),
    FactName("engine_version", "text", "Its version", "the engine", "5.4.2"),
    FactName("engine.rootless", "flag", "Whether it runs without root", "the engine", "true"),
    FactName("gpu.count", "number", "GPUs with a driver", "the detectors", "2"),
    FactName("gpu.cuda", "text", "CUDA version that the driver supports", "NVML", "12.4"),
    FactName("gpu.N.vendor", "text", "`nvidia`, `amd` or `intel`", "NVML, /sys/class/drm", "nvidia"),
    FactName("gpu.N.name", "text", "Its name", "NVML, /sys/class/drm", "NVIDIA L4"),
    FactName(
        "gpu.N.memory_bytes",
        "size",
        "Its memory; on a Jetson the machine's",
        "NVML, mem_info_vram_total",
        "24GiB",
    ),
    FactName("gpu.N.shared_memory", "flag", "True where it has no memory of its own", "device tree", "true"),
    FactName("gpu.N.compute", "text", "CUDA compute capability", "NVML, device tree", "8.9"),
    FactName("gpu.N.driver", "text", "Version of its driver", "NVML, /proc/driver/nvidia", "550.54.15"),
    FactName("gpu.N.mig", "flag", "Whether multi-instance mode is on", "NVML", "false"),
    FactName("gpu.N.mig_instances", "list", "Its instances' names", "NVML", "NVIDIA H100 MIG 1g.10gb"),
    FactName("gpu.N.device", "text", "Device node", "NVML, /sys/class/drm", "/dev/nvidia0"),
    FactName("gpu.N.bus", "text", "PCI address", "NVML, /sys/class/drm", "0000:17:00.0"),
    FactName("accelerators", "list", "All kinds of accelerators with a driver", "the detectors", "intel-gpu"),
    FactName("accelerator.KIND.devices", "list", "Device nodes of a kind", "the detectors", "/dev/hailo0"),
    FactName("devices.camera", "list", "V4L2 capture devices", "/sys/class/video4linux", "/dev/video0"),
    FactName("camera.names", "list", "Their names", "/sys/class/video4linux", "video0 HD Pro Webcam C920"),
    FactName("devices.serial", "list", "Serial ports", "/sys/class/tty", "/dev/ttyUSB0"),
    FactName("devices.gpu", "list", "Device nodes of GPUs", "/dev", "/dev/dri/renderD128"),
    FactName("devices.npu", "list", "Device nodes of NPUs", "/dev", "/dev/accel/accel0"),
    FactName("devices.tpu", "list", "Device nodes of Edge TPUs", "/dev", "/dev/apex_0"),
    FactName("devices.usb", "list", "USB devices without hubs", "/sys/bus/usb", "1a6e:089a Global Unichip"),
    FactName("devices.can", "list", "CAN interfaces", "/sys/class/net", "can0"),
    FactName("devices.i2c", "list", "I2C buses", "/dev", "/dev/i2c-1"),
    FactName("devices.spi", "list", "SPI devices", "/dev", "/dev/spidev0.0"),
    FactName("devices.gpio", "list", "GPIO chips", "/dev", "/dev/gpiochip0"),
    FactName(
        "devices.cdi", "list", "Devices of the Container Device Interface", "/etc/cdi", "nvidia.com/gpu=0"
    ),
    FactName(
        "runtime.onnxruntime", "text", "Version of ONNX Runtime in the agent's Python", "import", "1.22.0"
    ),
    FactName(
        "runtime.onnxruntime.providers", "list", "Its execution providers", "import", "CPUExecutionProvider"
    ),
    FactName("runtime.openvino", "text", "Version of OpenVINO in the agent's Python", "import", "2026.1.0"),
    FactName("runtime.openvino.devices", "list", "Devices it offers", "import", "CPU,GPU,NPU"),
    FactName("runtime.tensorrt", "text", "Version of TensorRT", "import, /usr/lib", "10.3.0"),
    FactName("custom.NAME", "text", "What a program or file in `facts.d` stated", "facts.d", "hall-3"),
    FactName("measured.MODEL@VERSION/VARIANT.latency_us", "number", "Measured latency", "self-test", "2140"),
    FactName(
        "problems", "list", "What could not be found out, and why", "the detectors", "10-line.sh: exit 1"
    ),
)

_by_name = {entry.name: entry for entry in FACT_NAMES}
_patterns = (
    (re.compile(r"gpu\.[0-9]{1,3}\.(\w+)"), "gpu.N.{}"),
    (re.compile(r"accelerator\.[a-z0-9-]+\.(devices)"), "accelerator.KIND.{}"),
    (re.compile(r"custom\.[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"), "custom.NAME"),
    (
        re.compile(r"measured\.[^@/\s]+@[^@/\s]+/[^@/\s]+\.latency_us"),
        "measured.MODEL@VERSION/VARIANT.latency_us",
    ),
)


def find_fact_name(name: str) -> FactName | None:
    """Return the table's entry for a fact such as `gpu.0.vendor`; None when there is no such fact."""
    for pattern, entry in _patterns:
        if match := pattern.fullmatch(name):
            return _by_name.get(entry.format(*match.groups()))
    return None if re.search("[A-Z]", name) else _by_name.get(name)
