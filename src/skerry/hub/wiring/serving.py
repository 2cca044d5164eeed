"""Names the adapters of a hub and serves it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.system_clock import SystemClock
from skerry.carrier.app import carrier_app
from skerry.carrier.connections import allow_many_files, new_loop, patient_protocol
from skerry.carrier.limits import CarrierLimits
from skerry.carrier.notifier import Notifier
from skerry.hub.api.app import OperatorApi
from skerry.hub.deltas import DeltaLimits
from skerry.hub.keeping import open_keys, open_server_certificate
from skerry.hub.rekeying import finish_rekeying
from skerry.hub.repository import Repository
from skerry.hub.services import Hub
from skerry.hub.wiring.assembling import Opened, assemble
from skerry.kit.errors import Bug, Conflict, Rejected, SkerryError, Unavailable, as_failure
from skerry.kit.ids import new_secret
from skerry.kit.locking import hold
from skerry.kit.structs import settle_structs
from skerry.ports.hub_store import Audit, HubStore, TokenRecord
from skerry.spec.pki import DEFAULT_DOMAIN, DomainName
from skerry.trust.tokens import hash_secret

_log = structlog.get_logger()

KEEP_EVENTS = 200_000
KEEP_TOPICS = timedelta(days=30)
KEEP_DOWNLINKS = timedelta(days=7)
KEEP_TOPICS_BYTES = 1 << 30
KEEP_AUDITS = 50_000
MAINTAIN_EVERY_S = 600.0
ADMIN_SECRET_TTL = timedelta(days=1)
# Longer than an agent's pause between two exchanges, so that the TLS session is used again.
KEEP_ALIVE_S = 90
SHUTDOWN_S = 5


def serve(
    data: Path,
    listen: str,
    url: str,
    say: Callable[[str], None],
    *,
    deltas: DeltaLimits,
    domain: str = DEFAULT_DOMAIN,
) -> None:
    """Serve a hub until SIGTERM or SIGINT. `say` is told, line by line, what the person at the console needs.

    Raises:
        Rejected: a malformed address or domain, damaged files or a damaged database.
        Conflict: another hub serves this directory.
        Unavailable: the port is in use, the disk is full.
    """
    host, port = _parse_listen(listen)
    _check_domain(domain)
    settle_structs()
    allow_many_files()
    with hold(data / "hub.lock", conflict=Conflict("hub.running", f"another hub serves {data}")):
        clock = SystemClock()
        keys = open_keys(data, clock.now())
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(contextlib.closing(SqlHubStore.open(data / "hub.db")))
            if finish_rekeying(data, store):
                keys = open_keys(data, clock.now())
            door = stack.enter_context(contextlib.closing(_bind(host, port)))
            url = url or f"https://{_shown_host(host)}:{door.getsockname()[1]}"
            runner = stack.enter_context(asyncio.Runner(loop_factory=new_loop))
            runner.run(_serve(data, door, url, Opened(keys, store, clock, deltas, domain=domain), say))


def new_admin_secret(data: Path) -> tuple[str, str]:
    """Make a one-time secret for `skerry login` on the hub's machine; return it and the root digest.

    Raises:
        Rejected: no hub was ever served from this directory (`hub.absent`).
    """
    if not (data / "trust-root.json").exists():
        raise Rejected("hub.absent", f"no hub has been served from {data}", hint="run skerry hub serve first")
    clock = SystemClock()
    with contextlib.closing(SqlHubStore.open(data / "hub.db")) as store:
        digest = Repository(store, open_keys(data, clock.now()), clock).root_digest
        return _admin_secret(store, clock), digest


async def _serve(
    data: Path, door: socket.socket, url: str, opened: Opened, say: Callable[[str], None]
) -> None:
    notifier = Notifier()
    hub = assemble(data, url, opened, notifier)
    names = _certificate_names(url)
    key, cert, _ = open_server_certificate(data, names, opened.clock.now())
    config = uvicorn.Config(
        _dispatch(carrier_app(hub.backend, limits=CarrierLimits(opened.clock)), OperatorApi(hub)),
        http=patient_protocol(),
        ws="none",
        ssl_keyfile=str(key),
        ssl_certfile=str(cert),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        backlog=1024,
    )
    config.load()
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    server = uvicorn.Server(config)
    await asyncio.to_thread(hub.repository.renew)
    await hub.issuer.renew_all()
    await hub.issuer.mark_all()
    hub.backend.relays.issuing.mark_all()
    background = [
        asyncio.create_task(hub.rollouts.run_forever()),
        asyncio.create_task(hub.ahead.run_forever()),
        asyncio.create_task(hub.sinks.run_forever()),
        asyncio.create_task(hub.backend.presence.run_forever()),
        asyncio.create_task(hub.backend.relays.issuing.run_forever()),
        asyncio.create_task(_maintain(data, hub, names, config.ssl)),
    ]
    _announce(hub, opened, say)
    for site in hub.issuer.recovering.held_sites():
        say(f"held, ahead of this hub: site {site}; see skerry describe site {site}")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, server, notifier)
    try:
        # Not `serve`: it would put its own signal handlers in the place of ours.
        await server._serve([door])  # pyright: ignore[reportPrivateUsage]
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        with contextlib.suppress(SkerryError):  # then the leases end by themselves
            await hub.rollouts.close()
            await hub.backend.presence.flush()
    say("hub stopped")


def _dispatch(carrier: ASGIApp, operators: OperatorApi) -> ASGIApp:
    """Send `/v1/` to the carrier app and all else to the operator API; the hot path crosses one framework only."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await carrier(scope, receive, send)
        else:
            # The same protocol, typed more narrowly by Litestar than by Starlette.
            await cast(ASGIApp, operators)(scope, receive, send)

    return app


async def _maintain(data: Path, hub: Hub, names: list[str], context: ssl.SSLContext) -> None:
    """Now and then: renew what expires, forget what is too much."""
    while True:
        try:
            await hub.issuer.renew_all()
            await hub.backend.relays.renew()
            for site in await asyncio.to_thread(hub.pki.due_sites):
                await hub.issuer.issue(site)
            await asyncio.to_thread(hub.repository.renew)
            await asyncio.to_thread(hub.store.trim, keep_events=KEEP_EVENTS, keep_audits=KEEP_AUDITS)
            await hub.backend.windows.trim()
            await hub.backend.telemetry_room.trim()
            await asyncio.to_thread(hub.store.forget_downlinks, hub.clock.now() - KEEP_DOWNLINKS)
            before = hub.clock.now() - KEEP_TOPICS
            await asyncio.to_thread(hub.store.trim_topics, before=before, most_bytes=KEEP_TOPICS_BYTES)
            await hub.backend.questions.trim()
            key, cert, renewed = await asyncio.to_thread(
                open_server_certificate, data, names, hub.clock.now()
            )
            if renewed:
                context.load_cert_chain(cert, key)
                _log.info("certificate.renewed")
        except Exception as caught:
            error = as_failure(caught)
            cause = error.__cause__ if isinstance(error, Bug) else None
            _log.error("maintenance.failing", code=error.code, reason=str(error), exc_info=cause)
        await hub.clock.sleep(MAINTAIN_EVERY_S)


def _announce(hub: Hub, opened: Opened, say: Callable[[str], None]) -> None:
    say(f"hub ready at {hub.url}")
    login = f"skerry login {hub.url} --root {hub.repository.root_digest}"
    if any(token.role == "admin" and not token.once for token in hub.store.tokens()):
        say(f"log in with:       {login}")
        return
    say(f"one-time secret:   {_admin_secret(opened.store, opened.clock)}")
    if hub.keys.offline.is_dir():
        say(
            f"OFFLINE KEYS:      {hub.keys.offline}: whoever has them decides what software this hub's sites run."
        )
        say(
            "                   They were put there for a quick start. Move them to a machine of their own before"
        )
        say(
            "                   you rely on this hub, and remove them here; see docs/how-to/root-ceremony.md."
        )
        say(f"first publisher:   skerry publisher add NAME --signer {hub.keys.offline / 'targets.pem'}")
    say(f"log in with:       {login}")


def _admin_secret(store: HubStore, clock: SystemClock) -> str:
    """Store a one-time secret in the place of any earlier one."""
    now = clock.now()
    audit = Audit(at=now, who="console", action="admin-secret", subject="hub")
    for token in store.tokens():
        if token.once:
            store.remove_token(token.id, audit)
    secret = new_secret("once")
    record = TokenRecord(
        id=secrets.token_hex(6),
        name="one-time-secret",
        hash=hash_secret(secret),
        role="admin",
        created_at=now,
        expires_at=now + ADMIN_SECRET_TTL,
        once=True,
    )
    store.add_token(record, audit)
    return secret


def _stop(server: uvicorn.Server, notifier: Notifier) -> None:
    server.should_exit = True
    # Long-polls answer at once, so that the hub need not wait for them or cut them.
    notifier.close()


def _parse_listen(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Rejected(
            "hub.bad_listen", f"not an address: {listen!r}", hint="write HOST:PORT, such as 0.0.0.0:8443"
        )
    return host.strip("[]"), int(port)


def _check_domain(domain: str) -> None:
    try:
        msgspec.convert(domain, DomainName)
    except msgspec.ValidationError as error:
        hint = "write at least two labels in lower-case letters, such as edge.example.com"
        raise Rejected("hub.bad_domain", f"not a domain: {domain[:120]!r}", hint=hint) from error


def _shown_host(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):  # noqa: S104
        return socket.getfqdn()
    return f"[{host}]" if ":" in host else host


def _certificate_names(url: str) -> list[str]:
    named = urlsplit(url).hostname
    return sorted({"localhost", "127.0.0.1", "::1", socket.gethostname(), *([named] if named else [])})


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
        # At once, not when the loop runs: two hubs with SO_REUSEADDR could both bind before either listens.
        door.listen(1024)
    except OSError as error:
        door.close()
        message = f"cannot listen on {host or '*'}:{port}: {error.strerror}"
        raise Unavailable(
            "hub.port_in_use", message, hint="choose another with --listen HOST:PORT"
        ) from error
    return door
