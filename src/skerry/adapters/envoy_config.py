"""What Envoy is told, as JSON of its xDS API v3: pure, from a table to resources.

Rules:
- Listeners do not change when routes do: all names of a port share one chain of filters, and what is special to a
  route stands in the route. So a stream of one route never ends because of another.
- Every filter that protects is off unless a route sets it, and a path is brought to one form before it is matched.

Source of the format: the protobuf definitions of envoy.config.*.v3 and envoy.extensions.*.v3, release 1.40.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from skerry.adapters.envoy_clusters import LOOPBACK, detour_of, is_copied
from skerry.kit.quantities import parse_duration, parse_size
from skerry.ports.proxy import LATENCY_BOUNDS_MS, Certificate, Entry, ProxyTable
from skerry.spec.shadow import SAFE_METHODS, share_of

Json = dict[str, Any]

EVERYWHERE = "0.0.0.0"  # noqa: S104  a route says who may reach it
IN_IPV6 = {EVERYWHERE: "::", LOOPBACK: "::1"}
HTTP_TIMEOUT_S = 30.0
HTTPS_PORT = 443
MAX_CONNECTIONS = 8192
_API = "type.googleapis.com/envoy"
_PREVIOUS = f"{_API}.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
_FILTERS = f"{_API}.extensions.filters.http"
_RBAC, _RATE, _BUFFER = "skerry.rbac", "skerry.rate", "skerry.body"


def bootstrap(folder: str, admin: str) -> Json:
    """Return what Envoy begins with: where its resources are, and its admin interface, a socket in `folder`."""
    connections = {
        "@type": f"{_API}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": MAX_CONNECTIONS,
    }
    return {
        "node": {"id": "skerry", "cluster": "skerry"},
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "cluster."}, "buckets": [float(bound) for bound in LATENCY_BOUNDS_MS]}
            ]
        },
        "overload_manager": {"resource_monitors": [{"name": _CONNECTIONS, "typed_config": connections}]},
        "dynamic_resources": {
            "lds_config": _source(f"{folder}/listeners.json"),
            "cds_config": _source(f"{folder}/clusters.json"),
        },
    }


def routes(table: ProxyTable) -> dict[str, list[Json]]:
    """Return by the name of each listener of names and paths its one route configuration."""
    return {name: [_route_config(name, entries, table)] for name, _, entries in _shared(table)}


def listeners(table: ProxyTable, folder: str, *, ipv6: bool = False) -> list[Json]:
    """Return a listener for each port that an entry needs, and no other; with `ipv6` of both kinds of addresses."""
    found = [_shared_listener(name, address, table, folder) for name, address, _ in _shared(table)]
    found += [
        _tcp_listener(entry, table, folder)
        for entry in table.entries
        # One that nobody answers for is not listened on: there is no 503 without HTTP.
        if entry.route.protocol == "tcp" and entry.backend
    ]
    return [_with_ipv6(one) for one in found] if ipv6 else found


def secrets(certificate: Certificate) -> dict[str, list[Json]]:
    """Return what the proxy proves itself with (`own`), and what it checks clients against (`trust`)."""
    trust: Json = {"trusted_ca": _inline(certificate.trust)}
    if certificate.crl:
        # Of the whole chain: what is revoked may be what a host issues with.
        trust["crl"] = _inline(certificate.crl)
    kind = f"{_API}.extensions.transport_sockets.tls.v3.Secret"
    own = {"certificate_chain": _inline(certificate.chain), "private_key": _inline(certificate.key)}
    return {
        "own": [{"@type": kind, "name": "own", "tls_certificate": own}],
        "trust": [{"@type": kind, "name": "trust", "validation_context": trust}],
    }


# ── listeners ────────────────────────────────────────────────────────────────────────────────────────


def _shared(table: ProxyTable) -> list[tuple[str, str, list[Entry]]]:
    """Return name, address and entries of the listeners that routes share.

    The one of the loopback address has all entries, as it hides the other from programs of the host.
    """
    found: list[tuple[str, str, list[Entry]]] = []
    for tls, name in (("site", "https"), ("plain", "http")):
        entries = [
            e
            for e in table.entries
            if e.route.protocol != "tcp" and (e.route.tls == tls or (e.route.redirect and tls == "plain"))
        ]
        outside = [e for e in entries if e.route.expose == "site"]
        if outside:
            found.append((name, EVERYWHERE, outside))
        if len(outside) < len(entries):
            found.append((f"{name}-host", LOOPBACK, entries))
    return found


def _shared_listener(name: str, address: str, table: ProxyTable, folder: str) -> Json:
    with_tls = name.startswith("https")
    chain: Json = {"filters": [_http_filter(name, folder, with_tls=with_tls)]}
    if with_tls:
        chain["transport_socket"] = _tls(folder, ("h2", "http/1.1"), demanded=False)
    return _listener(name, address, table.ports.https if with_tls else table.ports.http, chain)


def _tcp_listener(entry: Entry, table: ProxyTable, folder: str) -> Json:
    route = entry.route
    filters: list[Json] = []
    if route.auth.mtls is not None:
        rules = {
            "@type": f"{_API}.extensions.filters.network.rbac.v3.RBAC",
            "stat_prefix": "clients",
            "rules": _rules(entry, table.domain),
        }
        filters.append({"name": _RBAC, "typed_config": rules})
    proxy = {
        "@type": f"{_API}.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": entry.backend,
        "idle_timeout": _seconds(parse_duration(route.idle)),
    }
    chain: Json = {"filters": [*filters, {"name": "skerry.tcp", "typed_config": proxy}]}
    if route.tls == "site":
        chain["transport_socket"] = _tls(folder, (), demanded=route.auth.mtls is not None)
    address = EVERYWHERE if route.expose == "site" else LOOPBACK
    return _listener(f"tcp/{route.listen}", address, route.listen or 0, chain)


def _listener(name: str, address: str, port: int, chain: Json) -> Json:
    return {
        "@type": f"{_API}.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [{"name": name, **chain}],
    }


def _with_ipv6(listener: Json) -> Json:
    place = listener["address"]["socket_address"]
    other = {"address": IN_IPV6[place["address"]], "port_value": place["port_value"]}
    return {**listener, "additional_addresses": [{"address": {"socket_address": other}}]}


def _tls(folder: str, protocols: Sequence[str], *, demanded: bool) -> Json:
    """Return TLS with the site's certificate; a client's is asked for, and checked where it shows one."""
    own, trust = (
        {"name": name, "sds_config": _source(f"{folder}/secret-{name}.json")} for name in ("own", "trust")
    )
    context: Json = {
        "tls_certificate_sds_secret_configs": [own],
        "validation_context_sds_secret_config": trust,
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    }
    if protocols:
        context["alpn_protocols"] = list(protocols)
    return {
        "name": "skerry.tls",
        "typed_config": {
            "@type": f"{_API}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": demanded,
        },
    }


def _http_filter(name: str, folder: str, *, with_tls: bool) -> Json:
    off = [
        (_RBAC, {"@type": f"{_FILTERS}.rbac.v3.RBAC"}),
        (_RATE, {"@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "rate"}),
        (_BUFFER, {"@type": f"{_FILTERS}.buffer.v3.Buffer", "max_request_bytes": 1}),
    ]
    filters: list[Json] = [{"name": n, "typed_config": config, "disabled": True} for n, config in off]
    router_config = {"@type": f"{_FILTERS}.router.v3.Router", "suppress_envoy_headers": True}
    router: Json = {"name": "skerry.router", "typed_config": router_config}
    # A WebSocket is a request that does not end: it must not be held until it does.
    unheld = [one for one in filters if one["name"] != _BUFFER]
    manager: Json = {
        "@type": f"{_API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": name, "config_source": _source(f"{folder}/routes-{name}.json")},
        "http_filters": [*filters, router],
        "upgrade_configs": [{"upgrade_type": "websocket", "filters": [*unheld, router]}],
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "strip_any_host_port": True,
        "strip_trailing_host_dot": True,
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": "10s",
        "common_http_protocol_options": {"idle_timeout": "600s"},
        "http2_protocol_options": {
            "max_concurrent_streams": 256,
            "initial_stream_window_size": 1 << 18,
            "initial_connection_window_size": 1 << 20,
        },
        "forward_client_cert_details": "SANITIZE_SET" if with_tls else "SANITIZE",
    }
    if with_tls:
        manager["set_current_client_cert_details"] = {"uri": True}
    return {"name": "skerry.http", "typed_config": manager}


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────


def _route_config(name: str, entries: Sequence[Entry], table: ProxyTable) -> Json:
    with_tls = name.startswith("https")
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        for host in entry.names:
            by_name.setdefault(host, []).append(entry)
    hosts = [
        {
            "name": host,
            "domains": [host],
            "routes": [
                route
                for entry in _longest_first(found)
                for route in (
                    _routes_of(entry, table.domain)
                    if with_tls == (entry.route.tls == "site")
                    else [_redirect(entry, table.ports.https)]
                )
            ],
        }
        for host, found in sorted(by_name.items())
    ]
    return {
        "@type": f"{_API}.config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": hosts,
        # Resources of both kinds are changed in order: the clusters are there before the routes.
        "validate_clusters": False,
    }


def _longest_first(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (-len(entry.route.path.rstrip("/")), entry.application))


def _redirect(entry: Entry, https: int) -> Json:
    """Return the answer to those who come without TLS: where it is with it (RFC 9110, 15.4.9)."""
    target: Json = {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}
    if https != HTTPS_PORT:
        target["port_redirect"] = https
    name = f"{entry.application}/{entry.route.name}/redirect"
    return {"name": name, "match": _match(entry.route.path), "redirect": target}


def _routes_of(entry: Entry, domain: str) -> list[Json]:
    """Return the route, what is copied of it, and around them what answers those who must not take it."""
    found = _route(entry, domain)
    name, match = found["name"], found["match"]
    before: list[Json] = []
    if entry.route.max_body is not None:
        # The filter that holds a body learns of a body's size as it comes; here it is refused before it does.
        most = parse_size(entry.route.max_body)
        longer = {"name": "content-length", "range_match": {"start": most + 1, "end": 1 << 62}}
        before.append(_refusal(f"{name}/body", {**match, "headers": [longer]}, 413, "the body is too long"))
    copied = _copied(entry, found)
    if entry.route.auth.token is None:
        return [*before, *copied, found]
    # The filter of Envoy that knows keys is outside its threat model; to match a header is not.
    shown = {"name": "authorization", "string_match": {"exact": f"Bearer {entry.token.decode('ascii')}"}}
    without = _refusal(f"{name}/token", match, 401, "this route asks for a token")
    without["response_headers_to_add"] = [{"header": {"key": "www-authenticate", "value": "Bearer"}}]
    if not entry.token:
        return [without]
    known = {**found, "match": {**match, "headers": [shown]}, "request_headers_to_remove": [shown["name"]]}
    before = [_for_headers(one, shown) for one in before]
    copied = [{**_for_headers(one, shown), "request_headers_to_remove": [shown["name"]]} for one in copied]
    return [*before, *copied, known, without]


def _for_headers(route: Json, *headers: Json) -> Json:
    match: Json = route["match"]
    return {**route, "match": {**match, "headers": [*match.get("headers", ()), *headers]}}


def _copied(entry: Entry, found: Json) -> list[Json]:
    """Return the routes of the share of requests that takes the detour: safe ones may be sent again, others may not.

    What Envoy is asked to upgrade is no request that has an answer.
    """
    if not is_copied(entry) or entry.shadow is None:
        return []
    rule = entry.shadow.rule
    share = {"numerator": round(share_of(rule) * 1_000_000), "denominator": "MILLION"}
    no_upgrade = {"name": "upgrade", "present_match": False}
    made: list[Json] = []
    for safe in (True, False):
        methods = [one for one in rule.methods if (one in SAFE_METHODS) == safe]
        if not methods:
            continue
        asked = {"name": ":method", "string_match": {"safe_regex": {"regex": "|".join(methods)}}}
        retries: Json = {
            **found["route"]["retry_policy"],
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {"@type": _PREVIOUS, "update_frequency": 1},
            },
        }
        if safe:
            retries["retry_on"] += ",reset"
        action = {**found["route"], "cluster": detour_of(entry), "retry_policy": retries}
        for path in rule.paths or (entry.route.path,):
            match = {**_match(path), "runtime_fraction": {"default_value": share}}
            one = {**found, "name": f"{found['name']}/shadow", "match": match, "route": action}
            made.append(_for_headers(one, asked, no_upgrade))
    return made


def _refusal(name: str, match: Json, status: int, text: str) -> Json:
    answer = {"status": status, "body": {"inline_string": f"{text}\n"}}
    return {"name": name, "match": match, "direct_response": answer}


def _route(entry: Entry, domain: str) -> Json:
    route = entry.route
    match = _match(route.path)
    found: Json = {"name": f"{entry.application}/{route.name}", "match": match}
    if entry.backend:
        found["route"] = {
            "cluster": entry.backend,
            "timeout": _seconds(_timeout_s(entry)),
            "idle_timeout": _seconds(parse_duration(route.idle)),
            # Only what the application cannot have seen: nothing is done twice.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 2,
            },
        }
    else:
        found |= _refusal(
            found["name"], match, 503, f"route {route.name} of {entry.application}: nobody answers now"
        )
    if special := _special(entry, domain):
        found["typed_per_filter_config"] = special
    return found


def _match(path: str) -> Json:
    plain = path.rstrip("/")
    return {"path_separated_prefix": plain} if plain else {"prefix": "/"}


def _timeout_s(entry: Entry) -> float:
    stated = entry.route.timeout
    if stated is None:
        return HTTP_TIMEOUT_S if entry.route.protocol == "http" else 0.0
    return parse_duration(stated)


def _special(entry: Entry, domain: str) -> Json:
    """Return what protects this route; its filters are off elsewhere."""
    route, found = entry.route, Json()
    if route.auth.mtls is not None:
        rules = {"rules": _rules(entry, domain)}
        found[_RBAC] = {"@type": f"{_FILTERS}.rbac.v3.RBACPerRoute", "rbac": rules}
    if route.rate is not None:
        every = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        found[_RATE] = {
            "@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "rate",
            "token_bucket": {
                "max_tokens": route.rate.requests,
                "tokens_per_fill": route.rate.requests,
                "fill_interval": _seconds(parse_duration(route.rate.per)),
            },
            "filter_enabled": every,
            "filter_enforced": every,
        }
    if route.max_body is not None:
        buffer = {"max_request_bytes": parse_size(route.max_body)}
        found[_BUFFER] = {"@type": f"{_FILTERS}.buffer.v3.BufferPerRoute", "buffer": buffer}
    return found


def _rules(entry: Entry, domain: str) -> Json:
    mtls = entry.route.auth.mtls
    assert mtls is not None
    names: list[Json] = [{"exact": one} for one in mtls.ids]
    names += [{"prefix": f"spiffe://{domain}/site/{site}/"} for site in mtls.sites]
    clients = [{"authenticated": {"principal_name": name}} for name in names]
    return {
        "action": "ALLOW",
        "policies": {"clients": {"permissions": [{"any": True}], "principals": clients}},
    }


def _source(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def _inline(content: bytes) -> Json:
    return {"inline_bytes": base64.b64encode(content).decode()}


def _seconds(seconds: float) -> str:
    """Return a duration as JSON of protobuf states it."""
    return f"{seconds:.3f}s"
