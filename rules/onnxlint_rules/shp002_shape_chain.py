"""SHP002: an operand computed from shapes at run time."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent
from onnxlint.shapes import constant_target
from onnxlint_rules._shape_operands import (
    Operand,
    computed_operands,
    is_expand_by_shape,
    is_flatten,
    is_resize_by_sizes,
    show_numbers,
)


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
            constant, tail = _constant(operand)
            numbers = operand.numbers()
            shown = show_numbers(numbers) if numbers is not None else ""
            strict = constant or "ncnn" in options.targets
            yield self.found(
                view.at(node),
                f"{node.op} {_NAMES.get(node.op, 'operand')}{' ' * bool(shown)}{shown} is computed "
                f"({operand.describe()}); {tail}",
                severity=Severity.WARNING if strict else Severity.INFO,
                help=self.help if constant else "keep the sizes fixed at export where the target allows it",
                operand=node.input(operand.index),
                chain=", ".join(member.name or member.op for member in operand.chain.nodes[:20]),
            )


_NAMES = {"Reshape": "target", "Expand": "target", "Tile": "repeats", "ConstantOfShape": "shape", "Upsample": "scales"}


def _constant(operand: Operand) -> tuple[bool, str]:
    """Whether a constant can stand in the operand's place, and the words for it."""
    numbers, data = operand.numbers(), operand.data()
    if numbers is None:
        return False, "its value cannot be told from the graph"
    if operand.node.op == "Reshape":
        target = constant_target(data or (), numbers)
        return (False, "it has more than one free size") if target is None else (True, f"{target} says the same")
    if all(isinstance(number, int) for number in numbers):
        return True, f"it is always {list(numbers)}"
    return False, "it depends on a free size"
