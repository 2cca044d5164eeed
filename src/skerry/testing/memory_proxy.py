"""A proxy that serves nothing: it keeps its table in memory and says what it would answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from skerry.kit.errors import Unavailable
from skerry.kit.quantities import parse_size
from skerry.matching.route_trace import leads
from skerry.ports.proxy import SHADOWED, Counts, Entry, ProxyTable, ShadowCounts
from skerry.spec.ingress import Route
from skerry.spec.shadow import share_of
from skerry.telemetry.agreement import Answer, compare_answers


class ProxyRequest(msgspec.Struct, frozen=True):
    """What a client sends; `client` is the SPIFFE id of the certificate it shows."""

    name: str
    path: str = "/"
    tls: bool = True
    token: str = ""
    client: str = ""
    body: bytes = b""


class ProxyAnswer(msgspec.Struct, frozen=True):
    """What comes back, and the backend that said it, empty where the proxy did; status 0 is no connection."""

    status: int
    backend: str = ""


class MemoryProxy:
    """A `Proxy`; each backend answers any path with its own id.

    `fails` makes it refuse tables, `dumb` keep its counts to itself; `kill` ends it as if it had died.
    """

    def __init__(self, *, program: str = "memory 1") -> None:
        self.program = program
        self.fails = ""
        self.dumb = False
        self.table: ProxyTable | None = None
        self.served: list[ProxyTable] = []
        self._counts: dict[str, Counts] = {}
        self._shadows: dict[str, ShadowCounts] = {}
        self._share: dict[str, float] = {}
        self._run = 0
        self._alive = False

    async def find(self) -> str:
        return self.program

    async def serve(self, table: ProxyTable) -> None:
        if self.fails:
            raise Unavailable("proxy.not_taken", self.fails)
        if not self._alive and table.entries:
            self._run += 1
            self._counts = {}
        self._alive = bool(table.entries)
        self.table = table
        self.served.append(table)

    async def is_alive(self) -> bool:
        return self._alive

    async def listening(self) -> frozenset[int]:
        if self.table is None or not self._alive:
            return frozenset()
        return frozenset(port for entry in self.table.entries for port in self._ports(entry))

    async def counts(self) -> Mapping[str, Counts]:
        if self.dumb:
            raise Unavailable("proxy.away", "the proxy does not answer")
        return dict(self._counts) if self._alive else {}

    async def shadows(self) -> Mapping[str, ShadowCounts]:
        if self.dumb:
            raise Unavailable("shadow.away", "what compares does not answer")
        return dict(self._shadows)

    def kill(self) -> None:
        """End it; what it was told is forgotten by nobody but itself."""
        self._alive = False

    def ask(self, request: ProxyRequest) -> ProxyAnswer:
        """Return what a client gets."""
        entries = self.table.entries if self.table is not None and self._alive else ()
        there = [e for e in entries if e.route.protocol != "tcp" and _comes_to(e.route, tls=request.tls)]
        if not there:
            return ProxyAnswer(0)
        fitting = [e for e in there if request.name in e.names and leads(e.route.path, request.path)]
        if not fitting:
            return ProxyAnswer(404)
        entry = max(fitting, key=lambda one: len(one.route.path.rstrip("/")))
        if not request.tls and entry.route.tls == "site":
            return ProxyAnswer(308)
        refusal = self._refusal(entry, request)
        if refusal:
            return ProxyAnswer(refusal)
        key = f"{entry.backend}{SHADOWED}" if self._copies(entry, request) else entry.backend
        known = self._counts.get(key, Counts(str(self._run)))
        self._counts[key] = msgspec.structs.replace(known, requests=known.requests + 1)
        return ProxyAnswer(200, entry.backend)

    def _copies(self, entry: Entry, request: ProxyRequest) -> bool:
        """Copy and compare a request, if it is in the share; requests are counted, so that a share is exact."""
        if entry.shadow is None or ("POST" if request.body else "GET") not in entry.shadow.rule.methods:
            return False
        key = entry.shadow.backend
        self._share[key] = self._share.get(key, 0.0) + share_of(entry.shadow.rule)
        if self._share[key] < 1:
            return False
        self._share[key] -= 1
        live, other = (Answer(200, one.encode()) for one in (entry.backend, key))
        differs = compare_answers(entry.shadow.rule, live, other) == "differs"
        known = self._shadows.get(key, ShadowCounts(str(self._run), entry.backend))
        self._shadows[key] = msgspec.structs.replace(
            known,
            requests=known.requests + 1,
            compared=known.compared + 1,
            differing=known.differing + differs,
        )
        return True

    def _ports(self, entry: Entry) -> tuple[int, ...]:
        assert self.table is not None
        route, ports = entry.route, self.table.ports
        if route.protocol == "tcp":
            return (route.listen or 0,) if entry.backend else ()
        own = ports.https if route.tls == "site" else ports.http
        return (own, ports.http) if route.redirect else (own,)

    def _refusal(self, entry: Entry, request: ProxyRequest) -> int:
        auth, most = entry.route.auth, entry.route.max_body
        if auth.token is not None and (not entry.token or request.token.encode() != entry.token):
            return 401
        if auth.mtls is not None and not self._is_let_in(entry, request.client):
            return 403
        if most is not None and len(request.body) > parse_size(most):
            return 413
        return 0 if entry.backend else 503

    def _is_let_in(self, entry: Entry, client: str) -> bool:
        mtls, domain = entry.route.auth.mtls, self.table.domain if self.table else ""
        assert mtls is not None
        prefixes = tuple(f"spiffe://{domain}/site/{site}/" for site in mtls.sites)
        return client in mtls.ids or (bool(client) and client.startswith(prefixes) and bool(prefixes))


def _comes_to(route: Route, *, tls: bool) -> bool:
    return (route.tls == "site") == tls or (route.redirect and not tls)
