"""Frames of zstd: refused as `delta.bad_frame`, or content of the size that is expected.

The first byte of an input says whether there is a prefix, the next three the expected size; the rest is the frame.
"""

from __future__ import annotations

from skerry.delivery import zstd_frames
from skerry.delivery.delta_limits import MAX_CODED_BYTES
from skerry.kit.errors import Untrusted
from tests.fuzz.target import Broken, Target
from tests.unit.delta_files_of import noise

_PREFIX = noise(3000) + b"edge " * 200
_TEXT = b"what the frame holds, and holds again: what the frame holds. "


def run(data: bytes) -> None:
    """Unpack an input."""
    if len(data) < 4:
        return
    size = 1 + int.from_bytes(data[1:4], "little") % MAX_CODED_BYTES
    try:
        content = zstd_frames.unpack(data[4:], size, prefix=_PREFIX if data[0] & 1 else b"")
    except Untrusted as refused:
        if refused.code != "delta.bad_frame":
            raise Broken(f"refused as {refused.code}") from refused
        return
    if len(content) != size:
        raise Broken(f"{len(content)} bytes were made of a frame for {size}")


def seeds() -> list[bytes]:
    """Return frames of several levels, with and without prefix: packed, stored, and of one byte repeated."""
    found: list[bytes] = []
    for content in (_TEXT * 3, noise(200), b"\0" * 5000, _PREFIX[1000:2500] + _TEXT, b"x", bytes(1 << 20)):
        size = (len(content) - 1).to_bytes(3, "little")
        found += [b"\0" + size + zstd_frames.compress(content, level) for level in (1, 19)]
        found.append(b"\1" + size + zstd_frames.compress_after(_PREFIX, content, 3))
    return found


TARGET = Target(run, seeds)
