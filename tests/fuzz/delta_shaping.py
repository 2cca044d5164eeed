"""Deltas as an attacker makes them: any numbers and payloads, and everything right that anyone can make right.

Checksums, lengths, sums and digests stop blind changes at the door. So they are put right again after a change,
and changes are made to segments, not only to bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from random import Random
from typing import NamedTuple

from skerry.delivery.delta_format import (
    COPY,
    MAGIC,
    NUM,
    NUMFULL,
    OLD,
    ZPATCH,
    BlockFrame,
    Header,
    Reference,
    Segment,
    encode_block,
    encode_header,
    encode_integer,
    parse_segments,
)
from skerry.delivery.word_shape import WordShape, parse_shape
from skerry.kit.errors import Untrusted
from tests.fuzz.mutation import mutate_bytes

_SHAPES = [parse_shape(code) for code in (0, 1, 2, 5, 6, 9)]
_DIGEST_BYTES = 32
_CHECKSUM_BYTES = 4


class RawBlock(NamedTuple):
    """A block, whatever its body is."""

    size: int
    sha256: bytes
    body: bytes

    def encode(self) -> bytes:
        """Return the block with its checksum."""
        frame = b"".join((encode_integer(self.size), encode_integer(len(self.body)), self.sha256, self.body))
        return frame + zlib.crc32(frame).to_bytes(_CHECKSUM_BYTES, "little")


def split_delta(delta: bytes) -> tuple[bytes, list[RawBlock]]:
    """Return the digest of the target and the blocks, as far as there are any; nothing is checked."""
    at = len(MAGIC)
    _, at = _integer(delta, at)
    _, at = _integer(delta, at + _DIGEST_BYTES)
    digest, at = _digest(delta, at)
    at += _CHECKSUM_BYTES
    blocks: list[RawBlock] = []
    while at < len(delta):
        size, at = _integer(delta, at)
        length, at = _integer(delta, at)
        block_digest, at = _digest(delta, at)
        length = min(length, max(0, len(delta) - at - _CHECKSUM_BYTES))
        blocks.append(RawBlock(size, block_digest, delta[at : at + length]))
        at += length + _CHECKSUM_BYTES
    return digest, blocks


def join_delta(old: bytes, digest: bytes, blocks: list[RawBlock]) -> bytes:
    """Return a delta for `old` with its sizes, lengths and checksums right."""
    header = Header(len(old), hashlib.sha256(old).digest(), sum(block.size for block in blocks), digest)
    return encode_header(header) + b"".join(block.encode() for block in blocks)


def reshape_delta(delta: bytes, random: Random, old: bytes) -> bytes:
    """Return a delta with one change along its form; every sum and checksum is right."""
    digest, blocks = split_delta(delta)
    if not blocks:
        return mutate_bytes(delta, random)
    at = random.randrange(len(blocks))
    match random.randrange(8):
        case 0:
            blocks[at:at] = [blocks[random.randrange(len(blocks))]]
        case 1 if len(blocks) > 1:
            del blocks[at]
        case 2:
            blocks[at] = blocks[at]._replace(body=mutate_bytes(blocks[at].body, random))
        case _:
            begins = sum(block.size for block in blocks[:at])
            blocks[at] = _reshape_block(blocks[at], random, old, begins)
    return join_delta(old, digest, blocks)


def _reshape_block(block: RawBlock, random: Random, old: bytes, begins: int) -> RawBlock:
    header = Header(len(old), b"", 1 << 40, b"")
    try:
        segments = parse_segments(BlockFrame(*block), header, begins=begins)
    except Untrusted:
        return block._replace(body=mutate_bytes(block.body, random))
    if not segments:
        return block._replace(body=mutate_bytes(block.body, random))
    at = random.randrange(len(segments))
    match random.randrange(8):
        case 0:
            segments.insert(at, segments[random.randrange(len(segments))])
        case 1 if len(segments) > 1:
            del segments[at]
        case 2:
            segments[at] = _new_copy(random, len(old), begins)
        case _:
            segments[at] = reshape_segment(segments[at], random, len(old), begins)
    size = sum(segment.size for segment in segments)
    encoded = encode_block(size, block.sha256, segments)
    return split_blocks(encoded)[0]


def split_blocks(encoded: bytes) -> list[RawBlock]:
    """Return blocks that stand without a header."""
    return split_delta(MAGIC + b"\0" + bytes(32) + b"\0" + bytes(32) + bytes(4) + encoded)[1]


def _new_copy(random: Random, old_size: int, begins: int) -> Segment:
    reference = _reference(random, old_size, begins)
    return Segment(COPY, reference.size, (reference,))


def reshape_segment(segment: Segment, random: Random, old_size: int, begins: int) -> Segment:
    """Return a segment with another size, place, shape, operation or payload."""
    match random.randrange(6):
        case 0 if segment.references:
            return _refer_anew(segment, random, old_size, begins)
        case 1 if segment.shape is not None:
            return segment._replace(shape=_shape(random, segment.operation))
        case 2 if segment.operation != COPY:
            size = max(1, segment.size + random.choice((-8, -4, -1, 1, 4, 8, segment.size)))
            return segment._replace(size=size)
        case 3 if segment.operation != COPY:
            return _turn(segment, random, old_size, begins)
        case _ if segment.operation != COPY:
            return segment._replace(payload=mutate_bytes(bytes(segment.payload), random))
        case _:
            return _new_copy(random, old_size, begins)


def _refer_anew(segment: Segment, random: Random, old_size: int, begins: int) -> Segment:
    references = list(segment.references)
    at = random.randrange(len(references))
    references[at] = _reference(random, old_size, begins)
    if random.random() < 0.3 and segment.operation != COPY:
        references.insert(at, _reference(random, old_size, begins))
    size = segment.size
    if segment.operation in (COPY, NUM):
        size = sum(reference.size for reference in references)
    return segment._replace(references=tuple(references), size=size)


def _turn(segment: Segment, random: Random, old_size: int, begins: int) -> Segment:
    operation = random.randrange(COPY + 1, NUMFULL + 1)
    references = segment.references or (_reference(random, old_size, begins),)
    size = segment.size
    if operation == NUM:
        size = sum(reference.size for reference in references)
    return segment._replace(
        operation=operation,
        size=size,
        references=references if operation in (ZPATCH, NUM) else (),
        shape=_shape(random, operation) if operation in (NUM, NUMFULL) else None,
    )


def _shape(random: Random, operation: int) -> WordShape:
    return random.choice(_SHAPES[:3] if operation == NUMFULL else _SHAPES)


def _reference(random: Random, old_size: int, begins: int) -> Reference:
    source = random.randrange(2) if begins else OLD
    length = old_size if source == OLD else begins
    size = random.choice((1, 4, 16, 64, 512, length))
    offset = random.choice((0, random.randrange(length + 1), max(0, length - size)))
    if random.random() < 0.9:
        size = max(1, min(size, length - offset))
    return Reference(source, offset, size)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + 8]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    return value, at + 8


def _digest(data: bytes, at: int) -> tuple[bytes, int]:
    return data[at : at + _DIGEST_BYTES].ljust(_DIGEST_BYTES, b"\0"), at + _DIGEST_BYTES
