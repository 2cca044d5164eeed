"""The parsers of a delta's header, blocks and tables: refused as `delta.*`, or bytes that we would write ourselves."""

from __future__ import annotations

import io
import zlib

from skerry.delivery.delta_format import (
    MAGIC,
    NUM,
    NUMFULL,
    OLD,
    BlockFrame,
    Header,
    Segment,
    encode_block,
    encode_header,
    parse_segments,
    read_block,
    read_header,
)
from skerry.delivery.delta_limits import MAX_BLOCK_BYTES, MAX_CODED_BYTES, MAX_REFERENCE_BYTES
from skerry.kit.errors import Untrusted
from tests.fuzz.delta_seeds import delta_seeds, old_file
from tests.fuzz.delta_shaping import split_delta
from tests.fuzz.target import Broken, Target

_MAX_COUNT = 2048
_SUMMED = Header(len(old_file()), bytes(32), 1 << 42, bytes(32))


def run(data: bytes) -> None:
    """Parse an input as each of the forms, as it is and with a right checksum."""
    for content in (data, _checked(data)):
        _run_header(content)
        _run_block(content)
    for content in (data, MAGIC + data):
        _run_header(_checked(content))
    # As a table, in the second block of a delta and in its first.
    for begins in (0, 5000):
        _run_table(data, begins)


def _checked(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def _run_header(data: bytes) -> None:
    try:
        header, taken = read_header(io.BytesIO(data))
    except Untrusted as refused:
        _check_code(refused)
        return
    if encode_header(header) != data[:taken]:
        raise Broken("a header was taken that is written in another way")


def _run_block(data: bytes) -> None:
    try:
        frame, taken = read_block(io.BytesIO(data))
        segments = parse_segments(frame, _SUMMED, begins=5000)
    except Untrusted as refused:
        _check_code(refused)
        return
    _check_segments(frame, segments, 5000)
    if encode_block(frame.size, frame.sha256, segments) != data[:taken]:
        raise Broken("a block was taken that is written in another way")


def _run_table(body: bytes, begins: int) -> None:
    size = 0
    for _ in range(2):
        frame = BlockFrame(size, bytes(32), body)
        try:
            segments = parse_segments(frame, _SUMMED, begins=begins)
        except Untrusted as refused:
            _check_code(refused)
            # The size that would fit, by the sums of what an encoder writes: tried once.
            size = sum(block.size for block in split_delta(MAGIC + body)[1]) or 800
            continue
        _check_segments(frame, segments, begins)
        return


def _check_segments(frame: BlockFrame, segments: list[Segment], begins: int) -> None:
    if sum(segment.size for segment in segments) != frame.size or frame.size > MAX_BLOCK_BYTES:
        raise Broken("segments make another size than their block")
    coded = [segment for segment in segments if segment.operation]
    referred = [reference for segment in coded for reference in segment.references]
    if sum(segment.size for segment in coded) > MAX_CODED_BYTES:
        raise Broken("too much is coded")
    if sum(reference.size for reference in referred) > MAX_REFERENCE_BYTES:
        raise Broken("too much is referred to")
    for segment in segments:
        for source, offset, size in segment.references:
            if size < 1 or offset < 0 or offset + size > (len(old_file()) if source == OLD else begins):
                raise Broken("a reference leaves what is there")
        if (segment.operation in (NUM, NUMFULL)) != (segment.shape is not None):
            raise Broken("a shape is missing, or too many")


def _check_code(refused: Untrusted) -> None:
    if not refused.code.startswith("delta."):
        raise Broken(f"refused as {refused.code}") from refused


def seeds() -> list[bytes]:
    """Return headers, blocks and tables without the checksums, which are put behind them."""
    found: list[bytes] = []
    for delta in delta_seeds():
        _, header_bytes = read_header(io.BytesIO(delta))
        found.append(delta[: header_bytes - 4])
        for block in split_delta(delta)[1]:
            found += [block.encode()[:-4], block.body]
    return found


TARGET = Target(run, seeds, tokens=(MAGIC,))
