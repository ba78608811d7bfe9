"""OPS005: control flow that always goes the same way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Node, Options, Request, Rule, Silent, Unfixable
from onnxlint.rulekit import exact_sizes
from onnxlint_rules._graph import whole_graphs
from onnxlint_rules._patching import UNHELD, is_held

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxlint import Graph, Surgeon


class ConstantCondition(Rule):
    """The condition of an If or Loop is always the same.

    ## What it does

    Reports If whose condition is a constant, or follows from sizes that are fixed in this model (`x.shape[1] == 1`),
    and Loop that runs not at all or exactly once, for the same reasons.

    ## Why it hurts

    - It is how `x.squeeze(1)` comes out of the TorchScript exporter where it does not know the size: Shape, Gather,
      Equal, If, with a Squeeze in one branch and an Identity in the other.
    - TensorRT wants the same rank from both branches, even from the one that never runs: `IIfConditionalOutputLayer
      inputs must have the same shape`.
    - onnx2ncnn knows no If and no Loop: `If not supported yet!`.
    - Nothing is fused or folded across the border of a branch, and shape inference ends at an If whose branches differ
      in rank.

    ## Fix it at the source

    ```python
    # before
    x = x.squeeze(1)
    # after: an index has no condition
    x = x[:, 0]
    ```

    For a Python `if` in scripted code, decide by configuration in `__init__`, or trace in place of scripting.

    ## Fix safety

    Putting the nodes of the branch that runs in the place of the If is exact. Where the condition follows from fixed
    sizes, it is exact for the sizes that the model declares for its inputs, and it accepts no others.

    ## References

    - [If](https://onnx.ai/onnx/operators/onnx__If.html) and [Loop](https://onnx.ai/onnx/operators/onnx__Loop.html) in
      the ONNX specification
    - [PyTorch: squeeze exported as If](https://github.com/pytorch/pytorch/issues/109292)
    - [TensorRT: branches of different shapes](https://github.com/NVIDIA/TensorRT/issues/2846), and
      [onnx-tensorrt: what it asks of If](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md)
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp): `%s not supported yet!`
    """

    code = "OPS005"
    name = "constant-condition"
    help = "replace the If or Loop with the body that always runs"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4] x) => (float[N,4] y)
            <int64 one = {1}, int64[1] axes = {1}, int64 axis = {1}> {
                shape = Shape (x)
                size = Gather <axis = 0> (shape, axis)
                single = Equal (size, one)
                y = If (single) <
                    then_branch = yes () => (float[N,4] a) { a = Squeeze (x, axes) },
                    else_branch = no () => (float[N,1,4] b) { b = Identity (x) }
                >
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4] x) => (float[N,4] y) <int64[1] axes = {1}> {
                y = Squeeze (x, axes)
            }
            """,
            says="If always runs its then_branch: the condition follows from fixed sizes",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <bool training = {0}> {
                y = If (training) <
                    then_branch = yes () => (float[N,4] a) { a = Neg (x) },
                    else_branch = no () => (float[N,4] b) { b = Relu (x) }
                >
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            says="If always runs its else_branch: the condition is a constant",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <int64 once = {1}, bool start = {1}> {
                y = Loop (once, start, x) <
                    body = step (int64 i, bool go, float[4] a) => (bool on, float[4] b) {
                        on = Identity (go)
                        b = Add (a, a)
                    }
                >
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) {
                y = Add (x, x)
            }
            """,
            says="Loop runs its body exactly once",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <bool off = {0}, int64 zero = {0}, int64 one = {1}> {
                shape = Shape (x)
                n = Gather (shape, zero)
                single = Equal (n, one)
                both = And (single, off)
                y = If (both) <
                    then_branch = yes () => (float[N,4] a) { a = Relu (x) },
                    else_branch = no () => (float[N,4] b) { b = Neg (x) }
                >
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) { y = Neg (x) }
            """,
            says="If always runs its else_branch",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,C,4] x) => (float[A,B] y) <int64 one = {1}, int64[1] axes = {1}, int64 axis = {1}> {
                shape = Shape (x)
                size = Gather <axis = 0> (shape, axis)
                single = Equal (size, one)
                y = If (single) <
                    then_branch = yes () => (float[N,4] a) { a = Squeeze (x, axes) },
                    else_branch = no () => (float[N,C,4] b) { b = Identity (x) }
                >
            }
            """,
            why="C is free",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x, bool training, int64 steps) => (float[4] y, float[4] z) {
                y = If (training) <
                    then_branch = yes () => (float[4] a) { a = Neg (x) },
                    else_branch = no () => (float[4] b) { b = Relu (x) }
                >
                z = Loop (steps, , x) <
                    body = step (int64 i, bool go, float[4] c) => (bool on, float[4] d) {
                        on = Identity (go)
                        d = Add (c, c)
                    }
                >
            }
            """,
            why="the condition is an input",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for node in view.nodes("If", "Loop"):
            text = _if(node) if node.op == "If" else _loop(node)
            if text:
                held = is_held(node.graph)
                yield self.found(
                    view.at(node),
                    f"{node.op} {text}",
                    fix=SAFE if held else None,
                    covers=whole_graphs(view, _never_run(node)),
                    not_fixed="" if held else UNHELD,
                    group="Ifs and Loops always do the same: their conditions follow from fixed sizes or constants",
                )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        node = view.find(finding.location)
        made = list(surgeon.node(node).outputs)
        given = _inline_if(surgeon, node) if node.op == "If" else _inline_loop(surgeon, node)
        for before, after in zip(made, given, strict=False):
            surgeon.replace_value(before, after, node)


def _never_run(node: Node) -> list[Graph]:
    """Bodies of an If or Loop that never run."""
    if node.op == "Loop":
        return _bodies(node, "body") if _loop(node) == _NEVER else []
    return _bodies(node, "else_branch" if _number(node, 0) else "then_branch")


def _bodies(node: Node, attribute: str) -> list[Graph]:
    """The body of a name; none if the model lacks it."""
    return [g for g in node.graph.children if g.parent_node is node and g.path.endswith(f".{attribute}")][:1]


def _body(node: Node, attribute: str) -> Graph:
    found = _bodies(node, attribute)
    if not found:
        raise Unfixable(f"{node.op} has no {attribute}")
    return found[0]


def _inline_if(surgeon: Surgeon, node: Node) -> list[gs.Tensor]:
    return surgeon.inline(node, _body(node, "then_branch" if _number(node, 0) else "else_branch"))


def _inline_loop(surgeon: Surgeon, node: Node) -> list[gs.Tensor]:
    """Outputs of a Loop that runs once, or never."""
    import numpy as np

    from onnxlint.rulekit import detach

    held, body = surgeon.node(node), _body(node, "body")
    carried = list(held.inputs[2:])
    if _loop(node) == _NEVER:
        if any(node.graph.consumers(n) or node.graph.is_output(n) for n in node.outputs[len(carried) :] if n):
            raise Unfixable("it collects values, and what none of them looks like is not in the graph")
        detach(held)
        surgeon.held(body).outputs = []
        return carried
    base = node.name or node.output()
    first = surgeon.constant(f"{base}_iteration", np.array(0, np.int64), node.graph)
    going = surgeon.constant(f"{base}_condition", np.array(True), node.graph)
    outputs = surgeon.inline(node, body, [first, going, *carried])[1:]
    collected = []
    for value in outputs[len(carried) :]:
        if node.graph.view.opset < 13:
            collected.append(surgeon.add("Unsqueeze", [value], node, f"{base}_stack", axes=[0]))
        else:
            axes = surgeon.constant(f"{base}_axes", np.array([0], np.int64), node.graph)
            collected.append(surgeon.add("Unsqueeze", [value, axes], node, f"{base}_stack"))
    return [*outputs[: len(carried)], *collected]


_NEVER = "never runs its body"


def _if(node: Node) -> str:
    condition = _number(node, 0)
    if condition is None:
        return ""
    branch = "then_branch" if condition else "else_branch"
    why = "is a constant" if node.numbers(0) is not None else "follows from fixed sizes"
    return f"always runs its {branch}: the condition {why}"


def _loop(node: Node) -> str:
    trips = _number(node, 0)
    condition = _number(node, 1) if node.input(1) else 1
    if trips == 0 or condition == 0:
        return _NEVER
    return "runs its body exactly once" if trips == 1 and condition is not None else ""


def _number(node: Node, i: int) -> int | None:
    """Value of input `i`, where it is the same for all inputs that the model declares."""
    name = node.input(i)
    value = exact_sizes(node.graph.view).value(node.graph, name) if name else None
    if value is None or len(value.numbers) != 1:
        return None
    number = value.numbers[0]
    return int(number) if isinstance(number, int) else None
