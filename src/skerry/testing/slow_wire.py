"""A slow, long and lossy wire between two network interfaces, as a process.

Run as `python -m skerry.testing.slow_wire NEAR FAR RATE DELAY_S LOSS SEED`: makes two TAP interfaces and carries every
frame that one sends to the other, `RATE` bytes per second at the most and `DELAY_S` later, but for a share of them that
is lost. Says `ready` when both are there. It needs root and /dev/net/tun, and stands in for `tc netem` where the kernel
has none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from random import Random

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
FRAME_BYTES = 2048
QUEUE_S = 1.0
"""Frames that would wait longer than this to be sent are dropped, as by a modem's full queue."""


class Direction:
    """One way over the wire: what is under way, and when it arrives."""

    def __init__(self, rate: float, delay_s: float, loss: float, random: Random) -> None:
        self._rate = rate
        self._delay_s = delay_s
        self._loss = loss
        self._random = random
        self._free_at = 0.0
        self._flying: deque[tuple[float, bytes]] = deque()

    def send(self, frame: bytes, now: float) -> bool:
        """Put a frame on the wire; False when it is lost on the way or finds the queue full."""
        begin = max(now, self._free_at)
        if begin - now > QUEUE_S:
            return False
        self._free_at = begin + len(frame) / self._rate
        if self._random.random() < self._loss:
            return False
        self._flying.append((self._free_at + self._delay_s, frame))
        return True

    def arrived(self, now: float) -> list[bytes]:
        """Return the frames that have arrived by now."""
        found: list[bytes] = []
        while self._flying and self._flying[0][0] <= now:
            found.append(self._flying.popleft()[1])
        return found

    def next_at(self) -> float | None:
        """Return when the next frame arrives."""
        return self._flying[0][0] if self._flying else None


def open_tap(name: str) -> int:
    """Make a TAP interface and return its file descriptor; it is gone when that is closed."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return end


def carry(near: int, far: int, *, there: Direction, back: Direction) -> None:
    """Carry frames both ways, for ever."""
    ways = {near: (there, far), far: (back, near)}
    while True:
        due = [at for at in (there.next_at(), back.next_at()) if at is not None]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select([near, far], [], [], wait_s)
        now = time.monotonic()
        for end in readable:
            with contextlib.suppress(BlockingIOError, OSError):  # an interface that is down
                ways[end][0].send(os.read(end, FRAME_BYTES), now)
        for direction, target in ways.values():
            for frame in direction.arrived(now):
                with contextlib.suppress(OSError):  # likewise
                    os.write(target, frame)


def main(near: str, far: str, rate: str, delay_s: str, *rest: str) -> None:
    """Carry frames between two new interfaces until killed."""
    loss, seed = rest
    ends = open_tap(near), open_tap(far)
    there, back = (
        Direction(float(rate), float(delay_s), float(loss), Random(f"{seed}-{way}"))
        for way in ("there", "back")
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    carry(*ends, there=there, back=back)


if __name__ == "__main__":
    main(*sys.argv[1:])
