"""A site of a simulation: its link, what it downloads, and what the hub knows of it.

A message takes the link's latency; what is sent while the link is down goes when it is up. The bytes of a release cross
the link once, whatever the number of hosts, and go on where they stopped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from random import Random
from zoneinfo import ZoneInfo

import msgspec

from skerry.delivery.windows import decide_switch
from skerry.reconcile.records import Target
from skerry.rollout.facts import HostFact, SiteFact
from skerry.testing.simulation.agenda import Agenda
from skerry.testing.simulation.fleet import SitePlan
from skerry.testing.simulation.hosts import SimulatedHost, Steps
from skerry.testing.simulation.profiles import link_intervals

LAN_S = 2.0


class Wanted(msgspec.Struct, frozen=True):
    """What the hub wants a site to run; nothing when `release` is empty."""

    release: str
    by: str
    attempt: int


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all sites of a simulation share: time, the releases, and who is told of what."""

    agenda: Agenda
    steps: Steps
    starts_at: datetime
    seed: int
    deadline_s: float
    soak_s: float
    urgent: bool
    waves_of: Callable[[SitePlan], int]
    heard: Callable[[SimulatedSite], None]
    on_learning: Callable[[SimulatedSite, Wanted], None]


class SimulatedSite:
    """One site with its hosts."""

    def __init__(self, plan: SitePlan, around: Surroundings) -> None:
        self.plan = plan
        self.around = around
        self.rng = Random(f"{around.seed}/{plan.name}/runs")
        self.online = False
        self.ever_online = False
        self.fetched_bytes: Counter[str] = Counter()
        self.exposed_at_s: float | None = None
        self.done_at_s: float | None = None
        self.generation = 1
        self.wanted = Wanted(plan.previous, "before" if plan.previous else "", 1)
        self.reachable = False
        self._held = self.wanted
        self._zone = ZoneInfo(plan.time_zone)
        self._waves = around.waves_of(plan)
        self._links = 0
        self._reporting = self._learning = False
        self._waiting: set[str] = set()
        self._left: dict[str, float] = {}
        self._flow = ("", 0.0)
        self._flows = 0
        self.hosts = [
            SimulatedHost(host, around.steps, around.agenda, self, plan.previous) for host in plan.hosts
        ]
        for host in self.hosts:
            host.generation = self.generation
        self._reported: list[tuple[int, HostFact]] = []
        self._report()
        self._intervals = link_intervals(plan.link, self.rng, around.starts_at, self._zone)
        self._await_link()

    def fact(self) -> SiteFact:
        """Return what the hub knows of the site."""
        return SiteFact(
            self.plan.name,
            tuple(
                msgspec.structs.replace(fact, holds_offer=generation >= self.generation)
                for generation, fact in self._reported
            ),
            self.wanted.release,
            self.wanted.by,
            reachable=self.reachable,
            waves=self._waves,
            labels=self.plan.labels,
        )

    def assign(self, release: str, by: str) -> None:
        """Let the hub want something else."""
        self.generation += 1
        self.wanted = Wanted(release, by, self.wanted.attempt + 1)
        self._tell()

    # ── the link ─────────────────────────────────────────────────────────────────────────────────────

    def _await_link(self) -> None:
        found = next(self._intervals, None)
        if found is None:
            return
        begin, end = found
        if begin <= self.around.agenda.now_s:
            self.reachable = True
            self._connect(end)
        else:
            # It was heard of when the simulation began only where the link was up then.
            self.around.agenda.at(begin, partial(self._connect, end))

    def _connect(self, until_s: float) -> None:
        self.online = self.ever_online = True
        self._links += 1
        if until_s < math.inf:
            self.around.agenda.at(until_s, self._disconnect)
        self._send_report()
        self._tell()
        for host in self.hosts:
            host.resume()
        self._go_on()

    def _disconnect(self) -> None:
        self._settle()
        self.online = False
        self.around.agenda.after(self.plan.tolerance_s, partial(self._fall_silent, self._links))
        self._await_link()

    def _fall_silent(self, link: int) -> None:
        if link == self._links and not self.online:
            self.reachable = False
            self.around.heard(self)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    def changed(self, host: SimulatedHost) -> None:
        """A host has something to report."""
        done = all(host.runs_new for host in self.hosts)
        if done != (self.done_at_s is not None):
            self.done_at_s = self.around.agenda.now_s if done else None
        self._send_report()

    def booted(self, host: SimulatedHost) -> None:
        """A host is back: it reports, and hears what it missed."""
        self.changed(host)
        self._tell()

    def exposed(self, host: SimulatedHost) -> None:
        """A host starts the new release."""
        if self.exposed_at_s is None:
            self.exposed_at_s = self.around.agenda.now_s

    def _send_report(self) -> None:
        if self.online and not self._reporting:
            self._reporting = True
            self.around.agenda.after(self.plan.latency_s, self._arrive)

    def _arrive(self) -> None:
        self._reporting = False
        if self.online:
            self.reachable = True
            self._report()
            self.around.heard(self)

    def _report(self) -> None:
        as_of = self.around.starts_at + timedelta(seconds=self.around.agenda.now_s)
        self._reported = [(host.generation, host.fact(as_of)) for host in self.hosts]

    def _tell(self) -> None:
        if self.online and not self._learning:
            self._learning = True
            self.around.agenda.after(self.plan.latency_s, self._learn)

    def _learn(self) -> None:
        self._learning = False
        if not self.online:
            return
        if self._held != self.wanted:
            self.around.on_learning(self, self.wanted)
            self._held = self.wanted
        for host in self.hosts:
            host.learn(self.generation)

    def target(self, host: SimulatedHost) -> tuple[Target | None, float | None]:
        """Return what the host holds as its target, and when that changes by time alone."""
        around, held = self.around, self._held
        if not held.release:
            return None, None
        switch, again_s = "", None
        if self.plan.windows:
            skew_s = 0.0 if host.corrected else host.plan.skew_s
            now_s = around.agenda.now_s + skew_s
            now = around.starts_at + timedelta(seconds=now_s)
            switch, again = decide_switch(self.plan.windows, now, self._zone, self.plan.time_zone)
            if again is not None:
                again_s = (again - around.starts_at).total_seconds() - skew_s
        target = Target(
            around.steps.application,
            held.release,
            around.steps.digests[held.release],
            held.attempt,
            around.deadline_s,
            around.soak_s,
            switch=switch,
            urgent=around.urgent,
        )
        return target, again_s

    # ── downloads ────────────────────────────────────────────────────────────────────────────────────

    def left_bytes(self, digest: str) -> int:
        """Return what the site has yet to fetch of a release."""
        return round(self._left.get(digest, self.plan.size_bytes))

    def fetch(self, host: SimulatedHost, digest: str) -> None:
        """Let the host have the bytes once the site has them."""
        self._left.setdefault(digest, float(self.plan.size_bytes))
        if self._left[digest] <= 0:
            self.around.agenda.after(LAN_S, partial(host.fetched, digest))
            return
        self._waiting.add(digest)
        self._go_on()

    def stop_fetching(self, digest: str) -> None:
        """Let nothing of it flow any more unless another host waits for it."""
        if digest in self._waiting and not any(host.fetching == digest for host in self.hosts):
            if self._flow[0] == digest:
                self._settle()
            self._waiting.discard(digest)
            self._go_on()

    def _go_on(self) -> None:
        """Let what is waited for flow, one release at a time."""
        if not self.online or self._flow[0] or not self._waiting:
            return
        digest = min(self._waiting)
        self._flows += 1
        self._flow = (digest, self.around.agenda.now_s)
        rate = self.plan.rate or math.inf
        self.around.agenda.after(self._left[digest] / rate, partial(self._arrived, digest, self._flows))

    def _settle(self) -> None:
        """The flow stops: count what came of it."""
        digest, since_s = self._flow
        self._flow = ("", 0.0)
        if digest:
            came = min(
                self._left[digest], (self.around.agenda.now_s - since_s) * (self.plan.rate or math.inf)
            )
            self._left[digest] -= came
            self.fetched_bytes[digest] += round(came)

    def _arrived(self, digest: str, flow: int) -> None:
        if self._flow[0] != digest or flow != self._flows:
            return
        self.fetched_bytes[digest] += round(self._left[digest])
        self._left[digest] = 0.0
        self._flow = ("", 0.0)
        self._waiting.discard(digest)
        for host in self.hosts:
            self.around.agenda.after(LAN_S, partial(host.fetched, digest))
        self._go_on()
