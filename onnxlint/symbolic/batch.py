"""Which axis of each value is the batch, traced from the graph inputs through the operators.

A forward pass over the main graph, and the bodies in it. An operator that is not listed loses the batch: rules that ask
then stay silent, which is the safe side.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxlint.symbolic.inference import exact_sizes

if TYPE_CHECKING:
    from onnxlint.graph.dims import Dim, Shape
    from onnxlint.graph.view import Graph, GraphView, Node

_SAME_AXIS = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh CumSum
    DequantizeLinear Dropout Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
    MeanVarianceNormalization Mish Neg Not PRelu Pad QuantizeLinear RMSNormalization Reciprocal Relu Resize Round Scale
    Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
    Upsample""".split()
)
_FIRST_AXIS = frozenset(
    """AveragePool Conv ConvInteger ConvTranspose DeformConv DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool
    GridSample LpPool MaxPool QLinearConv SpaceToDepth""".split()
)
_BROADCAST = frozenset(
    """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Expand Greater GreaterOrEqual Less LessOrEqual Max
    Mean Min Mod Mul Or Pow Sub Sum Where Xor""".split()
)
_COERCING = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
"""Before opset 13 these compute along all axes from `axis` on."""

_ALONG = _COERCING | {"LayerNormalization", "LpNormalization"}

_REDUCE = frozenset(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare ArgMax ArgMin""".split()
)


_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})

_STATES = (5, 6)
"""Operands of a recurrent operator that are initial states."""

_MAX_VISITS = 200_000
"""Nodes that are looked at to find what recurrent operators read."""


def input_batch_axes(graph: Graph) -> dict[str, int]:
    """Input → its batch axis, for those of a main graph that have one.

    What a recurrent operator reads says it most clearly. Then the symbol that all inputs share, where only one is. Else it
    is the first axis of images, and of what has a free or single first axis.
    """
    shapes = {name: shape for name in graph.data_inputs if (shape := graph.shape(name))}
    found = {**_first_axes(shapes), **_shared_axes(graph, shapes)}
    for name, axis in _recurrent_axes(graph, shapes, found).items():
        if axis is not None:
            found[name] = axis
        else:
            found.pop(name, None)
    return found


def _first_axes(shapes: Mapping[str, Shape]) -> dict[str, int]:
    return {
        name: 0
        for name, shape in shapes.items()
        if len(shape) >= 4 or (len(shape) >= 2 and (shape[0] == 1 or not isinstance(shape[0], int)))
    }


def _shared_axes(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The axes of the one symbol that all inputs share; nothing if it cannot be the batch.

    `[1, t, 8]` and `[1, t]` share the length of a text, and a batch of 1. `[t, b, 8]` and `[1, b, 16]` share the batch.
    """
    if len(shapes) < 2 or len(shapes) < len(graph.data_inputs):
        return {}
    symbols = [{dim for dim in shape if isinstance(dim, str)} for shape in shapes.values()]
    shared = set.intersection(*symbols)
    if len(shared) != 1:
        return {}
    (symbol,) = shared
    axes = {name: shape.index(symbol) for name, shape in shapes.items()}
    is_once = all(shape.count(symbol) == 1 for shape in shapes.values())
    is_image = any(len(shapes[name]) >= 4 and axis for name, axis in axes.items())
    has_other = any(isinstance(shape[0], str) and shape[0] != symbol for shape in shapes.values())
    return axes if is_once and not is_image and (has_other or not any(axes.values())) else {}


def _recurrent_axes(graph: Graph, shapes: Mapping[str, Shape], guessed: Mapping[str, int]) -> dict[str, int | None]:
    """Input → the axis that a recurrent operator takes for its batch; None where the guessed axis is another one of its."""
    if not any(node.graph is graph for node in graph.view.nodes(*_RECURRENT)):
        return {}
    places = {id(node): i for i, node in enumerate(graph.order)}
    budget = [_MAX_VISITS]
    found: dict[str, int | None] = {}
    for name, shape in shapes.items():
        for axis in range(len(shape)):
            is_batch = _is_read_as_batch(graph, name, axis, places, budget)
            if is_batch:
                found[name] = axis
                break
            if is_batch is False and guessed.get(name) == axis:
                found[name] = None
    return found


def _is_read_as_batch(graph: Graph, name: str, axis: int, places: Mapping[int, int], budget: list[int]) -> bool | None:
    """Whether the first recurrent operator that an axis gets to takes it for its batch; None if it gets to none."""
    axes = {name: axis}
    pending: list[tuple[int, Node]] = []
    queued: set[int] = set()

    def read_by(value: str) -> None:
        for node in graph.consumers(value):
            if id(node) in places and id(node) not in queued:
                queued.add(id(node))
                heapq.heappush(pending, (places[id(node)], node))

    read_by(name)
    while pending and budget[0]:
        budget[0] -= 1
        node = heapq.heappop(pending)[1]
        if node.op in _RECURRENT:
            for i in (0, *_STATES):
                if node.input(i) in axes:
                    return axes[node.input(i)] == (0 if node.attribute("layout", 0) else 1)
            continue
        given = {one: axes[one] for one in node.inputs if one in axes}
        result = _followed(node, given)
        for output in node.outputs:
            if output and result is not None:
                axes[output] = result
                read_by(output)
    return None


def batch_axis(graph: Graph, name: str) -> int | None:
    """The axis of a value that is the batch, traced from the graph inputs; None if there is none."""
    view = graph.view
    key = "onnxlint.symbolic.batch"
    axes: _Traced | None = view.memo.get(key)
    if axes is None:
        axes = view.memo[key] = _Traced(view)
    return axes.of(graph, name)


class _Traced:
    """Batch axes of the values of the main graph, and of those that bodies of its nodes make of them."""

    def __init__(self, view: GraphView) -> None:
        self._known: dict[int, dict[str, int]] = {id(view.main): input_batch_axes(view.main)}
        if self._known[id(view.main)]:
            self._run(view.main)

    def of(self, graph: Graph, name: str) -> int | None:
        """The batch axis of a value, looked up outwards through the graphs."""
        while graph.parent is not None and not graph.owns(name):
            graph = graph.parent
        return self._known.get(id(graph), {}).get(name)

    def _run(self, graph: Graph) -> None:
        axes = self._known.setdefault(id(graph), {})
        bodies: dict[int, list[Graph]] = {}
        for child in graph.children:
            bodies.setdefault(id(child.parent_node), []).append(child)
        for node in graph.order:
            inner = bodies.get(id(node), ())
            for body in inner:
                self._run(body)
            if inner:
                axes.update(self._of_branches(node, inner) if node.op == "If" else {})
                continue
            given = {name: axis for name in node.inputs if name and (axis := self.of(graph, name)) is not None}
            if not given:
                continue
            axis = _followed(node, given)
            if axis is not None:
                for i, name in enumerate(node.outputs):
                    if name:
                        # A recurrent operator's first output has the directions before the batch, its last states no time.
                        axes[name] = axis + (i == 0 and node.op in _RECURRENT and axis == 1)

    def _of_branches(self, node: Node, branches: Sequence[Graph]) -> dict[str, int]:
        """The axes that all branches of an If agree on."""
        found = {}
        for i, name in enumerate(node.outputs):
            ends = {self.of(body, body.outputs[i]) if i < len(body.outputs) else None for body in branches}
            axis = ends.pop() if len(ends) == 1 else None
            if name and axis is not None:
                found[name] = axis
        return found


def _followed(node: Node, given: Mapping[str, int]) -> int | None:
    try:
        return _output_axis(node, given)
    except (TypeError, ValueError, AttributeError, IndexError):
        return None  # an attribute of another type than its operator's: SPC001 reports it


def _output_axis(node: Node, axes: Mapping[str, int]) -> int | None:
    op = node.op
    first = axes.get(node.input(0))
    if op in _SAME_AXIS:
        return None if op in _ALONG and first is not None and _is_along(node, first) else first
    if op in _FIRST_AXIS:
        return first if first == 0 else None
    if op in _BROADCAST:
        return _broadcast(node, axes)
    if op in _RECURRENT:
        return first if first == (0 if node.attribute("layout", 0) else 1) else None
    if op in ("Concat", "Split"):
        rank = _rank(node.shape(0))
        axis = _normal(node.attribute("axis", 0), rank)
        found = {axes[name] for name in node.inputs if name in axes}
        return found.pop() if len(found) == 1 and axis is not None and axis not in found else None
    if first is None:
        return None
    handler = _HANDLERS.get(op)
    if handler is not None:
        return handler(node, first)
    return _reduce(node, first) if op in _REDUCE else None


def _is_along(node: Node, first: int) -> bool:
    """Whether an operator computes along the axis, so that it cannot be the batch."""
    whole = node.op == "LayerNormalization" or (node.op in _COERCING and node.graph.view.opset < 13)
    default = 1 if node.op in _COERCING and whole else -1
    axis = _normal(node.attribute("axis", default), _rank(node.shape(0)))
    return axis is not None and (axis <= first if whole else axis == first)


def _broadcast(node: Node, axes: Mapping[str, int]) -> int | None:
    rank = max((len(s) for s in (node.shape(i) for i in range(len(node.inputs))) if s is not None), default=0)
    if node.op == "Expand":
        rank = _rank(node.output_shape()) or 0
    found: set[int] = set()
    sizes: set[Dim] = set()
    shapes = [node.shape(i) for i in range(len(node.inputs))]
    for name, shape in zip(node.inputs, shapes, strict=True):
        if name in axes:
            if shape is None or not rank:
                # Without ranks, only operands whose axes are known to line up can be trusted.
                return axes[name] if all(axes.get(other) == axes[name] for other in node.inputs) else None
            found.add(axes[name] + rank - len(shape))
            sizes.update(dim for dim in shape[axes[name] : axes[name] + 1] if isinstance(dim, str))
    if any(shape is not None and shape.count(size) > 1 for shape in shapes for size in sizes):
        return None  # each with each, as in the scores of attention: no batch, which would not be mixed
    return found.pop() if len(found) == 1 else None


def _transpose(node: Node, first: int) -> int | None:
    perm = node.attribute("perm")
    if perm is None:
        rank = _rank(node.shape(0))
        return rank - 1 - first if rank else None
    return perm.index(first) if first in perm else None


def _reshape(node: Node, first: int) -> int | None:
    if first != 0:
        return None
    constant = node.numbers(1)
    if constant is None:
        symbolic = exact_sizes(node.graph.view)
        data, value = symbolic.of(node, 0), symbolic.val(node, 1)
        if data is None or value is None or not value.numbers:
            return None
        lead = value.numbers[0]
        return 0 if lead == data[0] or (lead == 0 and not node.attribute("allowzero", 0)) else None
    target, shape = constant.values, node.shape(0)
    if not target or not shape:
        return None
    if (target[0] == 0 and not node.attribute("allowzero", 0)) or target[0] == shape[0]:
        return 0
    if target[0] == -1:
        # [-1, 3, 5] keeps the batch where the other numbers take up all that the input has beside its first.
        inner = [dim for dim in shape[1:] if isinstance(dim, int)]
        exact = len(inner) == len(shape) - 1 and min(target[1:], default=1) > 0
        return 0 if exact and math.prod(inner) == math.prod(target[1:]) else None
    return 0 if target[0] == 1 and not isinstance(shape[0], int) else None


def _squeeze(node: Node, first: int) -> int | None:
    removed = _axes(node)
    if removed is None or first in removed:
        return None
    return first - sum(axis < first for axis in removed)


def _unsqueeze(node: Node, first: int) -> int | None:
    added = _axes(node, extra=True)
    if added is None:
        return None
    for axis in sorted(added):
        first += axis <= first
    return first


def _gather(node: Node, first: int) -> int | None:
    axis = _normal(node.attribute("axis", 0), _rank(node.shape(0)))
    indices = _rank(node.shape(1))
    if axis is None or indices is None or axis == first:
        return None
    return first if axis > first else first + indices - 1


def _slice(node: Node, first: int) -> int | None:
    axes = node.attribute("axes")
    if axes is None:
        constant = node.numbers(3)
        axes = constant.values if constant is not None else None
    rank = _rank(node.shape(0))
    if axes is None or rank is None:
        return None
    return None if first in [_normal(axis, rank) for axis in axes] else first


def _flatten(node: Node, first: int) -> int | None:
    return 0 if first == 0 and node.attribute("axis", 1) == 1 else None


def _matmul(node: Node, first: int) -> int | None:
    rank = _rank(node.shape(0))
    return first if rank is not None and first < rank - 1 else None


def _gemm(node: Node, first: int) -> int | None:
    return 0 if first == 0 and not node.attribute("transA", 0) else None


def _tile(node: Node, first: int) -> int | None:
    repeats = node.numbers(1)
    return first if repeats is not None and first < len(repeats.values) and repeats.values[first] == 1 else None


def _reduce(node: Node, first: int) -> int | None:
    axes = [node.attribute("axis", 0)] if node.op.startswith("Arg") else node.attribute("axes")
    if axes is None:
        constant = node.numbers(1)
        axes = constant.values if constant is not None else None
    rank = _rank(node.shape(0))
    if axes is None or (rank is None and any(axis < 0 for axis in axes)):
        return None
    reduced = {axis if axis >= 0 else axis + (rank or 0) for axis in axes}
    if first in reduced:
        return None
    return first if node.attribute("keepdims", 1) else first - sum(axis < first for axis in reduced)


_HANDLERS = {
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


def _axes(node: Node, extra: bool = False) -> set[int] | None:
    """Axes of a Squeeze or Unsqueeze (attribute before opset 13, input since), non-negative."""
    axes = node.attribute("axes")
    if axes is None:
        constant = node.numbers(1)
        axes = constant.values if constant is not None else None
    rank = _rank(node.shape(0))
    if axes is None or (rank is None and any(axis < 0 for axis in axes)):
        return None
    whole = (rank or 0) + (len(axes) if extra else 0)
    return {axis if axis >= 0 else axis + whole for axis in axes}


def _rank(shape: Shape | None) -> int | None:
    return None if shape is None else len(shape)


def _normal(axis: int, rank: int | None) -> int | None:
    if axis >= 0:
        return axis
    return None if rank is None else axis + rank
