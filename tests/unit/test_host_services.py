"""The services of a host as one: each has its turn whatever the others do, and what they give adds up."""

from __future__ import annotations

import asyncio
from pathlib import Path

from skerry.agent.services.host_service import Given, HostService, HostServices, Turn
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import Mount
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component

TURN = Turn(desired=None, records={}, instances={})


class Giving(HostService):
    """Gives one variable and one mount, and fails when it is told to."""

    def __init__(self, name: str, value: str) -> None:
        super().__init__()
        self.name = name
        self.value = value
        self.turns = 0
        self.fails = False
        self.closed = False

    async def follow(self, turn: Turn) -> None:
        self.turns += 1
        if self.fails:
            raise Unavailable("broker.away", "no broker")

    def withheld(self, digests: set[str]) -> dict[str, str]:
        return dict.fromkeys(digests, self.value)

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        return Given(env={self.name: self.value}, mounts=(Mount(Path("/x"), f"/{self.name}"),))

    async def close(self) -> None:
        self.closed = True


async def test_a_service_that_fails_keeps_no_other_from_its_turn() -> None:
    first, second = Giving("first", "1"), Giving("second", "2")
    services = HostServices([first, second])
    first.fails = True
    await services.follow(TURN)
    first.fails = False
    await services.follow(TURN)
    assert (first.turns, second.turns) == (2, 2)


async def test_what_services_give_adds_up_and_the_first_reason_to_wait_is_told() -> None:
    component = Component(name="main", command=("./run",))
    fact = ReleaseFact("reader@1", "digest", (component,))
    services = HostServices([Giving("first", "1"), Giving("second", "2"), HostService()])
    given = services.give("reader", fact, component)
    assert given.env == {"first": "1", "second": "2"}
    assert [mount.target for mount in given.mounts] == ["/first", "/second"]
    assert services.withheld({"digest"}) == {"digest": "1"}
    assert services.outdated == {}


async def test_any_service_wakes_the_reconcile_loop_and_all_are_closed() -> None:
    first, second = Giving("first", "1"), Giving("second", "2")
    services, woken = HostServices([first, second]), list[int]()
    services.set_on_change(lambda: woken.append(1))
    first.on_change()
    second.on_change()
    assert len(woken) == 2
    running = asyncio.create_task(services.run_forever())
    await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await services.close()
    assert first.closed
    assert second.closed
