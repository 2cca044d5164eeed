"""Tensors are found where they lie, and what is no model has none."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from skerry.delivery.tensors import Tensor, find_tensors
from tests.unit.delta_files_of import applied, delta_of, noise, safetensors_of

pytestmark = pytest.mark.delivery


def found_in(content: bytes) -> list[Tensor]:
    return find_tensors(io.BytesIO(content), len(content))


def onnx_of(tensors: dict[str, tuple[TensorProto.DataType, bytes]]) -> bytes:
    """Return an ONNX model of these initialisers."""
    sizes = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.INT8: 1}
    made = [
        helper.make_tensor(name, kind, [len(content) // sizes[kind]], content, raw=True)
        for name, (kind, content) in tensors.items()
    ]
    node = helper.make_node("Identity", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], [], initializer=made))
    return bytes(model.SerializeToString())


def tar_of(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def test_tensors_of_safetensors() -> None:
    content = safetensors_of({"a": ("F32", b"1234" * 5), "b": ("BF16", b"xy"), "c": ("I4", b"p")})
    found = found_in(content)
    assert [(tensor.name, tensor.kind) for tensor in found] == [("a", "f32"), ("b", "bf16"), ("c", "u8")]
    assert [content[tensor.offset :][: tensor.size] for tensor in found] == [b"1234" * 5, b"xy", b"p"]


def test_tensors_of_onnx() -> None:
    held = {
        "a": (TensorProto.FLOAT, noise(4000)),
        "b": (TensorProto.FLOAT16, noise(600)),
        "c": (TensorProto.INT8, b"1"),
    }
    content = onnx_of(held)
    found = found_in(content)
    assert [(tensor.name, tensor.kind) for tensor in found] == [("a", "f32"), ("b", "f16"), ("c", "u8")]
    assert [content[tensor.offset :][: tensor.size] for tensor in found] == [
        value for _, value in held.values()
    ]


def test_floats_that_are_not_raw_are_found_as_well() -> None:
    values = np.arange(100, dtype="<f4")
    tensor = helper.make_tensor("a", TensorProto.FLOAT, [100], values.tolist())
    content = helper.make_model(helper.make_graph([], "g", [], [], initializer=[tensor])).SerializeToString()
    (found,) = found_in(content)
    assert content[found.offset :][: found.size] == values.tobytes()
    assert found.kind == "f32"


def test_models_within_a_tar_are_paired_by_file_and_name() -> None:
    model = {f"t{number}": (TensorProto.FLOAT, noise(40_000, number)) for number in range(4)}
    near = {
        name: (kind, bytes(value ^ 1 if at % 4 == 0 else value for at, value in enumerate(content)))
        for name, (kind, content) in model.items()
    }
    weights = safetensors_of({"w": ("F16", noise(40_000, 9))})
    old = tar_of({"a/model.onnx": onnx_of(model), "b/weights": weights, "readme": b"x" * 30_000})
    new = tar_of({"0": b"new" * 9, "b/weights": weights, "a/model.onnx": onnx_of(near)})
    names = {tensor.name for tensor in found_in(new)}
    assert names == {"/b/weights:w", *(f"/a/model.onnx:{name}" for name in model)}
    delta = delta_of(old, new)
    assert applied(delta, old) == new
    # Every fourth byte changes by its lowest bit: an eighth of a byte for each word, and little else.
    assert len(delta) < 160_000 // 4


@given(st.binary(max_size=400))
def test_what_is_no_model_has_no_tensors_and_does_no_harm(content: bytes) -> None:
    for tensor in found_in(content):
        assert 0 <= tensor.offset <= tensor.offset + tensor.size <= len(content)


@given(st.data())
def test_damaged_models_have_no_tensors_outside(data: st.DataObject) -> None:
    content = bytearray(
        data.draw(
            st.sampled_from(
                (
                    safetensors_of({"a": ("F32", b"1234" * 5), "b": ("F16", b"xyz!")}),
                    onnx_of({"a": (TensorProto.FLOAT, b"1234" * 9)}),
                    tar_of({"m": safetensors_of({"w": ("F16", bytes(20_000))})})[:4096],
                )
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(700, len(content) - 1)))] = data.draw(st.integers(0, 255))
    for tensor in found_in(bytes(content)):
        assert 0 <= tensor.offset <= tensor.offset + tensor.size <= len(content)


@pytest.mark.parametrize(
    "header",
    (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","data_offsets":[2,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[true,4]}}',
        b'{"a":[]}',
        b"[]",
        b'{"__metadata__":{}}',
    ),
)
def test_headers_that_lie_are_not_believed(header: bytes) -> None:
    assert found_in(len(header).to_bytes(8, "little") + header + b"1234") == []


def test_a_model_of_external_data_has_no_tensors() -> None:
    model = onnx.ModelProto()
    model.ir_version = 8
    assert found_in(model.SerializeToString()) == []
