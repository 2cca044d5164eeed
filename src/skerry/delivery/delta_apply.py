"""Makes the new file from the old one and a delta, block by block, in memory of a few MiB whatever the files' size.

Rules:
- A block counts when its digest holds, the file when its own does; nothing before that is believed.
- After every block stands a `Progress` from which a later process goes on, once it has read its output again.
- Old file, delta and output are given open; what to do with names, disks and connections is the caller's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from skerry.delivery import planes, zstd_frames
from skerry.delivery.delta_format import (
    COPY,
    NUM,
    OLD,
    ZPATCH,
    ZSTD,
    Header,
    Reading,
    Reference,
    Segment,
    parse_segments,
    read_block,
    read_header,
)
from skerry.delivery.delta_limits import PIECE_BYTES, refusal
from skerry.delivery.words import Words
from skerry.kit.digests import Digest, hex_of


class Progress(msgspec.Struct, frozen=True):
    """How far a delta was applied: where to go on in the delta, and what the output is until there."""

    blocks: int
    delta_bytes: int
    output_bytes: int
    # SHA-256 of the output so far, in hexadecimal.
    output_sha256: str


def verify_header(
    header: Header, *, target_digest: Digest, target_size: int, base_digest: Digest | None = None
) -> None:
    """Hold what a delta says of itself against what is wanted, before anything of it is done.

    Raises:
        Untrusted: it leads elsewhere (`delta.wrong_target`), or from another file (`delta.wrong_base`).
    """
    if header.target_sha256.hex() != hex_of(target_digest) or header.target_size != target_size:
        raise refusal("wrong_target", "the delta leads to another file", size_bytes=header.target_size)
    if base_digest is not None and header.base_sha256.hex() != hex_of(base_digest):
        raise refusal("wrong_base", "the delta was made for another file")


def verify_base(header: Header, base: BinaryIO) -> None:
    """Hold the old file against what the delta was made for.

    Raises:
        Untrusted: it is another (`delta.wrong_base`).
    """
    base.seek(0)
    seen, size = hashlib.sha256(), 0
    while piece := base.read(PIECE_BYTES):
        seen.update(piece)
        size += len(piece)
    if size != header.base_size or seen.digest() != header.base_sha256:
        raise refusal("wrong_base", "the delta was made for another file", size_bytes=size)


class DeltaApplier:
    """Applies one delta. The old file must be verified before, by `verify_base` or because its name is its digest."""

    def __init__(self, header: Header, *, base: BinaryIO, output: BinaryIO, words: Words) -> None:
        """Take the files; `output` is open for reading and writing."""
        self._header = header
        self._base = base
        self._output = output
        self._words = words
        self._seen = hashlib.sha256()
        self._written = 0

    def begin(self, header_bytes: int) -> Progress:
        """Begin anew: whatever the output holds is overwritten."""
        self._seen, self._written = hashlib.sha256(), 0
        self._output.seek(0)
        self._output.truncate()
        return Progress(0, header_bytes, 0, self._seen.hexdigest())

    def resume(self, progress: Progress) -> None:
        """Go on from `progress`, dropping what was written after it.

        Raises:
            Untrusted: the output is not what it was then (`delta.lost_progress`): begin anew.
        """
        seen, missing = hashlib.sha256(), progress.output_bytes
        self._output.seek(0)
        while missing:
            piece = self._output.read(min(PIECE_BYTES, missing))
            if not piece:
                break
            seen.update(piece)
            missing -= len(piece)
        if missing or seen.hexdigest() != progress.output_sha256:
            raise refusal("lost_progress", "the output is not what was written before")
        self._seen, self._written = seen, progress.output_bytes
        self._output.seek(self._written)
        self._output.truncate()

    def run(self, delta: Reading, progress: Progress) -> Iterator[Progress]:
        """Apply the blocks of `delta`, which is read from `progress.delta_bytes` on; yield after each.

        The last yield, or none where nothing is missing, is followed by the check of the whole.

        Raises:
            Untrusted: the delta is truncated, damaged, malformed, or leads to something else (`delta.*`).
        """
        while self._written < self._header.target_size:
            frame, taken = read_block(delta)
            if self._written + frame.size > self._header.target_size:
                raise refusal("malformed", "blocks make more than the new file")
            segments = parse_segments(frame, self._header, begins=self._written)
            block = hashlib.sha256()
            whole = self._seen.copy()
            for segment in segments:
                for piece in self._content(segment):
                    block.update(piece)
                    whole.update(piece)
                    self._output.write(piece)
            if block.digest() != frame.sha256:
                raise refusal("block_mismatch", "a block is not what it should be", block=progress.blocks)
            self._seen = whole
            self._written += frame.size
            progress = Progress(
                progress.blocks + 1, progress.delta_bytes + taken, self._written, whole.hexdigest()
            )
            yield progress
        if delta.read(1):
            raise refusal("malformed", "the delta goes on after its last block")
        if self._seen.digest() != self._header.target_sha256:
            raise refusal("target_mismatch", "the result is not what it should be")

    def _content(self, segment: Segment) -> Iterator[bytes]:
        if segment.operation == COPY:
            yield from self._pieces(segment.references[0])
            return
        refer = b"".join(piece for reference in segment.references for piece in self._pieces(reference))
        if segment.operation == ZSTD:
            yield zstd_frames.unpack(segment.payload, segment.size)
        elif segment.operation == ZPATCH:
            yield zstd_frames.unpack(segment.payload, segment.size, prefix=refer)
        else:
            assert segment.shape is not None
            if segment.operation == NUM:
                yield planes.unpack_difference(self._words, segment.payload, refer, segment.shape)
            else:
                yield planes.unpack_full(self._words, segment.payload, segment.size, segment.shape)

    def _pieces(self, reference: Reference) -> Iterator[bytes]:
        """Yield a reference's content; the output is left where writing goes on."""
        file = self._base if reference.source == OLD else self._output
        at, ends = reference.offset, reference.offset + reference.size
        while at < ends:
            writes_at = self._output.tell()
            file.seek(at)
            piece = file.read(min(PIECE_BYTES, ends - at))
            self._output.seek(writes_at)
            if not piece:
                raise refusal("wrong_base", "the old file is shorter than it was", offset=at)
            at += len(piece)
            yield piece


def apply_delta(delta: Reading, *, base: BinaryIO, output: BinaryIO, words: Words) -> Header:
    """Apply a whole delta to a verified or yet unverified base, without resuming.

    Raises:
        Untrusted: it is not for this base, or anything is wrong with it (`delta.*`); the output is of no use then.
    """
    header, header_bytes = read_header(delta)
    verify_base(header, base)
    applier = DeltaApplier(header, base=base, output=output, words=words)
    for _ in applier.run(delta, applier.begin(header_bytes)):
        pass
    return header
