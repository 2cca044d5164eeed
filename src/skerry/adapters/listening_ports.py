"""Which TCP ports of this machine somebody listens on: from the kernel's tables, proc_net_tcp(5)."""

from __future__ import annotations

from pathlib import Path

LISTEN = "0A"
FIRST_EPHEMERAL = 32768
"""Where the kernel's own choice begins unless it was told otherwise; those come and go."""


def listening_ports(proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the listening ports below the ephemeral ones; what cannot be read holds none."""
    found: set[int] = set()
    most = _first_ephemeral(proc)
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == LISTEN:
                port = int(fields[1].rpartition(":")[2], 16)
                if port < most:
                    found.add(port)
    return frozenset(found)


def _first_ephemeral(proc: Path) -> int:
    try:
        return int((proc / "sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return FIRST_EPHEMERAL
