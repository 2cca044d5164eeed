"""Whether the link upwards is paid by the byte, as far as the default route's interface tells.

Rules: `link.metered` is found to be true where that interface is a modem's, and not found otherwise: a cable or a wifi
may lead to anything, so it is never found to be false. Of several default routes the one of the lowest metric counts,
of IPv4 and of IPv6 each; as nobody knows which of the two will be used, a modem behind either is told. A bridge, a bond
or a channel whose lower interfaces are all modems is one, too; what a tunnel leads over is not known. What the programs
that manage networks think of a link is in no file that they promise to keep.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree, parse_number

ROUTES_LIMIT_BYTES = 1 << 18
_deepest = 4
_UP, _REJECT = 0x0001, 0x0200  # include/uapi/linux/route.h
_zeros = "0" * 32
_interface_re = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.@-]{1,15}")


class Uplink(NamedTuple):
    """The interface of a default route, and the file that says so."""

    interface: str
    source: str


def detect_metered(tree: Tree, found: Findings) -> None:
    """Find that the link upwards is a modem's."""
    for uplink in find_uplinks(tree):
        if sign := modem_sign(tree, uplink.interface):
            found.add("link.metered", True, f"{uplink.source}: {uplink.interface}; {sign}")
            return


def find_uplinks(tree: Tree) -> tuple[Uplink, ...]:
    """Return the interfaces of the default routes, IPv4's and IPv6's, as far as there are any."""
    found: list[Uplink] = []
    for path, parse in (("proc/net/route", _parse_ipv4), ("proc/net/ipv6_route", _parse_ipv6)):
        routes = [parse(line.split()) for line in tree.text(path, ROUTES_LIMIT_BYTES).splitlines()]
        # Of equal ones the kernel takes the first, and so does min.
        best = min((route for route in routes if route), key=lambda route: route[0], default=None)
        if best and _interface_re.fullmatch(best[1]):
            found.append(Uplink(best[1], f"/{path}"))
    return tuple(found)


def _parse_ipv4(fields: list[str]) -> tuple[int, str] | None:
    """Return metric and interface of a default route of /proc/net/route; None for other lines."""
    # Iface Destination Gateway Flags RefCnt Use Metric Mask ...
    if len(fields) < 8 or (fields[1], fields[7]) != ("00000000", "00000000"):
        return None
    return _route(fields[3], parse_number(fields[6]), fields[0])


def _parse_ipv6(fields: list[str]) -> tuple[int, str] | None:
    """Return metric and interface of a default route of /proc/net/ipv6_route; None for other lines."""
    # destination prefix source prefix next-hop metric references uses flags interface
    if len(fields) != 10 or fields[:4] != [_zeros, "00", _zeros, "00"]:
        return None
    return _route(fields[8], parse_number(fields[5], 16), fields[9])


def _route(flags_text: str, metric: int | None, interface: str) -> tuple[int, str] | None:
    flags = parse_number(flags_text, 16)
    if metric is None or flags is None or not flags & _UP or flags & _REJECT:
        return None
    return metric, interface


def modem_sign(tree: Tree, interface: str, *, depth: int = _deepest) -> str:
    """Return what shows that an interface is a modem's; empty where nothing does."""
    folder = f"sys/class/net/{interface}"
    if "DEVTYPE=wwan" in tree.text(f"{folder}/uevent", 4096).split():
        return f"/{folder}/uevent: DEVTYPE=wwan"
    # Some drivers give no type, but their device is one of the kernel's WWAN ports.
    if tree.target(f"{folder}/device/subsystem") == "wwan" or tree.names(f"{folder}/device/wwan"):
        return f"/{folder}/device: wwan"
    if re.fullmatch(r"ppp[0-9]{1,5}", interface) and not _has_pppoe(tree):
        return f"{interface} dials, and not by PPPoE"
    lower = [name.removeprefix("lower_") for name in tree.names(folder) if name.startswith("lower_")]
    signs = [modem_sign(tree, name, depth=depth - 1) for name in lower[:16]] if depth else []
    return signs[0] if signs and all(signs) else ""


def _has_pppoe(tree: Tree) -> bool:
    """Tell whether a PPPoE session is open: then a ppp interface is most likely a DSL line's."""
    return len(tree.text("proc/net/pppoe", 4096).splitlines()) > 1
