"""What a process takes from its machine, as Linux accounts for it below /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """Resident memory of a process in bytes.

    `rss` counts each shared page in full, `pss` divides it among those that share it.
    """

    rss: int
    pss: int


def memory_of(pid: int) -> Memory:
    """Return the memory of a process."""
    amounts = {
        line.split()[0]: int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.endswith(" kB")
    }
    return Memory(amounts["Rss:"], amounts["Pss:"])


def cpu_s_of(pid: int) -> float:
    """Return the CPU time a process has used, all its threads, in user and kernel mode; exact to 10 ms."""
    # The second field is the name in brackets and may hold blanks; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
