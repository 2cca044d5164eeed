"""PushDoor: where applications on this host hand over what they measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

Taken = Callable[[str, bytes, bool], None]
"""Called in a thread with the key of who pushes, the body, and whether it is JSON; raises `Rejected` or `Denied`."""


class PushDoor(Protocol):
    """Listens on the host's loopback address alone. Connections, sizes and times are bounded."""

    async def open(self, port: int, taken: Mapping[str, Taken]) -> int:
        """Listen and return the port: the one that is asked for, or another when that is taken or 0.

        `taken` says by the end of a path, such as `v1/metrics`, who takes what comes there.

        Raises:
            Unavailable: nothing can be listened at (`otlp.unavailable`).
        """
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...
