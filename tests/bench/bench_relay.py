"""What a relay costs and spares, with real processes: bytes from above, throughput beside nginx, 200 hosts at once, and
how long news take down three relays.

The throughput is measured with curl over TLS 1.3, the relay's and nginx's downloads by turns in one run. News are timed
from when the hub dates a new DesiredState to when a host behind the third relay has it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from skerry.agent.identity import Identity
from skerry.carrier.dialling import upstream_context
from skerry.carrier.link import HttpLink
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.spec.carrier import SyncRequest
from skerry.spec.desired import DesiredState
from skerry.testing.fleet import free_port
from skerry.testing.segmented import RelayProcess
from skerry.testing.waiting import eventually_sync
from tests.bench.counting_proxy import CountingProxy
from tests.bench.figure import Figure
from tests.bench.process_usage import memory_of
from tests.bench.sync_load import heartbeat
from tests.e2e.relay_fleet import RelayFleet, url_of
from tests.e2e.releases import write_release

MB = 1e6
BALLAST = 64 << 20
SITE_HOSTS = ("edge-1", "edge-2", "edge-3")
CROWD = 200
ROUNDS = 5
DOWNLOADS = 6
IDLE_S = 120
NEWS = 60
NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off; sendfile on; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    root {folder}/files;
  }}
}}
"""


class Below(RelayFleet):
    """A fleet whose hosts are behind one relay, which reaches the hub through a proxy that counts."""

    def join_below(self, site: str, name: str) -> Identity:
        """Join a host through the relay, without an agent."""
        return self.join_host(site, name, self.relays["gate"])


def figures() -> Iterator[Figure]:
    """Measure a relay between a hub and its hosts."""
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as folder, Below(Path(folder)) as fleet:
        fleet.start()
        with CountingProxy(fleet.hub.port) as proxy:
            relay = fleet.add_relay("gate", above=f"https://127.0.0.1:{proxy.port}")
            yield from wan_figures(fleet, proxy)
            yield from throughput_figures(fleet, relay)
            yield from asyncio.run(crowd_figures(fleet, relay, proxy))
            yield from news_figures(fleet, relay)


def wan_figures(fleet: Below, proxy: CountingProxy) -> Iterator[Figure]:
    """Measure what one release to a site of three hosts takes of the link above the relay."""
    fleet.make_site("plant")
    for name in SITE_HOSTS:
        fleet.add_agent_by("plant", name, [url_of(fleet.relays["gate"])])
    content = random.Random(1).randbytes(BALLAST)
    path = write_release(fleet.folder / "release", "1.0.0", ballast={"weights.bin": content})
    fleet.run("release", "push", str(path))
    before = proxy.total_bytes
    gate = ("--soak", "300ms", "--deadline", "10m")
    fleet.run("rollout", "start", "talker@1.0.0", "--sites", "*", "--name", "first", *gate)
    for name in SITE_HOSTS:
        fleet.until_runs(fleet.agents[name], "1.0.0")
    ratio = (proxy.total_bytes - before) / BALLAST
    yield Figure("wan_bytes_of_a_release_to_3_hosts", ratio, "copies", f"one copy: {BALLAST / MB:.0f} MB")


def throughput_figures(fleet: Below, relay: RelayProcess) -> Iterator[Figure]:
    """Measure downloads of a cached blob, beside nginx with the same file and the relay's own certificate."""
    nginx, curl = shutil.which("nginx") or "/usr/sbin/nginx", shutil.which("curl")
    if not Path(nginx).exists() or curl is None:
        print("relay_throughput: nginx or curl is not installed", file=sys.stderr)
        return
    content = random.Random(1).randbytes(BALLAST)
    digest = digest_of(content)
    folder = fleet.folder / "nginx"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "blob").write_bytes(content)
    port = free_port()
    tls = fleet.hub.data / "tls"
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, port=port, cert=tls / "server.pem", key=tls / "server.key")
    )
    token = blob_token(fleet.join_below("plant", "probe"))
    with subprocess.Popen([nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)]) as server:
        try:
            there = f"https://127.0.0.1:{port}/blob"
            eventually_sync(lambda: download_s(curl, there, "", 1) is not None, what="nginx")
            here = f"https://{relay.address}/v1/blobs/{digest}"
            assert download_s(curl, here, token, 1) is not None, "the relay does not serve the blob"
            pairs = [
                (download_s(curl, here, token, DOWNLOADS), download_s(curl, there, "", DOWNLOADS))
                for _ in range(ROUNDS)
            ]
        finally:
            server.terminate()
    ours, theirs = (min(times[side] or 1e9 for times in pairs) for side in (0, 1))
    total = DOWNLOADS * BALLAST / MB
    peer = f"nginx: {total / theirs:.0f} MB/s"
    yield Figure("cached_blob_over_tls", total / ours, "MB/s", peer)
    yield Figure("cached_blob_beside_nginx", theirs / ours, "x", "nginx: 1")


def blob_token(identity: Identity) -> str:
    """Return a token that lets a host read blobs."""
    link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
    try:
        token = link.sync(SyncRequest(reports=(heartbeat(identity, 2, 0),), want_token=True)).blob_token
        assert token
        return token
    finally:
        link.close()


def download_s(curl: str, url: str, token: str, times: int) -> float | None:
    """Return how long some downloads over one connection took, None when one failed."""
    begun = time.perf_counter()
    header = ("-H", f"Authorization: Bearer {token}") if token else ()
    outputs = [part for _ in range(times) for part in ("-o", "/dev/null", url)]
    done = subprocess.run([curl, "-sfk", *header, *outputs], check=False)
    return time.perf_counter() - begun if done.returncode == 0 else None


async def crowd_figures(fleet: Below, relay: RelayProcess, proxy: CountingProxy) -> list[Figure]:
    """Measure a relay at which many hosts wait."""
    fleet.make_site("crowd")
    identities = [fleet.join_below("crowd", f"host-{number:03}") for number in range(CROWD)]
    waiting = [asyncio.create_task(wait_there(identity)) for identity in identities]
    started = [await one for one in [asyncio.create_task(begun(task)) for task in waiting]]
    assert all(started)
    await asyncio.sleep(15)
    memory = memory_of(relay.pid)
    # Connections that served requests before stay open for some time, for the next.
    waited, upstream = 0, established(proxy.port)
    while upstream > 1 and waited < IDLE_S:
        await asyncio.sleep(1)
        waited, upstream = waited + 1, established(proxy.port)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return [
        Figure("rss_with_200_waiting_hosts", memory.rss / MB, "MB"),
        Figure("connections_upward_of_200_hosts", upstream, "connections"),
    ]


async def begun(task: asyncio.Task[None]) -> bool:
    """Let a host come to wait; tell that it does."""
    await asyncio.sleep(1)
    return not task.done()


async def wait_there(identity: Identity) -> None:
    """Wait for news at the relay as an agent does."""
    host, _, port = identity.place.upstream.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=upstream_context(identity.trust_root.ca_pem)
    )
    body = msgspec.json.encode(SyncRequest(reports=(heartbeat(identity, 2, 1 << 20),), wait_s=240))
    head = f"POST /v1/sync HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


def news_figures(fleet: Below, gate: RelayProcess) -> Iterator[Figure]:
    """Measure how long a new state takes to a host that is three relays deep."""
    middle = fleet.add_relay("middle", above=url_of(gate), upstreams="gate")
    lowest = fleet.add_relay("lowest", above=url_of(middle), upstreams="middle")
    fleet.make_site("deep")
    listener = Listener(fleet.join_host("deep", "deepest", lowest))
    thread = threading.Thread(target=listener.listen)
    thread.start()
    try:
        fleet.until(lambda: listener.generation > 0)
        fleet.until_knows(lowest, "deepest")
        pauses = random.Random(2)
        with fleet.client() as client:
            for number in range(NEWS):
                document = {
                    "apiVersion": "skerry/v1", "kind": "Site", "metadata": {"name": "deep"},
                    "spec": {"variables": {"number": str(number)}},
                }  # fmt: skip
                before = listener.generation
                client.apply([document])
                fleet.until(partial(listener.has_newer, before))
                time.sleep(pauses.uniform(0.2, 1.0))
    finally:
        listener.close()
        thread.join()
    taken = sorted(listener.taken_s[-NEWS:])
    yield Figure("news_down_three_relays_p50", taken[len(taken) // 2], "s", f"{len(taken)} new states")
    yield Figure("news_down_three_relays_p99", taken[-1 - len(taken) // 100], "s", "goal: 2")


class Listener:
    """A host that waits for news and notes how old each new state is when it comes."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
        self.generation = 0
        self.taken_s: list[float] = []
        self.closed = False

    def listen(self) -> None:
        """Wait for news until it is closed."""
        for sequence in itertools.count(2):
            report = heartbeat(self._identity, sequence, self.generation)
            try:
                answer = self._link.sync(SyncRequest(reports=(report,), wait_s=30.0))
            except Unavailable as error:
                if error.code == "link.closed" or self.closed:
                    return
                raise
            if answer.desired is not None:
                now = datetime.now(UTC)
                payload = base64.b64decode(answer.desired["payload"])
                state = msgspec.json.decode(payload, type=DesiredState)
                self.taken_s.append((now - state.issued_at).total_seconds())
                self.generation = state.generation

    def has_newer(self, generation: int) -> bool:
        """Tell whether a state has come that is newer than one."""
        return self.generation > generation

    def close(self) -> None:
        """Wait no more."""
        self.closed = True
        self._link.close()


def established(port: int) -> int:
    """Return how many connections of this machine to one of its ports are open."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[3] == "01" and int(row[2].rpartition(":")[2], 16) == port)
