"""Which hub answers a request.

The operations are registered once in a process, since that takes longer than most requests; the hub goes with each
request.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from litestar.connection import ASGIConnection

from skerry.hub.api.door import Door
from skerry.hub.services import Hub

SERVED = "skerry"


class Served(msgspec.Struct, frozen=True):
    """A hub, and what its door knows of those who knock."""

    hub: Hub
    door: Door


def served_by(connection: ASGIConnection[Any, Any, Any, Any]) -> Served:
    """Return what answers a request."""
    return cast(Served, cast(dict[str, object], connection.scope)[SERVED])
