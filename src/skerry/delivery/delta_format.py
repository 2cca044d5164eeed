"""The bytes of a delta: a header, then blocks, each a table of segments and their payloads.

Described for other implementations in docs/internals/delta.md.

Rules:
- Integers are unsigned LEB128 in their shortest form; digests are the 32 bytes of SHA-256.
- What is read is bounded before it is read; what can be told wrong without the files is refused here.
- There is one way only to write a given header or block.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple, Protocol

import msgspec

from skerry.delivery.delta_limits import (
    MAX_BLOCK_BYTES,
    MAX_BODY_BYTES,
    MAX_CODED_BYTES,
    MAX_FILE_BYTES,
    MAX_REFERENCE_BYTES,
    MAX_REFERENCES,
    MAX_SEGMENTS,
    MIN_PREFIX_BYTES,
    refusal,
)
from skerry.delivery.word_shape import WordShape, parse_shape

MAGIC = b"SKDELTA\x01"
DIGEST_BYTES = 32
_CHECKSUM_BYTES = 4
_MAX_INTEGER_BYTES = 8

COPY, ZSTD, ZPATCH, NUM, NUMFULL = range(5)
OPERATION_NAMES: tuple[str, ...] = ("copy", "zstd", "zpatch", "num", "numfull")

# Where a reference lies.
OLD, OUTPUT = 0, 1


class Reading(Protocol):
    """Where a delta is read from: it may come piecemeal, from a file or a connection."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and none only at the end."""
        ...


class Header(msgspec.Struct, frozen=True):
    """From what to what a delta leads; digests are raw SHA-256."""

    base_size: int
    base_sha256: bytes
    target_size: int
    target_sha256: bytes


class Reference(NamedTuple):
    """A range of the old file (`OLD`), or of what was written before the block began (`OUTPUT`)."""

    source: int
    offset: int
    size: int


class Segment(NamedTuple):
    """What one piece of output is made of; `payload` is what its operation reads."""

    operation: int
    size: int
    references: tuple[Reference, ...] = ()
    payload: bytes | memoryview = b""
    shape: WordShape | None = None


class BlockFrame(NamedTuple):
    """A block as it travels."""

    size: int
    sha256: bytes
    body: bytes


def encode_integer(value: int) -> bytes:
    """Return the shortest unsigned LEB128 of a number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_header(header: Header) -> bytes:
    """Return the header's bytes, its checksum at the end."""
    content = b"".join(
        (
            MAGIC,
            encode_integer(header.base_size),
            header.base_sha256,
            encode_integer(header.target_size),
            header.target_sha256,
        )
    )
    return content + zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")


def encode_block(size: int, sha256: bytes, segments: list[Segment]) -> bytes:
    """Return the bytes of a block that makes `size` bytes of that digest."""
    table = [encode_integer(len(segments))]
    for segment in segments:
        table.append(bytes((segment.operation,)))
        table.append(encode_integer(segment.size))
        if segment.shape is not None:
            table.append(bytes((segment.shape.code,)))
        if segment.operation in (ZPATCH, NUM):
            table.append(encode_integer(len(segment.references)))
        for source, offset, reference_size in segment.references:
            table.append(encode_integer(offset << 1 | source))
            if segment.operation != COPY:
                table.append(encode_integer(reference_size))
        if segment.operation != COPY:
            table.append(encode_integer(len(segment.payload)))
    body = b"".join((*table, *(segment.payload for segment in segments)))
    frame = b"".join((encode_integer(size), encode_integer(len(body)), sha256, body))
    return frame + zlib.crc32(frame).to_bytes(_CHECKSUM_BYTES, "little")


class CheckedReader:
    """Reads a header's or block's parts from a stream, and their checksum at last."""

    def __init__(self, source: Reading) -> None:
        self._source = source
        self._checksum = 0
        self.read_bytes = 0

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes.

        Raises:
            Untrusted: the delta ends before (`delta.truncated`).
        """
        pieces: list[bytes] = []
        missing = size
        while missing:
            piece = self._source.read(missing)
            if not piece:
                raise refusal("truncated", "the delta ends too early", read_bytes=self.read_bytes)
            pieces.append(piece)
            missing -= len(piece)
            self.read_bytes += len(piece)
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._checksum = zlib.crc32(content, self._checksum)
        return content

    def integer(self, limit: int, what: str) -> int:
        """Return a number of at most `limit`.

        Raises:
            Untrusted: it is larger (`delta.out_of_bounds`), or not in its shortest form (`delta.malformed`).
        """
        value = 0
        for index in range(_MAX_INTEGER_BYTES):
            byte = self.exactly(1)[0]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return _checked_integer(value, last=byte, index=index, limit=limit, what=what)
        raise refusal("malformed", f"the {what} is no number")

    def end(self) -> None:
        """Read the checksum of all that was read.

        Raises:
            Untrusted: it is another (`delta.damaged`).
        """
        expected = self._checksum.to_bytes(_CHECKSUM_BYTES, "little")
        if self.exactly(_CHECKSUM_BYTES) != expected:
            raise refusal("damaged", "the delta was damaged on its way", read_bytes=self.read_bytes)


def _checked_integer(value: int, *, last: int, index: int, limit: int, what: str) -> int:
    if index and not last:
        raise refusal("malformed", f"the {what} is not written in its shortest form")
    if value > limit:
        raise refusal("out_of_bounds", f"the {what} is {value}, and at most {limit} is taken")
    return value


def read_header(source: Reading) -> tuple[Header, int]:
    """Return a delta's header, and how many bytes it took.

    Raises:
        Untrusted: it is no delta of this version (`delta.not_a_delta`), truncated, damaged or out of bounds.
    """
    reader = CheckedReader(source)
    if reader.exactly(len(MAGIC)) != MAGIC:
        raise refusal("not_a_delta", "this is no delta, or one of a version that is not known here")
    header = Header(
        base_size=reader.integer(MAX_FILE_BYTES, "size of the old file"),
        base_sha256=reader.exactly(DIGEST_BYTES),
        target_size=reader.integer(MAX_FILE_BYTES, "size of the new file"),
        target_sha256=reader.exactly(DIGEST_BYTES),
    )
    reader.end()
    return header, reader.read_bytes


def read_block(source: Reading) -> tuple[BlockFrame, int]:
    """Return the next block, and how many bytes it took.

    Raises:
        Untrusted: truncated, damaged or out of bounds.
    """
    reader = CheckedReader(source)
    size = reader.integer(MAX_BLOCK_BYTES, "size of a block")
    body_size = reader.integer(MAX_BODY_BYTES, "length of a block")
    digest = reader.exactly(DIGEST_BYTES)
    body = reader.exactly(body_size)
    reader.end()
    if not size:
        raise refusal("malformed", "a block makes nothing")
    return BlockFrame(size, digest, body), reader.read_bytes


class _Table:
    """Reads a block's table of segments."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.at = 0

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        found = self._body[self.at : self.at + size]
        self.at += len(found)
        return found


def parse_segments(frame: BlockFrame, header: Header, *, begins: int) -> list[Segment]:
    """Return the segments of the block that begins at that place of the output.

    Raises:
        Untrusted: references leave what is there (`delta.out_of_range`), it asks for more than the limits
            (`delta.out_of_bounds`), or sums and lengths do not fit (`delta.malformed`).
    """
    table = _Table(frame.body)
    reader = CheckedReader(table)
    lengths: list[int] = []
    segments: list[Segment] = []
    for _ in range(reader.integer(MAX_SEGMENTS, "number of segments")):
        segment, length = _parse_segment(reader, header, begins)
        segments.append(segment)
        lengths.append(length)
    _check_sums(segments, frame.size)
    at, payloads = table.at, memoryview(frame.body)
    if at + sum(lengths) != len(frame.body):
        raise refusal("malformed", "payloads do not fill their block")
    placed: list[Segment] = []
    for segment, length in zip(segments, lengths, strict=True):
        placed.append(segment._replace(payload=payloads[at : at + length]))
        at += length
    return placed


def _parse_segment(reader: CheckedReader, header: Header, begins: int) -> tuple[Segment, int]:
    operation = reader.exactly(1)[0]
    if operation > NUMFULL:
        raise refusal("malformed", f"there is no operation {operation}")
    limit = MAX_BLOCK_BYTES if operation == COPY else MAX_CODED_BYTES
    size = reader.integer(limit, "size of a segment")
    if not size:
        raise refusal("malformed", "a segment makes nothing")
    if operation == COPY:
        return Segment(COPY, size, (_parse_reference(reader, header, begins, size=size),)), 0
    shape = parse_shape(reader.exactly(1)[0]) if operation in (NUM, NUMFULL) else None
    count = reader.integer(MAX_REFERENCES, "number of references") if operation in (ZPATCH, NUM) else 0
    references = tuple(_parse_reference(reader, header, begins) for _ in range(count))
    if shape is not None:
        shape.check_size(size, is_full=operation == NUMFULL)
    referred = sum(reference.size for reference in references)
    if operation == NUM and referred != size:
        raise refusal("malformed", "words and the words at their references are not of one number")
    if operation == ZPATCH and referred < MIN_PREFIX_BYTES:
        raise refusal("malformed", "a prefix is too short")
    length = reader.integer(MAX_BODY_BYTES, "length of a payload")
    return Segment(operation, size, references, shape=shape), length


def _parse_reference(reader: CheckedReader, header: Header, begins: int, *, size: int = 0) -> Reference:
    place = reader.integer(2 * MAX_FILE_BYTES, "place of a reference")
    if not size:
        size = reader.integer(MAX_REFERENCE_BYTES, "size of a reference")
        if not size:
            raise refusal("malformed", "a reference to nothing")
    source, offset = place & 1, place >> 1
    if offset + size > (begins if source == OUTPUT else header.base_size):
        raise refusal("out_of_range", "a reference leaves what is there", offset=offset, size_bytes=size)
    return Reference(source, offset, size)


def _check_sums(segments: list[Segment], block_size: int) -> None:
    coded = [segment for segment in segments if segment.operation != COPY]
    if sum(segment.size for segment in segments) != block_size:
        raise refusal("malformed", "segments do not fill their block")
    if sum(segment.size for segment in coded) > MAX_CODED_BYTES:
        raise refusal("out_of_bounds", "a block holds too much that is not copied")
    if sum(reference.size for segment in coded for reference in segment.references) > MAX_REFERENCE_BYTES:
        raise refusal("out_of_bounds", "a block refers to too much")
    if sum(len(segment.references) for segment in coded) > MAX_REFERENCES:
        raise refusal("out_of_bounds", "a block has too many references")
