"""Snapping: low bits of new weights are chosen so that the difference to the weights before codes small.

The outcome is a file of the same size, format, names, shapes and types, which is then the file that is released; see
docs/internals/snapping.md.

Rules:
- Only tensors of fp32, fp16 and bf16 that both files have by name, type and size change, and of these only words that
  differ; every other byte stays.
- No number moves by more than `bound_of(bits)` of itself or, where it is smaller than the tensor's floor, of that.
- The same files and bits give the same outcome. Memory is for pieces of 1 MiB; the new file's tensors are read twice.
- It needs numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from skerry.delivery.snapping_words import FORMS, FloatForm, bound_of, floor_of, snap_words, sum_squares
from skerry.delivery.tensors import Tensor, find_tensors
from skerry.kit.errors import Rejected

MIN_BITS, MAX_BITS = 1, 22
# Smaller ones are scales, shapes and constants more often than weights, and hardly count in a delta.
MIN_TENSOR_BYTES = 512
_PIECE_BYTES = 1 << 20


class TensorSnap(msgspec.Struct, frozen=True):
    """What snapping did to one tensor.

    `largest_error` is relative to each number, or to `floor` for those that are smaller.
    """

    name: str
    kind: str
    words: int
    words_changed: int
    floor: float
    largest_error: float


class SnapReport(msgspec.Struct, frozen=True):
    """What snapping did to a file: by how many bits, and each tensor that both files have."""

    bits: int
    bound: float
    tensors: tuple[TensorSnap, ...]

    @property
    def words_changed(self) -> int:
        """How many words are no longer what they were."""
        return sum(tensor.words_changed for tensor in self.tensors)

    @property
    def largest_error(self) -> float:
        """The largest error of any number; at most `bound`."""
        return max((tensor.largest_error for tensor in self.tensors), default=0.0)


class _Pair(NamedTuple):
    new: Tensor
    old: Tensor


class Snapper:
    """Snaps one file, `target`, to `base`; both can be seeked in, and nobody else reads them meanwhile."""

    def __init__(self, base: BinaryIO, target: BinaryIO, *, bits: int) -> None:
        if not MIN_BITS <= bits <= MAX_BITS:
            raise Rejected("snap.bits", f"{bits} bits cannot be snapped: {MIN_BITS} to {MAX_BITS} can")
        self._base = base
        self._target = target
        self._bits = bits
        self._size = target.seek(0, 2)
        self._pairs = _pair_tensors(base, target)
        self._tensors: list[TensorSnap] = []

    @property
    def pairs(self) -> int:
        """How many tensors can be snapped."""
        return len(self._pairs)

    def pieces(self) -> Iterator[bytes]:
        """Yield the snapped file, which is as long as `target`."""
        self._tensors.clear()
        at = 0
        for pair in self._pairs:
            yield from self._unchanged(at, pair.new.offset)
            yield from self._snapped(pair)
            at = pair.new.offset + pair.new.size
        yield from self._unchanged(at, self._size)

    def report(self) -> SnapReport:
        """Return what was done, once `pieces` is through."""
        return SnapReport(self._bits, bound_of(self._bits), tuple(self._tensors))

    def _unchanged(self, begins: int, ends: int) -> Iterator[bytes]:
        for at in range(begins, ends, _PIECE_BYTES):
            yield _read(self._target, at, min(_PIECE_BYTES, ends - at))

    def _snapped(self, pair: _Pair) -> Iterator[bytes]:
        form = FORMS[pair.new.kind]
        floor = self._floor(pair.new, form)
        changed, largest = 0, 0.0
        for at in range(0, pair.new.size, _PIECE_BYTES):
            size = min(_PIECE_BYTES, pair.new.size - at)
            new = _read(self._target, pair.new.offset + at, size)
            old = _read(self._base, pair.old.offset + at, size)
            if new != old:
                snapped = snap_words(new, old, form, bits=self._bits, floor=floor)
                changed += snapped.words_changed
                largest = max(largest, snapped.largest_error)
                new = snapped.content
            yield new
        words = pair.new.size // form.word_bytes
        self._tensors.append(TensorSnap(pair.new.name, pair.new.kind, words, changed, floor, largest))

    def _floor(self, tensor: Tensor, form: FloatForm) -> float:
        squares, count = 0.0, 0
        for at in range(0, tensor.size, _PIECE_BYTES):
            piece = _read(self._target, tensor.offset + at, min(_PIECE_BYTES, tensor.size - at))
            of_piece, finite = sum_squares(piece, form)
            squares, count = squares + of_piece, count + finite
        return floor_of(squares, count)


def _pair_tensors(base: BinaryIO, target: BinaryIO) -> list[_Pair]:
    """Return the tensors to snap, in the order of their places in the new file."""
    new = find_tensors(target, target.seek(0, 2))
    old = {tensor.name: tensor for tensor in find_tensors(base, base.seek(0, 2))} if new else {}
    pairs: list[_Pair] = []
    for tensor in new:
        before = old.get(tensor.name)
        if before is None or (before.kind, before.size) != (tensor.kind, tensor.size):
            continue
        form = FORMS.get(tensor.kind)
        if form is not None and tensor.size >= MIN_TENSOR_BYTES and tensor.size % form.word_bytes == 0:
            pairs.append(_Pair(tensor, before))
    return pairs


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    content = file.read(size)
    if len(content) < size:
        raise Rejected("snap.changed", "a file became shorter while it was read", hint="push again")
    return content
