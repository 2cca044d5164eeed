"""Where a host's DNS listens and whom it asks, as a person states it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from skerry.kit.errors import Rejected

MAX_PLACES = 8


def parse_dns_places(texts: Sequence[str], *, port: int) -> tuple[str, ...]:
    """Return places as `HOST:PORT`, each once; `port` is meant where a text states none.

    Raises:
        Rejected: one is no address of one machine (`names.malformed`), or there are more than eight.
    """
    if len(texts) > MAX_PLACES:
        raise Rejected("names.malformed", f"more than {MAX_PLACES} addresses of a DNS")
    return tuple(dict.fromkeys(_parse(text, port) for text in texts))


def _parse(text: str, usual: int) -> str:
    hint = "write one address of this machine, such as 192.168.1.20 or 127.0.0.1:8053; not 0.0.0.0"
    host, _, port = text.rpartition(":") if text.startswith("[") or text.count(":") == 1 else (text, "", "")
    if text.endswith("]"):
        host, port = text, ""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port) if port else usual
    except ValueError as error:
        raise Rejected("names.malformed", f"not an address of a DNS: {text[:64]!r}", hint=hint) from error
    # Answers have to come from the address that was asked, and engines have a DNS of their own at each gateway.
    if address.is_unspecified or address.is_multicast or not 0 <= number < 65536:
        raise Rejected("names.malformed", f"not an address of one machine: {text[:64]!r}", hint=hint)
    return f"[{address}]:{number}" if address.version == 6 else f"{address}:{number}"
