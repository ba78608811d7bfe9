"""Which int8 layers onnxruntime computes in integers on this machine: it is asked, not guessed.

It does so where a layer stands between DequantizeLinear and QuantizeLinear, with a Relu or Clip between at most. With
anything else behind it, such as LeakyRelu or HardSwish, the layer is computed in float from int8 weights.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence

from onnxlint.backends import Decision
from onnxlint.backends.ort.equalize import FUSED
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


def float_note(path: str, decisions: Sequence[Decision], integers: int) -> tuple[str, ...]:
    """What to say where many int8 layers are computed in float.

    Args:
        path: Of the quantized model.
        decisions: What became of its layers.
        integers: How many are computed in integers.

    Raises:
        OnnxlintError: The file cannot be read.
    """
    quantized = {one.layer for one in decisions if one.state == "int8"}
    if integers >= ENOUGH * len(quantized):
        return ()
    nodes = load(path, data=False).graph.node
    made = {node.output[0] for node in nodes if node.name in quantized}
    behind = Counter(node.op_type for node in nodes if not made.isdisjoint(node.input))
    for kind in (*FUSED, "QuantizeLinear"):
        del behind[kind]
    follows = f", as {' or '.join(kind for kind, _ in behind.most_common(2))} follows them" if behind else ""
    return (
        f"onnxruntime {runtime().__version__} computes {integers:,} of {len(quantized):,} int8 layers in integers here, "
        f"and the others in float{follows}: the model may be slower than the float one ('onnxlint compare' measures it); "
        "try openvino-int8",
    )
