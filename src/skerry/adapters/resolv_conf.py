"""Whom this machine asks for names: the `nameserver` lines of /etc/resolv.conf (resolv.conf(5))."""

from __future__ import annotations

import ipaddress
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_BYTES = 64 << 10
MAX_SERVERS = 3


def read_name_servers(file: Path = RESOLV_CONF) -> tuple[str, ...]:
    """Return the servers as `HOST:53`, in their order; none where the file cannot be read."""
    try:
        with file.open("rb") as opened:
            lines = opened.read(MAX_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ()
    found: list[str] = []
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        host = rest.strip().split("%")[0]
        try:
            version = ipaddress.ip_address(host).version if word == "nameserver" else 0
        except ValueError:
            continue
        if version:
            found.append(f"[{host}]:53" if version == 6 else f"{host}:53")
    return tuple(dict.fromkeys(found))[:MAX_SERVERS]
