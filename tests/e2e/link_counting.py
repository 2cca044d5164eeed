"""What a host's link carried, by those who know: the kernel, socket by socket, and the agent's own count.

Rules:
- A blob's connections are known by their receive buffer: that of a paced reader is fixed, others grow. So a site
  has to state a rate, and `RATE` is one whose buffer nothing else has.
- The kernel tells of a socket what was received in order, without what came twice or was lost: TLS, the heads of the
  answers and their bodies. Sockets that were closed tell nothing more, so `look` is called again and again.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from skerry.kit.digests import hex_of
from skerry.testing.fleet import AgentProcess, Fleet
from skerry.testing.lan import Lan

RATE = 16_000
"""Bytes per second: 128 kbit/s."""
RECEIVE_BUFFER = 16 << 10
"""What may be on its way to the agent and not on its disk, at this rate."""
TLS_HANDSHAKE = 4 << 10
"""More than a handshake's share of a connection's bytes."""
HEADS = 1 << 10
"""What the agent counts for the heads of a request and its answer; no preview has them."""

_ASK = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=5)
connection.request("GET", "/")
print(connection.getresponse().read().decode(), end="")
"""
_CLOSED = ("FIN-WAIT-2", "TIME-WAIT")
_SOCKET = re.compile(r"\S+:(\d+)\s+\S+.*\brb(\d+)\b")


class SocketCounts:
    """The bytes that a host's sockets to its hub received and sent, by the kernel's count."""

    def __init__(self, lan: Lan, host: str) -> None:
        self._lan = lan
        self._host = host
        self._blobs: dict[str, int] = {}
        self._others: dict[str, int] = {}

    @property
    def blobs(self) -> int:
        """What blobs' connections received, so far as `look` saw them."""
        return sum(self._blobs.values())

    @property
    def connections(self) -> int:
        """How many connections blobs came on."""
        return len(self._blobs)

    @property
    def others(self) -> int:
        """What all other connections to the hub received and sent."""
        return sum(self._others.values())

    def look(self) -> bool:
        """Look at all sockets; true, so that it may stand in a condition."""
        listed = self._lan.run(self._host, ["ss", "-tinHOm", "dst", self._lan.gateway])
        for line in listed.splitlines():
            if line.startswith(_CLOSED):
                continue  # its process has gone, and with it what the kernel counted
            found = _SOCKET.search(line)
            assert found is not None, line
            received, sent = (_figure(line, name) for name in ("bytes_received", "bytes_sent"))
            if int(found[2]) == 2 * RECEIVE_BUFFER:  # the kernel doubles what it is asked for
                self._blobs[found[1]] = received
            else:
                self._others[found[1]] = received + sent
        return True


def day_usage(agent: AgentProcess) -> int:
    """Return the bytes of today as they are on the agent's disk: all that it read and reported."""
    database = sqlite3.connect(f"file:{agent.data / 'agent.db'}?mode=ro", uri=True)
    try:
        row = database.execute("SELECT value FROM documents WHERE key = 'link_usage'").fetchone()
    finally:
        database.close()
    return int(json.loads(row[0])["day"]["used"]) if row else 0


def held_bytes(agent: AgentProcess, digest: str) -> int:
    """Return how many bytes of a blob an agent holds that are not whole yet."""
    partial = agent.data / "blobs" / "partial" / hex_of(digest)
    return partial.stat().st_size if partial.exists() else 0


def whole_blobs(agent: AgentProcess) -> dict[str, int]:
    """Return the sizes of the blobs that an agent holds, by digest."""
    files = (agent.data / "blobs" / "sha256").glob("??/*")
    return {f"sha256:{file.name}": file.stat().st_size for file in files}


def made_deltas(hub_data: Path) -> dict[str, int]:
    """Return the sizes of the deltas that a hub keeps, by digest."""
    files = (hub_data / "deltas" / "sha256").rglob("*")
    return {f"sha256:{file.name}": file.stat().st_size for file in files if file.is_file()}


def document_bytes(fleet: Fleet, release: str) -> int:
    """Return how long a release's document is, which no preview counts."""
    (listed,) = [one for one in fleet.get("get", "releases") if one["name"] == release]
    (document,) = (fleet.hub.data / "blobs").rglob(hex_of(listed["digest"]))
    return document.stat().st_size


def fetched_message(fleet: Fleet, release: str) -> str:
    """Return what a host says of how a release came to it, or an empty text."""
    listed: list[dict[str, Any]] = fleet.get("get", "events", "--limit", "500")
    told = [event["event"] for event in listed if event["event"]["kind"] == "release.fetched"]
    messages = [str(event["message"]) for event in told]
    return next((message for message in messages if message.startswith(f"{release}: ")), "")


def ask_there(lan: Lan, host: str, endpoint: str) -> str:
    """Return what answers at an endpoint of a host, or an empty text."""
    if not endpoint:
        return ""
    done = subprocess.run(
        lan.command(host, [sys.executable, "-c", _ASK, endpoint]),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout


def _figure(line: str, name: str) -> int:
    found = re.search(rf"\b{name}:(\d+)", line)
    return int(found[1]) if found else 0
