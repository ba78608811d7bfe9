"""Operators on small tensors of which every number is known: computed as a runtime computes them.

Only operators that all runtimes round alike are here: the basic operations of IEEE 754, comparisons, and moves of
unchanged numbers. `Exp` or `Pow` with a fraction may differ in the last digit, and a Cast after them in a whole number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.graph.view import Node
from onnxlint.model.onnx_types import ElementType
from onnxlint.symbolic.values import MAX_VALUES, Quotient, Value, number_of

Array = npt.NDArray[Any]
Operands = Sequence["Array | None"]

_DTYPES: dict[int, type[np.generic]] = {
    ElementType.FLOAT: np.float32,
    ElementType.DOUBLE: np.float64,
    ElementType.BOOL: np.bool_,
    ElementType.INT8: np.int8,
    ElementType.INT16: np.int16,
    ElementType.INT32: np.int32,
    ElementType.INT64: np.int64,
    ElementType.UINT8: np.uint8,
    ElementType.UINT16: np.uint16,
    ElementType.UINT32: np.uint32,
    ElementType.UINT64: np.uint64,
}


def compute(node: Node, operands: Sequence[tuple[Value, int] | None]) -> Value | None:
    """The first output of a node; None if its operator cannot be computed, or the result is not small.

    Args:
        node: Its operator is one of `CONSTANT_OPERATORS`.
        operands: The known numbers of each operand and their element type; None where an optional one is absent.
    """
    arrays: list[Array | None] = []
    for operand in operands:
        array = None if operand is None else _array(*operand)
        if operand is not None and array is None:
            return None
        arrays.append(array)
    with np.errstate(all="ignore"):
        result = CONSTANT_OPERATORS[node.op](node, arrays)
    if result is None or result.dtype.kind not in "iufb" or result.size > MAX_VALUES:
        return None
    return Value(tuple(number_of(x) for x in result.reshape(-1).tolist()), result.shape, result.dtype.kind == "f")


def _array(value: Value, element_type: int) -> Array | None:
    """An operand in its own element type; None if that is not the one that its numbers have."""
    dtype = _DTYPES.get(element_type)
    if dtype is None or value.floating != (np.dtype(dtype).kind == "f"):
        return None  # the value is not of the type that inference says
    # The caller has known numbers only: quotients of integers.
    numbers = [n.num / n.den if isinstance(n, Quotient) else n for n in value.numbers]  # type: ignore[operator]
    return np.array(numbers, np.float64 if value.floating else np.int64).astype(dtype).reshape(value.dims)


def _given(operands: Operands) -> list[Array]:
    return [operand for operand in operands if operand is not None]


def _ufunc(function: Callable[..., Any]) -> Callable[[Node, Operands], Array | None]:
    def compute(node: Node, operands: Operands) -> Array | None:
        given = _given(operands)
        return np.asarray(function(*given)) if len(given) == len(operands) else None

    return compute


def _folded(function: Callable[[Array, Array], Array]) -> Callable[[Node, Operands], Array | None]:
    """Max, Min and Sum of any number of operands."""

    def compute(node: Node, operands: Operands) -> Array | None:
        first, *others = _given(operands)
        for other in others:
            first = np.asarray(function(first, other))
        return first

    return compute


def _divide(a: Array, b: Array) -> Array | None:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all():
        return None
    quotient = np.floor_divide(np.abs(a), np.abs(b))
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype))


def _div(node: Node, operands: Operands) -> Array | None:
    first, second = _given(operands)
    return _divide(first, second)


def _mod(node: Node, operands: Operands) -> Array | None:
    first, second = _given(operands)
    if first.dtype.kind != "f" and not second.all():
        return None
    return np.asarray(np.fmod(first, second) if node.attribute("fmod", 0) else np.mod(first, second))


def _pow(node: Node, operands: Operands) -> Array | None:
    """Powers that are whole numbers, or exact in the type of the base; others are rounded differently everywhere."""
    base, exponent = _given(operands)
    base, exponent = np.broadcast_arrays(base, exponent)
    results: list[float] = []
    for x, n in zip(base.reshape(-1).tolist(), exponent.reshape(-1).tolist(), strict=True):
        if n == 0.5 and x >= 0 and math.isqrt(int(x)) ** 2 == x:
            results.append(math.isqrt(int(x)))
            continue
        if n != int(n) or not abs(n) <= 64 or (x == 0 and n < 0) or not math.isfinite(x):
            return None
        exact = _power(x, int(n))
        if exact is None or float(base.dtype.type(exact)) != exact:
            return None
        results.append(exact)
    return np.array(results).astype(base.dtype).reshape(base.shape)


def _power(x: float, n: int) -> float | None:
    """`x ** n` where it is a number of double precision; None if that would be rounded."""
    from fractions import Fraction

    result = Fraction(x) ** n
    try:
        rounded = float(result)
    except OverflowError:
        return None
    return rounded if Fraction(rounded) == result else None


def _cast(node: Node, operands: Operands) -> Array | None:
    (array,) = _given(operands)
    dtype = _DTYPES.get(node.attribute("to", 0))
    if dtype is None:
        return None
    if array.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(np.dtype(dtype))
        if not np.isfinite(array).all() or (np.trunc(array) < limits.min).any() or (np.trunc(array) > limits.max).any():
            return None  # runtimes differ in what they make of it
    return np.asarray(array.astype(dtype))


def _clip(node: Node, operands: Operands) -> Array | None:
    array = operands[0]
    if array is None:
        return None
    low, high = (operands[i] if i < len(operands) else None for i in (1, 2))
    if len(operands) == 1:
        low, high = (None if (end := node.attribute(key)) is None else np.float32(end) for key in ("min", "max"))
    return np.asarray(array if low is None and high is None else np.clip(array, low, high).astype(array.dtype))


def _reduce(function: Callable[..., Any]) -> Callable[[Node, Operands], Array | None]:
    def compute(node: Node, operands: Operands) -> Array | None:
        data, axes = operands[0], node.attribute("axes")
        if data is None:
            return None
        if len(operands) > 1 and operands[1] is not None:
            axes = operands[1].tolist()
        if not axes and node.attribute("noop_with_empty_axes", 0):
            return data
        if data.dtype.kind == "f" and function not in (np.max, np.min) and not (data == np.floor(data)).all():
            return None  # the order of the additions matters
        keep = bool(node.attribute("keepdims", 1))
        return np.asarray(function(data, axis=tuple(axes) if axes else None, keepdims=keep)).astype(data.dtype)

    return compute


def _extreme(function: Callable[..., Any]) -> Callable[[Node, Operands], Array | None]:
    def compute(node: Node, operands: Operands) -> Array | None:
        (data,) = _given(operands)
        axis = node.attribute("axis", 0)
        if node.attribute("select_last_index", 0):
            return None
        found = np.asarray(function(data, axis=axis))
        return np.expand_dims(found, axis) if node.attribute("keepdims", 1) else found

    return compute


def _cumulated(node: Node, operands: Operands) -> Array | None:
    data, axis = _given(operands)
    if data.dtype.kind == "f" or node.attribute("exclusive", 0) or node.attribute("reverse", 0):
        return None
    return np.asarray(np.cumsum(data, axis=int(axis), dtype=data.dtype))


def _gather(node: Node, operands: Operands) -> Array | None:
    data, places = _given(operands)
    return np.asarray(np.take(data, places, axis=node.attribute("axis", 0)))


def _gather_elements(node: Node, operands: Operands) -> Array | None:
    data, places = _given(operands)
    return np.asarray(np.take_along_axis(data, places, axis=node.attribute("axis", 0)))


def _concat(node: Node, operands: Operands) -> Array | None:
    return np.concatenate(_given(operands), axis=node.attribute("axis", 0))


def _tile(node: Node, operands: Operands) -> Array | None:
    data, repeats = _given(operands)
    return np.tile(data, repeats.tolist())


def _expand(node: Node, operands: Operands) -> Array | None:
    data, target = _given(operands)
    return np.asarray(data * np.ones(target.tolist(), data.dtype)) if data.dtype != np.bool_ else None


def _transpose(node: Node, operands: Operands) -> Array | None:
    (data,) = _given(operands)
    return np.transpose(data, node.attribute("perm"))


def _shift(node: Node, operands: Operands) -> Array | None:
    first, second = _given(operands)
    left = node.attribute("direction") == "LEFT"
    return np.asarray(np.left_shift(first, second) if left else np.right_shift(first, second))


def _chosen(node: Node, operands: Operands) -> Array | None:
    data, condition = _given(operands)
    return np.compress(condition, data, axis=node.attribute("axis"))


def _non_zero(node: Node, operands: Operands) -> Array | None:
    (data,) = _given(operands)
    return np.asarray(np.array(np.nonzero(data)), dtype=np.int64)


def _triangle(node: Node, operands: Operands) -> Array | None:
    data = operands[0]
    k = int(operands[1].reshape(-1)[0]) if len(operands) > 1 and operands[1] is not None else 0
    return None if data is None else np.asarray((np.triu if node.attribute("upper", 1) else np.tril)(data, k))


CONSTANT_OPERATORS: dict[str, Callable[[Node, Operands], Array | None]] = {
    "Abs": _ufunc(np.abs),
    "Add": _ufunc(np.add),
    "And": _ufunc(np.logical_and),
    "ArgMax": _extreme(np.argmax),
    "ArgMin": _extreme(np.argmin),
    "BitShift": _shift,
    "BitwiseAnd": _ufunc(np.bitwise_and),
    "BitwiseNot": _ufunc(np.bitwise_not),
    "BitwiseOr": _ufunc(np.bitwise_or),
    "BitwiseXor": _ufunc(np.bitwise_xor),
    "Cast": _cast,
    "Ceil": _ufunc(np.ceil),
    "Clip": _clip,
    "Compress": _chosen,
    "Concat": _concat,
    "CumSum": _cumulated,
    "Div": _div,
    "Equal": _ufunc(np.equal),
    "Expand": _expand,
    "Floor": _ufunc(np.floor),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Greater": _ufunc(np.greater),
    "GreaterOrEqual": _ufunc(np.greater_equal),
    "IsNaN": _ufunc(np.isnan),
    "Less": _ufunc(np.less),
    "LessOrEqual": _ufunc(np.less_equal),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mod": _mod,
    "Mul": _ufunc(np.multiply),
    "Neg": _ufunc(np.negative),
    "NonZero": _non_zero,
    "Not": _ufunc(np.logical_not),
    "Or": _ufunc(np.logical_or),
    "Pow": _pow,
    "Reciprocal": _ufunc(partial(np.divide, 1)),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Round": _ufunc(np.rint),
    "Sign": _ufunc(np.sign),
    "Sqrt": _ufunc(np.sqrt),
    "Sub": _ufunc(np.subtract),
    "Sum": _folded(np.add),
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Where": _ufunc(np.where),
    "Xor": _ufunc(np.logical_xor),
}
"""Operators that are computed from known numbers, where what `VALUE_OPERATORS` says of sizes leaves a number open."""
