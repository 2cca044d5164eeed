"""Run by `delivery_peers`: runs one program and prints the CPU time and the peak memory that it took, as JSON.

Linux hands the peak memory of a process on to what it executes. So programs are started from here, by a process
that is small (about 10 MB, the least that can be told), and not by the benchmark itself.

    python -I -S measured_run.py ADDRESS_SPACE_BYTES PROGRAM [ARGUMENT ...]      (0: no limit)
"""

from __future__ import annotations

import os
import resource
import sys


def main(limit: str, program: str, *arguments: str) -> int:
    """Run, print, and return the program's exit code."""
    if int(limit):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    # What the program prints goes to stderr, which is shown when it fails.
    output = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    process = os.posix_spawnp(program, [program, *arguments], os.environ, file_actions=output)
    _, status, used = os.wait4(process, 0)
    sys.stdout.write(
        f'{{"cpu_s": {used.ru_utime + used.ru_stime:.6f}, "peak_rss_bytes": {used.ru_maxrss * 1024}}}\n'
    )
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
