"""Small networks to compare: three convolutions and two heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 16


def weights(seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Of three convolutions and a head each for boxes and scores."""
    generator = np.random.default_rng(seed)
    shapes = {
        "w0": (8, 3, 3, 3),
        "w1": (8, 8, 3, 3),
        "w2": (8, 8, 3, 3),
        "boxes_w": (4, 8, 1, 1),
        "scores_w": (2, 8, 1, 1),
    }
    return {
        name: (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }


def detector(
    path: Path,
    *,
    prefix: str = "",
    changed: dict[str, npt.NDArray[np.float32]] | None = None,
    softmax: bool = True,
    outputs: tuple[str, str] = ("boxes", "scores"),
    only: int = 2,
) -> str:
    """Write a detector.

    Args:
        path: Where.
        prefix: Of the names of everything inside.
        changed: Weights that differ.
        softmax: Whether it ends in one.
        outputs: Names.
        only: How many outputs there are.
    """
    values = {**weights(), **(changed or {})}
    nodes: list[onnx.NodeProto] = []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(op, inputs, [output], name=f"/{prefix}body/{output}", **attributes))

    last = "image"
    for i in range(3):
        node("Conv", [last, f"w{i}"], f"{prefix}conv{i}", pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        node("Relu", [f"{prefix}conv{i}"], f"{prefix}relu{i}")
        last = f"{prefix}relu{i}"
    for head, name in (("boxes", outputs[0]), ("scores", outputs[1])):
        node("Conv", [last, f"{head}_w"], f"{prefix}{head}_map", kernel_shape=[1, 1])
        node("Transpose", [f"{prefix}{head}_map"], f"{prefix}{head}_rows", perm=[0, 2, 3, 1])
        is_last = head == "boxes" or not softmax
        node("Reshape", [f"{prefix}{head}_rows", f"{head}_shape"], name if is_last else f"{prefix}{head}_flat")
    if softmax:
        node("Softmax", [f"{prefix}scores_flat"], outputs[1], axis=-1)
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    tensors += [
        numpy_helper.from_array(np.array([0, -1, size], np.int64), f"{head}_shape")
        for head, size in (("boxes", 4), ("scores", 2))
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs[:only]],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


def rough(name: str, steps: int = 30) -> dict[str, npt.NDArray[np.float32]]:
    """One weight, rounded to a few steps."""
    value = weights()[name]
    step = np.abs(value).max() / steps
    return {name: np.asarray(np.round(value / step) * step, np.float32)}


def images(path: Path, count: int = 5, seed: int = 3) -> str:
    """Write uint8 pictures as an .npy file."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    np.save(path, coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2))
    return str(path)
