"""How containers and networks of ours are named and labelled, and what their names tell.

A container is `skerry-OWNER-INSTANCE`, with one of two endings for a time:
- `.new`: made, and not yet known to run. Its name is what keeps two starts of one instance apart.
- `.stop-RUN-SIGNAL-DEADLINE`: asked to end. A name is the one thing of a container that can be changed
  while it runs, and it survives agent, engine and power cut. RUN tells which run was asked, so that the mark
  means nothing to a later one; DEADLINE is in milliseconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import re
import signal as signals
import time
import zlib

import msgspec

from skerry.kit.errors import Rejected

OWNER_LABEL = "io.skerry.owner"
INSTANCE_LABEL = "io.skerry.instance"
NETWORK_LABEL = "io.skerry.network"
LABELS_LABEL = "io.skerry.labels"
LIMITS_LABEL = "io.skerry.limits"
NEW = ".new"
# Ten years in milliseconds: as good as for ever.
_GRACE_LIMIT_MS = 10 * 366 * 86_400_000

_word = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_mark = re.compile(r"\.stop-([0-9a-f]{8})-([0-9]{1,2})-([0-9]{1,15})")


class StopMark(msgspec.Struct, frozen=True):
    """An instance's run was asked to end with a signal, by a time of this boot's clock."""

    run: str
    signal: int
    deadline_ms: int

    @property
    def ending(self) -> str:
        return f".stop-{self.run}-{self.signal}-{self.deadline_ms}"


def check_owner(owner: str) -> str:
    """Return the owner if containers can be named after it.

    Raises:
        Rejected: they cannot (`runtime.owner_invalid`).
    """
    if not _word.fullmatch(owner) or len(owner) > 64:
        raise Rejected("runtime.owner_invalid", f"{owner[:80]!r} cannot name containers")
    return owner


def is_safe_id(instance_id: str) -> bool:
    """Tell whether a container can be named after an id, and its name be read again."""
    return (
        bool(_word.fullmatch(instance_id)) and not instance_id.endswith(NEW) and ".stop-" not in instance_id
    )


def container_name(owner: str, instance_id: str) -> str:
    """Return the name of an instance's container."""
    return f"skerry-{owner}-{instance_id}"


def network_name(owner: str, network: str) -> str:
    """Return the engine's name for a network of ours."""
    return f"{network}.{owner}"


def read_mark(name: str, plain: str) -> StopMark | None:
    """Return what a container's name says beyond its plain one, if it was asked to end."""
    found = _mark.fullmatch(name.removeprefix(plain))
    return StopMark(found[1], int(found[2]), int(found[3])) if found else None


def is_name_of(name: str, plain: str) -> bool:
    """Tell whether a container's name is the plain one with an ending of ours or none."""
    ending = name.removeprefix(plain)
    return name.startswith(plain) and (ending in ("", NEW) or bool(_mark.fullmatch(ending)))


def run_of(container_id: str, started_at: str) -> str:
    """Return eight hexadecimal digits for one run of one container."""
    return f"{zlib.crc32(f'{container_id} {started_at}'.encode()):08x}"


def boot_ms() -> int:
    """Return the milliseconds since this boot, those asleep as well."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def deadline_after(grace_s: float) -> int:
    """Return the time of this boot's clock that is `grace_s` from now."""
    return boot_ms() + min(int(max(0.0, grace_s) * 1000), _GRACE_LIMIT_MS)


def signal_number(name: str) -> int:
    """Return a signal's number.

    Raises:
        Rejected: there is no such signal (`runtime.signal_unknown`).
    """
    try:
        return signals.Signals[name].value
    except KeyError:
        raise Rejected(
            "runtime.signal_unknown", f"there is no signal {name!r}", hint="for example SIGTERM"
        ) from None
