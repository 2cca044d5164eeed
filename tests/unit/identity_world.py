"""Machines with real outboxes and key files that talk to a real hub's backend without a network."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from skerry.agent.identity import Identity, Place
from skerry.agent.keys import KeyFiles
from skerry.agent.loops.sync import Syncer
from skerry.agent.rotating import settle_keys
from skerry.carrier.hub_trust import HubTrust
from skerry.kit.errors import SkerryError
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest
from skerry.spec.report import REPORT_TYPE, Report
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.envelope import sign_document
from tests.unit.test_hub_backend import Harbour

T = TypeVar("T")


class BackendLink:
    """A Link into a backend in the test's own loop. `cut` may raise before or after the hub has answered."""

    def __init__(self, harbour: Harbour) -> None:
        self._backend = harbour.backend
        self._loop = asyncio.get_running_loop()
        self.cut: Callable[[str], None] = lambda _: None

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Hand it over."""
        return self._run(self._backend.enroll(request))

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Hand it over."""
        return self._run(self._backend.change_keys(request))

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Hand it over."""
        return self._run(self._backend.sync(request))

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Know of none."""
        return DeltaAnswer()

    def metadata(self, name: str, *, token: str, max_bytes: int) -> bytes | None:
        """Have none."""
        return None

    def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Never used here."""
        raise AssertionError

    def carry(self, request: CarryRequest) -> CarryAnswer:
        """Never used here."""
        raise AssertionError

    def blob_size(self, digest: str, *, token: str) -> int | None:
        """Have none."""
        return None

    @contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        """Serve nothing."""
        yield iter(())

    def close(self) -> None:
        """Hold nothing."""

    def _run(self, asked: Coroutine[Any, Any, T]) -> T:
        try:
            self.cut("before")
        except BaseException:
            asked.close()
            raise
        answer = asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)
        self.cut("after")
        return answer


class Machine:
    """A data directory's keys, an agent's store, and a run of the agent on them."""

    def __init__(self, harbour: Harbour, folder: Path, name: str = "edge", mark: str = "aaaaaaaa") -> None:
        self.harbour, self.folder, self.mark = harbour, folder, mark
        root = harbour.hub.keys.trust_root
        self.place = Place(host=name, site="harbour", upstream="https://hub:8443", root="")
        self.trust = HubTrust(root.root_bytes, folder / "metadata")
        self.files = KeyFiles(folder)
        self.store = MemoryAgentStore()
        self.link = BackendLink(harbour)
        self._root = root

    async def join(self, secret: str, *, staged: bool = False) -> None:
        """Enrol with the keys of this directory, or with new ones beside them."""
        made = self.files.stage() if staged else self.files.make()
        now = self.harbour.clock.now()
        proof = Report(host=self.place.host, site=self.place.site, sequence=1, sent_at=now, clock=now)
        request = EnrollRequest(
            secret=secret,
            host=self.place.host,
            sign_key=made.sign.public,
            seal_key=made.seal_public,
            proof=sign_document(proof, REPORT_TYPE, made.sign),
        )
        await asyncio.to_thread(self.link.enroll, request)
        self.files.promote()

    def start(self) -> None:
        """Start the agent, anew."""
        identity = Identity(self.place, self.files.load(), self._root, self.trust)
        session = f"{self.mark}-{secrets.token_hex(8)}"
        self.agent = Syncer(identity, self.store, self.link, self.harbour.clock, session=session)

    async def exchange(self) -> str:
        """Exchange once; return the code of the refusal, or nothing."""
        try:
            await self.agent.exchange(0.0)
        except SkerryError as error:
            return error.code
        return ""

    async def settle(self) -> None:
        """Change the keys, and sign with the new one."""
        self.agent.take_key(await asyncio.to_thread(settle_keys, self.files, self.place, self.link))

    def copied(self, folder: Path, mark: str = "bbbbbbbb") -> Machine:
        """Return another machine with a copy of this one's disk."""
        shutil.copytree(self.folder, folder)
        other = Machine(self.harbour, folder, self.place.host, mark)
        for key in ("sequence", "met", "desired", "time"):
            other.store.save({key: self.store.load(key)})
        for report in self.store.reports(1000):
            other.store.put_report(report)
        return other
