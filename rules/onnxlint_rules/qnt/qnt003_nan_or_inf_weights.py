"""QNT003: weights that are no number, or infinite."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from onnxlint import Example, Finding, Graph, GraphView, Node, Options, Rule, Severity, Silent, counted
from onnxlint_rules._graph import FLOAT, FLOATS, constant_tensor, names_shown

if TYPE_CHECKING:
    import onnx


class NanOrInfWeights(Rule):
    """Weights hold NaN or infinity.

    ## What it does

    Looks for numbers that are NaN or infinite in the weights, biases and statistics of convolutions, matrix products,
    recurrent and normalization layers, and for NaN in other constants of more than one number. Reports once for NaN and
    once for infinity, with the number of tensors. Without `--weights` only tensors under 4 KB are read: biases and
    statistics mostly, which NaN reaches as soon as the weights.

    Infinity elsewhere is left alone: attention masks hold -inf on purpose, and Where chooses between a number and NaN.

    ## Why it hurts

    NaN spreads: one weight turns a whole channel, and after the next layer the whole output, into NaN, for every input.
    Runtimes load such a file without a word (onnxruntime 1.31 does). Quantizers compute ranges from it, and write scales
    that are NaN, with which TensorRT refuses the file.

    ## Fix it at the source

    ```python
    # before: the last checkpoint of a training run that diverged
    model.load_state_dict(torch.load("last.pth"))
    # after: check, and export the last good one
    assert all(v.isfinite().all() for v in model.state_dict().values())
    ```

    Infinite variances come from statistics that overflowed in half precision: recompute them in float32.

    ## Fix safety

    There is no fix: the numbers are gone.

    ## References

    - [TensorRT#2628](https://github.com/NVIDIA/TensorRT/issues/2628): a NaN scale in QuantizeLinear fails to build
    - [TensorRT#3112](https://github.com/NVIDIA/TensorRT/issues/3112): NaN scales in all quantized layers
    - [torch.isfinite](https://docs.pytorch.org/docs/stable/generated/torch.isfinite.html)
    """

    code = "QNT003"
    name = "nan-or-inf-weights"
    apart = True
    severity = Severity.ERROR
    help = "export a checkpoint whose weights are all finite"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, nan, 4}, float[2] b = {inf, 1}> {
                a = MatMul (x, w)
                y = Gemm (a, w, b)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] b = {0, 1}> {
                a = MatMul (x, w)
                y = Gemm (a, w, b)
            }
            """,
            findings=2,
            equal=False,
            says="1 tensor of weights holds NaN (w: 1 of 4)",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] scores, bool[N,2] keep) => (float[N,2] y)
            <float[1,2] mask = {0, -inf}, float low = {-inf}, float none = {nan}> {
                masked = Add (scores, mask)
                some = Where (keep, masked, low)
                p = Softmax (some)
                y = Where (keep, p, none)
            }
            """,
            why="masks hold -inf on purpose, and Where may choose NaN",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        constants = [(name, t, graph) for name, t, graph in _constants(view) if t.data_type in FLOATS]
        clean = _are_finite(tensor for _, tensor, _ in constants)
        suspects = [
            (name, tensor, readers)
            for name, tensor, graph in constants
            if (options.weights if tensor.data_location == 1 else not (clean and _is_plain(tensor)))
            and (readers := graph.consumers(name))
        ]
        if suspects:
            yield from self._closer(view, suspects)

    def _closer(self, view: GraphView, suspects: list[tuple[str, onnx.TensorProto, list[Node]]]) -> Iterator[Finding]:
        from onnxlint_rules.qnt._weights import figures

        nan: list[tuple[Node, str, str]] = []
        inf: list[tuple[Node, str, str]] = []
        for name, tensor, readers in suspects:
            seen = figures(view, tensor)
            if seen is None or not (seen.nan or seen.inf):
                continue
            layer = next((r for r in readers if _is_parameter(r, name)), None)
            other = next((r for r in readers if r.op not in _CHOOSERS), None) if seen.count > 1 else None
            if seen.nan and (layer or other):
                nan.append((layer or other or readers[0], name, f"{name}: {seen.nan:,} of {seen.count:,}"))
            elif seen.inf and layer:
                inf.append((layer, name, f"{name}: {seen.inf:,} of {seen.count:,}"))
        for found, what in ((nan, "NaN"), (inf, "infinity")):
            if found:
                node, name, _ = found[0]
                yield self.found(
                    view.at(node, value=name),
                    f"{counted(len(found), 'tensor')} of weights {'holds' if len(found) == 1 else 'hold'} {what} "
                    f"({names_shown(text for _, _, text in found)})",
                    count=len(found),
                )


_CHOOSERS = frozenset(("Equal", "IsInf", "IsNaN", "Where"))
"""Operators that NaN does not spread through, or that are asked for it."""

_PARAMETERS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "GRU": (1, 2, 3),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
"""Operators of a layer, and which operands are its weights, biases and statistics."""


def _is_parameter(reader: Node, name: str) -> bool:
    return any(reader.input(i) == name for i in _PARAMETERS.get(reader.op, ()))


def _constants(view: GraphView) -> Iterator[tuple[str, onnx.TensorProto, Graph]]:
    """(name, tensor, graph) of initializers and of Constant nodes that hold a tensor."""
    for graph in view.graphs:
        for name, tensor in graph.initializers.items():
            yield name, tensor, graph
    for node in view.nodes("Constant"):
        value = constant_tensor(node)
        if value is not None:
            yield node.output(), value, node.graph


def _is_plain(tensor: onnx.TensorProto) -> bool:
    """Whether `_are_finite` looks at a tensor."""
    return tensor.data_type == FLOAT and tensor.HasField("raw_data") and len(tensor.raw_data) % 4 == 0


def _are_finite(tensors: Iterable[onnx.TensorProto]) -> bool:
    """Whether all float32 tensors whose raw data is in the skeleton are finite: one look at thousands of small ones."""
    data = b"".join(tensor.raw_data for tensor in tensors if _is_plain(tensor))
    highest = data[3::4]  # sign and most of the exponent of each
    if b"\x7f" not in highest and b"\xff" not in highest:
        return True
    if len(data) <= _WITHOUT_NUMPY:
        # The sum of finite float32 numbers does not overflow a double, and nothing else makes it infinite or NaN.
        return math.isfinite(sum(struct.unpack(f"<{len(data) // 4}f", data)))
    import numpy as np

    return bool(np.isfinite(np.frombuffer(data, "<f4")).all())


_WITHOUT_NUMPY = 1 << 20
"""Bytes that Python adds up faster than NumPy is imported."""
