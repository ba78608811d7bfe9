"""Symbolic shape inference: every size of a model as an exact expression of its inputs' symbols.

Where `onnx.shape_inference` says "unknown", this says `ceil(H/16)`; it also follows the small tensors that hold shapes
(Shape, Gather, Concat, Div, Where, …). A size that cannot be followed becomes a new symbol, which equals only itself: a
proof can fail because of it, but never be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnxlint.graph.view import GraphView
from onnxlint.symbolic.engine import Operators, Symbolic
from onnxlint.symbolic.folding import FOLDED, fold
from onnxlint.symbolic.shape_operators import SHAPE_OPERATORS
from onnxlint.symbolic.value_operators import VALUE_OPERATORS

OPERATORS = Operators(SHAPE_OPERATORS, VALUE_OPERATORS, fold, FOLDED)
"""The operators of ONNX's own domain."""


_EXACT = "onnxlint.symbolic.[]"


def exact_sizes(view: GraphView) -> Symbolic:
    """Every size of a model as an expression of its inputs' symbols; inferred once for a view."""
    known: Symbolic | None = view.memo.get(_EXACT)
    return sizes_where(view, {}) if known is None else known


def inferred_sizes(view: GraphView) -> list[Symbolic]:
    """What has been inferred of a view, with and without assumptions."""
    return [known for known in view.memo.values() if isinstance(known, Symbolic)]


def knows_sizes(view: GraphView) -> bool:
    """Whether the exact sizes of a view have been inferred."""
    return _EXACT in view.memo


def assumed_sizes(view: GraphView) -> Symbolic:
    """Every size under the assumptions that the user makes about the inputs (`view.multiples`)."""
    return sizes_where(view, view.multiples)


def sizes_where(view: GraphView, multiples: Mapping[str, int]) -> Symbolic:
    """Every size under assumptions about the inputs, inferred once for a view.

    Args:
        view: The model.
        multiples: Symbol of an input → number that it is a multiple of.
    """
    key = f"onnxlint.symbolic.{sorted(multiples.items())}" if multiples else _EXACT
    known: Symbolic | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = Symbolic(view, OPERATORS, multiples)
    return known
