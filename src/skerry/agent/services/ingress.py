"""The ingress of a host: keeps the proxy at the routes of what runs, and counts what clients see.

Rules: the reconcile loop never waits for the proxy. What is in force stays in force while the agent is away, and what
a new agent finds running is not taken from its routes before it was probed. A proxy that died comes back with the
table that was wanted last. What lasts is told once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.agent.services.host_service import HostService, Turn
from skerry.agent.services.ingress_figures import Owner, figures_between, shadows_between
from skerry.agent.services.ingress_table import Laid, Scene, lay_table, names_needed
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.errors import as_failure
from skerry.matching.ingress import HTTP_FACT, HTTPS_FACT, PROXY_FACT, TAKEN_FACT, HostPorts, host_ports
from skerry.ports.clock import Clock
from skerry.ports.proxy import Certificate, Counts, Proxy, ProxyPorts, ProxyTable, ShadowCounts
from skerry.ports.runtime import InstanceView
from skerry.reconcile.probing import ProbeState
from skerry.reconcile.records import ReleaseFact
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.ingress import RouteView
from skerry.spec.metrics import Value
from skerry.spec.report import Observed
from skerry.telemetry.keeping import Series

_log = structlog.get_logger()

LOOK_S = 1.0
COUNT_S = 10.0
TOLD_EVERY_S = 60.0
NOT_PROBED = "not probed yet"


class IngressParts(msgspec.Struct, frozen=True, kw_only=True):
    """What an ingress is made of.

    `domain` is what the site's names end with. `certificate` is for these names, None while there is none, and
    `lacking` says why. `token` is the value of a secret, `probes` are the states of instances by id, `occupied` the
    ports of this host that somebody listens on. `add` counts what was measured.
    """

    host: str
    site: str
    proxy: Proxy
    ports: ProxyPorts
    in_memory: bool
    clock: Clock
    fact_of: Callable[[str], ReleaseFact | None]
    taken: Callable[[], Mapping[str, str]]
    probes: Callable[[], Mapping[str, ProbeState]]
    token: Callable[[str], bytes | None]
    domain: Callable[[], str]
    certificate: Callable[[Sequence[str]], Certificate | None]
    lacking: Callable[[], str]
    occupied: Callable[[], frozenset[int]]
    add: Callable[[Series, Value], None]
    note: Callable[..., None]


class HostIngress(HostService):
    """Serves the routes of one host."""

    name = "ingress"

    def __init__(self, parts: IngressParts) -> None:
        super().__init__()
        self._parts = parts
        self._began: datetime = parts.clock.now()
        self._laid = Laid(ProxyTable(parts.ports, ""))
        self._served: ProxyTable | None = None
        self._program = ""
        self._wake = asyncio.Event()
        self._trouble = ""
        self._told: dict[tuple[str, str], str] = {}
        self._counts: Mapping[str, Counts] = {}
        self._shadows: Mapping[str, ShadowCounts] = {}
        self._restarted_at = float("-inf")
        self._owners: dict[str, Owner] = {}
        self._counted_at = float("-inf")
        self._own_ports: frozenset[int] = frozenset()
        self._instance_ports: frozenset[int] = frozenset()

    @property
    def wanted(self) -> ProxyTable:
        """The table that is to be in force."""
        return self._laid.table

    async def follow(self, turn: Turn) -> None:
        """Work out the table of this moment; who serves it is `run_forever`."""
        parts = self._parts
        scene = Scene(
            host=parts.host,
            site=parts.site,
            domain=parts.domain(),
            records=turn.records,
            instances=turn.instances,
            fact_of=parts.fact_of,
            taken=parts.taken(),
            ready=lambda key: self._is_ready(key, turn.instances),
            token=parts.token,
            certificate=None,
            ports=self._ports(turn.facts),
            in_memory=parts.in_memory,
        )
        if names := names_needed(scene):
            certificate = parts.certificate(names)
            scene = msgspec.structs.replace(scene, certificate=certificate, lacking=parts.lacking())
        self._laid = lay_table(scene)
        self._owners |= self._laid.owners
        labels = (pair for view in turn.instances.values() for pair in view.labels.items())
        self._instance_ports = frozenset(int(text) for name, text in labels if name.startswith("port."))
        self._tell()
        if self._laid.table != self._served:
            self._wake.set()

    @property
    def views(self) -> tuple[RouteView, ...]:
        """How each route stands now."""
        views = self._laid.views
        if self._trouble:
            views = tuple(
                msgspec.structs.replace(view, state="waiting", why=self._trouble)
                if view.state == "serving"
                else view
                for view in views
            )
        return views

    def show(self, observed: Observed) -> Observed:
        return msgspec.structs.replace(observed, routes=self.views)

    def facts(self) -> HostFacts:
        """Return the facts of the ingress: which proxy there is, its ports, and those that others hold."""
        found: HostFacts = {}
        if self._program:
            found = {
                PROXY_FACT: Fact(value=self._program, source="envoy --version"),
                HTTPS_FACT: Fact(value=self._parts.ports.https, source="the agent"),
                HTTP_FACT: Fact(value=self._parts.ports.http, source="the agent"),
            }
        others = self._parts.occupied() - self._own_ports - self._instance_ports
        taken = tuple(str(port) for port in sorted(others))
        return found | {TAKEN_FACT: Fact(value=taken, source="/proc/net/tcp")}

    async def begin(self) -> None:
        """Find out which proxy there is, and what the one of the agent before listens on."""
        self._program = await self._parts.proxy.find()
        self._own_ports = await self._parts.proxy.listening()

    async def run_forever(self) -> None:
        """Serve the table at each change, bring the proxy back when it died, and count."""
        while True:
            self._wake.clear()
            try:
                await self._serve()
            except Exception as caught:
                self._fail(caught)
            else:
                await self._count()
            await sleep_unless_woken(self._parts.clock, LOOK_S, self._wake)

    async def _serve(self) -> None:
        table, parts = self._laid.table, self._parts
        alive = not table.entries or await parts.proxy.is_alive()
        if table == self._served and alive:
            self._recover()
            return
        now = parts.clock.monotonic()
        if table == self._served and now - self._restarted_at > TOLD_EVERY_S:
            parts.note("ingress.restarted", "the proxy had ended, and is started again")
            self._restarted_at = now
        await parts.proxy.serve(table)
        self._served = table
        self._own_ports = await parts.proxy.listening()
        self._recover()

    def _recover(self) -> None:
        if self._trouble:
            self._parts.note("ingress.restored")
            self._trouble = ""
            self.on_change()

    async def _count(self) -> None:
        now = self._parts.clock.monotonic()
        if now - self._counted_at < COUNT_S or not (self._served and self._served.entries):
            return
        before = self._counted_at
        first = before == float("-inf")
        self._counted_at = now
        try:
            counts = await self._parts.proxy.counts()
        except Exception as caught:  # what is not read now is with the next look: nothing is lost
            error = as_failure(caught)
            _log.debug("ingress.uncounted", code=error.code, reason=error.message)
            self._counted_at = before
            return
        # What an agent finds at its first look was counted by the one before it, or is nobody's.
        for series, value in figures_between(self._counts, {} if first else counts, self._owners):
            self._parts.add(series, value)
        shadows = await self._shadow_counts()
        for series, value in shadows_between(self._shadows, {} if first else shadows, self._owners):
            self._parts.add(series, value)
        self._counts, self._shadows = counts, shadows
        self._owners = {
            key: owner
            for key, owner in self._owners.items()
            if key in self._laid.owners or key in counts or key in shadows
        }

    async def _shadow_counts(self) -> Mapping[str, ShadowCounts]:
        try:
            return await self._parts.proxy.shadows()
        except Exception as caught:  # with the next look, as above; what clients saw is counted all the same
            error = as_failure(caught)
            _log.debug("ingress.shadow_uncounted", code=error.code, reason=error.message)
            return self._shadows

    def _fail(self, caught: Exception) -> None:
        error = as_failure(caught)
        if error.message != self._trouble:
            _log.warning("ingress.trouble", code=error.code, reason=error.message)
            if not self._trouble:
                self._parts.note("ingress.trouble", f"{error.code}: {error.message}")
            self._trouble = error.message
            self.on_change()

    def _ports(self, facts: HostFacts) -> HostPorts:
        """Return this host's ports; what holds one now counts, and not when facts were last gathered."""
        stated = host_ports(facts)
        own = self._parts.ports
        return HostPorts(own.https, own.http, stated.taken, proxy=bool(self._program))

    def _is_ready(self, key: str, instances: Mapping[str, InstanceView]) -> bool:
        state = self._parts.probes().get(key)
        if state is None or state.why == NOT_PROBED:
            # One that was there before this agent served under the one before it, which had probed it.
            view = instances.get(key)
            began = view.started_at if view else None
            return began is not None and began < self._began
        return state.ready

    def _tell(self) -> None:
        """Tell of routes that are refused, or are not any more."""
        refused = {
            (view.application, view.route): view.why for view in self._laid.views if view.state == "refused"
        }
        for (application, route), why in refused.items():
            if self._told.get((application, route)) != why:
                self._parts.note("route.refused", f"{route}: {why}", application=application)
        self._told = refused
