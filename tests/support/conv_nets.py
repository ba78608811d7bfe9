"""Small convolutional networks with random weights, for tests of backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxlint.images.recipe import ImageSet, Recipe

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
IMAGES = ImageSet("pixels", arrays=PIXELS)
RECIPE = Recipe(None, (127.5,) * 3, (1 / 64,) * 3, "RGB")


def conv_net(path: Path, size: int | str = 24, opset: int = 13) -> str:
    """A stem, a depthwise-separable block with a residual sum, and two heads: `boxes` is joined of two branches by a
    Concat, `scores` is a Gemm over what is pooled.

    Args:
        path: Where to write.
        size: Height and width of the input `x` (1×3×size×size); a name for free ones.
        opset: Of the model.
    """
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(op: str, name: str, sources: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(op, sources, [name], name=name, **attributes))
        return name

    def conv(name: str, source: str, out: int, inside: int, kernel: int, **more: Any) -> str:
        weight = generator.standard_normal((out, inside, kernel, kernel)) / np.sqrt(inside * kernel * kernel)
        bias = generator.standard_normal(out) * 0.1
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.w"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}.b"))
        sources = [source, f"{name}.w", f"{name}.b"]
        return add("Conv", name, sources, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, **more)

    stem = add("Relu", "stem.act", [conv("stem", "x", 8, 3, 3, strides=[2, 2])])
    deep = add("Relu", "deep.act", [conv("deep", stem, 8, 1, 3, group=8)])
    total = add("Relu", "total.act", [add("Add", "total", [conv("wide", deep, 8, 8, 1), stem])])
    add("Concat", "boxes", [conv("left", total, 2, 8, 1), conv("right", total, 2, 8, 3)], axis=1)
    flat = add("Flatten", "flat", [add("GlobalAveragePool", "pool", [total])])
    weights.append(numpy_helper.from_array(generator.standard_normal((5, 8)).astype(np.float32), "scores.w"))
    weights.append(numpy_helper.from_array(np.full(5, 0.25, np.float32), "scores.b"))
    add("Gemm", "scores", [flat, "scores.w", "scores.b"], transB=1)
    shapes: dict[str, list[str | int | None]] = {"boxes": [1, 4, None, None], "scores": [1, 5]}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return str(path)
