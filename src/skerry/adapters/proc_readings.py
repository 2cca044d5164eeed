"""ProcReadings: how a Linux machine fares, from /proc and /sys.

Sources: proc(5), Documentation/ABI/testing/sysfs-class-thermal and Documentation/admin-guide/iostats.rst of the kernel.

- A handful of small files for each look; whatever is missing or strange is left out.
- Whole disks only, and no loopback, virtual or container interfaces; `MAX_DEVICES` of each kind at most.
- What a component takes is its cgroup's when it has one of its own, else that of its process and all that descend from
  it; of children that lived between two looks nothing is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from skerry.adapters.facts.tree import Tree, parse_number
from skerry.ports.host_readings import Reading, Usage

MAX_DEVICES = 8
MAX_PROCESSES = 20_000
SECTOR_BYTES = 512
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PARENT, USER_TICKS, SYSTEM_TICKS, STARTED, RESIDENT = 1, 11, 12, 19, 21
"""Places of fields in /proc/PID/stat after the name of the program."""

_not_physical = ("lo", "veth", "docker", "br-", "virbr", "cni", "podman", "dummy", "ifb", "tun", "tap")
_not_disks = ("loop", "ram", "zram", "dm-", "sr", "md", "fd")


class ProcReadings:
    """`HostReadings` of this machine. `data` is the directory whose disk is told of."""

    def __init__(self, data: Path, root: Path = Path("/")) -> None:
        self._tree = Tree(root)
        self._data = data
        self._busy: tuple[float, float] | None = None
        self._ticks: dict[str, dict[tuple[int, int], int]] = {}
        self._taken: dict[str, float] = {}
        self._first: dict[str, tuple[str, float]] = {}

    def host(self) -> Sequence[Reading]:
        """See `HostReadings.host`."""
        return [
            *self._cpu(),
            *self._memory(),
            *self._disk(),
            *self._network(),
            *self._temperatures(),
        ]

    def usage(self, processes: Mapping[str, int]) -> Mapping[str, Usage]:
        """See `HostReadings.usage`."""
        if not processes:
            self._ticks, self._taken, self._first = {}, {}, {}
            return {}
        own = self._cgroup("self")
        found: dict[str, Usage] = {}
        others: dict[str, int] = {}
        for name, pid in processes.items():
            group = self._cgroup(str(pid))
            usage = self._of_cgroup(group) if group not in ("", "/", own) else None
            if usage is None:
                others[name] = pid
                continue
            before, first = self._first.get(name, ("", 0.0))
            first = first if before == group else usage.cpu_s
            self._first[name] = (group, first)
            found[name] = Usage(max(usage.cpu_s - first, 0.0), usage.memory_bytes)
        if others:
            found |= self._of_processes(others)
        self._first = {name: self._first[name] for name in found if name in self._first}
        self._ticks = {name: self._ticks[name] for name in others if name in self._ticks}
        self._taken = {name: self._taken[name] for name in others if name in self._taken}
        return found

    def _cpu(self) -> Iterator[Reading]:
        fields = self._tree.line("proc/stat").split()[1:9]
        ticks = [float(field) for field in fields if field.isdigit()]
        if len(ticks) == len(fields) and len(ticks) >= 4:
            idle, total = ticks[3] + (ticks[4] if len(ticks) > 4 else 0.0), sum(ticks)
            before, self._busy = self._busy, (total - idle, total)
            if before is not None and total > before[1]:
                share = (total - idle - before[0]) / (total - before[1])
                yield Reading("skerry_host_cpu_busy", min(max(share, 0.0), 1.0))
        load = self._tree.line("proc/loadavg").split()
        if load and (one := _decimal(load[0])) is not None:
            yield Reading("skerry_host_load1", one)

    def _memory(self) -> Iterator[Reading]:
        found: dict[str, int] = {}
        for line in self._tree.text("proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            number = parse_number(rest.removesuffix("kB").strip())
            if number is not None:
                found[name] = number << 10
        total, available = found.get("MemTotal"), found.get("MemAvailable")
        if total is not None and available is not None:
            yield Reading("skerry_host_memory_bytes", total)
            yield Reading("skerry_host_memory_used_bytes", max(total - available, 0))

    def _disk(self) -> Iterator[Reading]:
        try:
            room = os.statvfs(self._data)
        except OSError:
            pass
        else:
            yield Reading("skerry_host_disk_bytes", room.f_blocks * room.f_frsize)
            yield Reading("skerry_host_disk_free_bytes", room.f_bavail * room.f_frsize)
        disks = 0
        for line in self._tree.text("proc/diskstats").splitlines():
            fields = line.split()
            if len(fields) < 10 or fields[2].startswith(_not_disks):
                continue
            name = fields[2]
            read, written = parse_number(fields[5]), parse_number(fields[9])
            if not self._tree.exists(f"sys/block/{name}") or read is None or written is None:
                continue
            disks += 1
            if disks > MAX_DEVICES:
                break
            labels = {"device": name}
            yield Reading("skerry_host_disk_read_bytes", read * SECTOR_BYTES, "counter", labels)
            yield Reading("skerry_host_disk_written_bytes", written * SECTOR_BYTES, "counter", labels)

    def _network(self) -> Iterator[Reading]:
        interfaces = 0
        for line in self._tree.text("proc/net/dev").splitlines():
            name, colon, rest = line.partition(":")
            fields = rest.split()
            if not colon or len(fields) < 9 or name.strip().startswith(_not_physical):
                continue
            received, sent = parse_number(fields[0]), parse_number(fields[8])
            interfaces += 1
            if interfaces > MAX_DEVICES:
                break
            labels = {"interface": name.strip()}
            if received is not None and sent is not None:
                yield Reading("skerry_host_network_received_bytes", received, "counter", labels)
                yield Reading("skerry_host_network_sent_bytes", sent, "counter", labels)

    def _temperatures(self) -> Iterator[Reading]:
        zones = [name for name in self._tree.names("sys/class/thermal") if name.startswith("thermal_zone")]
        for zone in zones[:MAX_DEVICES]:
            degrees = self._tree.number(f"sys/class/thermal/{zone}/temp")
            if degrees is not None and abs(degrees) < 300_000:
                sensor = self._tree.line(f"sys/class/thermal/{zone}/type") or zone
                yield Reading("skerry_host_temperature_celsius", degrees / 1000, labels={"sensor": sensor})

    def _cgroup(self, pid: str) -> str:
        """Return the path of a process' cgroup of version 2; empty when there is none."""
        for line in self._tree.text(f"proc/{pid}/cgroup").splitlines():
            if line.startswith("0::"):
                return line.removeprefix("0::")
        return ""

    def _of_cgroup(self, group: str) -> Usage | None:
        if ".." in group:
            return None
        place = f"sys/fs/cgroup{group}"
        memory = self._tree.number(f"{place}/memory.current")
        for line in self._tree.text(f"{place}/cpu.stat").splitlines():
            name, _, number = line.partition(" ")
            used = parse_number(number.strip())
            if name == "usage_usec" and used is not None and memory is not None:
                return Usage(used / 1e6, memory)
        return None

    def _of_processes(self, wanted: Mapping[str, int]) -> dict[str, Usage]:
        found: dict[str, Usage] = {}
        stats = dict(self._processes())
        children: dict[int, list[int]] = {}
        for pid, stat in stats.items():
            children.setdefault(stat[0], []).append(pid)
        for name, pid in wanted.items():
            family = [one for one in _descendants(pid, children) if one in stats]
            if not family:
                continue
            ticks = {(one, stats[one][1]): stats[one][2] for one in family}
            before = self._ticks.get(name)
            if before is not None:
                added = sum(max(now - before.get(key, 0), 0) for key, now in ticks.items())
                self._taken[name] = self._taken.get(name, 0.0) + added / TICKS_PER_S
            self._ticks[name] = ticks
            found[name] = Usage(self._taken.get(name, 0.0), sum(stats[one][3] for one in family) * PAGE_BYTES)
        return found

    def _processes(self) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        """Yield each process with its parent, when it started, its ticks and its pages."""
        names = (name for name in self._tree.names("proc") if name.isdigit())
        for number, name in enumerate(names):
            if number >= MAX_PROCESSES:
                return
            # The name of the program may have spaces and brackets: what follows the last one counts.
            fields = self._tree.line(f"proc/{name}/stat").rpartition(")")[2].split()
            values = [parse_number(field) for field in fields[: RESIDENT + 1]]
            if len(values) <= RESIDENT:
                continue
            parent, started, pages = values[PARENT], values[STARTED], values[RESIDENT]
            user, system = values[USER_TICKS], values[SYSTEM_TICKS]
            if None in (parent, started, pages, user, system):
                continue
            yield int(name), (parent or 0, started or 0, (user or 0) + (system or 0), pages or 0)


def _descendants(pid: int, children: Mapping[int, Sequence[int]]) -> list[int]:
    found, left = [pid], [pid]
    while left:
        below = [child for child in children.get(left.pop(), ()) if child not in found]
        found += below
        left += below
    return found


def _decimal(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
