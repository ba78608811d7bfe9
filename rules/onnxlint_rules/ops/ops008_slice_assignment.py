"""OPS008: a ScatterND that stands for an assignment to a slice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, Graph, GraphView, Node, Options, Request, Rule, Silent, counted
from onnxlint_rules._graph import advice
from onnxlint_rules._patching import each, is_held
from onnxlint_rules.ops._slices import block_of, put_block

if TYPE_CHECKING:
    from onnxlint import Surgeon

_UNSTEADY = frozenset(
    """Bernoulli If Loop Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike Scan
    SequenceMap""".split()
)


class SliceAssignment(Rule):
    """An assignment to a slice is exported as ScatterND.

    ## What it does

    Reports ScatterND whose indices are constants or follow from shapes alone, while what is written into, or what is
    written, is data: `y[..., 0:2] = …` in PyTorch. One finding for each module, or each line of Python where the exporter
    left it. Indices that depend on data (a position in a key-value cache, boxes chosen by score) are no slices and stay
    silent, as do tables that are computed from shapes alone.

    ## Why it hurts

    - A slice becomes a list of all its indices: a chain of Shape, Range, Expand, Add and Concat in TorchScript exports
      (some thirty to sixty nodes for each assignment), two Transpose of the whole tensor in those of torch.export.
    - onnx2ncnn has no ScatterND. TensorRT has it since 8.2 only, and without `reduction`; ONNX Runtime on CUDA long
      moved the tensor to the CPU for it.
    - Random writes where a copy of a block would do. What comes before cannot be fused with what comes after.

    ## Fix it at the source

    ```python
    # before
    y[..., 0:2] = (y[..., 0:2].sigmoid() + grid) * stride
    y[..., 2:4] = y[..., 2:4].exp() * anchors
    # after
    y = torch.cat([(y[..., 0:2].sigmoid() + grid) * stride, y[..., 2:4].exp() * anchors, y[..., 4:]], dim=-1)
    ```

    ## Fix safety

    Exact where the indices are those of a slice with step 1: what lies before it, the new values and what lies after it,
    joined by Concat. It needs to know the sizes of the axes that are indexed. Scattered indices (`y[:, [0, 3]] = …`) need
    a Where with a constant mask, which only the source can have.

    ## References

    - [ScatterND](https://onnx.ai/onnx/operators/onnx__ScatterND.html) in the ONNX specification
    - [onnx-tensorrt: avoided by concatenation](https://github.com/onnx/onnx-tensorrt/issues/618), and
      [NVIDIA/TensorRT](https://github.com/NVIDIA/TensorRT/issues/1006)
    - [ONNX Runtime: ScatterND on CUDA](https://github.com/microsoft/onnxruntime/issues/5958)
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp)
    """

    code = "OPS008"
    name = "slice-assignment"
    help = "build the tensor with torch.cat in place of assigning to slices"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4,N] x) => (float[4,N] y)
            <int64[2,1] rows = {0, 1}, int64[1] zero = {0}, int64[1] two = {2}> {
                head = Slice (x, zero, two)
                scores = Sigmoid (head)
                y = ScatterND (x, rows, scores)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4,N] x) => (float[4,N] y)
            <int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}> {
                head = Slice (x, zero, two)
                rest = Slice (x, two, four)
                scores = Sigmoid (head)
                y = Concat <axis = 0> (scores, rest)
            }
            """,
            says="ScatterND (1 node) writes slices that are known before the model runs",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[M,4] x, float[M,4] z) => (float[M,4] y)
            <int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}> {
                shape = Shape (x)
                count = Gather (shape, zero)
                range = Range (zero, count, one)
                rows = Unsqueeze (range, last)
                y = ScatterND (x, rows, z)
            }
            """,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,3,N] x, float[N] z) => (float[2,3,N] y) <int64[1,1,2] place = {1, -2}> {
                row = Unsqueeze (z, axes)
                new = Unsqueeze (row, axes)
                y = ScatterND (x, place, new)
            }
            """.replace("<int64[1,1,2] place = {1, -2}>", "<int64[1,1,2] place = {1, -2}, int64[1] axes = {0}>"),
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,3,N] x, float[N] z) => (float[2,3,N] y)
            <int64[1] axes = {0}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}> {
                row = Unsqueeze (z, axes)
                new = Unsqueeze (row, axes)
                first = Slice (x, zero, one, zero)
                second = Slice (x, one, two, zero)
                before = Slice (second, zero, one, one)
                after = Slice (second, two, three, one)
                changed = Concat <axis = 1> (before, new, after)
                y = Concat <axis = 0> (first, changed)
            }
            """,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4,N] x, float[2,N] z) => (float[4,N] y) <int64[2,1] rows = {0, 3}> {
                y = ScatterND (x, rows, z)
            }
            """,
            dims={"N": 3},
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[L,4] cache, int64[N,1] position, float[N,4] key) => (float[L,4] new_cache) {
                new_cache = ScatterND (cache, position, key)
            }
            """,
            why="the position in a cache is data",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <int64[1,1] first = {0}, float[1] big = {9.0}, int64[1] n = {4}> {
                zeros = ConstantOfShape (n)
                table = ScatterND (zeros, first, big)
                y = Add (x, table)
            }
            """,
            why="a table that is computed from constants is GRF004's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for nodes in _groups(view):
            fixable = any(is_held(node.graph) and block_of(node) is not None for node in nodes)
            yield self.found(
                view.at(nodes[0]),
                f"ScatterND ({counted(len(nodes), 'node')}) writes slices that are known before the model runs",
                help=advice(view, self.help, "build the tensor by concatenation in place of assigning to slices"),
                fix=SAFE if fixable else None,
                nodes=len(nodes),
                not_fixed="" if fixable else "its indices depend on sizes, or are not a block of slices",
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        first = view.find(finding.location)
        nodes = next(nodes for nodes in _groups(view) if nodes[0] is first)
        each(surgeon, nodes, partial(put_block, surgeon))


def _groups(view: GraphView) -> list[list[Node]]:
    """ScatterND nodes with known indices, those of the same source line together."""
    places: dict[tuple[str, str], list[Node]] = {}
    steady: frozenset[str] | None = None
    for node in view.nodes("ScatterND"):
        if node.graph is not view.main or node.attribute("reduction", "none") != "none" or len(node.inputs) < 3:
            continue
        if steady is None:
            steady = _steady(view.main)
        data, indices, updates = (
            name in steady or view.main.is_constant(name) for name in (node.input(0), node.input(1), node.input(2))
        )
        if indices and not (data and updates):
            place = view.at(node)
            line = str(place.source[-1]) if place.source else ""
            places.setdefault((place.scope, line), []).append(node)
    return list(places.values())


def _steady(graph: Graph) -> frozenset[str]:
    """Values that depend on constants and on shapes alone."""
    known: set[str] = set()
    for node in graph.order:
        if node.op in ("Shape", "Size") or (
            node.op not in _UNSTEADY
            and "::" not in node.op
            and all(not name or name in known or graph.is_constant(name) for name in node.inputs)
        ):
            known.update(name for name in node.outputs if name)
    return frozenset(known)
