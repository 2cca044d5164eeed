"""What a host sees of a hub, held by a test: identities, and links that answer as scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from skerry.agent.identity import Identity, Place
from skerry.carrier.hub_trust import HubTrust
from skerry.kit.errors import Denied, Missing, SkerryError, Unavailable
from skerry.spec.carrier import (
    TIME_TYPE,
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    HubTime,
    JsonEnvelope,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.spec.report import REPORT_TYPE, Report
from skerry.testing.signing import SignedRepository
from skerry.trust.envelope import sign_document, verify_document
from skerry.trust.keys import SigningKey

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HUB, STRANGER, HOST = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
SIGNED = SignedRepository(HUB, now=NOW)
NOWHERE = Path("/nonexistent/metadata")


def identity(signed: SignedRepository | None = None, folder: Path = NOWHERE) -> Identity:
    """Return the identity of host edge of site harbour; metadata that it keeps goes into `folder`."""
    place = Place(host="edge", site="harbour", upstream="https://hub:8443", root="sha256:" + "0" * 64)
    root = (signed or SIGNED).trust_root()
    return Identity(place, HOST, root, HubTrust(root.root_bytes, folder))


def report_of(envelope: JsonEnvelope) -> Report:
    """Return the report of an envelope, which must be signed by the host."""
    return verify_document(envelope, REPORT_TYPE, Report, [HOST.verifier])


def report_envelope(sequence: int, *, key: SigningKey = HOST, **changes: Any) -> JsonEnvelope:
    """Return a signed report of host edge of site harbour."""
    report = Report(host="edge", site="harbour", sequence=sequence, sent_at=NOW, clock=NOW)
    return sign_document(msgspec.structs.replace(report, **changes), REPORT_TYPE, key)


def desired(generation: int, *, key: SigningKey = HUB, at: datetime = NOW, **changes: Any) -> JsonEnvelope:
    """Return a signed DesiredState of site harbour."""
    document = DesiredState(
        site="harbour", generation=generation, issued_at=at, expires_at=at + timedelta(days=60)
    )
    return sign_document(msgspec.structs.replace(document, **changes), DESIRED_STATE_TYPE, key)


def hub_time(sequence: int, now: datetime, *, host: str = "edge") -> JsonEnvelope:
    """Return the hub's signed time in answer to a report."""
    return sign_document(HubTime(host=host, sequence=sequence, now=now), TIME_TYPE, HUB)


class ScriptedLink:
    """A Link whose answers a function of the test makes from the request and its newest report."""

    def __init__(self, answer: Callable[[SyncRequest, Report], SyncAnswer]) -> None:
        self.answer = answer
        self.requests: list[SyncRequest] = []
        self.signed = SIGNED
        self.metadata_asked: list[str] = []

    @property
    def reports(self) -> list[list[Report]]:
        """The reports of each request."""
        return [[report_of(envelope) for envelope in request.reports] for request in self.requests]

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Never used here."""
        raise AssertionError

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Answer as scripted."""
        self.requests.append(request)
        return self.answer(request, report_of(request.reports[-1]))

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Know of no deltas."""
        return DeltaAnswer()

    def metadata(self, name: str, *, token: str, max_bytes: int) -> bytes | None:
        """Serve the repository's files."""
        self.metadata_asked.append(name)
        content = self.signed.file(name)
        assert content is None or len(content) <= max_bytes
        return content

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Never used here."""
        raise AssertionError

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


class BlobLink(ScriptedLink):
    """A Link that serves blobs and cuts each next answer after a stated number of bytes; it counts what it sends.

    Questions for deltas get the next of `delta_answers`, the last one again and again; without any there are none.
    """

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(lambda _, newest: SyncAnswer(acknowledged=newest.sequence))
        self.contents = contents
        self.cuts: list[int] = []
        self.token = "good"
        self.asked: list[tuple[int, str]] = []
        self.opened: list[tuple[str, int]] = []
        self.delta_answers: list[DeltaAnswer | SkerryError] = []
        self.delta_requests: list[DeltaRequest] = []
        self.sent_bytes = 0
        self.served = threading.Semaphore(0)

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Answer as scripted."""
        self.delta_requests.append(request)
        if token != self.token:
            raise Denied("blob_token.expired", "the blob token has expired")
        if not self.delta_answers:
            return DeltaAnswer()
        answer = self.delta_answers.pop(0) if len(self.delta_answers) > 1 else self.delta_answers[0]
        if isinstance(answer, SkerryError):
            raise answer
        return answer

    @contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        """Serve a blob from `offset`."""
        self.asked.append((offset, token))
        self.opened.append((digest, offset))
        self.served.release()
        if token != self.token:
            raise Denied("blob_token.expired", "the blob token has expired")
        if digest not in self.contents:
            raise Missing("blob.missing", f"there is no blob {digest}")
        yield self._chunks(self.contents[digest][offset:][:limit], self.cuts.pop(0) if self.cuts else None)

    def blob_size(self, digest: str, *, token: str) -> int | None:
        """Say how long a blob is that is served."""
        content = self.contents.get(digest)
        return None if content is None else len(content)

    def _chunks(self, content: bytes, cut_after: int | None) -> Iterator[bytes]:
        end = len(content) if cut_after is None else min(cut_after, len(content))
        for start in range(0, end, 1000):
            chunk = content[start : min(start + 1000, end)]
            self.sent_bytes += len(chunk)
            yield chunk
        if cut_after is not None:
            raise Unavailable("link.cut", "the blob was cut off")
