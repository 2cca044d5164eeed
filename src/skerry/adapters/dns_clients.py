"""Who may ask a host's DNS, and how much: machines nearby, each at a bounded rate.

A DNS that answers whomever is an amplifier for attacks on others: addresses of the internet get nothing.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

ASKED_PER_S = 100.0
BURST = 200.0
MAX_CLIENTS = 1024

# RFC 1122, 1918, 3927; RFC 4291, 4193.
_NEAR = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fe80::/10",
        "fc00::/7",
    )
)


def is_near(address: str) -> bool:
    """Tell whether an address is one of this machine or of a network that is nobody else's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found.version == network.version and found in network for network in _NEAR)


def is_loopback(address: str) -> bool:
    """Tell whether an address is of this very machine."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Rates:
    """What each client may still ask; the ones that have been silent longest are forgotten first."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def afford(self, client: str, now: float) -> bool:
        """Tell whether a client may ask once more at this moment, in monotonic seconds."""
        left, at = self._left.pop(client, (BURST, now))
        left = min(BURST, left + (now - at) * ASKED_PER_S)
        may = left >= 1
        self._left[client] = (left - 1 if may else left, now)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return may
