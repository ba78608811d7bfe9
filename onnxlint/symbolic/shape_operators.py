"""How the sizes of an operator's outputs follow from its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from onnxlint.graph.disputed import TO_THE_END
from onnxlint.graph.view import Node
from onnxlint.symbolic.engine import Handler, Sizes, Symbolic
from onnxlint.symbolic.sizes import AnySize, ceil_div, divide, product
from onnxlint.symbolic.spatial_operators import (
    conv,
    conv_transpose,
    depth_to_space,
    global_pool,
    grid_sample,
    pool,
    resize,
)
from onnxlint.symbolic.values import MAX_VALUES, Number, Quotient


def _same(s: Symbolic, node: Node) -> list[Sizes | None]:
    return [s.of(node, 0)] * len(node.outputs)


def _first_only(s: Symbolic, node: Node) -> list[Sizes | None]:
    return [s.of(node, 0)]


def broadcast(s: Symbolic, shapes: Sequence[Sizes | None]) -> Sizes | None:
    """Sizes of an elementwise result. Where two sizes are not known to be equal and neither is a number, a new one."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or not known:
        return None
    rank = max(map(len, known))
    out: list[AnySize] = []
    for axis in range(rank):
        sizes = {shape[axis - rank + len(shape)] for shape in known if axis - rank + len(shape) >= 0}
        sizes.discard(1)
        numbers = [size for size in sizes if isinstance(size, int)]
        if numbers:
            out.append(numbers[0])
        elif len(sizes) > 1:
            out.append(s.unclipped(sizes))
        else:
            out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def _elementwise(s: Symbolic, node: Node) -> list[Sizes | None]:
    if node.attribute("broadcast", 0):
        return [s.of(node, 0)]  # before opset 7 the second operand alone was broadcast, along an axis of its own
    return [broadcast(s, [s.of(node, i) for i in range(len(node.inputs))])]


def _concat(s: Symbolic, node: Node) -> list[Sizes | None]:
    shapes = [s.of(node, i) for i in range(len(node.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return [None]
    rank = len(known[0])
    axis = range(rank)[node.attribute("axis", 1)]
    out: list[AnySize] = []
    for i in range(rank):
        if i == axis:
            total: AnySize = 0
            for shape in shapes:
                total = s.fresh() if shape is None else total + shape[i]
                if shape is None:
                    break
            out.append(total)
        else:
            # All are equal where the model runs at all: the one that says most.
            sizes = [shape[i] for shape in known]
            if all(size == sizes[0] for size in sizes):
                out.append(sizes[0])
                continue
            numbers = [size for size in sizes if isinstance(size, int)]
            out.append(numbers[0] if numbers else min(sizes, key=lambda size: (str(size).startswith("?"), str(size))))
    return [tuple(out)]


def _split(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None] * len(node.outputs)
    axis = range(len(data))[node.attribute("axis", 0)]
    given, parts = node.attribute("split"), s.val(node, 1)
    count = len(node.outputs)
    sizes: list[AnySize]
    if given is not None:
        if not isinstance(given, list) or not all(isinstance(size, int) for size in given):
            raise TypeError(given)
        sizes = given
    elif parts is not None:
        sizes = [s.whole(number) for number in parts.numbers]
    elif node.input(1):
        sizes = [s.fresh() for _ in range(count)]
    else:
        chunk = ceil_div(data[axis], count)
        sizes = [*[chunk] * (count - 1), data[axis] - chunk * (count - 1)]
    return [(*data[:axis], size, *data[axis + 1 :]) for size in sizes]


def _transpose(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    perm = node.attribute("perm") or list(range(len(data)))[::-1]
    return [tuple(data[i] for i in perm)]


def _reshape(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, target = s.of(node, 0), s.val(node, 1)
    if target is None:
        return [_of_rank(s, s.of(node, 1))]
    out: list[AnySize] = []
    free: int | None = None
    for i, number in enumerate(target.numbers):
        if number == 0 and not node.attribute("allowzero", 0):
            out.append(data[i] if data is not None else s.fresh())
        elif number == -1:
            free = i
            out.append(1)
        elif isinstance(number, Quotient) or number is None:
            out.append(s.fresh())
        else:
            # 0 would copy a size, and -1 stand for what is left.
            is_copy = data is not None and number in data[i : i + 1]
            out.append(number if isinstance(number, int) or is_copy or s.is_filled(number) else s.fresh())
    if free is not None:
        rest = out[:free] + out[free + 1 :]
        size = divide(data, rest) if data is not None else None
        out[free] = s.fresh() if size is None else size
    return [tuple(out)]


def _flatten(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    axis = node.attribute("axis", 1)
    axis = axis + len(data) if axis < 0 else axis
    return [(product(data[:axis]), product(data[axis:]))]


def _squeeze(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, axes = s.of(node, 0), s.ints(node, 1, "axes")
    if data is None:
        return [None]
    if axes is None:
        if len(node.inputs) > 1 or any(not isinstance(size, int) for size in data):
            return [None]
        return [tuple(size for size in data if size != 1)]
    gone = {range(len(data))[axis] for axis in axes}
    return [tuple(size for i, size in enumerate(data) if i not in gone)]


def _unsqueeze(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, axes = s.of(node, 0), s.ints(node, 1, "axes")
    if data is None or axes is None:
        return [None]
    rank = len(data) + len(axes)
    new = {range(rank)[axis] for axis in axes}
    if len(new) < len(axes):
        return [None]  # an axis is named twice
    sizes = iter(data)
    return [tuple([1 if i in new else next(sizes) for i in range(rank)])]


def _gather(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, indices = s.of(node, 0), s.of(node, 1)
    if data is None or indices is None:
        return [None]
    axis = range(len(data))[node.attribute("axis", 0)]
    return [(*data[:axis], *indices, *data[axis + 1 :])]


def _like_second(s: Symbolic, node: Node) -> list[Sizes | None]:
    return [s.of(node, 1)]


def _slice(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    parts = slice_arguments(s, node)
    if parts is None:
        return [tuple(s.fresh() for _ in data)]
    out = list(data)
    for axis, start, end, step in parts:
        out[axis] = _sliced(s, data[axis], start, end, step)
    return [tuple(out)]


def slice_arguments(s: Symbolic, node: Node) -> list[tuple[int, Number | None, Number | None, int]] | None:
    """(axis, start, end, step) of each sliced axis; None if axes or steps are not constant."""
    starts: tuple[Number | None, ...]
    ends: tuple[Number | None, ...]
    if node.attribute("starts") is not None:
        starts, ends = tuple(node.attribute("starts")), tuple(node.attribute("ends"))
        axes = node.attribute("axes") or list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        first, second = s.val(node, 1), s.val(node, 2)
        count = len(first.numbers) if first else len(second.numbers) if second else 1
        axes_given = s.ints(node, 3) if node.input(3) else list(range(count))
        steps_given = s.ints(node, 4) if node.input(4) else [1] * count
        if axes_given is None or steps_given is None:
            return None
        axes, steps = axes_given, steps_given
        starts = first.numbers if first else (None,) * len(axes)
        ends = second.numbers if second else (None,) * len(axes)
    return list(zip(axes, starts, ends, steps, strict=True))


def _sliced(s: Symbolic, size: AnySize, start: Number | None, end: Number | None, step: int) -> AnySize:
    if start is None or end is None or isinstance(start, Quotient) or isinstance(end, Quotient) or step == 0:
        return s.fresh()
    if is_disputed(end, step):
        return s.fresh()
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(picked(range(size), start, end, step))
    if step < 0:
        # Only the whole axis, reversed, can be told without numbers.
        return size if step == -1 and start == -1 and isinstance(end, int) and end < -(2**31) else s.fresh()
    begin = _clamped(s, size, start)
    stop = _clamped(s, size, end)
    if begin == 0 and step == 1 and stop is None and isinstance(size, int) and s.is_at_least(end, 0):
        return s.clipped(end, size)
    if begin is None or stop is None:
        return s.fresh()
    length = stop - begin
    if not s.is_at_least(length, 0):
        return 0 if length == 0 else s.fresh()
    return ceil_div(length, step)


def is_disputed(end: Number, step: int) -> bool:
    """Whether a Slice goes backwards to an end that stands for all: nothing by the specification, all in onnxruntime."""
    return step < 0 and isinstance(end, int) and end >= TO_THE_END


_T = TypeVar("_T", bound="Sequence[object]")


def picked(items: _T, start: int, end: int, step: int) -> _T:
    """Indices that a Slice selects; as in Python, except that backwards a start before the first item means the first."""
    if step < 0:
        start = max(start, -len(items))
    return items[slice(start, None if step < 0 and end < -len(items) else end, step)]  # type: ignore[return-value]


def _clamped(s: Symbolic, size: AnySize, position: AnySize) -> AnySize | None:
    """A slice position, counted from the start and clamped to the axis; None if that depends on the input."""
    if isinstance(position, int) and position >= TO_THE_END:
        return size
    if isinstance(position, int) and position < 0:
        from_start = size + position
        return from_start if s.is_at_least(from_start, 0) else None
    if position == 0 or position == size:
        return position
    if not s.is_positive(position + 1):
        # Negative ones count from the end.
        from_start = size + position
        return from_start if s.is_positive(position * -1) and s.is_positive(from_start + 1) else None
    if s.is_positive(size - position + 1):
        return position
    return size if s.is_positive(position - size + 1) else None


def _expand(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, target = s.of(node, 0), s.val(node, 1)
    if data is None or target is None:
        return [None]
    sizes = tuple(s.whole(n) for n in target.numbers)
    return [broadcast(s, [data, sizes])]


def _tile(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, repeats = s.of(node, 0), s.val(node, 1)
    if data is None or repeats is None:
        return [None]
    return [tuple(size * s.whole(n) for size, n in zip(data, repeats.numbers, strict=True))]


def _pad(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    given = node.attribute("pads") or node.attribute("paddings")
    value = s.val(node, 1) if given is None else None
    numbers: Sequence[Number | None] | None = given if given is not None else value.numbers if value else None
    axes = s.ints(node, 3) if node.input(3) else list(range(len(data)))
    if numbers is None or axes is None or len(numbers) != 2 * len(axes):
        return [tuple(s.fresh() for _ in data)]
    out = list(data)
    for i, axis in enumerate(axes):
        begin, end = numbers[i], numbers[i + len(axes)]
        if begin is None or end is None or isinstance(begin, Quotient) or isinstance(end, Quotient):
            out[axis] = s.fresh()
        else:
            out[axis] = data[axis] + begin + end
    return [tuple(out)]


def _matmul(s: Symbolic, node: Node) -> list[Sizes | None]:
    a, b = s.of(node, 0), s.of(node, 1 if node.op != "QLinearMatMul" else 3)
    if not a or not b:
        return [None]
    if len(a) == 1 or len(b) == 1:
        if len(a) == 1 and len(b) == 1:
            return [()]
        return [(*b[:-2], b[-1])] if len(a) == 1 else [a[:-1]]
    lead = broadcast(s, [a[:-2], b[:-2]])
    return [None if lead is None else (*lead, a[-2], b[-1])]


def _gemm(s: Symbolic, node: Node) -> list[Sizes | None]:
    a, b = s.of(node, 0), s.of(node, 1)
    if a is None or b is None:
        return [None]
    return [(a[1] if node.attribute("transA", 0) else a[0], b[0] if node.attribute("transB", 0) else b[1])]


def einsum_terms(s: Symbolic, node: Node) -> tuple[list[tuple[str, Sizes]], str] | None:
    """Terms of an Einsum with the sizes that they stand for, and its result; None if a shape is unknown.

    An ellipsis becomes digits that count its axes from the right, so that each axis is one letter.
    """
    equation = str(node.attribute("equation", "")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    written = left.split(",")
    terms: list[tuple[str, Sizes]] = []
    most = 0
    for i, term in enumerate(written):
        sizes = s.of(node, i)
        if sizes is None:
            return None
        count = len(sizes) - len(term.replace("...", "", 1))
        if count < 0 or (count and "..." not in term) or count > 9:
            return None
        most = max(most, count)
        terms.append((term.replace("...", _DIGITS[:count][::-1], 1), sizes))
    if not arrow:
        letters = "".join(written).replace(".", "")
        right = "..." * bool(most) + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return terms, right.replace("...", _DIGITS[:most][::-1], 1)


_DIGITS = "012345678"


def _einsum(s: Symbolic, node: Node) -> list[Sizes | None]:
    read = einsum_terms(s, node)
    if read is None:
        return [None]
    terms, result = read
    meeting: dict[str, list[Sizes]] = {}
    for term, sizes in terms:
        for letter, size in zip(term, sizes, strict=True):
            meeting.setdefault(letter, []).append((size,))
    joined = [broadcast(s, meeting[letter]) for letter in result]  # runtimes repeat a size of 1 here, too
    return [tuple(size for sizes in joined for size in sizes or ())]


def _reduce(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    if node.op in ("ArgMax", "ArgMin"):
        axes: list[int] | None = [node.attribute("axis", 0)]
    else:
        axes = s.ints(node, 1, "axes")
        if axes is None and node.input(1):
            return [tuple(s.fresh() for _ in data) if node.attribute("keepdims", 1) else None]
    if not axes:
        axes = [] if node.attribute("noop_with_empty_axes", 0) else list(range(len(data)))
    gone = {range(len(data))[axis] for axis in axes}
    if node.attribute("keepdims", 1):
        return [tuple(1 if i in gone else size for i, size in enumerate(data))]
    return [tuple(size for i, size in enumerate(data) if i not in gone)]


def _top_k(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, k = s.of(node, 0), s.val(node, 1)
    if data is None:
        return [None, None]
    axis = range(len(data))[node.attribute("axis", -1)]
    number = node.attribute("k") if k is None else k.numbers[0]
    size = s.whole(number)
    sizes = (*data[:axis], size, *data[axis + 1 :])
    return [sizes, sizes]


def _recurrent(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, weight = s.of(node, 0), s.of(node, 2)
    if data is None or weight is None:
        return [None] * len(node.outputs)
    directions, hidden = weight[0], weight[2]
    if node.attribute("layout", 0):
        batch, steps = data[0], data[1]
        return [(batch, steps, directions, hidden), *[(batch, directions, hidden)] * 2]
    steps, batch = data[0], data[1]
    return [(steps, directions, batch, hidden), *[(directions, batch, hidden)] * 2]


def _shape_op(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [(s.fresh(),)]
    return [(len(range(len(data))[slice(node.attribute("start", 0), node.attribute("end"))]),)]


def _of_rank(s: Symbolic, length: Sizes | None) -> Sizes | None:
    """Unknown sizes, as many as a vector of this shape has elements."""
    rank = length[0] if length else None
    if not isinstance(rank, int) or not 0 <= rank <= MAX_VALUES:  # a file may claim any number
        return None
    return tuple(s.fresh() for _ in range(rank))


def _constant_of_shape(s: Symbolic, node: Node) -> list[Sizes | None]:
    target = s.val(node, 0)
    if target is None:
        return [_of_rank(s, s.of(node, 0))]
    return [tuple(s.whole(n) for n in target.numbers)]


def _range(s: Symbolic, node: Node) -> list[Sizes | None]:
    values = [s.val(node, i) for i in range(3)]
    numbers = [value.numbers[0] if value is not None else None for value in values]
    start, limit, delta = numbers
    if (
        start is None
        or limit is None
        or not isinstance(delta, int)
        or delta <= 0
        or isinstance(start, Quotient)
        or isinstance(limit, Quotient)
    ):
        return [(s.fresh(),)]
    length = limit - start
    return [(ceil_div(length, delta) if s.is_at_least(length, 0) else s.fresh(),)]


def _one_hot(s: Symbolic, node: Node) -> list[Sizes | None]:
    indices, depth = s.of(node, 0), s.val(node, 1)
    if indices is None:
        return [None]
    number = depth.numbers[0] if depth is not None else None
    size = s.whole(number)
    axis = node.attribute("axis", -1) % (len(indices) + 1)
    return [(*indices[:axis], size, *indices[axis:])]


def _if(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Where both branches give the same sizes, or the condition is known."""
    bodies = {child.path.rsplit(".", 1)[1]: child for child in node.graph.children if child.parent_node is node}
    condition = s.val(node, 0)
    taken = condition.numbers[0] if condition is not None and condition.numbers else None
    if isinstance(taken, int):
        body = bodies["then_branch" if taken else "else_branch"]
        return [s.shape(body, name) for name in body.outputs]
    shapes = [[s.shape(body, name) for name in body.outputs] for body in bodies.values()]
    return [a if a == b else None for a, b in zip(*shapes, strict=True)]


ELEMENTWISE = frozenset(
    """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
    Mod Mul Or Pow Sub Sum Where Xor""".split()
)
"""Operators whose operands are broadcast to each other."""

SHAPE_OPERATORS: dict[str, Handler] = {
    "BatchNormalization": _first_only,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": conv,
    "ConvInteger": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Dropout": _same,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "GRU": _recurrent,
    "Gather": _gather,
    "GatherElements": _like_second,
    "Gemm": _gemm,
    "GridSample": grid_sample,
    "If": _if,
    "LSTM": _recurrent,
    "LayerNormalization": _first_only,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "OneHot": _one_hot,
    "Pad": _pad,
    "QLinearConv": conv,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": resize,
    "Shape": _shape_op,
    "Slice": _slice,
    "SpaceToDepth": depth_to_space,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": resize,
}
SHAPE_OPERATORS.update(
    dict.fromkeys(
        """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh CumSum DequantizeLinear
        DynamicQuantizeLinear Elu Erf Exp EyeLike Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity
        InstanceNormalization IsInf IsNaN LRN LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish
        Neg Not PRelu QuantizeLinear RMSNormalization Reciprocal Relu ReverseSequence RotaryEmbedding Round ScatterElements
        ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh TensorScatter
        ThresholdedRelu Trilu""".split(),
        _first_only,
    )
)
SHAPE_OPERATORS.update(
    dict.fromkeys(
        ELEMENTWISE,
        _elementwise,
    )
)
SHAPE_OPERATORS.update(dict.fromkeys("AveragePool LpPool MaxPool".split(), pool))
SHAPE_OPERATORS.update(dict.fromkeys("GlobalAveragePool GlobalLpPool GlobalMaxPool".split(), global_pool))
SHAPE_OPERATORS.update(
    dict.fromkeys(
        """ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare""".split(),
        _reduce,
    )
)
