"""Folding of small tensors: which operators, and whether all numbers are known. Only then NumPy is imported.

`onnxlint.symbolic.constant_operators` computes.
"""

from __future__ import annotations

import math

from onnxlint.graph.view import Node
from onnxlint.symbolic.engine import Symbolic
from onnxlint.symbolic.values import MAX_VALUES, Quotient, Value

FOLDED = frozenset(
    """
    Abs Add And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Clip Compress Concat
    CumSum Div Equal Expand Floor Gather GatherElements Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod
    Mul Neg NonZero Not Or Pow Reciprocal ReduceMax ReduceMin ReduceProd ReduceSum Round Sign Sqrt Sub Sum Tile
    Transpose Trilu Where Xor
    """.split()
)
"""The operators that are computed where all of their operands are known."""

_SHRINKING = frozenset({"Compress", "NonZero"})
"""Operators whose result is small where their operand is, though its shape is known only afterwards."""


def fold(s: Symbolic, node: Node) -> Value | None:
    """The first output of a node whose operands are known numbers; None if one is not, or the result is not small.

    The shape of the output has to be known already: nothing is computed that could turn out large.
    """
    if node.op not in FOLDED or not node.output():
        return None
    operands: list[tuple[Value, int] | None] = []
    for i, name in enumerate(node.inputs):
        value = s.val(node, i) if name else None
        if name and (value is None or not all(map(_is_known, value.numbers))):
            return None
        operands.append(None if value is None else (value, node.graph.dtype(name)))
    if node.op not in _SHRINKING:
        sizes = s.shape(node.graph, node.output())
        known = [size for size in sizes or () if isinstance(size, int)]
        if sizes is None or len(known) < len(sizes) or math.prod(known) > MAX_VALUES:
            return None
    from onnxlint.symbolic.constant_operators import compute

    return compute(node, operands)


def _is_known(number: object) -> bool:
    """Whether a number does not depend on the inputs."""
    if isinstance(number, Quotient):
        return isinstance(number.num, int) and isinstance(number.den, int)
    return isinstance(number, int)
