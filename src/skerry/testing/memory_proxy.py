"""A proxy that serves nothing: it keeps its table in memory and says what it would answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from skerry.kit.errors import Unavailable
from skerry.kit.quantities import parse_size
from skerry.matching.route_trace import leads
from skerry.ports.proxy import Counts, Entry, ProxyTable


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
    """A `Proxy`. `fails` makes it refuse tables, `dumb` keep its counts to itself; `kill` ends it as if it had died."""

    def __init__(self, *, program: str = "memory 1") -> None:
        self.program = program
        self.fails = ""
        self.dumb = False
        self.table: ProxyTable | None = None
        self.served: list[ProxyTable] = []
        self._counts: dict[str, Counts] = {}
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
        ports = self.table.ports
        return frozenset(
            (entry.route.listen or 0)
            if entry.route.protocol == "tcp"
            else ports.https
            if entry.route.tls == "site"
            else ports.http
            for entry in self.table.entries
            if entry.backend or entry.route.protocol != "tcp"
        )

    async def counts(self) -> Mapping[str, Counts]:
        if self.dumb:
            raise Unavailable("proxy.away", "the proxy does not answer")
        return dict(self._counts) if self._alive else {}

    def kill(self) -> None:
        """End it; what it was told is forgotten by nobody but itself."""
        self._alive = False

    def ask(self, request: ProxyRequest) -> ProxyAnswer:
        """Return what a client gets."""
        entries = self.table.entries if self.table is not None and self._alive else ()
        there = [e for e in entries if e.route.protocol != "tcp" and (e.route.tls == "site") == request.tls]
        if not there:
            return ProxyAnswer(0)
        fitting = [e for e in there if request.name in e.names and leads(e.route.path, request.path)]
        if not fitting:
            return ProxyAnswer(404)
        entry = max(fitting, key=lambda one: len(one.route.path.rstrip("/")))
        refusal = self._refusal(entry, request)
        if refusal:
            return ProxyAnswer(refusal)
        known = self._counts.get(entry.backend, Counts(str(self._run)))
        self._counts[entry.backend] = msgspec.structs.replace(known, requests=known.requests + 1)
        return ProxyAnswer(200, entry.backend)

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
