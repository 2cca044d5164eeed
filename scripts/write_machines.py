"""Write tests/fixtures/machines/*.json: trees of machines that host facts are detected on.

Six are built here from documented layouts of /proc and /sys (tests/fixtures/machines/README.md names the sources);
`--record NAME` writes what the machine it runs on shows of itself, without addresses and serial numbers.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "machines"
RECORDED = (
    "proc/cpuinfo", "proc/meminfo", "proc/self/mountinfo", "proc/sys/kernel/arch", "proc/sys/kernel/osrelease",
    "etc/os-release",
)  # fmt: skip
DT = "sys/firmware/devicetree/base"


class Machine:
    """A tree that grows by what drivers put into it; `answers` are what libraries say on that machine."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.answers: dict[str, Any] = {}

    def add(self, path: str, text: str = "") -> None:
        self.files[path] = text

    def attributes(self, folder: str, **values: object) -> None:
        for name, value in values.items():
            self.add(f"{folder}/{name}", f"{value}\n")

    def link(self, path: str, target: str) -> None:
        """Link to a path of the tree, relatively, as sysfs does."""
        self.links[path] = os.path.relpath(target, str(Path(path).parent))

    def nodes(self, *paths: str) -> None:
        for path in paths:
            self.add(f"dev/{path}")

    def kernel(self, arch: str, release: str, hostname: str, memory_kb: int) -> None:
        self.attributes("proc/sys/kernel", osrelease=release, hostname=hostname)
        if tuple(map(int, release.split(".")[:2])) >= (6, 1):  # when the file came
            self.attributes("proc/sys/kernel", arch=arch)
        self.add("proc/meminfo", f"MemTotal:       {memory_kb} kB\nMemFree:        {memory_kb // 2} kB\n")

    def system(self, name: str, version: str) -> None:
        self.add("usr/lib/os-release", f'NAME="{name.title()}"\nVERSION_ID="{version}"\nID={name}\n')
        self.link("etc/os-release", "usr/lib/os-release")

    def cores(self, count: int, *, threads: int = 1, per_cluster: int = 0) -> None:
        for number in range(count * threads):
            core = number % count
            folder = f"sys/devices/system/cpu/cpu{number}/topology"
            cluster = core // per_cluster if per_cluster else 0
            self.attributes(
                folder,
                core_id=core % per_cluster if per_cluster else core,
                physical_package_id=0,
                cluster_id=cluster,
            )

    def driver(self, device: str, bus: str, name: str) -> None:
        self.add(f"sys/bus/{bus}/drivers/{name}/uevent")
        self.link(f"{device}/driver", f"sys/bus/{bus}/drivers/{name}")

    def pci(self, address: str, ids: str, kind: int, driver: str = "") -> str:
        folder = f"sys/devices/pci{address[:7]}/{address}"
        vendor, device = ids.split(":")
        self.attributes(folder, vendor=f"0x{vendor}", device=f"0x{device}", **{"class": f"0x{kind:06x}"})
        self.link(f"sys/bus/pci/devices/{address}", folder)
        if driver:
            self.driver(folder, "pci", driver)
        return folder

    def usb(
        self, name: str, ids: str, *, device_class: str = "00", bus: int = 1, number: int = 2, **words: str
    ) -> str:
        folder = f"sys/devices/pci0000:00/0000:00:14.0/usb{bus}/{name}"
        vendor, product = ids.split(":")
        self.attributes(
            folder,
            idVendor=vendor,
            idProduct=product,
            bDeviceClass=device_class,
            busnum=bus,
            devnum=number,
            **words,
        )
        self.link(f"sys/bus/usb/devices/{name}", folder)
        self.add(f"{folder}/{name}:1.0/bInterfaceClass", "ff\n")
        self.link(f"sys/bus/usb/devices/{name}:1.0", f"{folder}/{name}:1.0")
        return folder

    def member(self, group: str, name: str, device: str, /, **values: object) -> None:
        """Add a member of a class, which hangs below its device."""
        folder = f"{device}/{group}/{name}"
        self.attributes(folder, uevent="", **values)
        self.link(f"{folder}/device", device)
        self.link(f"sys/class/{group}/{name}", folder)

    def disk(
        self, device: str, name: str, partition: str, number: str, *, rotational: int = 0, **values: object
    ) -> None:
        folder = f"{device}/block/{name}"
        self.attributes(f"{folder}/queue", rotational=rotational)
        self.attributes(f"{folder}/{partition}", partition=1)
        self.attributes(device, **values)
        self.link(f"{folder}/device", device)
        self.link(f"sys/class/block/{name}", folder)
        self.link(f"sys/class/block/{partition}", f"{folder}/{partition}")
        self.link(f"sys/dev/block/{number}", f"{folder}/{partition}")
        self.add(
            "proc/self/mountinfo", f"25 1 {number} / / rw,relatime shared:1 - ext4 /dev/{partition} rw\n"
        )

    def interface(self, name: str, device: str, *, kind: int = 1, devtype: str = "") -> None:
        self.member("net", name, device, type=kind)
        self.add(
            f"{device}/net/{name}/uevent",
            f"DEVTYPE={devtype}\n" * bool(devtype) + f"INTERFACE={name}\nIFINDEX=3\n",
        )

    def routes(self, *routes: tuple[str, int | None]) -> None:
        """Add IPv4's routes: to everywhere with a metric, or to the interface's own network."""
        head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
        lines = [
            f"{name}\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
            if metric is None
            else f"{name}\t00000000\t01F9400A\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0"
            for name, metric in routes
        ]
        self.add("proc/net/route", "".join(f"{line:<127}\n" for line in (head, *lines)))

    def serial_made_in_advance(self, *names: str) -> None:
        for name in names:
            self.member("tty", name, "sys/devices/platform/serial8250", type=0)

    def text(self) -> str:
        whole = {
            "about": self.about,
            "files": dict(sorted(self.files.items())),
            "links": dict(sorted(self.links.items())),
            "answers": self.answers,
        }
        return json.dumps(whole, indent=1) + "\n"


def arm_cpuinfo(count: int, features: str, part: str, tail: str = "", name: str = "") -> str:
    core = (
        "processor\t: {}\n" + (f"model name\t: {name}\n" if name else "") + "BogoMIPS\t: 62.50\n"
        f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part}\nCPU revision\t: 1\n\n"
    )
    return "".join(core.format(number) for number in range(count)) + tail


def x86_cpuinfo(count: int, name: str, flags: str) -> str:
    core = (
        "processor\t: {}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: "
        f"{name}\nflags\t\t: {flags}\nbugs\t\t:\n\n"
    )
    return "".join(core.format(number) for number in range(count))


V1 = "fpu de tsc msr cx8 apic cmov mmx fxsr sse sse2 ht syscall nx lm"
V2 = f"{V1} pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm aes pclmulqdq"
V3 = f"{V2} xsave avx f16c fma movbe abm bmi1 bmi2 avx2"
V4 = f"{V3} avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"


def jetson_orin() -> Machine:
    machine = Machine("NVIDIA Jetson AGX Orin developer kit, Jetson Linux 36.3, with a USB camera")
    features = (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat "
        "ilrcpc flagm paca pacg"
    )
    machine.add("proc/cpuinfo", arm_cpuinfo(12, features, "0xd42", name="ARMv8 Processor rev 1 (v8l)"))
    machine.kernel("aarch64", "5.15.136-tegra", "orin", 64348176)
    machine.system("ubuntu", "22.04")
    machine.cores(12, per_cluster=4)
    machine.add(f"{DT}/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    machine.add(f"{DT}/compatible", "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0")
    machine.add(
        "etc/nv_tegra_release",
        "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic, EABI: aarch64, DATE: Mon May  6\n",
    )
    machine.add(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.3.0  Release Build  (buildbrain)\n",
    )
    machine.nodes("nvgpu/igpu0/ctrl", "nvhost-gpu", "nvmap", "nvhost-ctrl-nvdla0", "gpiochip0", "gpiochip1")
    machine.nodes(*(f"i2c-{number}" for number in (0, 1, 2, 10)), "spidev0.0")
    machine.add("usr/lib/aarch64-linux-gnu/libnvinfer.so.8.6.2")
    machine.disk("sys/devices/platform/3460000.mmc/mmc0:0001", "mmcblk0", "mmcblk0p1", "179:1", type="MMC")
    machine.member("tty", "ttyTHS1", "sys/devices/platform/3100000.serial")
    machine.member("tty", "ttyTCU0", "sys/devices/platform/tcu")
    machine.member("net", "can0", "sys/devices/platform/c310000.mttcan", type=280)
    machine.member("net", "eth0", "sys/devices/platform/2310000.ethernet", type=1)
    for number in range(2):
        device = "sys/devices/platform/3610000.usb/usb1/1-3/1-3:1.0"
        machine.member("video4linux", f"video{number}", device, name="HD Pro Webcam C920", index=number)
        machine.driver(device, "usb", "uvcvideo")
    machine.add(
        "etc/cdi/nvidia.yaml",
        "---\ncdiVersion: 0.5.0\ncontainerEdits:\n  env:\n  - NVIDIA_VISIBLE_DEVICES=void\ndevices:\n"
        "- containerEdits:\n    deviceNodes:\n    - path: /dev/nvgpu/igpu0/ctrl\n    hooks:\n"
        '    - hookName: createContainer\n      path: /usr/bin/nvidia-ctk\n  name: "0"\n'
        "- containerEdits:\n    deviceNodes:\n    - path: /dev/nvmap\n  name: all\nkind: nvidia.com/gpu\n",
    )
    return machine


def coral_box() -> Machine:
    machine = Machine("Small x86 box (Celeron J4125, SATA SSD) with a Coral USB Accelerator")
    machine.add("proc/cpuinfo", x86_cpuinfo(4, "Intel(R) Celeron(R) J4125 CPU @ 2.00GHz", V2))
    machine.kernel("x86_64", "6.1.0-30-amd64", "gate-2", 7948288)
    machine.system("debian", "12")
    machine.cores(4)
    machine.attributes(
        "sys/class/dmi/id", sys_vendor="Default string", product_name="To be filled by O.E.M.",
        board_vendor="AZW", board_name="Gemini J45",
    )  # fmt: skip
    gpu = machine.pci("0000:00:02.0", "8086:3185", 0x030000, "i915")
    machine.member("drm", "card0", gpu)
    machine.member("drm", "renderD128", gpu)
    machine.nodes("dri/card0", "dri/renderD128")
    machine.pci("0000:00:12.0", "8086:31e3", 0x010601, "ahci")
    ata = "sys/devices/pci0000:00/0000:00:12.0/ata1/host0/target0:0:0/0:0:0:0"
    machine.disk(ata, "sda", "sda1", "8:1", vendor="ATA     ", model="NT-256")
    machine.usb("usb1", "1d6b:0002", device_class="09", product="xHCI Host Controller")
    machine.usb("1-2", "1a6e:089a", number=7)
    machine.usb("1-3", "0403:6001", number=8, manufacturer="FTDI", product="FT232R USB UART")
    machine.nodes("bus/usb/001/007", "bus/usb/001/008", "ttyUSB0", "ttyS0", "ttyS1")
    machine.member("tty", "ttyUSB0", "sys/devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/ttyUSB0")
    machine.member("tty", "ttyS0", "sys/devices/pnp0/00:01", type=4)
    machine.serial_made_in_advance("ttyS1", "ttyS2", "ttyS3")
    return machine


def intel_nuc() -> Machine:
    machine = Machine("Intel NUC 14 Pro (Core Ultra 7 155H) with its NPU and GPU, and a RealSense camera")
    machine.add("proc/cpuinfo", x86_cpuinfo(22, "Intel(R) Core(TM) Ultra 7 155H", f"{V3} avx_vnni"))
    machine.kernel("x86_64", "6.11.0-17-generic", "nuc-5", 32523276)
    machine.system("ubuntu", "24.04")
    machine.cores(16)
    machine.attributes("sys/class/dmi/id", sys_vendor="Intel(R) Client Systems", product_name="NUC14RVHv7")
    gpu = machine.pci("0000:00:02.0", "8086:7d55", 0x030000, "i915")
    machine.member("drm", "card1", gpu)
    machine.member("drm", "renderD128", gpu)
    machine.member("drm", "card1-HDMI-A-1", gpu)
    npu = machine.pci("0000:00:0b.0", "8086:7d1d", 0x120000, "intel_vpu")
    machine.member("accel", "accel0", npu)
    machine.nodes("accel/accel0", "dri/card1", "dri/renderD128", "video0", "video1", "video2")
    nvme = machine.pci("0000:01:00.0", "144d:a80a", 0x010802, "nvme")
    machine.disk(f"{nvme}/nvme/nvme0", "nvme0n1", "nvme0n1p2", "259:2")
    machine.usb("3-1", "8086:0b3a", bus=3, number=4, product="Intel(R) RealSense(TM) Depth Camera 435i")
    device = "sys/devices/pci0000:00/0000:00:14.0/usb3/3-1/3-1:1.0"
    for number in range(3):
        machine.member(
            "video4linux", f"video{number}", device, name="Intel(R) RealSense(TM) Depth Ca", index=number
        )
    machine.driver(device, "usb", "uvcvideo")
    machine.interface("enp86s0", machine.pci("0000:56:00.0", "8086:125c", 0x020000, "igc"))
    machine.routes(("enp86s0", 100), ("enp86s0", None))
    machine.serial_made_in_advance("ttyS0", "ttyS1")
    return machine


def two_gpus() -> Machine:
    machine = Machine(
        "Server with two NVIDIA L4 and a BMC's display, driver 550, a third GPU given to a guest"
    )
    machine.add(
        "proc/cpuinfo", x86_cpuinfo(64, "Intel(R) Xeon(R) Gold 6430", f"{V4} amx_tile amx_int8 amx_bf16")
    )
    machine.kernel("x86_64", "5.15.0-130-generic", "rack-1", 263847432)
    machine.system("ubuntu", "22.04")
    machine.cores(32, threads=2)
    machine.attributes("sys/class/dmi/id", sys_vendor="Dell Inc.", product_name="PowerEdge R760")
    machine.pci("0000:03:00.0", "102b:0536", 0x030000, "mgag200")
    machine.pci("0000:b1:00.0", "10de:2236", 0x030200, "vfio-pci")
    for number, address in enumerate(("0000:17:00.0", "0000:65:00.0")):
        gpu = machine.pci(address, "10de:27b8", 0x030200, "nvidia")
        machine.member("drm", f"card{number + 1}", gpu)
        machine.add(
            f"proc/driver/nvidia/gpus/{address}/information",
            f"Model: \t\t NVIDIA L4\nIRQ:   \t\t 18\nGPU UUID: \t GPU-00000000-0000-0000-0000-00000000000{number}\n"
            f"Bus Type: \t PCIe\nBus Location: \t {address}\nDevice Minor: \t {number}\nGPU Excluded:\t No\n",
        )
        machine.nodes(f"nvidia{number}")
    machine.nodes("nvidiactl", "nvidia-uvm")
    machine.add(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
        "GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)\n",
    )
    raid = machine.pci("0000:02:00.0", "1000:10e2", 0x010400, "megaraid_sas")
    disk = f"{raid}/host0/target0:3:111/0:3:111:0"
    machine.disk(disk, "sda", "sda2", "8:2", rotational=1, vendor="DELL    ")
    devices: list[dict[str, object]] = [{"name": name, "containerEdits": {}} for name in ("0", "1", "all")]
    cdi = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    machine.add("var/run/cdi/nvidia.json", json.dumps(cdi))
    memory = 23034 << 20
    machine.answers["nvml"] = {
        "source": "NVML",
        "driver": "550.54.15",
        "cuda": "12.4",
        "gpus": [
            {
                "name": "NVIDIA L4",
                "memory_bytes": memory,
                "compute": "8.9",
                "device": f"/dev/nvidia{number}",
                "bus": bus,
            }
            for number, bus in enumerate(("0000:17:00.0", "0000:65:00.0"))
        ],
    }
    return machine


def raspberry_pi_5() -> Machine:
    machine = Machine("Raspberry Pi 5 with the AI Kit (Hailo-8L) and a camera module")
    features = (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
    )
    tail = "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    machine.add("proc/cpuinfo", arm_cpuinfo(4, features, "0xd0b", tail))
    machine.kernel("aarch64", "6.12.25+rpt-rpi-2712", "press-1", 8245072)
    machine.system("debian", "12")
    machine.cores(4)
    machine.add(f"{DT}/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    machine.add(f"{DT}/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0")
    hailo = machine.pci("0001:01:00.0", "1e60:2864", 0x0B4000, "hailo")
    machine.member("hailo_chardev", "hailo0", hailo)
    machine.nodes(
        "hailo0", "i2c-1", "spidev0.0", "spidev0.1", *(f"gpiochip{number}" for number in (0, 10, 4))
    )
    machine.disk(
        "sys/devices/platform/axi/1000fff000.mmc/mmc0:aaaa", "mmcblk0", "mmcblk0p2", "179:2", type="SD"
    )
    cfe = "sys/devices/platform/axi/1000120000.pcie/1f00110000.csi"
    for number, name in enumerate(("rp1-cfe-csi2_ch0", "rp1-cfe-embedded", "rp1-cfe-csi2_ch2")):
        machine.member("video4linux", f"video{number}", cfe, name=name, index=number)
    machine.driver(cfe, "platform", "rp1-cfe")
    codec = "sys/devices/platform/axi/1000800000.codec"
    machine.member("video4linux", "video19", codec, name="rpi-hevc-dec", index=0)
    machine.driver(codec, "platform", "rpi-hevc-dec")
    isp = "sys/devices/platform/axi/1000880000.pisp_be"
    for number, name in enumerate(("pispbe-input", "pispbe-tdn_input", "pispbe-output0")):
        machine.member("video4linux", f"video{20 + number}", isp, name=name, index=number)
    machine.driver(isp, "platform", "pispbe")
    for card in ("card0", "card1"):
        device = f"sys/devices/platform/axi/{card}.gpu"
        machine.member("drm", card, device)
        machine.driver(device, "platform", "v3d")
    machine.member("tty", "ttyAMA10", "sys/devices/platform/axi/107d001000.serial")
    machine.usb("usb1", "1d6b:0002", device_class="09")
    machine.answers["hailo"] = {"0001:01:00.0": "HAILO8L"}
    return machine


def mobile_gateway() -> Machine:
    machine = Machine(
        "x86 gateway (Atom x6211E) whose uplink is an LTE modem, with a cable to the machines it serves"
    )
    machine.add("proc/cpuinfo", x86_cpuinfo(2, "Intel Atom(R) x6211E Processor @ 1.30GHz", V2))
    machine.kernel("x86_64", "6.1.0-30-amd64", "van-7", 3871288)
    machine.system("debian", "12")
    machine.cores(2)
    machine.attributes("sys/class/dmi/id", sys_vendor="AAEON", product_name="BOXER-6406-EHL")
    machine.disk(
        "sys/devices/pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:0001", "mmcblk0", "mmcblk0p2", "179:2",
        type="MMC",
    )  # fmt: skip
    modem = machine.usb("1-4", "2c7c:0125", number=3, manufacturer="Quectel", product="EG25-G")
    for number in range(4):
        machine.member("tty", f"ttyUSB{number}", f"{modem}/1-4:1.{number}/ttyUSB{number}")
    machine.interface("wwan0", f"{modem}/1-4:1.4", kind=65534, devtype="wwan")
    machine.driver(f"{modem}/1-4:1.4", "usb", "qmi_wwan")
    machine.interface("enp2s0", machine.pci("0000:02:00.0", "8086:15f3", 0x020000, "igc"))
    machine.routes(("wwan0", 700), ("enp2s0", None))
    machine.serial_made_in_advance("ttyS0", "ttyS1")
    return machine


BUILT = {
    "jetson-orin": jetson_orin,
    "coral-box": coral_box,
    "intel-nuc": intel_nuc,
    "two-gpus": two_gpus,
    "raspberry-pi-5": raspberry_pi_5,
    "mobile-gateway": mobile_gateway,
}


def record() -> Machine:
    """Return what this machine shows; devices only by name, and nothing that tells it from its like."""
    machine = Machine("Recorded: the virtual machine of a continuous build")
    for path in RECORDED:
        text = (Path("/") / path).read_text(errors="replace")
        if path.endswith("mountinfo"):
            text = "".join(f"{line}\n" for line in text.splitlines() if line.split()[4] == "/")
        if path.endswith("meminfo"):
            text = text[:400]
        machine.add(path, text)
    machine.attributes("proc/sys/kernel", hostname="builder")
    for node in sorted(Path("/dev").iterdir()):
        if node.is_char_device() or node.is_block_device():
            machine.nodes(node.name)
    for address in sorted(path.name for path in Path("/sys/bus/pci/devices").iterdir()):
        for name in ("vendor", "device", "class"):
            path = f"sys/bus/pci/devices/{address}/{name}"
            machine.add(path, Path("/", path).read_text())
    for pattern in (
        "sys/class/tty/ttyS*/type",
        "sys/class/net/*/type",
        "sys/devices/system/cpu/cpu[0-9]*/topology/*_id",
    ):
        for found in sorted(Path("/").glob(pattern)):
            machine.add(str(found.relative_to("/")), found.read_text())
    return machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", metavar="NAME", help="record the machine this runs on")
    arguments = parser.parse_args()
    if arguments.record:
        (FOLDER / f"{arguments.record}.json").write_text(record().text())
        return
    for name, build in BUILT.items():
        (FOLDER / f"{name}.json").write_text(build().text())


if __name__ == "__main__":
    main()
