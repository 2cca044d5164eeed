"""How news come down a chain of relays: each stage is woken by the one above, and asks for nothing by the clock."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from skerry.testing.waiting import eventually
from tests.unit.relay_world import World

pytestmark = pytest.mark.delivery

PATIENCE_S = 20.0
"""Well below the 60 s after which a relay asks again by itself."""


@pytest.mark.rule("RELAY-7")
async def test_a_new_state_comes_down_three_relays_and_no_time_passes(tmp_path: Path) -> None:
    world = World(tmp_path)
    above = None
    for name in ("l4", "l3", "l2"):
        above = await world.add_relay(name, above)
        await world.settle()
    assert above is not None
    edge = await world.join("edge", above)
    for _ in range(3):
        await world.settle()
    await edge.sync()
    began = world.harbour.clock.monotonic()
    loops = [asyncio.create_task(relay.process.upward.poll_forever()) for relay in world.relays]
    host = asyncio.create_task(edge.sync(wait_s=600.0))

    async def all_wait() -> bool:
        top = world.harbour.backend.relays.get("l4")
        guest = above.process.guests.host(edge.key)
        below = [relay.process.notifier.waits_for("below") for relay in world.relays[:-1]]
        return top is not None and top.waiting > 0 and guest is not None and guest.waiting > 0 and all(below)

    await eventually(all_wait)
    world.harbour.change("harbour", colour="blue")
    await world.harbour.hub.issuer.issue("harbour")
    async with asyncio.timeout(PATIENCE_S):
        answer = await host
    assert edge.read(answer).generation == 2
    assert world.harbour.clock.monotonic() == began
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    await world.close()
