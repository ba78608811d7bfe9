"""Whether a model can turn the sign of a zero into anything else: 1 / -0.0 is -inf."""

from __future__ import annotations

import math

from onnxlint import GraphView, Node

_MOVES = "Cast Expand Gather Identity Reshape Slice Squeeze Transpose Unsqueeze".split()
_KEPT = frozenset((*_MOVES, "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Sqrt"))
"""Operators whose result depends on the sign of a zero only where their first input does."""

_NEVER = frozenset(
    "Abs Cosh Exp ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare Shape Sigmoid Size Softmax Softplus".split()
)
"""Operators whose result is the same for both zeros."""

_DEPTH = 16


def zero_signs_matter(view: GraphView) -> bool:
    """Whether a node may see more than a sign in the sign of a zero: a division by what may be zero, a power, an operator
    that is not ONNX's own. Asked for the whole model: where a zero goes is not followed."""
    known: bool | None = view.memo.get("onnxlint_rules.zero_signs")
    if known is None:
        known = any(_sees(node) for graph in view.graphs for node in graph.nodes)
        view.memo["onnxlint_rules.zero_signs"] = known
    return known


def _sees(node: Node) -> bool:
    if "::" in node.op:
        return True
    if node.op in ("BitCast", "Reciprocal"):
        return not _is_settled(node, 0)
    if node.op in ("Div", "QuantizeLinear"):
        return not _is_settled(node, 1)
    if node.op == "Pow":
        exponent = node.numbers(1)
        return (exponent is None or any(value < 0 for value in exponent.values)) and not _is_settled(node, 0)
    return node.op in ("Cast", "CastLike") and node.graph.dtype(node.output()) not in _NUMBERS


def shows_zero_signs(node: Node) -> bool:
    """Whether an output may have zeros of another sign without a node that does nothing but to turn -0.0 into 0.0."""
    if not _turns_zeros(node):
        return False
    pending, seen = [node], {id(node)}
    while pending:
        here = pending.pop()
        graph = here.graph
        for name in here.outputs:
            if graph.dtype(name) in _WHOLE or not name:
                continue
            if graph.is_output(name):
                return True
            for reader in graph.consumers(name):
                if reader.op not in _NEVER and id(reader) not in seen:
                    seen.add(id(reader))
                    pending.append(reader)
    return False


def _turns_zeros(node: Node) -> bool:
    """Whether a node that does nothing else may make 0.0 of -0.0, by the specification or in onnxruntime."""
    if node.graph.dtype(node.output()) in _WHOLE or any(maker.op in _NEVER for maker in _makers(node)):
        return False
    if node.op in ("Add", "Sub"):
        constants = [numbers.values for i in (0, 1) if (numbers := node.numbers(i)) is not None]
        kept = -1.0 if node.op == "Add" else 1.0  # x + -0.0 and x - 0.0 are x
        return not any(all(math.copysign(1, value) == kept for value in values) for values in constants)
    if node.op in ("Resize", "Upsample"):
        return bool(node.attribute("mode", "nearest") != "nearest")
    return node.op == "AveragePool"


def _makers(node: Node) -> list[Node]:
    return [maker for i in range(len(node.inputs)) if (maker := node.producer(i)) is not None]


_WHOLE = frozenset((*range(2, 8), 9, 12, 13))
"""Element types of integers and truth values."""

_NUMBERS = frozenset((*range(1, 8), 9, 10, 11, 12, 13, 16))
"""Element types that are numbers or truth values: not text, nor anything later, of which nothing is known here."""


def _is_settled(node: Node, i: int, depth: int = _DEPTH) -> bool:
    """Whether input `i` is the same number whatever sign the zeros before it have: a constant, or behind what hides it."""
    name = node.input(i)
    if not name or depth == 0:
        return False
    if node.graph.is_constant(name):
        return True
    made = node.producer(i)
    if made is None or made.graph is not node.graph or "::" in made.op:
        return False
    if made.op in _NEVER:
        return True
    if made.op in ("Add", "Sub", "Max"):
        for operand in (0, 1):
            numbers = made.numbers(operand)
            if numbers is not None and numbers.values and all(value > 0 for value in numbers.values):
                return True
    if made.op == "Mul" and made.input(0) == made.input(1):
        return True
    if made.op == "Pow":
        exponent = made.numbers(1)
        if exponent is not None and exponent.values and all(value > 0 and value % 2 == 0 for value in exponent.values):
            return True
    if made.op == "Clip":
        least = made.numbers(1)
        if least is not None and least.single is not None and least.single > 0:
            return True
    return made.op in _KEPT and _is_settled(made, 0, depth - 1)
