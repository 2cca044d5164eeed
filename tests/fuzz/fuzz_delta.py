"""Whole deltas against a small old file: refused as `delta.*`, or the file that the header names; nothing else.

Each input is applied as it is, and once more with checksums, sums and digests put right, so that all that an
attacker can make right is right. Both ways to handle words must come to the same end. Nothing is read but the old
file and the output of earlier blocks, and nothing is written beyond the new file's size.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from skerry.delivery.delta_apply import DeltaApplier, verify_base
from skerry.delivery.delta_format import MAGIC, read_header
from skerry.delivery.delta_limits import MAX_BODY_BYTES
from skerry.delivery.words import Words
from skerry.kit.errors import Untrusted
from tests.fuzz.delta_seeds import delta_seeds, old_file
from tests.fuzz.delta_shaping import join_delta, reshape_delta, split_delta
from tests.fuzz.target import Broken, Target
from tests.unit.delta_files_of import PLAIN, WITH_NUMPY

# Copies make much of little; larger outputs show nothing that these do not.
_MAX_OUTPUT_BYTES = 1 << 20
_MAX_REPAIRS = 8


class WatchedFile(io.BytesIO):
    """A file of which only the first `may_read` bytes may be read, and `may_write` be written."""

    may_read = 0
    may_write = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, within what is there."""
        at = self.tell()
        if size is None or size < 0 or at + size > self.may_read:
            raise Broken(f"{size} bytes are read at {at}, and {self.may_read} are there")
        return super().read(size)

    def write(self, content: bytes, /) -> int:  # type: ignore[override] # bytes alone are written
        """Write, within what was announced."""
        if self.tell() + len(content) > self.may_write:
            raise Broken(f"{len(content)} bytes are written at {self.tell()}, of {self.may_write}")
        return super().write(content)


class WatchedDelta(io.BytesIO):
    """A delta of which no more is asked for at once than a block may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, within bounds."""
        if size is None or not 0 <= size <= MAX_BODY_BYTES:
            raise Broken(f"{size} bytes of a delta are read at once")
        return super().read(size)


class Outcome(NamedTuple):
    """How applying ended: the refusal's code, or "" with the output; and what the refused block made."""

    code: str
    output: bytes
    block: int = 0
    block_output: bytes = b""


class DeltaTarget:
    """The applier, with each of several ways to handle words."""

    def __init__(
        self, words: Sequence[Words] = (PLAIN, WITH_NUMPY), applier: type[DeltaApplier] = DeltaApplier
    ) -> None:
        self._words = words
        self._applier = applier

    def run(self, data: bytes) -> None:
        """Apply an input as it is, and put right."""
        self._check(data)
        if data[: len(MAGIC)] != MAGIC:
            data = MAGIC + data[len(MAGIC) :]
        digest, blocks = split_delta(data)
        if sum(block.size for block in blocks) > _MAX_OUTPUT_BYTES:
            return
        for _ in range(_MAX_REPAIRS):
            outcome = self._check(join_delta(old_file(), digest, blocks))
            if outcome.code == "delta.block_mismatch":
                made = hashlib.sha256(outcome.block_output).digest()
                blocks[outcome.block] = blocks[outcome.block]._replace(sha256=made)
            elif outcome.code == "delta.target_mismatch":
                digest = hashlib.sha256(outcome.output).digest()
            else:
                return

    def _check(self, delta: bytes) -> Outcome:
        outcomes = [self._apply(delta, words) for words in self._words]
        if any(outcome != outcomes[0] for outcome in outcomes):
            raise Broken(f"words differ: {[(outcome.code, outcome.block) for outcome in outcomes]}")
        return outcomes[0]

    def _apply(self, delta: bytes, words: Words) -> Outcome:
        source, base, output = WatchedDelta(delta), WatchedFile(old_file()), WatchedFile()
        done, blocks = 0, 0
        try:
            header, header_bytes = read_header(source)
            verify_base(header, io.BytesIO(old_file()))
            base.may_read, output.may_write = len(old_file()), header.target_size
            applier = self._applier(header, base=base, output=output, words=words)
            for progress in applier.run(source, applier.begin(header_bytes)):
                done, blocks = progress.output_bytes, progress.blocks
                output.may_read = done
        except Untrusted as refused:
            if not refused.code.startswith("delta."):
                raise Broken(f"refused as {refused.code}") from refused
            made = output.getvalue()
            return Outcome(refused.code, made, blocks, made[done:])
        made = output.getvalue()
        if len(made) != header.target_size or hashlib.sha256(made).digest() != header.target_sha256:
            raise Broken("a delta was taken that makes another file than it says")
        return Outcome("", made)


def target_of(delta_target: DeltaTarget) -> Target:
    """Return the target of an applier."""
    return Target(delta_target.run, delta_seeds, partial(reshape_delta, old=old_file()))


TARGET = target_of(DeltaTarget())
