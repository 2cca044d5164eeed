"""Applies deltas to files: into a file beside, block by block, renamed when the whole is right.

Rules:
- The target's name appears only with the target's content; a failed or cut attempt leaves it as it was.
- After each block its content is synced before the note that says so: what a note says is on the disk.
- A later process goes on from the note; the delta is then read from that byte on. Without a good note it begins anew.
- Blocks come from the delta alone, digests of the whole from the caller, who has them from a signed document.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from skerry.adapters import durable_files
from skerry.adapters.joined_files import open_joined
from skerry.delivery.delta_apply import DeltaApplier, Progress, verify_base, verify_header
from skerry.delivery.delta_format import Header, Reading, read_header
from skerry.delivery.words import Words
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import Digest
from skerry.kit.durable import write_file
from skerry.kit.errors import Untrusted

# A note is a header and how far it came.
_MAX_NOTE_BYTES = 4096
_MAKING, _NOTE = ".making", ".making.note"
_TRUNCATED = "delta.truncated"

# Opens the delta at a byte: a file, or a request with `Range`.
OpenDelta = Callable[[int], Reading]


class DeltaJob(msgspec.Struct, frozen=True):
    """What is to be made of what: the old file is the content of all of `base`, one after the other.

    With `base_digest` the base is known to be that content, say because it was checked when it was stored under
    that name; without, it is read and hashed first. What is unfinished is kept in `workplace`, which must be on
    the same file system as the target; beside the target if there is none.
    """

    base: tuple[Path, ...]
    target: Path
    target_digest: Digest
    target_size_bytes: int
    base_digest: Digest | None = None
    workplace: Path | None = None

    def beside(self, suffix: str) -> Path:
        """Return the path of something unfinished."""
        return (self.workplace or self.target.parent) / f"{self.target.name}{suffix}"


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept beside the unfinished file: which delta it is of, and how far it came."""

    header: Header
    progress: Progress


def apply_delta_file(job: DeltaJob, open_delta: OpenDelta, *, words: Words) -> None:
    """Make the job's target, going on where an earlier attempt stopped; a target that is there is replaced.

    What `open_delta` and its reading raise goes through; the blocks before it are kept.

    Raises:
        Untrusted: the delta is of other files, or damaged, truncated or malicious (`delta.*`).
        Unavailable: the disk is full (`disk.full`) or cannot be written (`disk.unwritable`).
    """
    making = job.beside(_MAKING)
    try:
        with open_joined(job.base) as old, _open_output(making) as output:
            _Attempt(job, old, output, words).run(open_delta)
        durable_files.move_durably(making, job.target)
        job.beside(_NOTE).unlink(missing_ok=True)
    except OSError as error:
        raise durable_files.translated(error, job.target.parent) from error


def forget_attempt(job: DeltaJob) -> None:
    """Remove what an unfinished attempt left."""
    for suffix in (_NOTE, _MAKING):
        job.beside(suffix).unlink(missing_ok=True)


class _Attempt:
    def __init__(self, job: DeltaJob, old: BinaryIO, output: BinaryIO, words: Words) -> None:
        self._job = job
        self._note = job.beside(_NOTE)
        self._old = old
        self._output = output
        self._words = words

    def run(self, open_delta: OpenDelta) -> None:
        note = _load_note(self._note)
        if note is not None and self._has_gone_on(note, open_delta):
            return
        delta = open_delta(0)
        header, header_bytes = read_header(delta)
        applier = self._applier(header)
        self._apply(applier, delta, applier.begin(header_bytes), header)

    def _has_gone_on(self, note: _Note, open_delta: OpenDelta) -> bool:
        """Go on from a note; tell whether it fitted what is there."""
        try:
            applier = self._applier(note.header)
            applier.resume(note.progress)
        except Untrusted:
            # Of another delta, or before a power cut: what counts is said by the delta's own header.
            self._note.unlink(missing_ok=True)
            return False
        self._apply(applier, open_delta(note.progress.delta_bytes), note.progress, note.header)
        return True

    def _applier(self, header: Header) -> DeltaApplier:
        job = self._job
        verify_header(
            header,
            target_digest=job.target_digest,
            target_size=job.target_size_bytes,
            base_digest=job.base_digest,
        )
        if job.base_digest is None:
            verify_base(header, self._old)
        return DeltaApplier(header, base=self._old, output=self._output, words=self._words)

    def _apply(self, applier: DeltaApplier, delta: Reading, progress: Progress, header: Header) -> None:
        try:
            for reached in applier.run(delta, progress):
                self._output.flush()
                os.fsync(self._output.fileno())
                write_file(self._note, msgspec.json.encode(_Note(header, reached)))
        except Untrusted as error:
            # What follows a cut is still to come; after anything else, what came before is not believed either.
            if error.code != _TRUNCATED:
                self._note.unlink(missing_ok=True)
            raise


def _load_note(path: Path) -> _Note | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_NOTE_BYTES), type=_Note)
    except (FileNotFoundError, *UNREADABLE):
        return None


def _open_output(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "r+b")
