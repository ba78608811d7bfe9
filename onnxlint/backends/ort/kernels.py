"""Which int8 layers onnxruntime computes in integers on this machine: it is asked, not guessed.

It does so where a layer stands between DequantizeLinear and QuantizeLinear, with a Relu between at most. With anything else
behind it, such as LeakyRelu or HardSwish, the layer is computed in float from int8 weights.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter

import onnx

from onnxlint.backends.ort.equalize import FUSED
from onnxlint.backends.ort.qdq import layers
from onnxlint.backends.ort.session import load, runtime, start

INTEGERS = frozenset(
    "ConvInteger DynamicQuantizeMatMul MatMulInteger MatMulIntegerToFloat QGemm QLinearConv QLinearMatMul".split()
)
"""Operators of onnxruntime's own graph that compute in integers."""

ENOUGH = 0.5
"""Part of the layers in integers below which a note says so: the last ones, whose outputs stay float, never are."""


def integer_layers(path: str, threads: int = 2) -> int:
    """How many nodes of a model are computed in integers.

    Args:
        path: Of the model; beside it a folder is made for a moment.
        threads: For onnxruntime.

    Raises:
        OnnxlintError: It does not load.
    """
    with tempfile.TemporaryDirectory(prefix=".onnxlint-", dir=os.path.dirname(path) or ".") as folder:
        optimized = os.path.join(folder, "optimized.onnx")
        start(path, threads=threads, optimized=optimized)
        return sum(node.op_type in INTEGERS for node in load(optimized).graph.node)


def note(model: onnx.ModelProto, quantized: int, integers: int) -> tuple[str, ...]:
    """What to say where many int8 layers are computed in float.

    Args:
        model: Before it was quantized.
        quantized: Layers with int8 weights.
        integers: Those of them that are computed in integers.
    """
    if integers >= ENOUGH * quantized:
        return ()
    known, behind = layers(model), Counter[str]()
    made = {node.output[0] for node in model.graph.node if node.name in known}
    for node in model.graph.node:
        behind.update(
            [node.op_type] * (node.op_type not in {*FUSED, "QuantizeLinear"} and not made.isdisjoint(node.input))
        )
    follows = f", as {' or '.join(kind for kind, _ in behind.most_common(2))} follows them" if behind else ""
    return (
        f"onnxruntime {runtime().__version__} computes {integers:,} of {quantized:,} int8 layers in integers here, and the "
        f"others in float{follows}: the model may be slower than the float one ('onnxlint compare' measures it); try "
        "openvino-int8",
    )
