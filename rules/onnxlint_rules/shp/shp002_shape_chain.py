"""SHP002: an operand computed from shapes at run time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
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
from onnxlint_rules.shp._answers import Answer, is_no_op, simplest
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
        shorter = _shorter(view)
        nodes: dict[int, list[Operand]] = {}
        for operand in computed_operands(view):
            if not _is_reported_elsewhere(operand):
                nodes.setdefault(id(operand.node), []).append(operand)
        for key, operands in nodes.items():
            first = next((one for one in operands if not simplest(one).is_open), operands[0])
            can_be_shorter = (key, first.index) in shorter
            fix = SAFE if can_be_shorter else simplest(first).fix()
            if fix is not None and any(_stays(one, fix) for one in operands):
                fix = replace(fix, shortens=True)
            yield self._finding(view, first, options, fix, can_be_shorter)

    def _finding(
        self, view: GraphView, operand: Operand, options: Options, fix: Fix | None, can_be_shorter: bool
    ) -> Finding:
        node, answer, numbers = operand.node, simplest(operand), operand.numbers()
        fixable = not answer.is_open
        shown = show_numbers(numbers) if numbers is not None and not answer.repeats(numbers) else ""
        strict = fixable or "ncnn" in options.targets
        name, names = operand_name(operand)
        length = ", and can be shorter" if can_be_shorter else ", in the shortest form found"
        looked = node.op in WHOLE and node.graph is view.main
        # A nameless node goes by what it makes: its position changes where others go.
        return self.found(
            view.at(node, "" if node.name else node.output()),
            f"{node.op} {name}{' ' * bool(shown)}{shown} {'are' if name == names else 'is'} computed "
            f"({operand.describe()}){answer.after(node.op, numbers)}",
            severity=Severity.WARNING if strict else Severity.INFO,
            help=_help(node.op, fixable),
            fix=fix,
            # What a function's callers give it is not looked at: another export may do without.
            actionable=strict or can_be_shorter or node.graph.outermost.is_function,
            group=f"{node.op} {names} are computed from shapes{', and could be constants' if fixable else ''}",
            not_fixed=f"{_staying(answer)}{length if looked else ''}" if can_be_shorter or not fixable else "",
            operand=node.input(operand.index),
            chain=", ".join(member.name or member.op for member in operand.chain.nodes[:20]),
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        node = view.find(finding.location)
        held = surgeon.node(node)
        assumed = _conditions(finding.fix)
        done, why = False, ""
        for operand in [operand for operand in computed_operands(view) if operand.node is node]:
            answer = simplest(operand)
            parts = _shorter(view).get((id(node), operand.index))
            base = f"{node.name or node.output()}_{operand_name(operand)[0].replace(' ', '_')}"
            if is_no_op(operand) or (node.op == "Pad" and answer.conditions and assumed.issuperset(answer.conditions)):
                surgeon.replace_value(held.outputs[0], held.inputs[0], node)
                return
            if parts is not None:
                put(surgeon, operand, parts, base)
            elif answer.is_open or not assumed.issuperset(answer.conditions):
                why = why or answer.why or f"constants need {' and '.join(answer.conditions)}"
                continue
            elif answer.steps:
                _reshape(surgeon, node, held, answer.steps, base)
            else:
                _put_constant(surgeon, operand, answer.constant or [], base)
            done = True
        if why and not done:
            raise Unfixable(why)


def _shorter(view: GraphView) -> dict[tuple[int, int], tuple[Part, ...]]:
    """Operands that have to be computed, and get by with fewer nodes."""
    key = "onnxlint_rules.shorter"
    if key not in view.memo:
        staying = [
            operand
            for operand in computed_operands(view)
            if not _is_reported_elsewhere(operand)
            and not is_no_op(operand)
            and ((answer := simplest(operand)).is_open or answer.is_asked_for)
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


def _stays(operand: Operand, fix: Fix) -> bool:
    """Whether an operand of a node has to be computed even after a fix of the node."""
    answer = simplest(operand)
    return answer.is_open or not _conditions(fix).issuperset(answer.conditions)


def _conditions(fix: Fix | None) -> frozenset[str]:
    return frozenset(fix.condition.split(" and ") if fix is not None and fix.condition else ())


def _staying(answer: Answer) -> str:
    where = " and ".join(answer.conditions)
    return f"{f'constants need {where}' if where else answer.why}: the chain stays"


def _help(op: str, fixable: bool) -> str:
    if not fixable:
        return "export with fixed sizes if the target needs constants"
    return ShapeChain.help if op == "Reshape" else "write the sizes as constants"


def _is_reported_elsewhere(operand: Operand) -> bool:
    """Whether SHP001, SHP005 or SHP006 report it."""
    return is_resize_by_sizes(operand) or is_expand_by_shape(operand) or is_flatten(operand)


def _put_constant(surgeon: Surgeon, operand: Operand, numbers: list[int], base: str) -> None:
    """Let a node read constants in the place of an operand."""
    import numpy as np
    from onnx import helper

    node = operand.node
    held = surgeon.node(node)
    value = exact_sizes(node.graph.view).val(node, operand.index)
    kind = node.graph.dtype(node.input(operand.index))
    dtype = helper.tensor_dtype_to_np_dtype(kind) if kind else np.dtype(np.int64)
    whole = np.array(numbers, np.int64)
    if dtype.kind == "i":
        whole = np.minimum(whole, np.iinfo(dtype).max)  # the end of an axis, of a Slice
    array = whole.astype(dtype).reshape(value.dims if value is not None else -1)
    if node.op == "Reshape":
        held.attrs.pop("allowzero", None)  # dynamo sets it: there 0 would mean an axis of no elements
    held.inputs[operand.index] = surgeon.constant(base, array)


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
