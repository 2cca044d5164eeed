"""The operator API's door: how often who may knock, and the headers of every answer.

The rates are far above what people, the command line and builds do. They are there for who means harm, and for a
script that has gone wild.
"""

from __future__ import annotations

import asyncio

from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Scope

from skerry.carrier.limits import Delays, Gate, Rate, Turns, too_many
from skerry.hub.api.refusals import Refusals
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore

TOKEN_RATE = Rate(per_s=100.0, burst=1000.0)
FAILURE_RATE = Rate(per_s=2.0, burst=100.0)
AT_ONCE = 32
FREE_LOGINS = 5
LONGEST_LOGIN_DELAY_S = 60.0

# No Strict-Transport-Security: it would bind every port of the host's name, those of other programs as well, and
# the hub speaks nothing but HTTPS anyway.
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Door:
    """What the hub knows of those who knock. Lives in one event loop; memory is bounded."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._clock = clock
        self.refusals = Refusals(store, clock)
        self.gate = Gate(proven=TOKEN_RATE, failures=FAILURE_RATE)
        self.turns = Turns(AT_ONCE)
        self.applying = asyncio.Lock()
        self._logins = Delays(free=FREE_LOGINS, longest_s=LONGEST_LOGIN_DELAY_S)

    def try_login(self, address: str) -> None:
        """Count an attempt to log in as failed, until `logged_in` is told otherwise.

        Raises:
            TooMany: after failures, the address is to wait: longer after each.
        """
        now = self._clock.monotonic()
        if wait_s := self._logins.wait_s(address, now):
            raise too_many(wait_s, "attempts to log in")
        self._logins.fail(address, now)

    def logged_in(self, address: str) -> None:
        """Forget an address's failures."""
        self._logins.succeed(address)


async def add_safe_headers(message: Message, _: Scope) -> None:
    """Put the headers on an answer that keep browsers and caches from making anything else of it."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        for name, value in SAFE_HEADERS.items():
            headers[name] = value
