"""Whether sums overflow in onnxruntime's int8 arithmetic on this processor, measured."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxlint.backends.ort.session import load, run, start
from onnxlint.backends.overflow import CHANNELS, NOTE, RIGHT, is_large
from onnxlint.model.skeleton import open_model


@lru_cache(maxsize=1)
def measured_share() -> float:
    """What onnxruntime computes here for the largest int8 sum, as a share of the right result: 1, or about a half."""
    exact = float(255 * 127 * CHANNELS)
    step = exact / 200
    constants = {
        "one": np.float32(1),
        "zero_u8": np.uint8(0),
        "step": np.float32(step),
        "weight": np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8),
        "scales": np.ones(CHANNELS, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero_u8"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero_u8"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "scales"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "step", "zero_u8"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "step", "zero_u8"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (found,) = run(start(model, threads=1), "the measurement", {"x": np.full((1, CHANNELS, 4, 4), 255, np.float32)})
    return float(np.asarray(found).min()) / exact


def notes_for(path: str) -> tuple[str, ...]:
    """A note for a model file where its sums overflow on this processor; other weights than int8 are not read.

    Raises:
        OnnxlintError: The file cannot be read.
    """
    if not any(map(is_int8, open_model(path).proto.graph.initializer)) or measured_share() > RIGHT:
        return ()
    return (NOTE,) if has_large(load(path).graph.initializer) else ()


def is_int8(tensor: onnx.TensorProto) -> bool:
    """Whether it can be the weights of an int8 layer."""
    return tensor.data_type == TensorProto.INT8 and len(tensor.dims) >= 2


def has_large(tensors: Iterable[onnx.TensorProto]) -> bool:
    """Whether an integer weight is so large that sums of two products may not fit 16 bits."""
    return any(is_large(numpy_helper.to_array(one)) for one in tensors if is_int8(one))
