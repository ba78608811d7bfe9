"""GRF004: nodes that compute the same value at every run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
    Example,
    Finding,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    Unfixable,
    counted,
)
from onnxlint_rules._graph import label, names_shown
from onnxlint_rules._patching import UNHELD, each, is_held
from onnxlint_rules.grf._folding import Region, regions

if TYPE_CHECKING:
    from onnxlint import Surgeon

TOO_LARGE = 1_000_000
"""A result that would make the file this many bytes larger is better computed than stored."""

MAX_RESULT = 1 << 26
"""Elements of a result that a fix computes at most: it has to hold them in memory."""


class ConstantFoldable(Rule):
    """Nodes have only constant inputs, and compute the same value at every run.

    ## What it does

    Reports connected nodes all of whose inputs are initializers, Constant nodes, or sizes that the model fixes; groups of the same operators once,
    with their number, at the node where the first one ends. Left out: QuantizeLinear and DequantizeLinear, random
    operators and control flow; shape computations (SHP002); ConstantOfShape and Identity by themselves; and results that
    would make the file more than 1 MB larger, such as masks and weights that are widened at start.

    A warning where the result is a weight operand, or a parameter of Pad, Reshape, Resize, Slice or Upsample; else for
    information.

    ## Why it hurts

    - onnxruntime's quantizer takes only initializers for weights. Measured with onnxruntime 1.31: a MatMul that reads its
      weights through a Transpose or an Identity stays float32 in `quantize_dynamic`, and is quantized as an activation, at
      every run, in `quantize_static`.
    - onnx2ncnn looks weights and parameters (padding, scales, sizes, shapes) up among the initializers and Constant nodes.
      What a node computes is not there: it writes a layer without them. onnx-tensorrt wants initializers for the weights
      of Conv and ConvTranspose, the axes of Slice and Squeeze and the K of TopK.
    - Runtimes without constant folding compute it at every run; those with it, at every start.

    ## Fix it at the source

    ```python
    # before
    def forward(self, x):
        return x @ self.weight.t()
    # after
    def __init__(self, ...):
        self.register_buffer("weight_t", self.weight.t().contiguous())

    def forward(self, x):
        return x @ self.weight_t
    ```

    `torch.onnx.export(…, do_constant_folding=True)` and `onnxscript.optimizer.optimize` fold most of it too.

    ## Fix safety

    The value is computed once, with the same operators, and stored. Exact for integers and for operators that only move
    data; float arithmetic may differ in the last bit from what another backend would have computed. The file grows by
    the difference between the result and what it was computed from.

    ## References

    - [Graph optimizations in ONNX Runtime](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html): constant folding
    - [onnxruntime#13358](https://github.com/microsoft/onnxruntime/issues/13358): `Expected … to be an initializer`
    - [onnx-tensorrt: supported operators](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md): restrictions
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp): `weights[node.input(1)]`
    """  # noqa: E501 - one link a line

    code = "GRF004"
    name = "constant-foldable"
    severity = Severity.INFO
    arithmetic = True
    help = "compute it once and store the result"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,3] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
                t = Transpose <perm = [1, 0]> (w)
                y = MatMul (x, t)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,3] y) <float[2,3] t = {1, 3, 5, 2, 4, 6}> {
                y = MatMul (x, t)
            }
            """,
            says="Transpose computes weights from constants at every run: quantizers and converters do not find them",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,5] y) <int64[2] one = {0, 1}, int64[2] two = {0, 2}> {
                pads = Concat <axis = 0> (one, two)
                y = Pad (x, pads)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,5] y) <int64[4] pads = {0, 1, 0, 2}> {
                y = Pad (x, pads)
            }
            """,
            says="Concat computes parameters of Pad from constants",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float scale = {4}> {
                a = Sqrt (scale)
                b = Reciprocal (a)
                y = Mul (x, b)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float b = {0.5}> {
                y = Mul (x, b)
            }
            """,
            says="2 nodes (Sqrt → Reciprocal) compute the same value at every run",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4,6] x) => (float[4,6] y) <int64 last = {1}, int64[6] places = {0, 1, 2, 3, 4, 5}, int64 two = {2}> {
                shape = Shape (x)
                width = Gather (shape, last)
                border = Sub (width, two)
                inside = Less (places, border)
                mask = Cast <to = 1> (inside)
                y = Mul (x, mask)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4,6] x) => (float[4,6] y) <float[6] mask = {1, 1, 1, 1, 0, 0}> {
                y = Mul (x, mask)
            }
            """,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y, float[1,2] a, float[1,2] b) <float[2,2] w = {1, 2, 3, 4}> {
                a, b = Split <axis = 0> (w)
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y, float[1,2] a, float[1,2] b)
            <float[1,2] first = {1, 2}, float[1,2] second = {3, 4}> {
                a = Identity (first)
                b = Identity (second)
                y = Relu (x)
            }
            """,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y)
            <int8[2,2] w = {1, 2, 3, 4}, float s = {0.5}, int8 z = {0}> {
                d = DequantizeLinear (w, s, z)
                y = MatMul (x, d)
            }
            """,
            why="quantized weights are meant to be dequantized at run time",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[2,A] y) <int64 zero = {0}, int64[1] axis = {0}, int64 two = {2}> {
                shape = Shape (x)
                n = Gather <axis = 0> (shape, zero)
                half = Div (n, two)
                tail = Unsqueeze (half, axis)
                head = Unsqueeze (two, axis)
                target = Concat <axis = 0> (head, tail)
                y = Reshape (x, target)
            }
            """,
            why="the Unsqueeze of a constant is a link of a shape computation",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) {
                shape = Shape (x)
                sizes = Cast <to = 1> (shape)
                y = Mul (x, sizes)
            }
            """,
            why="a size is free",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2000,2000] x) => (float[2000,2000] y) <int64[2] size = {2000, 2000}, float two = {2}> {
                ones = ConstantOfShape (size)
                mask = Add (ones, two)
                y = Mul (x, mask)
            }
            """,
            why="the result takes 16 MB",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float[2,2] w) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                t = Transpose (w)
                y = MatMul (x, t)
            }
            """,
            why="a caller may pass another w (GRF001)",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for same in _groups(view):
            first = same[0]
            nodes = [node for region in same for node in region.nodes]
            fixable = any(is_held(node.graph) for node in nodes)
            what = "parameters" if first.hides else "the same values"
            yield self.found(
                view.at(first.ends[-1]),
                _message(first, len(same)),
                severity=Severity.WARNING if first.hides else None,
                nodes=names_shown(map(label, nodes), 10),
                count=len(same),
                fix=SAFE if fixable else None,
                not_fixed="" if fixable else UNHELD,
                group=f"Groups of nodes compute {what} from constants at every run",
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        from onnxlint_rules.grf._evaluate import evaluate

        end = view.find(finding.location)
        same = next(same for same in _groups(view) if same[0].ends[-1] is end)
        by_end = {id(region.ends[-1]): region for region in same}

        def fold(last: Node) -> None:
            region = by_end[id(last)]
            members = {id(node) for node in region.nodes}
            if len({id(node.graph) for node in region.nodes}) > 1:
                raise Unfixable("it reaches into a nested graph")
            wanted = [name for node in region.ends for name in node.outputs if _is_read_outside(node, name, members)]
            for name in wanted:
                shape = last.graph.shape(name) or ()
                if math.prod(size for size in shape if isinstance(size, int)) > MAX_RESULT:
                    raise Unfixable("its result is too large to be computed ahead")
            for node in region.nodes:
                surgeon.node(node)
            values = evaluate(view, region.nodes, wanted)
            # Before the first is replaced: a node that makes several outputs of the graph is detached with it.
            made = [
                (node, surgeon.tensor(node, name)) for node in region.ends for name in node.outputs if name in values
            ]
            for node, tensor in made:
                constant = surgeon.constant(f"{tensor.name}_folded", values[tensor.name], node.graph)
                surgeon.replace_value(tensor, constant, node)

        each(surgeon, (region.ends[-1] for region in same), fold)


def _groups(view: GraphView) -> list[list[Region]]:
    """Regions worth folding, those of the same operators together; made once."""
    known: list[list[Region]] | None = view.memo.get("onnxlint_rules.foldable_groups")
    if known is None:
        groups: dict[tuple[str, ...], list[Region]] = {}
        for region in regions(view):
            if region.grows is not None and region.grows <= TOO_LARGE:
                groups.setdefault((region.hides, *_ops(region)), []).append(region)
        known = view.memo["onnxlint_rules.foldable_groups"] = list(groups.values())
    return known


def _is_read_outside(node: Node, name: str, members: set[int]) -> bool:
    graph = node.graph
    return bool(name) and (graph.is_output(name) or any(id(user) not in members for user in graph.consumers(name)))


def _ops(region: Region) -> list[str]:
    return [node.op for node in region.nodes if node.op != "Identity"]


def _message(region: Region, count: int) -> str:
    ops = _ops(region)
    way = " → ".join(ops if len(ops) <= 4 else [*ops[:2], "…", ops[-1]])
    one = len(ops) == 1
    what = ops[0] if one else f"{counted(len(ops), 'node')} ({way})"
    if count > 1:
        what = f"{count:,} {ops[0]} nodes" if one else f"{count:,} groups of {what}"
    verb = "computes" if one and count == 1 else "compute"
    if region.hides:
        return f"{what} {verb} {region.hides} from constants at every run: quantizers and converters do not find them"
    return f"{what} {verb} the same value at every run"
