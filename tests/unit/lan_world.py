"""A LAN at virtual time: real neighbourhoods with real signatures, and links that lose, delay, double and reorder."""

from __future__ import annotations

import heapq
import itertools
import random
from datetime import UTC, datetime

from skerry.agent.neighbourhood import AppStatus, Neighbourhood
from skerry.spec.desired import Assignment, DesiredState, Neighbour, SitePlacement
from skerry.trust.keys import SigningKey

APP = "reader"
SITE = "harbour"
TAKEOVER_S = 5.0
NOW = datetime(2026, 5, 4, tzinfo=UTC)
KEYS = [SigningKey.generate() for _ in range(5)]


class Machine:
    """A host: its agent's neighbourhood, and an application that starts at once and takes a while to end."""

    def __init__(self, name: str, key: SigningKey, ending_s: float) -> None:
        self.name, self.key, self.ending_s = name, key, ending_s
        self.able = True
        self.alive = False
        self.ends_at: float | None = None
        self.boots = 0
        self.clock_offset = 0.0
        self.agent: Neighbourhood | None = None
        self.desired: DesiredState | None = None

    def look(self, now: float) -> None:
        """Do what the reconciler does: say how things stand, ask whose turn it is, start or end."""
        if self.ends_at is not None and now >= self.ends_at:
            self.alive, self.ends_at = False, None
        if self.agent is None:
            return
        local = now + self.clock_offset
        self.agent.tell({APP: AppStatus(able=self.able, alive=self.alive)}, local)
        duty = self.agent.duties.get(APP)
        active = duty is not None and duty.active
        if active and not self.alive:
            self.alive = True
            self.agent.tell({APP: AppStatus(able=self.able, alive=True)}, local)
        elif active:
            self.ends_at = None  # its turn again before it had ended
        elif self.alive and self.ends_at is None:
            self.ends_at = now + self.ending_s


class Lan:
    """Machines and the links between them; `step` lets a tenth of a second pass."""

    def __init__(
        self,
        count_hosts: int,
        *,
        count: int = 1,
        split: str = "keep",
        ending_s: float = 0.5,
        latency_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        """`latency_s` is how long datagrams take at most when nothing is wrong."""
        self.now = 0.0
        self.random = random.Random(seed)
        self.names = [f"edge-{number}" for number in range(count_hosts)]
        self.machines = {
            name: Machine(name, key, ending_s) for name, key in zip(self.names, KEYS, strict=False)
        }
        self.placement = SitePlacement(
            count=count,
            hosts=tuple(self.names),
            takeover_s=TAKEOVER_S,
            split=split,  # type: ignore[arg-type]
        )
        self.cut: set[tuple[str, str]] = set()
        self.loss = 0.0
        self.delay_s = 0.0
        self.latency_s = latency_s
        self.calm_since = dict.fromkeys(itertools.permutations(self.names, 2), 0.0)
        self.steady_since = dict.fromkeys(self.names, 0.0)
        self.starts = 0
        self.ends = 0
        self._flying: list[tuple[float, int, str, bytes]] = []
        self._numbers = itertools.count()
        self._running: set[str] = set()
        for name in self.names:
            self.give(name, self.placement, generation=1)
            self.boot(name)

    def desired(self, placement: SitePlacement, generation: int) -> DesiredState:
        assignment = Assignment(application=APP, release=f"{APP}@1")
        neighbours = {
            name: Neighbour(address=f"{name}:1", sign_key=machine.key.public)
            for name, machine in self.machines.items()
        }
        hosts: dict[str, tuple[Assignment, ...]] = {
            name: (assignment,) if name in placement.hosts else () for name in self.names
        }
        return DesiredState(
            site=SITE,
            generation=generation,
            issued_at=NOW,
            expires_at=NOW,
            hosts=hosts,
            placements={APP: placement},
            neighbours=neighbours,
        )

    def give(self, name: str, placement: SitePlacement, *, generation: int) -> None:
        """Let a host have this desired state."""
        machine = self.machines[name]
        machine.desired = self.desired(placement, generation)
        if machine.agent is not None:
            machine.agent.follow(machine.desired, self.now + machine.clock_offset)
        self.steady_since[name] = self.now

    def boot(self, name: str) -> None:
        """Start the agent; the application may have outlived the last one."""
        machine = self.machines[name]
        machine.boots += 1
        machine.clock_offset = self.random.uniform(-1000.0, 1000.0)
        agent = Neighbourhood(
            host=name,
            site=SITE,
            key=machine.key,
            session=f"{self.names.index(name):08x}{machine.boots:08x}",
        )
        agent.address = f"{name}:1"
        agent.follow(machine.desired, self.now + machine.clock_offset)
        machine.agent = agent
        self.steady_since[name] = self.now

    def stop_agent(self, name: str) -> None:
        """End the agent alone."""
        self.machines[name].agent = None
        self.steady_since[name] = self.now

    def crash(self, name: str) -> None:
        """Take a host away as a power cut does."""
        self.stop_agent(name)
        self.machines[name].alive, self.machines[name].ends_at = False, None

    def sever(self, source: str, target: str) -> None:
        """Cut one direction of a link."""
        self.cut.add((source, target))

    def split(self, *names: str) -> None:
        """Cut the network between these hosts and all others, both ways."""
        for one, other in itertools.product(names, set(self.names) - set(names)):
            self.cut |= {(one, other), (other, one)}

    def disturb(self, *, loss: float, delay_s: float) -> None:
        """Let links lose this share of datagrams, double some, and delay and reorder the others."""
        self.loss, self.delay_s = loss, delay_s

    def heal(self) -> None:
        """Mend every link."""
        for pair in self.cut:
            self.calm_since[pair] = self.now
        self.cut.clear()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.step()

    def step(self) -> None:
        self.now = round(self.now + 0.1, 3)
        for pair in self.cut:
            self.calm_since[pair] = self.now
        if self.loss or self.delay_s:
            self.calm_since = dict.fromkeys(self.calm_since, self.now)
        # Several rounds, because what is answered at once is answered within this step on a calm network.
        for _ in range(4):
            self._deliver()
            for machine in self.machines.values():
                machine.look(self.now)
                self._send(machine)
        for name, machine in self.machines.items():
            if machine.alive and name not in self._running:
                self.starts += 1
                self._running.add(name)
            elif not machine.alive and name in self._running:
                self.ends += 1
                self._running.discard(name)

    def running(self) -> list[str]:
        """Return where the application runs."""
        return [name for name in self.names if self.machines[name].alive]

    def says(self, name: str) -> str:
        agent = self.machines[name].agent
        return agent.duties[APP].says if agent and APP in agent.duties else ""

    def why(self, name: str) -> str:
        agent = self.machines[name].agent
        return agent.duties[APP].why if agent and APP in agent.duties else ""

    def acquainted(self, names: list[str], for_s: float) -> bool:
        """Tell whether these have all heard each other without a break for so long, none of them changed."""
        pairs = itertools.permutations(names, 2)
        return all(self.now - self.calm_since[pair] >= for_s for pair in pairs) and all(
            self.machines[name].agent is not None and self.now - self.steady_since[name] >= for_s
            for name in names
        )

    def _send(self, machine: Machine) -> None:
        if machine.agent is None:
            return
        for address, datagram in machine.agent.outgoing(self.now + machine.clock_offset):
            target = address.partition(":")[0]
            if (machine.name, target) in self.cut or self.random.random() < self.loss:
                continue
            copies = 2 if self.loss and self.random.random() < 0.1 else 1
            for _ in range(copies):
                arrival = self.now + self.random.uniform(0.0, max(self.delay_s, self.latency_s))
                heapq.heappush(self._flying, (arrival, next(self._numbers), target, datagram))

    def _deliver(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            _, _, target, datagram = heapq.heappop(self._flying)
            machine = self.machines[target]
            if machine.agent is not None:
                machine.agent.receive(datagram, self.now + machine.clock_offset)
