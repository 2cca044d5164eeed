"""Applying takes memory for a block and its references, whatever the files' size."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.delivery import planes, zstd_frames
from skerry.delivery.block_packing import BlockPacker, copy_of
from skerry.delivery.delta_format import (
    NUM,
    NUMFULL,
    OLD,
    ZPATCH,
    ZSTD,
    Header,
    Reference,
    Segment,
    encode_header,
)
from skerry.delivery.word_shape import WordShape
from tests.unit.delta_files_of import WITH_NUMPY, noise

pytestmark = pytest.mark.delivery
MIB = 1 << 20
LIMIT_BYTES = 32 * MIB


def write_pair(folder: Path, size: int) -> tuple[Path, Path, str]:
    """Write a base of `size` bytes, and a delta to a file as large whose blocks take as much memory as they may."""
    base, delta = folder / "base", folder / "delta"
    part = noise(16 * MIB)
    seen = hashlib.sha256()
    with base.open("wb") as file:
        for _ in range(size // len(part)):
            file.write(part)
            seen.update(part)
    blocks: list[bytes] = []
    packer = BlockPacker(blocks.append)
    target = hashlib.sha256()
    made = 0
    segments = costly_segments(part)
    for at in range(0, size, 16 * MIB):
        for make in segments:
            segment, content = make(at)
            packer.add(segment, content)
            target.update(content)
            made += segment.size
    packer.flush()
    header = Header(size, seen.digest(), made, target.digest())
    delta.write_bytes(encode_header(header) + b"".join(blocks))
    return base, delta, target.hexdigest()


def costly_segments(part: bytes) -> list[Callable[[int], tuple[Segment, bytes]]]:
    """Return makers of one segment of each operation, as large as may be, at a place of the base."""
    shape, content = WordShape(4, 1), part[:MIB]
    new = bytes(MIB)
    patch = zstd_frames.compress_after(part[: 4 * MIB], part[100 : MIB + 100], 1)
    stored = zstd_frames.compress(content, 1)
    num = planes.pack_difference(WITH_NUMPY, new, content, shape, levels=(1,))
    half = WordShape(2, 2)
    num_half = planes.pack_difference(WITH_NUMPY, new, content, half, levels=(1,))
    full = planes.pack_full(WITH_NUMPY, content, WordShape(4), levels=(1,))

    def one(segment: Segment, made: bytes) -> Callable[[int], tuple[Segment, bytes]]:
        def make(at: int) -> tuple[Segment, bytes]:
            moved = tuple(Reference(source, offset + at, size) for source, offset, size in segment.references)
            return segment._replace(references=moved), made

        return make

    return [
        one(copy_of(OLD, 0, 11 * MIB), part[: 11 * MIB]),
        one(Segment(ZPATCH, MIB, (Reference(OLD, 0, 4 * MIB),), patch), part[100 : MIB + 100]),
        one(Segment(ZSTD, MIB, payload=stored), content),
        one(Segment(NUM, MIB, (Reference(OLD, 0, MIB),), num, shape), new),
        one(Segment(NUM, MIB, (Reference(OLD, 0, MIB),), num_half, half), new),
        one(Segment(NUMFULL, MIB, payload=full, shape=WordShape(4)), content),
    ]


def growth_of(folder: Path, size: int, which: str) -> int:
    """Return how much memory applying takes beyond what the process had."""
    base, delta, wanted = write_pair(folder, size)
    output = folder / "output"
    script = Path(__file__).with_name("delta_memory.py")
    answer = subprocess.run(
        [sys.executable, script, which, base, delta, output],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    with output.open("rb") as made:
        assert hashlib.file_digest(made, "sha256").hexdigest() == wanted
    for file in folder.iterdir():
        file.unlink()
    return int(answer.stdout)


@pytest.mark.rule("DELTA-2")
@pytest.mark.parametrize("which", ("plain", "numpy"))
def test_memory_is_bounded_by_a_block_and_its_references_and_does_not_grow_with_the_files(
    which: str, tmp_path: Path
) -> None:
    small, large = (growth_of(tmp_path, size, which) for size in (64 * MIB, 256 * MIB))
    assert max(small, large) < LIMIT_BYTES
    # What takes memory for a hundredth of the files, such as a list of their chunks, is found out.
    assert large - small < (256 - 64) * MIB // 100
