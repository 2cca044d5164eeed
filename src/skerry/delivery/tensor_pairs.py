"""Divides the new file into tensors that the old one has as well, by name, and what lies between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from skerry.delivery.delta_format import Header
from skerry.delivery.tensors import Tensor, find_tensors

# Smaller ones are left to zstd, together with what is around them.
_MIN_TENSOR_BYTES = 512


class Region(NamedTuple):
    """A stretch of the new file, and where its numbers stand in the old one, if they do."""

    begins: int
    size: int
    kind: str = "u8"
    base_offset: int | None = None


def plan_regions(base: BinaryIO, target: BinaryIO, header: Header) -> Iterator[Region]:
    """Yield regions that cover the new file in order."""
    new = find_tensors(target, header.target_size)
    old = {tensor.name: tensor for tensor in find_tensors(base, header.base_size)} if new else {}
    at = 0
    for tensor in new:
        if tensor.size < _MIN_TENSOR_BYTES:
            continue
        if at < tensor.offset:
            yield Region(at, tensor.offset - at)
        yield _region_of(tensor, old.get(tensor.name))
        at = tensor.offset + tensor.size
    if at < header.target_size:
        yield Region(at, header.target_size - at)


def _region_of(tensor: Tensor, old: Tensor | None) -> Region:
    if old is None or old.size != tensor.size or old.kind != tensor.kind:
        # Beginning where the tensor does, its words are found.
        return Region(tensor.offset, tensor.size, tensor.kind)
    return Region(tensor.offset, tensor.size, tensor.kind, old.offset)
