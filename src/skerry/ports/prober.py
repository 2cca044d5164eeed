"""Prober: asks a component over the network whether it is well."""

from __future__ import annotations

from typing import Protocol


class Prober(Protocol):
    """Answers None when the probe passed, else why not. Never raises; ends within `timeout_s`."""

    async def http(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """GET passes with a status from 200 to 399."""
        ...

    async def post(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """POST without a body passes with a status from 200 to 299."""
        ...

    async def tcp(self, host: str, port: int, *, timeout_s: float) -> str | None:
        """A connection can be opened."""
        ...
