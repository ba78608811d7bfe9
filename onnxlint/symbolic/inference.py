"""Symbolic shape inference: every size of a model as an exact expression of its inputs' symbols.

Where `onnx.shape_inference` says "unknown", this says `ceil(H/16)`; it also follows the small tensors that hold shapes
(Shape, Gather, Concat, Div, Where, …). What cannot be followed becomes a new symbol, which equals nothing but itself: a
proof can fail because of it, but never be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from onnxlint.graph.constants import small_array
from onnxlint.graph.dims import is_invented
from onnxlint.graph.onnx_inference import GRAPH_OPS
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.symbolic.sizes import AnySize, Size, TooComplexError, ceil_div, divide, lower_bound, product, ratio_of

if TYPE_CHECKING:
    from onnxlint.graph.dims import Shape

Sizes = tuple[AnySize, ...]
Places = npt.NDArray[np.int64]

MAX_VALUES = 64
"""Longer tensors are data, not shapes."""

SMALL = 2**12
"""Factors that single precision multiplies sizes by, and divides them by, without losing digits that matter."""


@dataclass(frozen=True)
class Quotient:
    """A floating-point number computed from sizes: `num / den`, rounded once at most.

    What would be rounded twice is not followed: `h / 49 * 49` is not h in floating point.
    """

    num: AnySize
    den: AnySize

    @property
    def is_exact(self) -> bool:
        """Whether single precision holds it without rounding, for sizes up to thousands."""
        if not isinstance(self.den, int) or self.den & (self.den - 1) or not 0 < self.den <= SMALL:
            return False
        factors = [self.num] if isinstance(self.num, int) else [self.num.constant, *(k for _, k in self.num.terms)]
        return all(abs(k) <= SMALL for k in factors)

    @property
    def is_telling(self) -> bool:
        """Whether rounding it cannot have crossed a whole number, so that its floor is that of the exact quotient."""
        return isinstance(self.den, int) and 0 < self.den <= SMALL


Number = AnySize | Quotient


@dataclass(frozen=True)
class Value:
    """A small tensor of numbers computed from shapes.

    Attributes:
        numbers: Flat; None where a number is unknown.
        dims: Its shape; () for a scalar.
        floating: Whether its element type is floating-point.
    """

    numbers: tuple[Number | None, ...]
    dims: tuple[int, ...]
    floating: bool = False


def exact_sizes(view: GraphView) -> Symbolic:
    """Every size of a model as an expression of its inputs' symbols; inferred once for a view."""
    return _inferred(view, "onnxlint.symbolic.exact", {})


def assumed_sizes(view: GraphView) -> Symbolic:
    """Every size under the assumptions that the user makes about the inputs (`view.multiples`)."""
    return _inferred(view, "onnxlint.symbolic.assumed", view.multiples) if view.multiples else exact_sizes(view)


def _inferred(view: GraphView, key: str, multiples: Mapping[str, int]) -> Symbolic:
    known: Symbolic | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = Symbolic(view, multiples)
    return known


_MISUSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What evaluating an operator raises where its operands or attributes are not those of the specification."""


class Symbolic:
    """Shapes and shape values of a model.

    Args:
        view: The model.
        multiples: Assumptions: input symbol → a number that it is a multiple of. The symbol then stands for that
            many-th part of the size, so that `H` with 32 appears as `32*H`.
    """

    def __init__(self, view: GraphView, multiples: Mapping[str, int] | None = None) -> None:
        self.view = view
        self.multiples = dict(multiples or {})
        self._shapes: dict[tuple[int, str], Sizes | None] = {}
        self._values: dict[tuple[int, str], Value] = {}
        self._fresh = 0
        self._clipped: dict[str, tuple[AnySize, int]] = {}
        for graph in view.graphs:
            if graph.parent is None and not graph.is_function:
                self._run(graph)

    def shape(self, graph: Graph, name: str) -> Sizes | None:
        """Sizes of a value, looked up outwards through the graphs; None where its rank is unknown."""
        here: Graph | None = graph
        while here is not None:
            key = (id(here), name)
            if key in self._shapes:
                return self._shapes[key]
            tensor = here.initializers.get(name)
            if tensor is not None:
                return tuple(tensor.dims)
            here = here.parent
        return None

    def value(self, graph: Graph, name: str) -> Value | None:
        """Numbers of a small tensor that is constant or computed from shapes; None for anything else."""
        here: Graph | None = graph
        while here is not None:
            if (id(here), name) in self._values:
                return self._values[(id(here), name)]
            if here.owns(name):
                break
            here = here.parent
        constant = graph.constant(name) if name else None
        if constant is None or constant.size > MAX_VALUES or constant.dtype.kind not in "iufb":
            return None
        floating = constant.dtype.kind == "f"
        if floating and constant.dtype.itemsize < 4:
            return None  # half precision rounds sizes above 2048
        return Value(tuple(_number(x) for x in constant.reshape(-1).tolist()), constant.shape, floating)

    def input_size(self, symbol: str) -> AnySize:
        """The size that an input's symbol stands for, under the assumptions."""
        return Size.symbol(symbol) * self.multiples.get(symbol, 1)

    def fresh(self) -> Size:
        """A new symbol that equals nothing but itself."""
        self._fresh += 1
        return Size.symbol(f"?{self._fresh}")

    def clipped(self, size: AnySize, limit: int) -> AnySize:
        """`min(size, limit)`, as a symbol that remembers what it is."""
        name = f"min({size},{limit})"
        self._clipped[name] = (size, limit)
        return Size.symbol(name)

    def unclipped(self, sizes: set[AnySize]) -> AnySize:
        """The size of an axis along which values of all these sizes meet.

        A table of 512 positions that is sliced to the length of the text has min(length, 512) rows: where that meets
        `length`, they are equal, or the model does not run (both are more than 1 where they differ).
        """
        for size in sizes:
            rest = sizes - {size}
            if all(
                isinstance(other, Size)
                and (known := self._clipped.get(str(other))) is not None
                and known[0] == size
                and known[1] > 1
                for other in rest
            ):
                return size
        return self.fresh()

    # Filling in

    def _run(self, graph: Graph) -> None:
        for name in graph.data_inputs:
            self._shapes[(id(graph), name)] = self._declared_input(graph, name, self.view.onnx_inferred(graph, name)[1])
        for node in graph.order:
            self._visit(node)

    def _declared_input(self, graph: Graph, name: str, shape: Shape | None) -> Sizes | None:
        if shape is None:
            return None
        main = graph is self.view.main
        return tuple(
            dim if isinstance(dim, int) else self.input_size(dim or f"{name}[{i}]") if main else self.fresh()
            for i, dim in enumerate(shape)
        )

    def _visit(self, node: Node) -> None:
        if node.graph.children and node.op in GRAPH_OPS:
            for child in node.graph.children:
                if child.parent_node is node:
                    self._run(child)
        handler = _HANDLERS.get(node.op)
        shapes: Sequence[Sizes | None] | None = None
        if handler is not None:
            try:
                shapes = handler(self, node)
            except (TooComplexError, *_MISUSE):
                shapes = None  # an operator used against its specification, or sizes beyond bounds: fall back
        for i, name in enumerate(node.outputs):
            if name:
                own = shapes[i] if shapes is not None and i < len(shapes) else None
                self._shapes[(id(node.graph), name)] = self._merge(own, self.view.onnx_inferred(node.graph, name)[1])
        try:
            self._evaluate(node)
        except (TooComplexError, *_MISUSE):
            return

    def _merge(self, own: Sizes | None, inferred: Shape | None) -> Sizes | None:
        """Our sizes, completed by what onnx's inference knows as numbers."""
        if inferred is None:
            return own
        if own is None or len(own) != len(inferred):
            return tuple(self._known(dim) for dim in inferred)
        return tuple(
            dim if isinstance(dim, int) and not isinstance(size, int) else size
            for size, dim in zip(own, inferred, strict=True)
        )

    def _known(self, dim: int | str | None) -> AnySize:
        if isinstance(dim, int):
            return dim
        if dim is None or is_invented(dim):
            return self.fresh()
        return self.input_size(dim)

    def _evaluate(self, node: Node) -> None:
        evaluator = _EVALUATORS.get(node.op)
        value = evaluator(self, node) if evaluator is not None else None
        if value is not None and len(value.numbers) <= MAX_VALUES and node.output():
            key = (id(node.graph), node.output())
            self._values[key] = value
            self._shapes[key] = value.dims

    # For the handlers

    def of(self, node: Node, i: int) -> Sizes | None:
        """Sizes of input `i`."""
        name = node.input(i)
        return self.shape(node.graph, name) if name else None

    def val(self, node: Node, i: int) -> Value | None:
        """Numbers of input `i`."""
        name = node.input(i)
        return self.value(node.graph, name) if name else None

    def ints(self, node: Node, i: int, attribute: str = "") -> list[int] | None:
        """Constant whole numbers of input `i`, or of the attribute that came before it in older opsets."""
        if attribute:
            given = node.attribute(attribute)
            if given is not None:
                return list(given) if isinstance(given, list) else [given]
        value = self.val(node, i)
        if value is None or not all(isinstance(number, int) for number in value.numbers):
            return None
        return [number for number in value.numbers if isinstance(number, int)]


def _number(x: float | bool) -> Number | None:
    if isinstance(x, int):
        return int(x)
    if not math.isfinite(x):
        return None
    fraction = Fraction(x)
    return fraction.numerator if fraction.denominator == 1 else Quotient(fraction.numerator, fraction.denominator)


# Shapes. A handler returns the sizes of each output.

Handler = Callable[[Symbolic, Node], "Sequence[Sizes | None] | None"]


def _whole(s: Symbolic, number: Number | None) -> AnySize:
    """A number as a size; a new symbol where it is unknown."""
    return s.fresh() if number is None or isinstance(number, Quotient) else number


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


def _conv(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, weight = s.of(node, 0), s.of(node, 3 if node.op == "QLinearConv" else 1)
    if data is None or weight is None:
        return [None]
    kernel = node.attribute("kernel_shape") or list(weight[2:])
    return [(data[0], weight[0], *_windows(s, node, data[2:], kernel))]


def _windows(s: Symbolic, node: Node, sizes: Sizes, kernel: Sequence[AnySize]) -> list[AnySize]:
    rank = len(sizes)
    strides = node.attribute("strides") or [1] * rank
    dilations = node.attribute("dilations") or [1] * rank
    pads = node.attribute("pads") or [0] * (2 * rank)
    auto = node.attribute("auto_pad", "NOTSET")
    ceil_mode = node.attribute("ceil_mode", 0)
    out: list[AnySize] = []
    for i, size in enumerate(sizes):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out.append(ceil_div(size, strides[i]))
            continue
        begin, end = (0, 0) if auto == "VALID" else (pads[i], pads[i + rank])
        room = size + (begin + end) - (kernel[i] - 1) * dilations[i] - 1
        windows = room // strides[i] + 1
        if ceil_mode and (rounded := ceil_div(room, strides[i]) + 1) != windows:
            # The last window must start inside: always so where the padding at the end is small.
            extent = (kernel[i] - 1) * dilations[i] + 1
            windows = rounded if isinstance(extent, int) and end <= extent - strides[i] else s.fresh()
        out.append(windows)
    return out


def _conv_transpose(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, weight = s.of(node, 0), s.of(node, 1)
    if data is None or weight is None or node.attribute("output_shape") or node.attribute("auto_pad", "") in _SAME:
        return [None]
    rank = len(data) - 2
    strides = node.attribute("strides") or [1] * rank
    dilations = node.attribute("dilations") or [1] * rank
    pads = node.attribute("pads") or [0] * (2 * rank)
    extra = node.attribute("output_padding") or [0] * rank
    kernel = node.attribute("kernel_shape") or list(weight[2:])
    spatial = [
        (data[2 + i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + rank]
        for i in range(rank)
    ]
    return [(data[0], weight[1] * node.attribute("group", 1), *spatial)]


_SAME = ("SAME_UPPER", "SAME_LOWER")


def _pool(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    sizes = (data[0], data[1], *_windows(s, node, data[2:], node.attribute("kernel_shape")))
    return [sizes] * len(node.outputs)


def _global_pool(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    return [None if data is None else (*data[:2], *(1,) * (len(data) - 2))]


def _concat(s: Symbolic, node: Node) -> list[Sizes | None]:
    shapes = [s.of(node, i) for i in range(len(node.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return [None]
    rank = len(known[0])
    axis = node.attribute("axis", 1) % rank
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
            numbers = [size for size in sizes if isinstance(size, int)]
            out.append(numbers[0] if numbers else min(sizes, key=lambda size: (str(size).startswith("?"), str(size))))
    return [tuple(out)]


def _split(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None] * len(node.outputs)
    axis = node.attribute("axis", 0) % len(data)
    given, parts = node.attribute("split"), s.val(node, 1)
    count = len(node.outputs)
    sizes: list[AnySize]
    if given is not None:
        sizes = list(given)
    elif parts is not None:
        sizes = [_whole(s, number) for number in parts.numbers]
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
            out.append(number)
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
    gone = {axis % len(data) for axis in axes}
    return [tuple(size for i, size in enumerate(data) if i not in gone)]


def _unsqueeze(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, axes = s.of(node, 0), s.ints(node, 1, "axes")
    if data is None or axes is None:
        return [None]
    rank = len(data) + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) < len(axes):
        return [None]  # an axis is named twice
    sizes = iter(data)
    return [tuple(1 if i in new else next(sizes) for i in range(rank))]


def _gather(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, indices = s.of(node, 0), s.of(node, 1)
    if data is None or indices is None:
        return [None]
    axis = node.attribute("axis", 0) % len(data)
    return [(*data[:axis], *indices, *data[axis + 1 :])]


def _like_second(s: Symbolic, node: Node) -> list[Sizes | None]:
    return [s.of(node, 1)]


def _slice(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    parts = _slice_arguments(s, node)
    if parts is None:
        return [tuple(s.fresh() for _ in data)]
    out = list(data)
    for axis, start, end, step in parts:
        out[axis % len(data)] = _sliced(s, data[axis % len(data)], start, end, step)
    return [tuple(out)]


def _slice_arguments(s: Symbolic, node: Node) -> list[tuple[int, Number | None, Number | None, int]] | None:
    """(axis, start, end, step) of each sliced axis; None where axes or steps are not constant."""
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
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(_picked(range(size), start, end, step))
    if step < 0:
        # Only the whole axis, reversed, can be told without numbers.
        return size if step == -1 and start == -1 and isinstance(end, int) and end < -(2**31) else s.fresh()
    begin = _clamped(size, start)
    stop = _clamped(size, end)
    if begin == 0 and step == 1 and stop is None and isinstance(size, int) and (lower_bound(end) or -1) >= 0:
        return s.clipped(end, size)
    if begin is None or stop is None:
        return s.fresh()
    length = stop - begin
    bound = lower_bound(length)
    if bound is None or bound < 0:
        return 0 if length == 0 else s.fresh()
    return ceil_div(length, step)


_T = TypeVar("_T", bound="Sequence[object]")


def _picked(items: _T, start: int, end: int, step: int) -> _T:
    """What a Slice picks; as Python does, but that backwards, a start before the first item means the first."""
    if step < 0:
        start = max(start, -len(items))
    return items[slice(start, None if step < 0 and end < -len(items) else end, step)]  # type: ignore[return-value]


def _clamped(size: AnySize, position: AnySize) -> AnySize | None:
    """A slice position, counted from the start and clamped to the axis; None where that depends on the input."""
    if isinstance(position, int) and position >= 2**31 - 1:
        return size
    if isinstance(position, int) and position < 0:
        from_start = size + position
        bound = lower_bound(from_start)
        return from_start if bound is not None and bound >= 0 else None
    if position == 0 or position == size:
        return position
    if not _is_positive(position + 1):
        # Negative ones count from the end.
        from_start = size + position
        return from_start if _is_positive(position * -1) and _is_positive(from_start + 1) else None
    if _is_positive(size - position + 1):
        return position
    return size if _is_positive(position - size + 1) else None


def _is_positive(size: AnySize) -> bool:
    bound = lower_bound(size)
    return bound is not None and bound > 0


def _expand(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, target = s.of(node, 0), s.val(node, 1)
    if data is None or target is None:
        return [None]
    sizes = tuple(_whole(s, n) for n in target.numbers)
    return [broadcast(s, [data, sizes])]


def _tile(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, repeats = s.of(node, 0), s.val(node, 1)
    if data is None or repeats is None:
        return [None]
    return [tuple(size * _whole(s, n) for size, n in zip(data, repeats.numbers, strict=True))]


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


def _resize(s: Symbolic, node: Node) -> list[Sizes | None]:
    data = s.of(node, 0)
    if data is None:
        return [None]
    axes = node.attribute("axes")
    places = [axis % len(data) for axis in axes] if axes else list(range(len(data)))
    out = list(data)
    sizes = s.val(node, 3)
    if sizes is not None:
        if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            return [tuple(s.fresh() for _ in data)]
        for axis, number in zip(places, sizes.numbers, strict=True):
            out[axis] = _whole(s, number)
        return [tuple(out)]
    index = 2 if node.op == "Resize" and s.view.opset >= 11 else 1
    scales = s.val(node, index) if node.input(index) else None
    given = node.attribute("scales")
    numbers = tuple(map(_number, given)) if given else scales.numbers if scales else None
    if numbers is None or len(numbers) != len(places) or node.attribute("coordinate_transformation_mode") == _CROP:
        return [tuple(s.fresh() for _ in data)]
    for axis, number in zip(places, numbers, strict=True):
        out[axis] = _scaled(s, data[axis], number)
    return [tuple(out)]


_CROP = "tf_crop_and_resize"


def _scaled(s: Symbolic, size: AnySize, scale: Number | None) -> AnySize:
    if scale is None:
        return s.fresh()
    if not isinstance(scale, Quotient):
        return size * scale
    if isinstance(scale.num, int) and isinstance(scale.den, int):
        if scale.is_exact:
            return size * scale.num // scale.den
        if isinstance(size, int):
            # Runtimes multiply in single or in double precision: believed where both give the same.
            factor = np.float32(scale.num / scale.den)
            single, double = int(np.floor(np.float32(size) * factor)), math.floor(size * float(factor))
            return single if single == double else s.fresh()
    return s.fresh()


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


def _einsum(s: Symbolic, node: Node) -> list[Sizes | None]:
    equation = str(node.attribute("equation", "")).replace(" ", "")
    if "..." in equation or "->" not in equation:
        return [None]
    left, right = equation.split("->")
    known: dict[str, AnySize] = {}
    for i, term in enumerate(left.split(",")):
        shape = s.of(node, i)
        if shape is None or len(shape) != len(term):
            return [None]
        for letter, size in zip(term, shape, strict=True):
            if known.get(letter, 1) == 1 or (isinstance(size, int) and size != 1):
                known[letter] = size
    return [tuple(known[letter] for letter in right)]


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
    gone = {axis % len(data) for axis in axes}
    if node.attribute("keepdims", 1):
        return [tuple(1 if i in gone else size for i, size in enumerate(data))]
    return [tuple(size for i, size in enumerate(data) if i not in gone)]


def _top_k(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, k = s.of(node, 0), s.val(node, 1)
    if data is None:
        return [None, None]
    axis = node.attribute("axis", -1) % len(data)
    number = node.attribute("k") if k is None else k.numbers[0]
    size = _whole(s, number)
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


def _depth_to_space(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, block = s.of(node, 0), node.attribute("blocksize")
    if data is None or not isinstance(data[1], int):
        return [None]
    if node.op == "DepthToSpace":
        return [(data[0], data[1] // block**2, data[2] * block, data[3] * block)]
    return [(data[0], data[1] * block**2, data[2] // block, data[3] // block)]


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
    return [tuple(_whole(s, n) for n in target.numbers)]


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
    bound = lower_bound(length)
    return [(ceil_div(length, delta) if bound is not None and bound >= 0 else s.fresh(),)]


def _one_hot(s: Symbolic, node: Node) -> list[Sizes | None]:
    indices, depth = s.of(node, 0), s.val(node, 1)
    if indices is None:
        return [None]
    number = depth.numbers[0] if depth is not None else None
    size = _whole(s, number)
    axis = node.attribute("axis", -1) % (len(indices) + 1)
    return [(*indices[:axis], size, *indices[axis:])]


def _grid_sample(s: Symbolic, node: Node) -> list[Sizes | None]:
    data, grid = s.of(node, 0), s.of(node, 1)
    return [None if data is None or grid is None else (*data[:2], *grid[1:-1])]


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


_HANDLERS: dict[str, Handler] = {
    "BatchNormalization": _first_only,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Dropout": _same,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "GRU": _recurrent,
    "Gather": _gather,
    "GatherElements": _like_second,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "If": _if,
    "LSTM": _recurrent,
    "LayerNormalization": _first_only,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "OneHot": _one_hot,
    "Pad": _pad,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape_op,
    "Slice": _slice,
    "SpaceToDepth": _depth_to_space,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
_HANDLERS.update(
    dict.fromkeys(
        """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh CumSum DequantizeLinear
        DynamicQuantizeLinear Elu Erf Exp EyeLike Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity
        InstanceNormalization IsInf IsNaN LRN LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish
        Neg Not PRelu QuantizeLinear RMSNormalization Reciprocal Relu ReverseSequence Round ScatterElements ScatterND
        Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu""".split(),
        _first_only,
    )
)
_HANDLERS.update(
    dict.fromkeys(
        """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
        Mod Mul Or Pow Sub Sum Where Xor""".split(),
        _elementwise,
    )
)
_HANDLERS.update(dict.fromkeys("AveragePool LpPool MaxPool".split(), _pool))
_HANDLERS.update(dict.fromkeys("GlobalAveragePool GlobalLpPool GlobalMaxPool".split(), _global_pool))
_HANDLERS.update(
    dict.fromkeys(
        """ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare""".split(),
        _reduce,
    )
)


# Values of small tensors

Evaluator = Callable[[Symbolic, Node], "Value | None"]


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
    places = np.array(whole, np.int64).reshape(indices.dims)
    return _moved(data, partial(np.take, indices=places, axis=node.attribute("axis", 0)))


def _value_slice(s: Symbolic, node: Node) -> Value | None:
    data, parts = s.val(node, 0), _slice_arguments(s, node)
    if data is None or parts is None:
        return None
    value = data
    for axis, start, end, step in parts:
        if not (isinstance(start, int) and isinstance(end, int) and step):
            return None
        kept = list(_picked(range(value.dims[axis]), start, end, step))
        value = _moved(value, partial(np.take, indices=np.array(kept, np.int64), axis=axis))
    return value


def _value_transpose(s: Symbolic, node: Node) -> Value | None:
    data = s.val(node, 0)
    return None if data is None else _moved(data, partial(np.transpose, axes=node.attribute("perm")))


def _moved(data: Value, move: Callable[[Places], Places]) -> Value:
    """The numbers that are left, in their order, where `move` is applied to an array of their places."""
    places = move(np.arange(len(data.numbers)).reshape(data.dims))
    return Value(tuple(data.numbers[i] for i in places.reshape(-1).tolist()), places.shape, data.floating)


def _value_concat(s: Symbolic, node: Node) -> Value | None:
    values = [s.val(node, i) for i in range(len(node.inputs))]
    parts = [value for value in values if value is not None]
    if len(parts) != len(values) or any(len(part.dims) != 1 for part in parts):
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
            int(n != 0) if isinstance(n, int) else 1 if isinstance(n, Size) and _is_positive(n) else None
            for n in data.numbers
        )
        return Value(truth, data.dims)
    if to in (1, 11):
        return Value(data.numbers, data.dims, True)
    return Value(tuple(map(_floored, data.numbers)) if data.floating else data.numbers, data.dims)


def _floored(number: Number | None) -> Number | None:
    """Truncation of a number towards 0."""
    if not isinstance(number, Quotient):
        return number
    below = _floor_of(number)
    if isinstance(number.num, int) and isinstance(below, int):
        return below + (below < 0)
    return below if below is not None and _is_positive(number.num + 1) else None


def _floor_of(number: Number | None) -> Number | None:
    if not isinstance(number, Quotient):
        return number
    return number.num // number.den if number.is_telling and isinstance(number.den, int) else None


def _ceil_of(number: Number | None) -> Number | None:
    if not isinstance(number, Quotient):
        return number
    return ceil_div(number.num, number.den) if number.is_telling and isinstance(number.den, int) else None


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
    """Whether a number is known, and what a runtime holds is not a rounded one."""
    return number.is_exact if isinstance(number, Quotient) else number is not None


def _binary(compute: Callable[[Number, Number, bool], Number | None], to_bool: bool = False) -> Evaluator:
    def evaluate(s: Symbolic, node: Node) -> Value | None:
        operands = _rows(s, node)
        if operands is None or len(node.inputs) != 2:
            return None
        rows, dims, floating = operands
        numbers = tuple(compute(a, b, floating) if _is_exact(a) and _is_exact(b) else None for a, b in rows)
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


def _add(a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    return n + m if d == e == 1 else _quotient(n * e + m * d, d * e)


def _sub(a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    return n - m if d == e == 1 else _quotient(n * e - m * d, d * e)


def _mul(a: Number, b: Number, floating: bool) -> Number | None:
    (n, d), (m, e) = _parts(a), _parts(b)
    return n * m if d == e == 1 else _quotient(n * m, d * e)


def _div(a: Number, b: Number, floating: bool) -> Number | None:
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
    bound, opposite = lower_bound(n), lower_bound(n * -1)
    if bound is not None and bound >= 0:
        return n // m
    return ((n * -1) // m) * -1 if opposite is not None and opposite >= 0 else None


def _value_mod(s: Symbolic, node: Node) -> Value | None:
    like_c = bool(node.attribute("fmod", 0))  # then the result has the dividend's sign, else the divisor's

    def compute(a: Number, b: Number, floating: bool) -> Number | None:
        if isinstance(a, Quotient) or not isinstance(b, int) or b <= 0 or (like_c and not _is_positive(a + 1)):
            return None
        return a - (a // b) * b

    return _binary(compute)(s, node)


def _compare(sign: int, strict: bool) -> Callable[[Number, Number, bool], Number | None]:
    def compute(a: Number, b: Number, floating: bool) -> Number | None:
        if isinstance(a, Quotient) or isinstance(b, Quotient):
            return None
        ahead, behind = lower_bound((a - b) * sign), lower_bound((b - a) * sign)
        if ahead is not None and ahead >= (1 if strict else 0):
            return 1
        if behind is not None and behind >= (0 if strict else 1):
            return 0
        return None

    return compute


def _equal(a: Number, b: Number, floating: bool) -> Number | None:
    if isinstance(a, Quotient) or isinstance(b, Quotient):
        return None if a != b else 1
    if a == b:
        return 1
    ahead, behind = lower_bound(a - b), lower_bound(b - a)
    return 0 if (ahead is not None and ahead > 0) or (behind is not None and behind > 0) else None


def _max(a: Number, b: Number, floating: bool) -> Number | None:
    bigger = _compare(1, False)(a, b, floating)
    return a if bigger == 1 else b if bigger == 0 else None


def _min(a: Number, b: Number, floating: bool) -> Number | None:
    bigger = _compare(1, False)(a, b, floating)
    return b if bigger == 1 else a if bigger == 0 else None


def _logic(table: Mapping[tuple[bool, bool], bool]) -> Callable[[Number, Number, bool], Number | None]:
    def compute(a: Number, b: Number, floating: bool) -> Number | None:
        return int(table[bool(a), bool(b)]) if isinstance(a, int) and isinstance(b, int) else None

    return compute


_PAIRS = [(a, b) for a in (False, True) for b in (False, True)]


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
    array = small_array(tensor) if tensor is not None else None
    if tensor is not None and array is None:
        return None
    fill = _number(array.reshape(-1).tolist()[0]) if array is not None else 0
    floating = array is None or array.dtype.kind == "f"
    return Value((fill,) * math.prod(known), tuple(known), floating)


def _value_expand(s: Symbolic, node: Node) -> Value | None:
    data, dims = s.val(node, 0), s.shape(node.graph, node.output())
    if data is None or dims is None or len(dims) > 1 or not all(isinstance(size, int) for size in dims):
        return None
    size = dims[0] if dims else 1
    if not isinstance(size, int) or len(data.numbers) not in (1, size):
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


_EVALUATORS: dict[str, Evaluator] = {
    "Add": _binary(_add),
    "And": _binary(_logic({pair: pair[0] and pair[1] for pair in _PAIRS}), to_bool=True),
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
    "Or": _binary(_logic({pair: pair[0] or pair[1] for pair in _PAIRS}), to_bool=True),
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
