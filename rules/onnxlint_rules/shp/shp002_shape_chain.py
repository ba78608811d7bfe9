"""SHP002: an operand computed from shapes at run time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    Unfixable,
)
from onnxlint.rulekit import Step, detach, exact_sizes
from onnxlint_rules.shp._answers import is_no_op, pads_nothing, simplest
from onnxlint_rules.shp._operands import (
    Operand,
    computed_operands,
    is_expand_by_shape,
    is_flatten,
    is_resize_by_sizes,
    show_numbers,
)
from onnxlint_rules.shp._shortest import WHOLE, Part, put, shortest_forms

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxlint import Surgeon

SHORTER = Fix(Applicability.SAFE, shortens=True)
"""The chain has to stay, and a shorter one computes the same."""


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
    chain stays. Where some other value has an axis of each size that is needed, and fewer nodes are left so, the chain
    becomes Shape, Slice (before opset 15) and Concat, which is exact, too; the finding stays.

    The bound of a Slice that is the size of its axis becomes the end of the axis. With `--multiple-of N` or `--assume`,
    targets and bounds that are constant for such sizes become constants under that condition, as where an image is cut
    into windows: `[b, H, W, C] → [b, H/8, 8, W/8, 8, C]`.

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
            says="[N, -1, 4] is computed (Shape → Gather → Unsqueeze → Concat → Reshape); constant [0, -1, 4] is equivalent",
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
            g (float[N,4,H,W] x) => (float[N,4,A,B] y)
            <float[4,4,2,2] w, int64[2] spatial = {2, 3}, int64[4] before = {0, 0, 0, 0}, int64[2] none = {0, 0}> {
                small = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)
                big = ConvTranspose <strides = [2, 2]> (small, w)
                whole = Shape (x)
                have = Shape (big)
                missing = Sub (whole, have)
                rest = Gather (missing, spatial)
                pads = Concat <axis = 0> (before, none, rest)
                y = Pad (big, pads)
            }
            """.replace("float[4,4,2,2] w,", f"float[4,4,2,2] w = {{{', '.join('1' for _ in range(64))}}},"),
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x) => (float[N,4,A,B] y) <float[4,4,2,2] w> {
                small = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)
                y = ConvTranspose <strides = [2, 2]> (small, w)
            }
            """.replace("float[4,4,2,2] w>", f"float[4,4,2,2] w = {{{', '.join('1' for _ in range(64))}}}>"),
            dims={"H": 6, "W": 8},
            says="; all are 0 if H % 2 == 0 and W % 2 == 0",
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
        shorter = {node for node, _ in _shorter(view)}
        for operand in computed_operands(view):
            if id(operand.node) not in reported and not _is_reported_elsewhere(operand):
                reported.add(id(operand.node))
                yield self._finding(view, operand, options, id(operand.node) in shorter)

    def _finding(self, view: GraphView, operand: Operand, options: Options, can_be_shorter: bool) -> Finding:
        node, answer, numbers = operand.node, simplest(operand), operand.numbers()
        fixable = answer.constant is not None or bool(answer.steps) or bool(answer.conditions)
        shown = show_numbers(numbers) if numbers is not None and not answer.repeats(numbers) else ""
        strict = fixable or "ncnn" in options.targets
        name, names = operand_name(operand)
        length = ", and can be shorter" if can_be_shorter else ", in the shortest form found"
        looked = node.op in WHOLE and node.graph is view.main
        # A nameless node goes by what it makes: its position changes where others go.
        return self.found(
            view.at(node, "" if node.name else node.output()),
            f"{node.op} {name}{' ' * bool(shown)}{shown} {'are' if name == names else 'is'} computed "
            f"({operand.describe()}){answer.after(numbers)}",
            severity=Severity.WARNING if strict else Severity.INFO,
            help=_help(node.op, fixable),
            fix=answer.fix() if fixable else SHORTER if can_be_shorter else None,
            actionable=strict or can_be_shorter,
            group=f"{node.op} {names} are computed from shapes{', and could be constants' if fixable else ''}",
            not_fixed="" if fixable else f"{answer.why}: the chain stays{length if looked else ''}",
            operand=node.input(operand.index),
            chain=", ".join(member.name or member.op for member in operand.chain.nodes[:20]),
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np
        from onnx import helper

        node = view.find(finding.location)
        held = surgeon.node(node)
        for operand in [operand for operand in computed_operands(view) if operand.node is node]:
            answer = simplest(operand)
            base = f"{node.name or node.output()}_{operand_name(operand)[0].replace(' ', '_')}"
            if is_no_op(operand) or pads_nothing(operand):
                surgeon.replace_value(held.outputs[0], held.inputs[0], node)
                return
            if answer.conditions and answer.constant is None and not answer.steps:
                raise Unfixable(f"its pads are not 0 under {' and '.join(answer.conditions)}")
            if answer.steps:
                _reshape(surgeon, node, held, answer.steps, base)
            elif answer.constant is None:
                parts = _shorter(view).get((id(node), operand.index))
                if parts is None:
                    raise Unfixable(answer.why)
                put(surgeon, operand, parts, base)
            else:
                value = exact_sizes(view).val(node, operand.index)
                kind = node.graph.dtype(node.input(operand.index))
                dtype = helper.tensor_dtype_to_np_dtype(kind) if kind else np.dtype(np.int64)
                whole = np.array(answer.constant, np.int64)
                if dtype.kind == "i":
                    whole = np.minimum(whole, np.iinfo(dtype).max)  # the end of an axis, of a Slice
                array = whole.astype(dtype).reshape(value.dims if value is not None else -1)
                if node.op == "Reshape":
                    held.attrs.pop("allowzero", None)  # dynamo sets it: there 0 would mean an axis of no elements
                held.inputs[operand.index] = surgeon.constant(base, array)


def _shorter(view: GraphView) -> dict[tuple[int, int], tuple[Part, ...]]:
    """Operands that have to be computed, and get by with fewer nodes."""
    key = "onnxlint_rules.shorter"
    if key not in view.memo:
        staying = [
            operand
            for operand in computed_operands(view)
            if not _is_reported_elsewhere(operand)
            and not is_no_op(operand)
            and (answer := simplest(operand)).constant is None
            and not answer.steps
            and not answer.conditions
        ]
        view.memo[key] = shortest_forms(view, staying) if staying else {}
    forms: dict[tuple[int, int], tuple[Part, ...]] = view.memo[key]
    return forms


_NAMES: dict[str, tuple[str, ...]] = {
    "CenterCropPad": ("", "shape"),
    "ConstantOfShape": ("shape",),
    "Expand": ("", "target"),
    "OneHot": ("", "depth"),
    "Pad": ("", "pads"),
    "Range": ("start", "limit", "step"),
    "Reshape": ("", "target"),
    "Resize": ("", "", "scales", "sizes"),
    "Slice": ("", "starts", "ends", "axes", "steps"),
    "Split": ("", "sizes"),
    "Tile": ("", "repeats"),
    "TopK": ("", "k"),
    "Trilu": ("", "k"),
    "Upsample": ("", "scales"),
}
"""Operator → names of its operands, as the specification calls them in short."""


def operand_name(operand: Operand) -> tuple[str, str]:
    """Name of an operand, and its plural: `target`, `targets`; `pads`, `pads`."""
    names = _NAMES.get(operand.node.op, ())
    name = names[operand.index] if operand.index < len(names) else f"input {operand.index}"
    return name, name if name.endswith("s") else f"{name}s"


def _help(op: str, fixable: bool) -> str:
    if not fixable:
        return "export with fixed sizes if the target needs constants"
    return ShapeChain.help if op == "Reshape" else "write the sizes as constants"


def _is_reported_elsewhere(operand: Operand) -> bool:
    """Whether SHP001, SHP005 or SHP006 report it."""
    return is_resize_by_sizes(operand) or is_expand_by_shape(operand) or is_flatten(operand)


def _reshape(surgeon: Surgeon, node: Node, held: gs.Node, steps: tuple[Step, ...], base: str) -> None:
    """Put constant Reshapes, and what lines up their axes, in the place of one; the last node keeps its output."""
    import numpy as np

    def axes(op: str, data: gs.Tensor, places: tuple[int, ...]) -> gs.Tensor:
        if node.graph.view.opset < 13:
            return surgeon.add(op, [data], node, f"{base}_{op}", axes=list(places))
        operand = surgeon.constant(f"{base}_axes", np.array(places, np.int64))
        return surgeon.add(op, [data, operand], node, f"{base}_{op}")

    data, output = held.inputs[0], held.outputs[0]
    for step in steps:
        if step.unsqueeze:
            data = axes("Unsqueeze", data, step.unsqueeze)
        target = surgeon.constant(base, np.array(step.target, np.int64))
        data = surgeon.add("Reshape", [data, target], node, f"{base}_Reshape")
        if step.squeeze:
            data = axes("Squeeze", data, step.squeeze)
    last = data.inputs[0]
    last.name = held.name
    detach(held)
    last.outputs = [output]
