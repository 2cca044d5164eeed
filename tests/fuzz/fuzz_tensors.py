"""Model files that strangers hand to the hub: tensors lie apart and within the file, and a delta to it leads there.

A file that is not understood is no error: it has no tensors.
"""

from __future__ import annotations

import io

from skerry.delivery.delta_format import Header
from skerry.delivery.tensor_pairs import plan_regions
from skerry.delivery.tensors import find_tensors
from tests.fuzz.delta_seeds import nudged, old_file
from tests.fuzz.model_files import onnx_of, tar_of
from tests.fuzz.target import Broken, Target
from tests.unit.delta_files_of import applied, delta_of, noise, safetensors_of

_WORDS = noise(700)


def run(data: bytes) -> None:
    """Read an input's tensors, and go there by a delta when it has some."""
    tensors = find_tensors(io.BytesIO(data), len(data))
    at = 0
    for tensor in tensors:
        if tensor.offset < at or tensor.size < 0 or tensor.offset + tensor.size > len(data):
            raise Broken(f"the tensor {tensor} is not within {len(data)} bytes, or begins before {at}")
        at = tensor.offset + tensor.size
    old = old_file()
    header, made = Header(len(old), b"", len(data), b""), 0
    for region in plan_regions(io.BytesIO(old), io.BytesIO(data), header):
        if region.begins != made or region.size < 1:
            raise Broken(f"the region {region} does not begin at {made}")
        if region.base_offset is not None and region.base_offset + region.size > len(old):
            raise Broken(f"the region {region} is not within the old file")
        made += region.size
    if made != len(data):
        raise Broken(f"regions cover {made} of {len(data)} bytes")
    if tensors and applied(delta_of(old, data), old) != data:
        raise Broken("the delta leads elsewhere")


def seeds() -> list[bytes]:
    """Return models of both formats, alone and within a tar."""
    old = old_file()
    onnx = onnx_of({"a": (10, _WORDS), "b": (1, _WORDS[:600])})
    # A model in a tar is looked at from 16 KiB on.
    large = safetensors_of({"a": ("F16", _WORDS * 24), "b": ("U8", _WORDS)})
    return [
        old,
        nudged(old, 1),
        safetensors_of({"a": ("BF16", _WORDS), "x": ("F32", _WORDS[:600])}),
        onnx,
        tar_of({"model.safetensors": large, "notes": b"text"}),
        tar_of({"model.onnx": onnx_of({"a": (10, _WORDS * 24)})}),
    ]


TARGET = Target(
    run,
    seeds,
    tokens=(
        b'"dtype"',
        b'"shape"',
        b'"data_offsets"',
        b'"F16"',
        b'"F32"',
        b"__metadata__",
        b"ustar",
        b"[0,0]",
    ),
    max_bytes=40_000,
)
