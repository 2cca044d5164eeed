"""Keeps out of long-running processes what libraries import only because it happens to be installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from types import ModuleType
from typing import cast

# structlog imports rich, and that pygments, to colour what no log of ours shows: some MB for ever.
DECORATION = ("rich", "pygments")


@contextlib.contextmanager
def left_out(*names: str) -> Generator[None]:
    """Let imports within the block find no libraries of these names, as if they were not installed.

    What has been imported before stays, and imports after the block find them again.
    """
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        # None in sys.modules means "not there"; see the Python reference on the module cache.
        sys.modules[name] = cast(ModuleType, None)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
