"""Counts what crosses the relay's door and its link, by the hour."""

from __future__ import annotations

import threading

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skerry.ports.clock import Clock
from skerry.spec.relay import TrafficView

HOUR_S = 3600.0
HEAD_BYTES = 512
"""What the head of a request or of an answer takes, roughly."""


class Traffic:
    """Bytes of the hour that runs and of the last full one. Safe to call from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._began = clock.monotonic()
        self._now: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def count(
        self, *, up_sent: int = 0, up_received: int = 0, down_sent: int = 0, down_received: int = 0
    ) -> None:
        """Count bytes that went up or down, or came from there."""
        counted = {
            "up_sent": up_sent,
            "up_received": up_received,
            "down_sent": down_sent,
            "down_received": down_received,
        }
        with self._turn:
            self._turn_hour()
            for name, size in counted.items():
                if size:
                    self._now[name] = self._now.get(name, 0) + size

    def view(self) -> TrafficView:
        """Return the last full hour; nothing before the first has passed."""
        with self._turn:
            self._turn_hour()
            # What was sent is told apart from the sum by estimate, and may fall into the next hour.
            return TrafficView(**{name: max(0, size) for name, size in self._last.items()})

    def _turn_hour(self) -> None:
        hours = int((self._clock.monotonic() - self._began) // HOUR_S)
        if hours:
            self._last, self._now = (self._now if hours == 1 else {}), {}
            self._began += hours * HOUR_S


def counting(app: ASGIApp, traffic: Traffic) -> ASGIApp:
    """Return an app that counts what an app receives and sends."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            message = await receive()
            traffic.count(down_received=len(message.get("body", b"")))
            return message

        async def sending(message: Message) -> None:
            await send(message)
            traffic.count(down_sent=len(message.get("body", b"")) or HEAD_BYTES)

        traffic.count(down_received=HEAD_BYTES)
        await app(scope, receiving, sending)

    return counted
