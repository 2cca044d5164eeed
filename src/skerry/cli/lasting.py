"""Spares the garbage collector what a long-running process imports once and keeps for ever."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def lasting() -> Generator[None]:
    """Take what is made within the block for lasting: the collector passes over it, then and ever after.

    Without this it goes through all that there is, again and again, while the libraries of a hub are imported:
    a fifth of the time that takes.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
