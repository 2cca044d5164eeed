"""One host of a site without its reconciler: the real neighbour loop, and an application that is a line in a file.

Run as `python -m tests.e2e.neighbour_host CONFIG`. It appends `start` and `end` with the machine's monotonic time to
`FOLDER/app.log`, and keeps how it sees its neighbours in `FOLDER/views.json`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import msgspec

from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.adapters.system_clock import SystemClock
from skerry.adapters.udp_datagrams import UdpDatagrams
from skerry.agent.identity import Identity, Place
from skerry.agent.loops.neighbours import AppStatus, NeighbourLoop
from skerry.carrier.hub_trust import HubTrust
from skerry.kit.durable import write_file
from skerry.spec.desired import DesiredState
from skerry.testing.signing import SignedRepository
from skerry.trust.keys import SigningKey

APP = "reader"
ENDING_S = 0.3


class HostConfig(msgspec.Struct, frozen=True):
    """What the program needs to know."""

    host: str
    pem: bytes
    address: str
    folder: str
    desired: DesiredState


class Application:
    """Runs when it is told to, and takes a while to end."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._ending: asyncio.Task[None] | None = None
        self.alive = False

    def note(self, what: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{what} {time.monotonic():.3f}\n")

    def obey(self, active: bool) -> None:
        if active and self._ending is not None:
            self._ending.cancel()
            self._ending = None
        elif active and not self.alive:
            self.alive = True
            self.note("start")
        elif self.alive and not active and self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        await asyncio.sleep(ENDING_S)
        self.alive, self._ending = False, None
        self.note("end")


async def main(config: HostConfig) -> None:
    folder = Path(config.folder)
    store, _ = SqliteAgentStore.open(folder / "agent.db")
    root = SignedRepository(SigningKey.generate()).trust_root()
    place = Place(config.host, config.desired.site, "https://10.77.0.254:8443", "sha256:" + "0" * 64)
    identity = Identity(
        place, SigningKey.from_pem(config.pem), root, HubTrust(root.root_bytes, folder / "metadata")
    )
    loop = NeighbourLoop(identity, UdpDatagrams(), store, SystemClock(), stated=config.address)
    application = Application(folder / "app.log")
    changed = asyncio.Event()
    loop.on_change = changed.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit, 0)
    await loop.settle()
    loop.follow(config.desired)
    running = asyncio.create_task(loop.run_forever())
    while not running.done():
        changed.clear()
        loop.tell({APP: AppStatus(able=True, alive=application.alive)})
        application.obey(loop.duties()[APP].active)
        loop.tell({APP: AppStatus(able=True, alive=application.alive)})
        write_file(folder / "views.json", msgspec.json.encode(loop.views()))
        waiting = asyncio.ensure_future(changed.wait())
        await asyncio.wait((waiting, running), timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=HostConfig)))
