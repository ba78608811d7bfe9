"""How the numbers of a small tensor follow from the operands of the operator that computes it."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeGuard

from onnxlint.graph.constants import small_numbers
from onnxlint.graph.view import Node
from onnxlint.symbolic.engine import Evaluator, Symbolic
from onnxlint.symbolic.shape_operators import is_disputed, picked, slice_arguments
from onnxlint.symbolic.sizes import AnySize, Size, ceil_div, divide, product, ratio_of
from onnxlint.symbolic.values import MAX_VALUES, Number, Quotient, Value, number_of

Calculation = Callable[[Symbolic, Number, Number, bool], "Number | None"]
"""Gives the result for two numbers, given whether they are floating-point; None if it cannot be told."""


def _value_shape(s: Symbolic, node: Node) -> Value | None:
    data = s.of(node, 0)
    if data is None:
        return None
    sizes = data[slice(node.attribute("start", 0), node.attribute("end"))]
    return Value(sizes, (len(sizes),))


def _value_size(s: Symbolic, node: Node) -> Value | None:
    data = s.of(node, 0)
    return None if data is None else Value((product(data),), ())


def _value_gather(s: Symbolic, node: Node) -> Value | None:
    data, indices = s.val(node, 0), s.val(node, 1)
    if data is None or indices is None or not data.dims:
        return None
    whole = [i for i in indices.numbers if isinstance(i, int)]
    if len(whole) < len(indices.numbers):
        return None
    if len(data.dims) == 1:  # the sizes of a shape, as nearly always
        return Value(tuple(data.numbers[i] for i in whole), indices.dims, data.floating)
    return _taken(data, whole, indices.dims, node.attribute("axis", 0))


def _value_slice(s: Symbolic, node: Node) -> Value | None:
    data, parts = s.val(node, 0), slice_arguments(s, node)
    if data is None or parts is None:
        return None
    value = data
    for axis, start, end, step in parts:
        if not (isinstance(start, int) and isinstance(end, int) and step) or is_disputed(end, step):
            return None
        kept = list(picked(range(value.dims[axis]), start, end, step))
        value = _taken(value, kept, (len(kept),), axis)
    return value


def _value_transpose(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    return None if data is None else _transposed(data, node.attribute("perm") or range(len(data.dims))[::-1])


def _transposed(data: Value, perm: Sequence[int]) -> Value:
    if sorted(perm) != list(range(len(data.dims))):
        raise ValueError(perm)
    strides = [math.prod(data.dims[axis + 1 :]) for axis in perm]
    dims = tuple(data.dims[axis] for axis in perm)
    places = itertools.product(*(range(size) for size in dims))
    moved = (sum(map(operator.mul, place, strides)) for place in places)
    return Value(tuple(data.numbers[place] for place in moved), dims, data.floating)


def _taken(data: Value, indices: Sequence[int], dims: tuple[int, ...], axis: int) -> Value:
    """The numbers at some indices of an axis, which may count from its end; `dims` take the place of the axis."""
    size = data.dims[axis]
    axis = range(len(data.dims))[axis]
    inner = math.prod(data.dims[axis + 1 :])
    kept = [range(size)[i] * inner for i in indices]
    outer = range(0, len(data.numbers), size * inner or 1)
    numbers = tuple(data.numbers[start + place + k] for start in outer for place in kept for k in range(inner))
    return Value(numbers, (*data.dims[:axis], *dims, *data.dims[axis + 1 :]), data.floating)


def _value_concat(s: Symbolic, node: Node) -> Value | None:
    values = [s.val(node, i) for i in range(len(node.inputs))]
    parts = [value for value in values if value is not None]
    if (
        len(parts) != len(values)
        or any(len(part.dims) != 1 for part in parts)
        or node.attribute("axis", 1) not in (0, -1)
    ):
        return None
    numbers = tuple(number for part in parts for number in part.numbers)
    return Value(numbers, (len(numbers),), parts[0].floating)


def _value_reshaped(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    if data is None:
        return None
    dims = s.shape(node.graph, node.output())
    known = [size for size in dims if isinstance(size, int)] if dims is not None else []
    if dims is None or len(known) != len(dims) or math.prod(known) != len(data.numbers):
        return None
    return Value(data.numbers, tuple(known), data.floating)


def _value_cast(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    to = node.attribute("to", 0)
    if data is None or to not in (1, 6, 7, 9, 11):  # float, int32, int64, bool, double; half rounds sizes above 2048
        return None
    if to == 9:
        truth = tuple(
            int(n != 0) if isinstance(n, int) else 1 if isinstance(n, Size) and s.is_positive(n) else None
            for n in data.numbers
        )
        return Value(truth, data.dims)
    if to in (1, 11):
        return Value(data.numbers, data.dims, True)
    return Value(tuple(_floored(s, n) for n in data.numbers) if data.floating else data.numbers, data.dims)


def _floored(s: Symbolic, number: Number | None) -> Number | None:
    """Truncation of a number towards 0."""
    if not isinstance(number, Quotient):
        return number
    below = _floor_of(number)
    if isinstance(number.num, int) and isinstance(below, int):
        return below + (below < 0)
    return below if below is not None and s.is_positive(number.num + 1) else None


def _floor_of(number: Number | None) -> Number | None:
    if not isinstance(number, Quotient):
        return number
    return number.num // number.den if number.has_exact_floor and isinstance(number.den, int) else None


def _ceil_of(number: Number | None) -> Number | None:
    if not isinstance(number, Quotient):
        return number
    return ceil_div(number.num, number.den) if number.has_exact_floor and isinstance(number.den, int) else None


def _each(compute: Callable[[Number | None], Number | None]) -> Evaluator:
    def evaluate(s: Symbolic, node: Node) -> Value | None:
        data = s.val(node, 0)
        return None if data is None else Value(tuple(map(compute, data.numbers)), data.dims, data.floating)

    return evaluate


def _round(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    if data is None or any(isinstance(n, Quotient) for n in data.numbers):
        return None
    return data


def _rows(s: Symbolic, node: Node) -> tuple[list[tuple[Number | None, ...]], tuple[int, ...], bool] | None:
    """Operands of an elementwise operator, broadcast: rows of numbers, their dims, whether they are floating."""
    values = [s.val(node, i) for i in range(len(node.inputs))]
    known = [value for value in values if value is not None]
    if len(known) != len(values) or not known:
        return None
    size = max(len(value.numbers) for value in known)
    if any(len(value.numbers) not in (1, size) or len(value.dims) > 1 for value in known):
        return None
    dims = () if all(not value.dims for value in known) else (size,)
    rows = list(zip(*(v.numbers * (size if len(v.numbers) == 1 else 1) for v in known), strict=True))
    return rows, dims, any(value.floating for value in known[-2:])


def _is_exact(number: Number | None) -> TypeGuard[Number]:
    """Whether a number is known, and a runtime holds it without rounding."""
    return number.is_exact if isinstance(number, Quotient) else number is not None


def _binary(compute: Calculation, to_bool: bool = False) -> Evaluator:
    def evaluate(s: Symbolic, node: Node) -> Value | None:
        operands = _rows(s, node)
        if operands is None or len(node.inputs) != 2:
            return None
        rows, dims, floating = operands
        numbers = tuple(compute(s, a, b, floating) if _is_exact(a) and _is_exact(b) else None for a, b in rows)
        return Value(numbers, dims, floating and not to_bool)

    return evaluate


def _parts(number: Number) -> tuple[AnySize, AnySize]:
    return (number.num, number.den) if isinstance(number, Quotient) else (number, 1)


def _quotient(num: AnySize, den: AnySize) -> Number | None:
    """num / den, reduced; a plain size where it divides."""
    if den == 0:
        return None
    whole = divide([num], [den])
    if whole is not None:
        return whole
    ratio = ratio_of(num, den)
    if ratio is not None:
        return Quotient(ratio.numerator, ratio.denominator)
    return Quotient(num, den)


def _add(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    return n + m if d == e == 1 else _quotient(n * e + m * d, d * e)


def _sub(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    return n - m if d == e == 1 else _quotient(n * e - m * d, d * e)


def _mul(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    return n * m if d == e == 1 else _quotient(n * m, d * e)


def _div(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    if floating:
        return _quotient(n * e, d * m)
    if isinstance(n, int) and isinstance(m, int):
        return int(Fraction(n, m)) if m else None
    exact = divide([n], [m])
    if exact is not None:
        return exact
    if not isinstance(m, int) or m <= 0:
        return None
    # Integer division truncates; for what is never negative, and for the opposite of it, that is a floor division.
    if s.is_at_least(n, 0):
        return n // m
    return ((n * -1) // m) * -1 if s.is_at_least(n * -1, 0) else None


def _value_mod(s: Symbolic, node: Node) -> Value | None:
    like_c = bool(node.attribute("fmod", 0))  # then the result has the dividend's sign, else the divisor's

    def compute(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
        if isinstance(a, Quotient) or isinstance(b, Quotient):
            return None
        if isinstance(b, Size):
            return _mod_of_size(s, a, b, like_c)
        return None if b <= 0 or (like_c and not s.is_positive(a + 1)) else a - (a // b) * b

    return _binary(compute)(s, node)


def _mod_of_size(s: Symbolic, a: AnySize, b: Size, like_c: bool) -> AnySize | None:
    """What `a mod b` is where a is never as large as b, as when a map is rolled by half a window."""
    if s.is_positive(a + 1) and s.is_positive(b - a):
        return a
    return a + b if not like_c and s.is_positive(a * -1) and s.is_positive(a + b + 1) else None


def _compare(sign: int, strict: bool) -> Calculation:
    def compute(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
        if isinstance(a, Quotient) or isinstance(b, Quotient):
            return None
        if s.is_at_least((a - b) * sign, 1 if strict else 0):
            return 1
        return 0 if s.is_at_least((b - a) * sign, 0 if strict else 1) else None

    return compute


def _equal(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    if isinstance(a, Quotient) or isinstance(b, Quotient):
        return None if a != b else 1
    if a == b:
        return 1
    return 0 if s.is_positive(a - b) or s.is_positive(b - a) else None


def _max(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    bigger = _compare(1, False)(s, a, b, floating)
    return a if bigger == 1 else b if bigger == 0 else None


def _min(s: Symbolic, a: Number, b: Number, floating: bool) -> Number | None:
    bigger = _compare(1, False)(s, a, b, floating)
    return b if bigger == 1 else a if bigger == 0 else None


def _logic(decides: bool) -> Evaluator:
    """And, or Or: one operand of this value decides, whatever the other is."""

    def evaluate(s: Symbolic, node: Node) -> Value | None:
        operands = _rows(s, node)
        if operands is None or len(node.inputs) != 2:
            return None
        rows, dims, _ = operands
        return Value(tuple(map(decided, rows)), dims)

    def decided(row: tuple[Number | None, ...]) -> int | None:
        known = [bool(number) for number in row if isinstance(number, int)]
        if decides in known:
            return int(decides)
        return int(not decides) if len(known) == len(row) else None

    return evaluate


def _value_not(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    if data is None:
        return None
    return Value(tuple(int(not n) if isinstance(n, int) else None for n in data.numbers), data.dims)


def _value_neg(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    if data is None:
        return None
    negated = (
        Quotient(n.num * -1, n.den) if isinstance(n, Quotient) else None if n is None else n * -1 for n in data.numbers
    )
    return Value(tuple(negated), data.dims, data.floating)


def _value_where(s: Symbolic, node: Node) -> Value | None:
    operands = _rows(s, node)
    if operands is None:
        return None
    rows, dims, floating = operands
    numbers = tuple(
        (yes if condition else no) if isinstance(condition, int) else (yes if yes == no else None)
        for condition, yes, no in rows
    )
    return Value(numbers, dims, floating)


def _value_fill(s: Symbolic, node: Node) -> Value | None:
    dims = s.shape(node.graph, node.output())
    known = [size for size in dims if isinstance(size, int)] if dims is not None else []
    if dims is None or len(known) != len(dims) or math.prod(known) > MAX_VALUES:
        return None
    tensor = node.attribute("value")
    given = small_numbers(tensor) if tensor is not None else None
    if tensor is not None and given is None:
        return None
    fill = number_of(given.values[0]) if given is not None else 0
    floating = given is None or given.kind == "f"
    return Value((fill,) * math.prod(known), tuple(known), floating)


def _value_expand(s: Symbolic, node: Node) -> Value | None:
    data, dims = s.val(node, 0), s.shape(node.graph, node.output())
    if data is None or dims is None or len(dims) > 1 or not all(isinstance(size, int) for size in dims):
        return None
    size = dims[0] if dims else 1
    if not isinstance(size, int) or size > MAX_VALUES or len(data.numbers) not in (1, size):
        return None
    return Value(data.numbers * (size if len(data.numbers) == 1 else 1), (size,) if dims else (), data.floating)


def _value_reduce_prod(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    if data is None or len(data.dims) > 1 or node.attribute("noop_with_empty_axes", 0):
        return None
    factors = [n for n in data.numbers if n is not None and not isinstance(n, Quotient)]
    if len(factors) < len(data.numbers):
        return None
    return Value((product(factors),), (1,) * len(data.dims) if node.attribute("keepdims", 1) else (), data.floating)


def _is_floating(s: Symbolic, node: Node) -> bool:
    first = s.val(node, 0)
    return first is not None and first.floating


def _value_range(s: Symbolic, node: Node) -> Value | None:
    values = [s.ints(node, i) for i in range(3)]
    if any(value is None for value in values):
        return None
    start, limit, delta = (value[0] for value in values if value)
    numbers = range(start, limit, delta)
    return Value(tuple(numbers), (len(numbers),), _is_floating(s, node)) if not numbers[MAX_VALUES:] else None


def _value_if(s: Symbolic, node: Node) -> Value | None:
    condition = s.val(node, 0)
    taken = condition.numbers[0] if condition is not None and condition.numbers else None
    if not isinstance(taken, int):
        return None
    for child in node.graph.children:
        if child.parent_node is node and child.path.endswith("then_branch" if taken else "else_branch"):
            return s.value(child, child.outputs[0])
    return None


VALUE_OPERATORS: dict[str, Evaluator] = {
    "Add": _binary(_add),
    "And": _logic(decides=False),
    "Cast": _value_cast,
    "Ceil": _each(_ceil_of),
    "Concat": _value_concat,
    "ConstantOfShape": _value_fill,
    "Div": _binary(_div),
    "Equal": _binary(_equal, to_bool=True),
    "Expand": _value_expand,
    "Flatten": _value_reshaped,
    "Floor": _each(_floor_of),
    "Gather": _value_gather,
    "Greater": _binary(_compare(1, True), to_bool=True),
    "GreaterOrEqual": _binary(_compare(1, False), to_bool=True),
    "Identity": _value_reshaped,
    "If": _value_if,
    "Less": _binary(_compare(-1, True), to_bool=True),
    "LessOrEqual": _binary(_compare(-1, False), to_bool=True),
    "Max": _binary(_max),
    "Min": _binary(_min),
    "Mod": _value_mod,
    "Mul": _binary(_mul),
    "Neg": _value_neg,
    "Not": _value_not,
    "Or": _logic(decides=True),
    "Range": _value_range,
    "ReduceProd": _value_reduce_prod,
    "Reshape": _value_reshaped,
    "Round": _round,
    "Shape": _value_shape,
    "Size": _value_size,
    "Slice": _value_slice,
    "Squeeze": _value_reshaped,
    "Sub": _binary(_sub),
    "Transpose": _value_transpose,
    "Unsqueeze": _value_reshaped,
    "Where": _value_where,
}
