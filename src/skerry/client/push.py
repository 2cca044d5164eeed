"""Carries a prepared release to the hub: only the blobs it lacks, each from the byte where it stands.

Rules: a broken connection is tried again with growing pauses, and the hub is asked where the upload stands
rather than guessed; patience is counted anew whenever a byte has arrived; the release is signed and published last,
so that a release on the hub always has its blobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from skerry.client.client import Client
from skerry.client.snapping_report import SnapOutcome
from skerry.client.source_files import SourceFile, changed, identity_of, open_source
from skerry.client.sources import PreparedRelease
from skerry.kit.errors import Bug, Conflict, Rejected, Unavailable
from skerry.spec.api import BlobRef, ReleaseView

T = TypeVar("T")

Publish = Callable[[PreparedRelease], tuple[ReleaseView, bool]]
"""Signs a release and hands it to the hub, once its blobs are there; tells whether it is new to the hub."""

CHUNK_BYTES = 8 << 20
_MISSING_BATCH = 10_000
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


class PushProgress(msgspec.Struct, frozen=True):
    """How far a push is: of all bytes that have to travel, and which file is on its way."""

    step: Literal["upload", "wait", "release"]
    path: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    message: str = ""


class PushResult(msgspec.Struct, frozen=True):
    """What a push did. `skipped_bytes` the hub had already; `created` tells whether the release was new.

    `snapping` is what was snapped before, if that was asked for.
    """

    release: ReleaseView
    created: bool
    uploaded_bytes: int
    skipped_bytes: int
    uploaded_blobs: int
    snapping: SnapOutcome | None = None


class PushPlan(msgspec.Struct, frozen=True):
    """What has to travel: each blob with its file and the offset where its upload stands."""

    uploads: tuple[tuple[SourceFile, int], ...]
    total_bytes: int

    @property
    def missing_bytes(self) -> int:
        """How many bytes the hub lacks."""
        return sum(source.size_bytes - offset for source, offset in self.uploads)


def plan_push(client: Client, prepared: PreparedRelease) -> PushPlan:
    """Return what the hub lacks of a release.

    Raises:
        Rejected: it lacks a blob that the documents name by digest alone (`push.no_source`).
    """
    sizes = {str(file.digest): file.size_bytes for file in prepared.release.files() if file.digest}
    sizes |= {one.digest: one.size_bytes for one in prepared.evidence}
    blobs = [BlobRef(digest=digest, size_bytes=size_bytes) for digest, size_bytes in sorted(sizes.items())]
    uploads: list[tuple[SourceFile, int]] = []
    for start in range(0, len(blobs), _MISSING_BATCH):
        for blob in client.missing(blobs[start : start + _MISSING_BATCH]).missing:
            source = prepared.sources.get(blob.digest)
            if source is None:
                hint = "name a source for it, or push the release that brings it first"
                raise Rejected(
                    "push.no_source", f"the hub lacks {blob.digest}, and no source is given", hint=hint
                )
            uploads.append((source, blob.offset))
    return PushPlan(tuple(uploads), sum(sizes.values()))


def push_release(
    client: Client,
    prepared: PreparedRelease,
    publish: Publish,
    on_progress: Callable[[PushProgress], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> PushResult:
    """Bring a release to the hub, and return what that took. Pushing the same release again changes nothing.

    `publish` is most often `Publishing.publish_release`.

    Raises:
        Unavailable: the hub stayed away for about a minute without taking a byte.
        Conflict: another release of that name and version is there already.
        Rejected: a file has changed since it was hashed.
    """
    push = _Push(client, on_progress, sleep)
    plan = push.retrying(lambda: plan_push(client, prepared))
    push.total_bytes = plan.missing_bytes
    for source, offset in plan.uploads:
        push.upload(source, offset)
    on_progress(PushProgress("release", done_bytes=push.uploaded_bytes, total_bytes=push.total_bytes))
    view, created = push.retrying(lambda: publish(prepared))
    return PushResult(
        release=view,
        created=created,
        uploaded_bytes=push.uploaded_bytes,
        skipped_bytes=plan.total_bytes - plan.missing_bytes,
        uploaded_blobs=len(plan.uploads),
    )


class _Push:
    """One push under way."""

    def __init__(
        self, client: Client, on_progress: Callable[[PushProgress], None], sleep: Callable[[float], None]
    ) -> None:
        self._client = client
        self._on_progress = on_progress
        self._sleep = sleep
        self._failures = 0
        self.uploaded_bytes = 0
        self.total_bytes = 0

    def retrying(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                return ask()
            except Unavailable as error:
                self._wait(error)

    def upload(self, source: SourceFile, offset: int) -> None:
        """Upload a file from `offset` on."""
        blob = BlobRef(digest=source.digest, size_bytes=source.size_bytes)
        with open_source(source.path) as file:
            complete = False
            while not complete:
                before = offset
                file.seek(source.start + offset)
                chunk = file.read(min(CHUNK_BYTES, source.size_bytes - offset))
                if identity_of(file) != source.identity:
                    raise changed(source.path)
                stalled: Unavailable | None = None
                try:
                    offset, complete = self._send(blob, offset, chunk)
                    if offset <= before and not complete:
                        stalled = Unavailable("push.no_progress", f"{source.known_as} stays at byte {offset}")
                except Unavailable as error:
                    stalled = error
                if stalled:
                    self._wait(stalled)
                    offset, complete = self.retrying(lambda: self._standing(blob))
                self._advance(source, before, offset)

    def _send(self, blob: BlobRef, offset: int, chunk: bytes) -> tuple[int, bool]:
        try:
            answer = self._client.upload(blob, offset=offset, chunk=chunk)
        except Conflict as error:
            # The hub knows better where the upload stands: another push may be at work on the same blob.
            stated = error.facts.get("offset")
            if not isinstance(stated, int):
                raise
            return stated, False
        return answer.offset, answer.complete

    def _advance(self, source: SourceFile, before: int, offset: int) -> None:
        if not 0 <= offset <= source.size_bytes:
            raise Bug("hub.strange_answer", f"the hub says that {source.known_as} stands at byte {offset}")
        if offset > before:
            self._failures = 0
        self.uploaded_bytes += offset - before
        self._on_progress(
            PushProgress(
                "upload", source.known_as, done_bytes=self.uploaded_bytes, total_bytes=self.total_bytes
            )
        )

    def _standing(self, blob: BlobRef) -> tuple[int, bool]:
        """Return where a blob's upload stands, as the hub says, and whether it is whole."""
        for missing in self._client.missing([blob]).missing:
            return missing.offset, False
        return blob.size_bytes, True

    def _wait(self, error: Unavailable) -> None:
        if self._failures >= len(_PAUSES_S):
            raise error
        pause_s = _PAUSES_S[self._failures]
        self._failures += 1
        self._on_progress(PushProgress("wait", message=f"{error.message}; trying again in {pause_s:g} s"))
        self._sleep(pause_s)
