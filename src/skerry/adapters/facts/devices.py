"""Cameras, serial ports, USB devices, CAN, I2C, SPI and GPIO."""

from __future__ import annotations

import re

from skerry.adapters.facts.accelerators import CORAL_USB
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree
from skerry.spec.hardware import DeviceClass

# Codecs, scalers and image processors are V4L2 devices, too; their drivers and names give them away.
_not_camera_re = re.compile(
    r"pispbe|rpi-hevc|rpivid|bcm2835-(codec|isp)|hantro|rkvdec|rockchip-rga|wave5|mtk-v(dec|enc)|venus|iris|cedrus|coda|"
    r".*[ _-](dec|enc|decoder|encoder|codec|jpeg|scaler|m2m)([ _-].*|[0-9]*)?$",
    re.IGNORECASE,
)
_ARPHRD_CAN = 280  # include/uapi/linux/if_arp.h
_nodes: tuple[tuple[DeviceClass, str], ...] = (
    ("i2c", r"i2c-[0-9]{1,3}"),
    ("spi", r"spidev[0-9]{1,3}\.[0-9]{1,3}"),
    ("gpio", r"gpiochip[0-9]{1,3}"),
)


def detect_cameras(tree: Tree, found: Findings) -> None:
    """Find capture devices: of each camera the first node, which is the one with pictures."""
    folder = "sys/class/video4linux"
    if tree.exists("sys/class"):
        found.add_devices("camera", (), f"/{folder}")
    names: list[str] = []
    for node in sorted(tree.names(folder), key=_by_number):
        name = tree.line(f"{folder}/{node}/name")
        driver = tree.target(f"{folder}/{node}/device/driver")
        is_first = tree.number(f"{folder}/{node}/index") == 0
        other = _not_camera_re.match(name) or _not_camera_re.match(driver)
        if re.fullmatch(r"video[0-9]{1,3}", node) and is_first and not other:
            found.add_devices("camera", [f"/dev/{node}"], f"/{folder}")
            names.append(f"{node} {name}")
    found.add("camera.names", names, f"/{folder}")


def detect_serial(tree: Tree, found: Findings) -> None:
    """Find serial ports behind which there is one: the kernel makes ttyS nodes in advance."""
    if not tree.exists("sys/class"):
        return
    ports: list[str] = []
    for node in sorted(tree.names("sys/class/tty"), key=_by_number):
        is_built_in = re.fullmatch(r"ttyS[0-9]{1,3}", node)
        if is_built_in and not _is_real_port(tree, node):
            continue
        if is_built_in or re.fullmatch(r"tty(USB|ACM|AMA|THS|TCU|mxc|LP|MSM|HS|PS|SC|XRUSB)[0-9]{1,3}", node):
            ports.append(f"/dev/{node}")
    found.add_devices("serial", ports, "/sys/class/tty")


def _is_real_port(tree: Tree, node: str) -> bool:
    kind = tree.number(f"sys/class/tty/{node}/type")
    if kind is not None:
        return kind != 0  # PORT_UNKNOWN
    # Kernels that keep the type from us: ports made in advance hang below the platform device serial8250.
    real = tree.real(f"sys/class/tty/{node}/device")
    return tree.exists(f"sys/class/tty/{node}/device") and "/serial8250" not in real


def detect_usb(tree: Tree, found: Findings) -> None:
    """Find USB devices without hubs, and Coral's Edge TPU among them."""
    folder = "sys/bus/usb/devices"
    texts: list[str] = []
    for name in tree.names(folder):
        vendor, product = (tree.line(f"{folder}/{name}/{key}") for key in ("idVendor", "idProduct"))
        is_hub = tree.line(f"{folder}/{name}/bDeviceClass") == "09"
        if is_hub or not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", f"{vendor}:{product}"):
            continue
        words = [tree.line(f"{folder}/{name}/{key}") for key in ("manufacturer", "product")]
        texts.append(" ".join([f"{vendor}:{product}", *filter(None, words)]))
        if f"{vendor}:{product}" in CORAL_USB:
            bus, number = (tree.number(f"{folder}/{name}/{key}") for key in ("busnum", "devnum"))
            node = f"/dev/bus/usb/{bus:03}/{number:03}" if bus is not None and number is not None else ""
            found.add_accelerator("coral-usb", [node], f"/{folder}")
    if tree.exists("sys/bus"):
        found.add_devices("usb", texts, f"/{folder}")


def detect_buses(tree: Tree, found: Findings) -> None:
    """Find CAN interfaces, I2C, SPI and GPIO."""
    if not tree.exists("sys/class"):
        return
    interfaces = [
        name
        for name in tree.names("sys/class/net")
        if tree.number(f"sys/class/net/{name}/type") == _ARPHRD_CAN
    ]
    found.add_devices("can", interfaces, "/sys/class/net")
    nodes = sorted(tree.names("dev"), key=_by_number)
    for room, pattern in _nodes:
        found.add_devices(room, [f"/dev/{node}" for node in nodes if re.fullmatch(pattern, node)], "/dev")


def _by_number(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)([0-9]{1,9})?", name, re.DOTALL | re.ASCII)
    assert match is not None  # anything matches
    return match[1], int(match[2] or -1)
