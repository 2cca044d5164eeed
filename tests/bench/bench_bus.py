"""The message bus of a host: 20 applications, of which 10 publish 256 bytes at a time and 10 read, all at once.

Clients are mosquitto's, on the same machine: what they take is in the rates, and not in the CPU time of the broker.
Messages with quality of service 1 are acknowledged when they are stored for a durable reader.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from skerry.ports.broker import BusAccount
from tests.bench.figure import Figure
from tests.bench.process_usage import cpu_s_of, memory_of
from tests.contract.bus_world import HERE, BusWorld

PAIRS = 10
MESSAGES = 2000
_PAYLOAD = "x" * 256
_LIMIT_S = 300


def figures() -> Iterator[Figure]:
    """Measure both brokers."""
    for kind in ("nats", "mosquitto"):
        with tempfile.TemporaryDirectory() as folder:
            yield from asyncio.run(_measure(kind, Path(folder)))


async def _measure(kind: str, folder: Path) -> list[Figure]:
    world = BusWorld(kind, folder)
    writers = [BusAccount(user=f"w{n}", password=f"pw-{n}", publish=(f"line/{n}/#",)) for n in range(PAIRS)]
    readers = [BusAccount(user=f"r{n}", password=f"pr-{n}", subscribe=(f"line/{n}/#",)) for n in range(PAIRS)]
    found: list[Figure] = []
    try:
        await world.apply(*writers, *readers)
        pid = (await world.broker.state()).pid
        for account in (*writers, *readers):
            world.open(account)
        found.append(Figure(f"{kind}_rss_with_20_applications", _mb(pid), "MB"))
        began = time.monotonic()
        await world.apply(*writers, *readers, BusAccount(user="new", password="of-the-new", publish=("n",)))
        found.append(Figure(f"{kind}_one_more_application", time.monotonic() - began, "s"))
        for quality in (0, 1):
            cpu = cpu_s_of(pid)
            took = await asyncio.to_thread(_exchange, world, writers, readers, quality)
            cpu, count = cpu_s_of(pid) - cpu, PAIRS * MESSAGES
            found.append(Figure(f"{kind}_messages_qos_{quality}", count / took, "per s"))
            found.append(Figure(f"{kind}_cpu_per_message_qos_{quality}", cpu / count * 1e6, "us"))
        found.append(Figure(f"{kind}_rss_after_the_messages", _mb(pid), "MB"))
    finally:
        await world.close()
    return found


def _exchange(world: BusWorld, writers: list[BusAccount], readers: list[BusAccount], quality: int) -> float:
    """Send all messages and return how many seconds it took until all were read."""
    where = ["-h", HERE, "-p", str(world.settings.port), "-q", str(quality)]
    lines = (f"{_PAYLOAD}\n" * MESSAGES).encode()
    reading = [
        subprocess.Popen(
            ["mosquitto_sub", *where, "-u", a.user, "-P", a.password, "-i", f"{a.user}-bench-{quality}", "-c",
             "-t", a.subscribe[0], "-C", str(MESSAGES), "-W", str(_LIMIT_S)],
            stdout=subprocess.DEVNULL,
        )
        for a in readers
    ]  # fmt: skip
    time.sleep(2.0)  # until they have subscribed: nothing tells that they have
    began = time.monotonic()
    writing = [
        subprocess.Popen(
            ["mosquitto_pub", *where, "-u", a.user, "-P", a.password, "-t", f"line/{n}/a", "-l"],
            stdin=subprocess.PIPE,
        )
        for n, a in enumerate(writers)
    ]
    for process in writing:
        process.communicate(lines, timeout=_LIMIT_S)
    for process in reading:
        if process.wait(_LIMIT_S) != 0:
            raise RuntimeError("a reader did not get all messages")
    return time.monotonic() - began


def _mb(pid: int) -> float:
    return memory_of(pid).rss / 1e6
