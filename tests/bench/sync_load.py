"""Many hosts that sync as fast as a hub answers: `python -m tests.bench.sync_load FOLDER HUB_PID < join token`.

Each host joins for real and keeps one TLS connection. Its reports are signed before the clock runs and written
as ready requests, so that what is measured is the hub. The result is one line of JSON: see `Measured`.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop

from skerry.agent.commands import join_site
from skerry.agent.identity import Identity, load_identity
from skerry.carrier.dialling import upstream_context
from skerry.carrier.link import HttpLink
from skerry.spec.carrier import SyncRequest
from skerry.spec.desired import DesiredState
from skerry.spec.report import REPORT_TYPE, Report
from skerry.trust.envelope import sign_document
from tests.bench.process_usage import cpu_s_of

HOSTS = 48
WARM_UP = 40
ROUNDS = 400


class Measured(msgspec.Struct, frozen=True):
    """What the hub did between the end of the warm-up and the last answer."""

    requests: int
    hub_cpu_s: float
    wall_s: float
    p50_ms: float
    p99_ms: float


def join_hosts(folder: Path, token: str) -> list[Identity]:
    """Enrol all hosts and return who they are."""
    names = [f"load-{number:02}" for number in range(HOSTS)]
    for name in names:
        join_site(folder / name, token, host=name)
    return [load_identity(folder / name) for name in names]


def held_generation(identity: Identity) -> int:
    """Return the generation a host would hold once it is in step with its site."""
    link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
    try:
        answer = link.sync(SyncRequest(reports=(heartbeat(identity, 2, 0),)))
    finally:
        link.close()
    assert answer.desired is not None
    return msgspec.json.decode(base64.b64decode(answer.desired["payload"]), type=DesiredState).generation


def heartbeat(identity: Identity, sequence: int, generation: int) -> dict[str, object]:
    """Return the signed report of a host that has nothing to say."""
    now = datetime.now(UTC)
    report = Report(
        host=identity.place.host,
        site=identity.place.site,
        sequence=sequence,
        sent_at=now,
        clock=now,
        generation=generation,
    )
    return sign_document(report, REPORT_TYPE, identity.key)


def write_requests(identity: Identity, sequences: Sequence[int], generation: int) -> list[bytes]:
    """Return ready HTTP requests, one fresh heartbeat each, with the headers an agent sends."""
    requests: list[bytes] = []
    for sequence in sequences:
        body = msgspec.json.encode(SyncRequest(reports=(heartbeat(identity, sequence, generation),)))
        head = (
            f"POST /v1/sync HTTP/1.1\r\nHost: {urlsplit(identity.place.upstream).netloc}\r\n"
            "Accept-Encoding: identity\r\n"
            f"Content-Length: {len(body)}\r\nUser-Agent: python-urllib3\r\nContent-Type: application/json\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Host:
    """One connection that sends its requests one after the other."""

    def __init__(self, identity: Identity, first: int, generation: int) -> None:
        self._identity = identity
        self._first = first
        self._requests = write_requests(
            identity, range(first, first + WARM_UP + ROUNDS), generation=generation
        )
        self._sent = 0
        self.waits_s: list[float] = []

    async def open(self) -> None:
        """Connect and shake hands."""
        parts = urlsplit(self._identity.place.upstream)
        self._reader, self._writer = await asyncio.open_connection(
            parts.hostname, parts.port, ssl=upstream_context(self._identity.trust_root.ca_pem)
        )

    async def send(self, count: int) -> None:
        """Send the next requests; each answer must acknowledge what was sent."""
        for _ in range(count):
            begun = time.perf_counter()
            self._writer.write(self._requests[self._sent])
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await self._reader.readexactly(length)
            self.waits_s.append(time.perf_counter() - begun)
            expected = b'"acknowledged":%d' % (self._first + self._sent)
            assert head.startswith(b"HTTP/1.1 200 ") and expected in body, head + body
            self._sent += 1


async def measure(hosts: Sequence[Host], hub_pid: int) -> Measured:
    """Let all hosts sync at once and return what it took the hub."""
    for host in hosts:
        await host.open()
    await asyncio.gather(*(host.send(WARM_UP) for host in hosts))
    for host in hosts:
        host.waits_s.clear()
    begun, cpu_begun = time.perf_counter(), cpu_s_of(hub_pid)
    await asyncio.gather(*(host.send(ROUNDS) for host in hosts))
    wall_s, hub_cpu_s = time.perf_counter() - begun, cpu_s_of(hub_pid) - cpu_begun
    waits_s = sorted(wait for host in hosts for wait in host.waits_s)
    return Measured(
        requests=len(waits_s),
        hub_cpu_s=hub_cpu_s,
        wall_s=wall_s,
        p50_ms=waits_s[len(waits_s) // 2] * 1e3,
        p99_ms=waits_s[len(waits_s) * 99 // 100] * 1e3,
    )


def main() -> None:
    """Run the load that the command line names."""
    folder, hub_pid, token = Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.read()
    identities = join_hosts(folder, token)
    generation = held_generation(identities[0])
    hosts = [Host(identity, 3, generation) for identity in identities]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(measure(hosts, hub_pid))
    print(msgspec.json.encode(measured).decode())


if __name__ == "__main__":
    main()
