"""From trained layers to ONNX files: the graph written node by node, and its quantised form.

The same layers give the same bytes, run after run: names are counted, and every version number is written
down here instead of following whatever the installed libraries think is current.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from build_tools.network import Array, Conv3x3, Dense, Flatten, Layer, MaxPool2x2, Relu

OPSET = 17
IR_VERSION = 9
INPUT, OUTPUT = "image", "scores"
CALIBRATION_BATCH = 50


def make_graph(layers: Sequence[Layer], *, input_scale: float) -> onnx.ModelProto:
    """A model that takes `image`, [N, 1, 8, 8], and gives `scores`, the softmax of the last layer.

    The layers learnt from images times `input_scale`; the model takes them as they are, for the scale goes
    into the first weights. That is exact, since convolutions pad with zeros.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    scale, value = input_scale, INPUT
    for number, layer in enumerate(layers):
        name = f"layer{number}"
        names: list[str] = []
        for kind, parameter in zip(("weight", "bias"), layer.parameters, strict=False):
            factor = scale if kind == "weight" else 1.0
            names.append(f"{name}.{kind}")
            weights.append(numpy_helper.from_array(parameter * np.float32(factor), names[-1]))
        if names:
            scale = 1.0
        operator, attributes = _operator(layer)
        nodes.append(helper.make_node(operator, [value, *names], [name], name=name, **attributes))
        value = name
    nodes.append(helper.make_node("Softmax", [value], [OUTPUT], name="softmax", axis=1))
    classes = len(layers[-1].parameters[1])
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _operator(layer: Layer) -> tuple[str, dict[str, Any]]:
    match layer:
        case Dense():
            return "Gemm", {}
        case Conv3x3():
            return "Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        case Relu():
            return "Relu", {}
        case MaxPool2x2():
            return "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
        case Flatten():
            return "Flatten", {"axis": 1}
        case _:
            raise TypeError(f"no ONNX operator is known for {type(layer).__name__}")


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write the model as one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Calibration:
    """Hands images to the quantiser, which learns from them how large values get inside the network."""

    def __init__(self, images: Array) -> None:
        starts = range(0, len(images), CALIBRATION_BATCH)
        self._batches: Iterator[Array] = iter([images[start : start + CALIBRATION_BATCH] for start in starts])

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def quantize_graph(source: Path, target: Path, images: Array) -> None:
    """Write the int8 form of a model: weights and values in 8 bits between quantise and dequantise nodes.

    `images`, [N, 1, 8, 8], must come from training digits.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Its advice to preprocess does not apply: shapes are inferred on the way and there is nothing left to
    # fuse.
    logging.getLogger().addFilter(_no_preprocess_advice)
    try:
        quantization.quantize_static(
            source,
            target,
            cast("Any", _Calibration(images)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MaxPool", "Relu"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        logging.getLogger().removeFilter(_no_preprocess_advice)
    save_graph(onnx.load(target), target)


def _no_preprocess_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
