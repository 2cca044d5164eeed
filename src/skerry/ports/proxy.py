"""Proxy: the way in from a site's network to the applications of one host.

Promises every adapter keeps (tests/contract/test_proxy.py):
- `serve` returns when the table is in force. What the table does not name is not answered; a port that no entry needs
  is not listened on.
- A change ends no request and no stream but those whose backend ended: what an entry gets anew goes to its new
  backend, what it has goes on where it is.
- The proxy outlives its caller, and a proxy that was killed answers as before once `serve` is called again.
- A token is in no file on a disk, no argument, no message and no answer.
- `counts` never fall but where `run` is another.
- Of an entry with `shadow` the client gets the live backend's answer and nothing else: also while the other one is
  slow, fails, or is not there, and when what copies and compares has died.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from skerry.spec.ingress import Route
from skerry.spec.shadow import Shadow

SHADOWED = "/shadow"
"""What the id of a backend ends with in `counts` for the requests that were copied on their way to it."""
LATENCY_BOUNDS_MS = (
    0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000,
)  # fmt: skip


class Certificate(msgspec.Struct, frozen=True):
    """What the proxy proves itself with, and what clients' certificates are checked against; all PEM.

    `key` belongs to the first certificate of `chain`; `crl` may be empty.
    """

    chain: bytes
    key: bytes
    trust: bytes
    crl: bytes = b""


class Backend(msgspec.Struct, frozen=True):
    """A port of this host that answers for one route of one release. `id` is its name in `counts`."""

    id: str
    port: int
    http2: bool = False


class Shadowing(msgspec.Struct, frozen=True):
    """Which requests are copied, how answers are compared, and the id of the backend that gets the copies."""

    backend: str
    rule: Shadow


class Entry(msgspec.Struct, frozen=True):
    """One route in force. `backend` is the id of who answers, empty while nobody does: clients then get a 503.

    `names` are the hosts it answers to. `token` is the value that clients must show, where the route asks for one.
    """

    application: str
    route: Route
    names: tuple[str, ...]
    backend: str = ""
    token: bytes = b""
    shadow: Shadowing | None = None


class ProxyPorts(msgspec.Struct, frozen=True):
    """Where names and paths are listened on: with TLS and without."""

    https: int = 443
    http: int = 80


class ProxyTable(msgspec.Struct, frozen=True):
    """All that a proxy shall do. `backends` may hold more than entries lead to: what is left may finish there.

    `domain` is the trust domain of clients' SPIFFE ids. Without a `certificate` no entry may want TLS.
    """

    ports: ProxyPorts
    domain: str
    entries: tuple[Entry, ...] = ()
    backends: tuple[Backend, ...] = ()
    certificate: Certificate | None = None


class Counts(msgspec.Struct, frozen=True):
    """What a backend has answered since the proxy began, of which `run` is the name.

    `errors` are answers of 500 and above and requests that got none. `latency_ms` counts, by upper bound in
    milliseconds, the answers that took no longer; the bound `inf` counts all. Bytes are those of the clients.
    """

    run: str
    requests: int = 0
    errors: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    latency_ms: Mapping[float, int] = {}


class ShadowCounts(msgspec.Struct, frozen=True):
    """What came of the copies that a backend got since the comparing of `run` began; `beside` is the live one.

    Of `requests` in the share, `uncompared` were not compared: too long, too many at a time, or no measure. Of those
    `compared`, `differing` answers did not agree, and `errors` of them were none or of 500 and above. The latencies of
    both releases are those of the compared requests, counted as in `Counts`.
    """

    run: str
    beside: str
    requests: int = 0
    uncompared: int = 0
    compared: int = 0
    differing: int = 0
    errors: int = 0
    latency_ms: Mapping[float, int] = {}
    live_latency_ms: Mapping[float, int] = {}


class Proxy(Protocol):
    """Serves one table at a time."""

    async def find(self) -> str:
        """Return the name and version of the proxy program, empty when there is none on this host."""
        ...

    async def serve(self, table: ProxyTable) -> None:
        """Bring the table into force, and the proxy to life where it is not. Without entries there is no proxy.

        Raises:
            Unavailable: it does not start, does not answer, or did not take the table in time (`proxy.away`,
                `proxy.not_taken`, `proxy.no_memory`); what was in force still is where the proxy lives.
        """
        ...

    async def is_alive(self) -> bool:
        """Tell whether a proxy runs; it is to run while the table has entries."""
        ...

    async def listening(self) -> frozenset[int]:
        """Return the ports that the proxy listens on now; none where it does not answer."""
        ...

    async def counts(self) -> Mapping[str, Counts]:
        """Return what each backend has answered, by id; a few seconds old at most.

        Raises:
            Unavailable: it does not answer (`proxy.away`).
        """
        ...

    async def shadows(self) -> Mapping[str, ShadowCounts]:
        """Return what came of copied requests, by the id of the backend that got the copies.

        What was compared last is there for a while after the entry has no `shadow` any more.

        Raises:
            Unavailable: what compares does not answer (`shadow.away`).
        """
        ...
