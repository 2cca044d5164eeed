"""Names the adapters of a relay and serves it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from starlette.types import ASGIApp

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.sqlite_relay_store import SqliteRelayStore
from skerry.adapters.system_clock import SystemClock
from skerry.carrier.app import carrier_app
from skerry.carrier.connections import allow_many_files, new_loop
from skerry.carrier.dialling import Dialling
from skerry.carrier.limiting import Limiter
from skerry.carrier.limits import CarrierLimits
from skerry.carrier.notifier import Notifier
from skerry.carrier.ways_up import (
    NOTHING_STATED,
    StatedWay,
    WayUp,
    fetch_first_root,
    load_dialling,
    open_upstreams,
)
from skerry.delivery.budget import link_policy
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Conflict, Rejected, Unavailable, Untrusted
from skerry.kit.locking import hold
from skerry.kit.quantities import parse_size
from skerry.kit.structs import settle_structs
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.ports.relay_store import RelayStore
from skerry.relay.arrivals import Source
from skerry.relay.backend import RelayBackend
from skerry.relay.cache import BlobCache
from skerry.relay.carried import Carried, CarriedParts, carried_folder
from skerry.relay.door import Certificate, keep_cuts_out_of_the_log, new_server
from skerry.relay.files import MetadataFiles
from skerry.relay.guests import Guests
from skerry.relay.holdings import Holdings
from skerry.relay.hosting import HostingParts
from skerry.relay.identity import Identity, load_identity
from skerry.relay.loops.prefetch import Prefetcher
from skerry.relay.loops.upstream import Upward, UpwardParts
from skerry.relay.queue import Queue
from skerry.relay.standing import WRITE_EVERY_S, Standing, StandingParts, write_status
from skerry.relay.traffic import Traffic, counting
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import SitePolicy
from skerry.spec.relay import RelayState

_log = structlog.get_logger()

SWEEP_OLDER_S = 7 * 86_400.0
SPARE_BYTES = 32 << 20
SPARE_SHARE = 8
"""What blobs leave of the disk for reports and what else is written: so much, or one part in so many of a small one."""


def serve(data: Path, listen: str, say: Callable[[str], None], *, stated: StatedWay = NOTHING_STATED) -> None:
    """Serve a relay until SIGTERM or SIGINT. `say` is told, line by line, what the person at the console needs.

    What is `stated` of the way up counts more than what joining kept.

    Raises:
        Missing: no relay has joined in this directory.
        Rejected: a malformed address, or damaged files.
        Conflict: another relay runs on this directory.
        Unavailable: the port is in use, the disk is full.
    """
    host, port = parse_listen(listen)
    settle_structs()
    allow_many_files()
    keep_cuts_out_of_the_log()
    running = Conflict("relay.running", f"another relay runs on {data}", hint="one data directory, one relay")
    identity = load_identity(data)
    place = identity.place
    upstreams = stated.upstreams or place.upstreams or (place.upstream,)
    way = WayUp(upstreams, stated.dialling.over(load_dialling(data)))
    way.check()
    with hold(data / "relay.lock", conflict=running), contextlib.ExitStack() as stack:
        store, fresh = SqliteRelayStore.open(data / "relay.db")
        stack.enter_context(contextlib.closing(store))
        if fresh:
            _log.warning("relay.database_lost", hint="it was set aside; hosts hand over again what they have")
        runner = stack.enter_context(asyncio.Runner(loop_factory=new_loop))
        link = open_upstreams(way, identity.trust_root, SystemClock())
        relay = runner.run(_assembled(data, identity, store, link, way))
        link.on_traffic = relay.count_traffic
        relay.standing.upstream = lambda: link.url
        runner.run(_serve(data, (host, port), relay, say))


class Relay(msgspec.Struct, frozen=True):
    """The parts of a relay."""

    identity: Identity
    link: Link
    store: RelayStore
    notifier: Notifier
    guests: Guests
    holdings: Holdings
    queue: Queue
    cache: BlobCache
    files: MetadataFiles
    upward: Upward
    backend: RelayBackend
    prefetcher: Prefetcher
    standing: Standing
    certificate: Certificate
    limiter: Limiter
    traffic: Traffic
    carried: Carried
    app: ASGIApp

    def count_traffic(self, size: int) -> None:
        """Count what crossed the link besides blobs, both ways together. From any thread."""
        self.limiter.count(size)
        self.traffic.count(up_received=size)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs for ever."""
        return [
            self.upward.poll_forever(),
            self.upward.hand_up_forever(),
            self.prefetcher.run_forever(),
            self.carried.run_forever(),
        ]


def assemble(
    data: Path,
    identity: Identity,
    store: RelayStore,
    link: Link,
    *,
    clock: Clock | None = None,
    way: WayUp | None = None,
) -> Relay:
    """Return the parts of a relay; to be called where its event loop runs."""
    clock, notifier, relay = clock or SystemClock(), Notifier(), identity.place.relay
    traffic, certificate = Traffic(clock), Certificate(data)
    guests = Guests(store.held())
    holdings = Holdings(relay, store, identity.trust)
    queue = Queue(store)
    upward = Upward(UpwardParts(identity, store, link, clock, notifier, guests, holdings, queue))
    limiter = Limiter(store, clock, upward.now)
    source = Source(link, upward.token, limiter)
    cache = BlobCache(open_blobs(data), source, clock, room=lambda: room_for_blobs(data))
    up = way or WayUp((identity.place.upstream,), Dialling())
    files = MetadataFiles(
        data / "files",
        identity,
        upward=upward,
        clock=clock,
        fetch_root=lambda digest: fetch_first_root(up, digest)[2],
    )
    hosting = HostingParts(
        guests, queue, holdings, upward, notifier, clock, identity.key, keeper_of(store, relay)
    )
    backend = RelayBackend(hosting, identity, link=link, cache=cache, files=files)
    prefetcher = Prefetcher(cache, clock)
    standing = Standing(StandingParts(identity.place, clock, guests, holdings, queue, cache, traffic, upward))
    standing.troubles += [lambda: prefetcher.trouble, lambda: certificate.trouble]
    upward.view = standing.view
    upward.on_sent = lambda size: traffic.count(up_sent=size, up_received=-size)
    cache.on_came = lambda size: traffic.count(up_received=size)
    carried = Carried(
        data,
        CarriedParts(identity, clock, guests, holdings, cache, files, upward, open_staged(data)),
    )
    app = counting(carrier_app(backend, limits=CarrierLimits(clock)), traffic)
    found = Relay(
        identity, link, store, notifier, guests, holdings, queue, cache, files, upward,
        backend, prefetcher, standing, certificate, limiter, traffic, carried, app,
    )  # fmt: skip
    holdings.on_state = lambda state: follow(found, state)
    if holdings.state is not None:
        follow(found, holdings.state)
    return found


def follow(relay: Relay, state: RelayState) -> None:
    """Be what a newer state says."""
    relay.backend.follow(state)
    relay.queue.limit_bytes = parse_size(state.spec.queue)
    relay.cache.limit_bytes = parse_size(state.spec.cache)
    policy = SitePolicy(link=link_policy(state.spec.link, hosts=1), time_zone=state.spec.time_zone)
    relay.limiter.follow(policy, {})
    relay.prefetcher.follow(state)
    relay.certificate.follow(state)


def open_blobs(data: Path) -> LocalBlobs:
    """Return the blobs of a data directory."""
    return DirectoryBlobs(data / "blobs")


def open_store_to_read(data: Path) -> RelayStore:
    """Return what a relay remembers, which may have it open, to be read.

    Raises:
        Unavailable: it cannot be read.
    """
    return SqliteRelayStore.open_to_read(data / "relay.db")


def open_staged(data: Path) -> LocalBlobs:
    """Return the blobs that were carried here, before the cache has them; on the disk of the others."""
    return DirectoryBlobs(carried_folder(data) / "blobs")


def keeper_of(store: RelayStore, relay: str) -> str:
    """Return the name of this relay and its database, made with the database."""
    held = store.load("keeper")
    if held is None:
        held = secrets.token_hex(8).encode()
        store.save({"keeper": held})
    return f"{relay}/{held.decode()}"


def room_for_blobs(data: Path) -> int:
    """Return how many bytes of the disk blobs may still take; negative when they have begun on what reports need."""
    usage = shutil.disk_usage(data)
    return usage.free - min(SPARE_BYTES, usage.total // SPARE_SHARE)


async def _assembled(data: Path, identity: Identity, store: RelayStore, link: Link, way: WayUp) -> Relay:
    return assemble(data, identity, store, link, way=way)


async def _serve(data: Path, where: tuple[str, int], relay: Relay, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await asyncio.to_thread(relay.cache.load)
    await _take_first_state(data, relay)
    background = [
        asyncio.create_task(one)
        for one in (
            *relay.loops(),
            relay.cache.verify_forever(),
            _tell_status(data, relay),
            _sweep(data, relay),
        )
    ]
    try:
        await _open_door(where, relay, stop, say)
    finally:
        relay.link.close()
        relay.notifier.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await relay.cache.close()
        relay.limiter.close()
        relay.upward.close()
        write_status(data, relay.standing.status())
    say("relay stopped")


async def _open_door(
    where: tuple[str, int], relay: Relay, stop: asyncio.Event, say: Callable[[str], None]
) -> None:
    """Serve from when there is a certificate until it is time to stop."""
    with contextlib.closing(_bind(*where)) as door:
        stopping = asyncio.create_task(stop.wait())
        if not relay.certificate.there.is_set():
            say("waiting for the hub to issue a certificate")
            coming = asyncio.create_task(relay.certificate.there.wait())
            await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
            coming.cancel()
        if stop.is_set():
            return
        door.listen(1024)
        server = new_server(relay.app, relay.certificate)
        serving = asyncio.create_task(_run(server, door))
        address = f"{where[0]}:{door.getsockname()[1]}"
        relay.standing.serving = address
        say(f"relay ready at {address}")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        # Long-polls answer at once, so that nobody need wait for them.
        relay.notifier.close()
        stopping.cancel()
        await serving


async def _run(server: uvicorn.Server, door: socket.socket) -> None:
    # Not `serve`: it would put its own signal handlers in the place of ours.
    await server._serve([door])  # pyright: ignore[reportPrivateUsage]


async def _take_first_state(data: Path, relay: Relay) -> None:
    """Take the state that came with the enrolment, unless there is a newer one; it comes again if it is not there."""
    file = data / "first-state.json"
    try:
        envelope = msgspec.json.decode(file.read_bytes(), type=JsonEnvelope)
        await relay.holdings.take_state(envelope, now=relay.upward.now())
    except (OSError, *UNREADABLE, Untrusted, Unavailable):
        return
    file.unlink(missing_ok=True)


async def _tell_status(data: Path, relay: Relay) -> None:
    while True:
        await asyncio.to_thread(write_status, data, relay.standing.status())
        await asyncio.sleep(WRITE_EVERY_S)


async def _sweep(data: Path, relay: Relay) -> None:
    """Remove parts of blobs that nobody has asked for in a long time."""
    blobs = open_blobs(data)
    while True:
        keep = frozenset(digest for digest, _ in relay.cache.missing())
        await asyncio.to_thread(blobs.sweep, keep, older_than_s=SWEEP_OLDER_S)
        await asyncio.to_thread(relay.carried.sweep)
        await asyncio.sleep(86_400.0)


def parse_listen(listen: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT.

    Raises:
        Rejected: it is none (`relay.bad_listen`).
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        hint = "write HOST:PORT, such as 0.0.0.0:8443"
        raise Rejected("relay.bad_listen", f"not an address: {listen!r}", hint=hint)
    return host.strip("[]"), int(port)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        message = f"cannot listen on {host or '*'}:{port}: {error.strerror}"
        hint = "choose another with --listen HOST:PORT"
        raise Unavailable("relay.port_in_use", message, hint=hint) from error
    return door
