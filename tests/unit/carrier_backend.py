"""A backend for the carrier app that does as a test says, and the messages and tokens the tests send it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing
from skerry.ports.blobs import Blobs
from skerry.ports.carrier_backend import Gone
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaAvailable,
    DeltaComing,
    DeltaQuestion,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest
from skerry.testing.memory import MemoryBlobs
from skerry.trust.tokens import issue_blob_token, verify_blob_token
from tests.unit.upstream import HOST, HUB, NOW, SIGNED, STRANGER, report_envelope

CONTENT = bytes(range(256)) * 4000
DIGEST = digest_of(CONTENT)
GOOD = issue_blob_token("edge", "harbour", NOW + timedelta(hours=1), HUB)
OLD = issue_blob_token("edge", "harbour", NOW - timedelta(seconds=1), HUB)
FOREIGN = issue_blob_token("edge", "harbour", NOW + timedelta(hours=1), STRANGER)
REQUEST = SyncRequest(reports=(report_envelope(1),))
ENROLL = EnrollRequest(secret="s", host="edge", sign_key=HOST.public, seal_key="", proof=report_envelope(1))
QUESTIONS = DeltaRequest(wanted=(DeltaQuestion(target=DIGEST, bases=((digest_of(b"old"),), ())),))
DELTAS = DeltaAnswer(
    available=(DeltaAvailable(target=DIGEST, base=(), delta=digest_of(b"delta"), size_bytes=7),),
    coming=(DeltaComing(target=DIGEST, base=(digest_of(b"old"),), left_s=2.5),),
)


class Backend:
    """A CarrierBackend that answers at once, or raises what it is told to."""

    def __init__(self) -> None:
        self.memory = MemoryBlobs()
        self.blobs: Blobs = self.memory
        self.error: Exception | None = None
        self.syncs: list[SyncRequest] = []
        self.enrolls: list[EnrollRequest] = []
        self.questions: list[tuple[str, DeltaRequest]] = []
        self.delta_answer = DeltaAnswer()
        self.waits = threading.Event()

    async def trust_root(self, digest: str) -> bytes:
        return b'{"root": 1}'

    async def metadata(self, name: str) -> bytes:
        content = SIGNED.file(name)
        if content is None:
            raise Missing("metadata.absent", f"there is no metadata file {name}")
        return content

    async def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        raise AssertionError

    async def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        self.enrolls.append(request)
        return EnrollAnswer(site="harbour", host=request.host)

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        self.syncs.append(request)
        if self.error is not None:
            raise self.error
        if request.wait_s:
            self.waits.set()
            await asyncio.sleep(request.wait_s)
        return SyncAnswer(acknowledged=7)

    async def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        raise AssertionError

    async def carry(self, request: CarryRequest) -> CarryAnswer:
        raise AssertionError

    def check_blob_token(self, token: str) -> str:
        return verify_blob_token(token, {HUB.key_id: HUB.verifier}, NOW).host

    def hosts_behind(self, holder: str) -> int:
        return 1

    async def deltas(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        self.questions.append((host, request))
        return self.delta_answer
