"""SHP002: an operand computed from shapes at run time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Options, Request, Rule, Severity, Silent, Unfixable
from onnxlint.shapes import constant_target
from onnxlint.surgeon import bypass
from onnxlint_rules._shape_operands import (
    Operand,
    computed_operands,
    is_expand_by_shape,
    is_flatten,
    is_resize_by_sizes,
    show_numbers,
)

if TYPE_CHECKING:
    from onnxlint.surgeon import Surgeon


class ShapeChain(Rule):
    """A shape operand is computed by a chain of nodes that starts at Shape.

    ## What it does

    Reports every Reshape, Expand, Slice, Tile, Pad, ConstantOfShape, Range, … with an operand that nodes compute from
    the shapes of other values: one finding for each such consumer, with the chain. It is a warning where a constant
    could stand in its place, and information where the value really depends on more than one free size.

    ## Why it hurts

    - ncnn knows no shape tensors: onnx2ncnn writes `Shape`, `Gather` and `Unsqueeze` layers that do not exist, and the
      `.param` does not load.
    - TensorRT runs shape arithmetic on the host and needs optimization profiles for it; int64 chains through Cast and
      Div have been a steady source of build failures.
    - Phone delegates (NNAPI, Core ML, QNN) stop at the chain: the graph is cut in two and the rest runs on the CPU.

    ## Fix it at the source

    ```python
    # before
    return out.view(out.shape[0], -1, 4)
    # after
    return out.flatten(1).unflatten(1, (-1, 4))  # or, with a batch that stays 1: out.reshape(1, -1, 4)
    ```

    ## Fix safety

    Exact where each element of the operand is a constant, the size of the same-numbered axis of the Reshape's input
    (`0`), or the only unknown (`-1`). `[b, C, H*W] → [b, C, H, W]` with H and W both free has to be computed: there the
    chain stays.

    ## References

    - [Reshape](https://onnx.ai/onnx/operators/onnx__Reshape.html): `0` copies a size, one `-1` is inferred
    - [ncnn: FAQ, onnx2ncnn and onnx-simplifier](https://github.com/Tencent/ncnn/wiki/use-ncnn-with-pytorch-or-onnx)
    - [TensorRT: shape tensors](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-with-dynamic-shapes.html)
    """

    code = "SHP002"
    name = "shape-chain"
    help = "write the sizes as constants, with -1 for the one that is free"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,H,W,8] x) => (float[N,P,4] y)
            <int64 zero = {0}, int64[1] axes = {0}, int64[1] minus = {-1}, int64[1] four = {4}> {
                shape = Shape (x)
                batch = Gather <axis = 0> (shape, zero)
                lead = Unsqueeze (batch, axes)
                target = Concat <axis = 0> (lead, minus, four)
                y = Reshape (x, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,H,W,8] x) => (float[N,P,4] y) <int64[3] target = {0, -1, 4}> {
                y = Reshape (x, target)
            }
            """,
            says="Reshape target [N, -1, 4] is computed (Shape → Gather → Unsqueeze → Concat → Reshape); [0, -1, 4]",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,C,P] x, float[N,C,H,W] like) => (float[N,C,H,W] y) {
                target = Shape (like)
                y = Reshape (x, target)
            }
            """,
            says="more than one free size",
            dims={"P": 16},
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,4,6,6] x, float[1,4,3,3] y) => (float[1,4,3,6] z)
            <int64[1] zero = {0}, int64[1] two = {2}, int64 i = {2}> {
                shape = Shape (y)
                height = Gather (shape, i)
                end = Unsqueeze (height, zero)
                z = Slice (x, zero, end, two)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,4,6,6] x, float[1,4,3,3] y) => (float[1,4,3,6] z)
            <int64[1] zero = {0}, int64[1] two = {2}, int64[1] end = {3}> {
                z = Slice (x, zero, end, two)
            }
            """,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,H,W,8] x) => (float[N,P,4] y) <int64[3] target = {0, -1, 4}> {
                y = Reshape (x, target)
            }
            """,
            why="the target is constant",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (int64[4] shape, float[N,3,H,W] y) {
                shape = Shape (x)
                y = Relu (x)
            }
            """,
            why="the shape is an output, not an operand",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        reported: set[int] = set()
        for operand in computed_operands(view):
            node = operand.node
            if (
                id(node) in reported
                or is_resize_by_sizes(operand)
                or is_expand_by_shape(operand)
                or is_flatten(operand)
            ):
                continue
            reported.add(id(node))
            target, why = simplest(operand)
            numbers = operand.numbers()
            shown = show_numbers(numbers) if numbers is not None else ""
            strict = target is not None or "ncnn" in options.targets
            says = f"{target} says the same" if target is not None else why
            yield self.found(
                view.at(node),
                f"{node.op} {_NAMES.get(node.op, 'operand')}{' ' * bool(shown)}{shown} is computed "
                f"({operand.describe()}); {says}",
                severity=Severity.WARNING if strict else Severity.INFO,
                help=self.help if target is not None else "keep the sizes fixed at export where the target allows it",
                fix=SAFE if target is not None else None,
                operand=node.input(operand.index),
                chain=", ".join(member.name or member.op for member in operand.chain.nodes[:20]),
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np

        node = view.find(finding.location)
        held = surgeon.node(node)
        mine = [operand for operand in computed_operands(view) if operand.node is node]
        held.attrs.pop("allowzero", None)  # dynamo sets it: there 0 would mean an axis of no elements
        targets = {operand.index: simplest(operand) for operand in mine}
        for index, (target, why) in targets.items():
            if target is None:
                raise Unfixable(why)
            if node.op == "Expand" and is_no_op(mine[0]):
                bypass(held)
                return
            value = view.symbolic.val(node, index)
            array = np.array(target, np.int64 if view.main.dtype(node.input(index)) != 6 else np.int32)
            if value is not None and node.op in ("Range", "Gather"):
                array = array.reshape(value.dims)
            held.inputs[index] = surgeon.constant(
                f"{node.name or node.output()}_{_NAMES.get(node.op, 'operand')}", array
            )


_NAMES = {"Reshape": "target", "Expand": "target", "Tile": "repeats", "ConstantOfShape": "shape", "Upsample": "scales"}


def simplest(operand: Operand) -> tuple[list[int] | None, str]:
    """A constant that can stand in the operand's place; or None, and why there is none."""
    numbers, data = operand.numbers(), operand.data()
    if numbers is None:
        return None, "its value cannot be told from the graph"
    if operand.node.op == "Reshape":
        if operand.node.attribute("allowzero", 0) and any(number == 0 for number in numbers):
            return None, "it uses 0 for an axis of no elements"
        target = constant_target(data or (), numbers)
        return target, "" if target is not None else "it has more than one free size"
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) == len(numbers):
        return whole, ""
    if is_no_op(operand):
        return [1] * len(numbers), ""
    return None, "it depends on a free size"


def is_no_op(operand: Operand) -> bool:
    """Whether an Expand gives back what it gets."""
    symbolic, node = operand.node.graph.view.symbolic, operand.node
    data = operand.data()
    return node.op == "Expand" and data is not None and symbolic.shape(node.graph, node.output()) == data
