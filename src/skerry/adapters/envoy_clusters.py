"""Where Envoy leads to, as JSON of its xDS API v3: one cluster for each release of a route, and the detours to some.

A cluster belongs to one route of one release, so that its statistics do. Its name has no dots, which Envoy's statistics
would cut it at. Source of the format: see `envoy_config`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from skerry.ports.proxy import SHADOWED, Backend, Entry, ProxyTable

Json = dict[str, Any]

LOOPBACK = "127.0.0.1"
CONNECT_S = 2
UPSTREAM_IDLE_S = 3
"""Shorter than servers keep an idle connection (5 s is common), so that none is ended while a request begins on it."""
_PROTOCOL = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Detour(msgspec.Struct, frozen=True):
    """The way of copied requests to a live backend's port: through the Unix socket of what copies and compares.

    Where nobody answers there, they go to the port itself.
    """

    id: str
    socket: str
    port: int


def detours(table: ProxyTable, folder: str) -> list[Detour]:
    """Return a detour for each entry that is copied."""
    ports = {backend.id: backend.port for backend in table.backends}
    return [
        Detour(detour_of(entry), shadow_socket(folder, entry.shadow.backend), ports[entry.backend])
        for entry in table.entries
        if is_copied(entry) and entry.shadow is not None and entry.backend in ports
    ]


def shadow_socket(folder: str, backend: str) -> str:
    """Return where copies for a backend are made; a Unix socket's path has 107 bytes at most."""
    return f"{folder}/s{hashlib.sha256(backend.encode()).hexdigest()[:8]}"


def clusters(backends: Iterable[Backend], ways: Iterable[Detour] = ()) -> list[Json]:
    """Return one cluster for each backend and each detour, each once."""
    plain = [_cluster(backend) for backend in sorted(set(backends), key=lambda one: one.id)]
    return plain + [_detour_cluster(way) for way in sorted(set(ways), key=lambda one: one.id)]


def is_copied(entry: Entry) -> bool:
    """Tell whether requests of an entry are copied."""
    return entry.shadow is not None and bool(entry.backend) and entry.route.protocol == "http"


def detour_of(entry: Entry) -> str:
    """Return the name of an entry's detour."""
    return f"{entry.backend}{SHADOWED}"


def _cluster(backend: Backend) -> Json:
    return _static(backend.id, [_at_port(backend.port)], http2=backend.http2)


def _detour_cluster(way: Detour) -> Json:
    """Return the cluster whose second place is the live backend itself; a request comes there when the first fails."""
    return _static(way.id, [{"pipe": {"path": way.socket}}, _at_port(way.port)], http2=False)


def _at_port(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _static(name: str, addresses: Sequence[Json], *, http2: bool) -> Json:
    """Return a cluster of addresses, of which each is asked only where those before it fail."""
    version = "http2_protocol_options" if http2 else "http_protocol_options"
    http: Json = {
        "@type": f"type.googleapis.com/{_PROTOCOL}",
        "explicit_http_config": {version: {}},
        "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_S}s"},
    }
    many = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 256}
    places = [
        {"priority": priority, "lb_endpoints": [{"endpoint": {"address": address}}]}
        for priority, address in enumerate(addresses)
    ]
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{CONNECT_S}s",
        "load_assignment": {"cluster_name": name, "endpoints": places},
        "circuit_breakers": {"thresholds": [many]},
        "typed_extension_protocol_options": {_PROTOCOL: http},
    }
