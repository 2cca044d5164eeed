"""What the ingress adds to a request: one client, one kept connection, one request at a time, all ways in turn.

What answers is nginx with a fixed text. The ways: to it directly, through an nginx that passes on, through the host's
ingress, and through the ingress while every request is copied to a second release. With TLS both proxies have the same
certificate.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from skerry.ports.proxy import Backend, Entry, ProxyTable, Shadowing
from skerry.spec.ingress import Route
from skerry.spec.shadow import Shadow
from tests.bench.figure import Figure
from tests.contract.proxy_world import NAMES, EnvoyWorld, free_port

ROUNDS = 40
REQUESTS = 250
"""In each round, over each way."""
NAME, COPIED = NAMES
LIVE, TRIAL = "reader/main/1", "reader/main/2"
LIMIT_S = 20.0

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream behind {{ server 127.0.0.1:{backend}; keepalive 16; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{backend}; location / {{ return 200 "read"; }} }}
  server {{ listen 127.0.0.1:{other}; location / {{ return 200 "read"; }} }}
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {folder}/own.pem; ssl_certificate_key {folder}/own.key;
    location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Way:
    """A kept connection along one way, and what each request took, in seconds."""

    def __init__(self, port: int, context: ssl.SSLContext | None, name: str = NAME) -> None:
        line = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line = context.wrap_socket(line, server_hostname=name) if context else line
        self._request = f"GET / HTTP/1.1\r\nhost: {name}\r\n\r\n".encode()
        self.took_s: list[float] = []

    def ask(self) -> None:
        """Send one request, and note how long it took until all of the answer was there."""
        began = time.perf_counter()
        self._line.sendall(self._request)
        found = b""
        while not found.endswith(b"\r\n\r\nread"):
            piece = self._line.recv(4096)
            if not piece or b" 200 OK" not in (found + piece)[:32]:
                raise RuntimeError(f"unexpected answer: {(found + piece)[:200]!r}")
            found += piece
        self.took_s.append(time.perf_counter() - began)

    def quantile_us(self, share: float) -> float:
        """Return a quantile of what requests took."""
        return sorted(self.took_s)[int(share * (len(self.took_s) - 1))] * 1e6

    def close(self) -> None:
        """End the connection."""
        self._line.close()


def figures() -> Iterator[Figure]:
    """Measure all ways in one run."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        raise SystemExit("bench: needs nginx (Debian: nginx-light)")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_measure(program, Path(folder)))
    yield from _told(found)


async def _measure(program: str, folder: Path) -> dict[str, Way]:
    world = EnvoyWorld(folder)
    ports = {name: free_port() for name in ("backend", "other", "plain", "tls")}
    (folder / "own.pem").write_bytes(world.certificate.chain)
    (folder / "own.key").write_bytes(world.certificate.key)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, **ports))
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    nginx = await asyncio.to_thread(subprocess.Popen[bytes], command)
    try:
        await asyncio.to_thread(_until_listening, ports.values())
        await world.proxy.serve(_table(world, ports["backend"], ports["other"]))
        return await asyncio.to_thread(_ask_all, world, ports)
    finally:
        nginx.terminate()
        nginx.wait(LIMIT_S)
        await world.close()


def _table(world: EnvoyWorld, live: int, trial: int) -> ProxyTable:
    made = {tls: Route(name="main", component="web", port="http", tls=tls) for tls in ("site", "plain")}
    copies = Shadowing(TRIAL, Shadow(share="100%"))
    entries = (
        Entry("reader", made["site"], (NAME,), LIVE),
        Entry("reader", made["plain"], (NAME,), LIVE),
        Entry("press", made["plain"], (COPIED,), LIVE, b"", copies),
    )
    backends = Backend(LIVE, live), Backend(TRIAL, trial)
    return ProxyTable(world.ports, "skerry.internal", entries, backends, world.certificate)


def _ask_all(world: EnvoyWorld, ports: dict[str, int]) -> dict[str, Way]:
    context = ssl.create_default_context(cadata=world.certificate.trust.decode())
    ways = {
        "direct": Way(ports["backend"], None),
        "nginx": Way(ports["plain"], None),
        "ingress": Way(world.ports.http, None),
        "nginx_tls": Way(ports["tls"], context),
        "ingress_tls": Way(world.ports.https, context),
        "copied": Way(world.ports.http, None, COPIED),
    }
    for turn in range(ROUNDS + 1):
        for way in ways.values():
            for _ in range(REQUESTS):
                way.ask()
            if turn == 0:  # connections behind the proxies are made by the first requests
                way.took_s.clear()
    for way in ways.values():
        way.close()
    return ways


def _until_listening(ports: Iterable[int]) -> None:
    deadline = time.monotonic() + LIMIT_S
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _told(ways: dict[str, Way]) -> Iterator[Figure]:
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        direct = ways["direct"].quantile_us(share)
        added = {way: found.quantile_us(share) - direct for way, found in ways.items()}
        yield Figure(
            f"direct_{name}", direct, "us", f"{ROUNDS * REQUESTS} requests, keep-alive, one at a time"
        )
        yield Figure(f"ingress_added_{name}", added["ingress"], "us", f"nginx adds {added['nginx']:.0f} us")
        told = f"nginx with TLS adds {added['nginx_tls']:.0f} us"
        yield Figure(f"ingress_tls_added_{name}", added["ingress_tls"], "us", told)
        told = "every request copied to a second release and compared; without copies as above"
        yield Figure(f"ingress_copied_added_{name}", added["copied"], "us", told)
