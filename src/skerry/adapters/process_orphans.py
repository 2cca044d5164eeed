"""Finds the keeper of an instance, and ends what a killed keeper left running."""

from __future__ import annotations

from pathlib import Path

from skerry.adapters.process_folder import InstanceFolder, Sighting
from skerry.adapters.process_identity import (
    ProcessMark,
    boot_id,
    find_script,
    is_alive,
    kill_leftovers,
)
from skerry.adapters.process_limits import release
from skerry.adapters.process_lock import is_owned

_SCRIPTS = frozenset({"process_launcher.py", "process_keeper.py"})


def find_keeper(folder: InstanceFolder, sighting: Sighting) -> ProcessMark | None:
    """Return the process that keeps this run, also when keeper.json is not written yet, or damaged."""
    known = sighting.keeper
    if (
        known is not None
        and known.run == sighting.run
        and known.boot_id == boot_id()
        and is_alive(known.keeper)
    ):
        return known.keeper
    return find_script(_SCRIPTS, str(folder.path))


def kill_orphans(folder: InstanceFolder, *, owned: bool = False) -> int:
    """Kill what is left of the last run if its keeper is gone, and return how many processes that were.

    `owned` says that the caller holds the lock.
    """
    # Read before the lock is looked at: once nobody holds it, this record is that of a dead keeper, even if
    # another start comes in between.
    keeper, spec = folder.keeper.read(), folder.spec.read()
    if keeper is None or keeper.boot_id != boot_id() or (not owned and is_owned(folder.lock)):
        return 0
    is_same_run = spec is not None and spec.run == keeper.run
    if spec is not None and is_same_run:
        release(spec.cgroup)
    directory = Path(spec.directory).resolve() if spec is not None and is_same_run else None
    # Every daemon works in the root directory: being there ties nobody to us.
    if directory == Path("/"):
        directory = None
    return kill_leftovers(keeper.child, keeper.pipe, directory)
