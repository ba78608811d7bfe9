"""Shape chains: what an operand that says a shape is computed from.

`x.view(x.size(0), -1)` exports as Shape → Gather → Unsqueeze → Concat → Reshape. Here such an operand is traced back
to its Shape nodes, and evaluated as far as it can be without running anything: each element is a number, the size of
some value's axis, an expression of these, or unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.view import Graph, GraphView, Node, Shape

MAX_CHAIN = 2000
"""Nodes that one trace visits at most."""

MAX_ELEMENTS = 64
"""Shape operands are as long as ranks are; longer vectors are data."""

SHAPE_OPERANDS: dict[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "EyeLike": (),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1,),
    "RandomNormal": (),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Upsample": (1,),
}
"""Operators with inputs that say a shape, a range or an extent, and which inputs."""

_ARITHMETIC = frozenset(
    """Abs Add And Cast CastLike Ceil Concat ConstantOfShape Div Equal Expand Flatten Floor Gather GatherElements
    GatherND Greater GreaterOrEqual Identity If Less LessOrEqual Max Mean Min Mod Mul Neg Not Or Pow Range ReduceMax
    ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements ScatterND Shape Sign Size Slice Split Sqrt Squeeze Sub
    Sum Tile Transpose Unsqueeze Where Xor Reciprocal SequenceAt SequenceConstruct ConcatFromSequence
    SplitToSequence""".split()
)


@dataclass(frozen=True)
class Dim:
    """The size of one axis of a value; a negative axis counts from the end of a value of unknown rank."""

    value: str
    axis: int

    def __str__(self) -> str:
        return f"{self.value}.shape[{self.axis}]"


@dataclass(frozen=True)
class Expr:
    """A number computed from sizes, kept as text."""

    text: str

    def __str__(self) -> str:
        return self.text


Element = int | float | Dim | Expr | None
"""One number of a shape operand; None where it is unknown (it depends on data)."""


@dataclass(frozen=True)
class Chain:
    """The nodes that compute one operand from shapes.

    Attributes:
        nodes: All of them, those nearest to the operand first.
        shapes: The Shape and Size nodes among them.
        ends: Names at which the trace stopped: graph inputs and values computed from data.
    """

    nodes: tuple[Node, ...]
    shapes: tuple[Node, ...]
    ends: tuple[str, ...]

    def path(self) -> list[str]:
        """Operators from a Shape node to the operand along one shortest way, Shape first."""
        if not self.shapes:
            return []
        members = {id(node): node for node in self.nodes}
        # The shortest way forward from the first Shape: breadth first over the chain's own edges.
        start = self.shapes[0]
        came: dict[int, Node | None] = {id(start): None}
        queue = [start]
        last = start
        for node in queue:
            if node is self.nodes[0]:
                last = node
                break
            for user in node.consumers():
                if id(user) in members and id(user) not in came:
                    came[id(user)] = node
                    queue.append(user)
        ops: list[str] = []
        step: Node | None = last
        while step is not None:
            ops.append(step.op)
            step = came[id(step)]
        return ops[::-1]


def trace(node: Node, operand: int) -> Chain | None:
    """The chain behind an operand of `node`; None where no shape of a value goes into it."""
    chain = origins(node, operand)
    return chain if chain is not None and chain.shapes else None


def origins(node: Node, operand: int) -> Chain | None:
    """All that an operand of `node` is computed from, shapes or not; None where it is a constant or absent."""
    name = node.input(operand)
    if not name or node.graph.is_constant(name):
        return None
    first = node.graph.producer(name)
    if first is None or first.op not in _ARITHMETIC:
        return Chain((), (), (name,))
    nodes: list[Node] = [first]
    seen = {id(first)}
    shapes: list[Node] = []
    ends: list[str] = []
    for current in nodes:
        if current.op in ("Shape", "Size"):
            shapes.append(current)
            continue
        for name in current.inputs:
            if not name or current.graph.is_constant(name):
                continue
            producer = current.graph.producer(name)
            if producer is None or producer.op not in _ARITHMETIC:
                ends.append(name)
            elif id(producer) not in seen and len(nodes) < MAX_CHAIN:
                seen.add(id(producer))
                nodes.append(producer)
    return Chain(tuple(nodes), tuple(shapes), tuple(ends))


def elements(node: Node, operand: int) -> tuple[Element, ...] | None:
    """Elements of a shape operand of `node`, evaluated without running anything; None where it cannot be.

    A scalar comes as one element.
    """
    name = node.input(operand)
    return _evaluate(node.graph, name, {}, 0) if name else None


def derived_shapes(view: GraphView) -> dict[str, tuple[int, Shape]]:
    """Shapes of the main graph that follow from shape operands, where inference knows less.

    Returns:
        Output name of a Reshape, Expand, ConstantOfShape or Resize → (element type, shape).
    """
    from onnxlint.view import is_invented

    found: dict[str, tuple[int, Shape]] = {}
    for node in view.nodes("Reshape", "Expand", "ConstantOfShape", "Resize"):
        if node.graph is not view.main or not node.outputs:
            continue
        known = node.output_shape()
        if known is not None and not any(is_invented(dim) for dim in known):
            continue
        shape = _derived(node)
        if shape is None:
            continue
        if known is not None:
            if len(known) != len(shape):
                continue
            shape = tuple(b if is_invented(a) and not is_invented(b) else a for a, b in zip(known, shape, strict=True))
            if shape == known:
                continue
        kind = view.main.dtype(node.output()) or view.main.dtype(node.input(0))
        if kind:
            found[node.output()] = (kind, shape)
    return found


def _derived(node: Node) -> Shape | None:
    """Output shape of a node as its shape operand says it."""
    data = node.shape(0)
    if node.op == "ConstantOfShape":
        target = elements(node, 0)
    elif node.op == "Resize":
        target = elements(node, 3) if not node.attribute("axes") and not _keeps_ratio(node) else None
    else:
        target = elements(node, 1)
    if target is None:
        # The values are out of reach, but as many as the operand has elements.
        length = node.shape(0 if node.op == "ConstantOfShape" else 1)
        if node.op in ("Reshape", "ConstantOfShape") and length and isinstance(length[0], int):
            return (None,) * length[0]
        return None
    sizes: list[int | str | None] = []
    for i, element in enumerate(target):
        if element == 0 and node.op == "Reshape" and not node.attribute("allowzero", 0):
            sizes.append(data[i] if data is not None and i < len(data) else None)
        else:
            sizes.append(known_size(node.graph, element))
    if node.op == "Expand":
        if data is None or len(data) > len(sizes):
            return None
        # Broadcasting: a size of 1 in the target keeps the input's, and an unknown one says nothing.
        padded = (1,) * (len(sizes) - len(data)) + data
        return tuple(
            a if b == 1 else b if isinstance(b, int) or a == 1 or a == b else None
            for a, b in zip(padded, sizes, strict=True)
        )
    if node.op == "Reshape" and target.count(-1) == 1:
        total = _number(data) if data is not None else None
        rest = _number([size for size, element in zip(sizes, target, strict=True) if element != -1])
        sizes[target.index(-1)] = total // rest if total is not None and rest and total % rest == 0 else None
    elif node.op == "Reshape" and -1 in target:
        return None
    return tuple(sizes)


def known_size(graph: Graph, element: Element) -> int | str | None:
    """The size that an element stands for, as a number or as a symbol of inference; None where neither is known."""
    if isinstance(element, Dim):
        shape = graph.shape(element.value)
        return shape[element.axis] if shape is not None and -len(shape) <= element.axis < len(shape) else None
    return element if isinstance(element, int) and element >= 0 else None


def _keeps_ratio(node: Node) -> bool:
    return bool(node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch")


def _number(sizes: Iterable[int | str | None]) -> int | None:
    product = 1
    for size in sizes:
        if not isinstance(size, int):
            return None
        product *= size
    return product


def _evaluate(
    graph: Graph, name: str, known: dict[tuple[int, str], tuple[Element, ...] | None], depth: int
) -> tuple[Element, ...] | None:
    key = (id(graph), name)
    if key in known:
        return known[key]
    result: tuple[Element, ...] | None = None
    constant = graph.constant(name)
    if constant is not None:
        if constant.size <= MAX_ELEMENTS and constant.dtype.kind in "iufb":
            result = tuple(constant.reshape(-1).tolist())
    elif depth < 200:
        node = graph.producer(name)
        handler = _EVALUATORS.get(node.op) if node is not None else None
        if node is not None and handler is not None:
            operands = [
                _evaluate(node.graph, operand, known, depth + 1)
                if operand and node.op not in ("Shape", "Size")
                else None
                for operand in node.inputs
            ]
            result = handler(node, operands)
            if result is not None and len(result) > MAX_ELEMENTS:
                result = None
    known[key] = result
    return result


Operands = list[tuple[Element, ...] | None]


def _shape(node: Node, _: Operands) -> tuple[Element, ...] | None:
    shape = node.shape(0)
    if shape is None:
        return None
    start = node.attribute("start", 0)
    end = node.attribute("end", len(shape))
    axes = range(len(shape))[start:end]
    # A size that inference knows as a number stays the size of that axis: a rule wants to know which axis it is.
    return tuple(Dim(node.input(0), axis) for axis in axes)


def _sizes_of_unknown_rank(shape: Node | None, indices: tuple[Element, ...] | None) -> tuple[Element, ...] | None:
    """Gather(Shape(x), 1) is the size of axis 1, and of -1 that of the last, whatever the rank of x."""
    if shape is None or shape.op != "Shape" or indices is None or shape.attribute("start", 0):
        return None
    known = [i for i in indices if isinstance(i, int)]
    return tuple(Dim(shape.input(0), i) for i in known) if len(known) == len(indices) else None


def _gather(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    data, indices = operands[0], operands[1]
    if data is None:
        return _sizes_of_unknown_rank(node.producer(0), indices)
    if indices is None or node.attribute("axis", 0) not in (0, -1):
        return None
    if not all(isinstance(i, int) and -len(data) <= i < len(data) for i in indices):
        return None
    return tuple(data[i] for i in indices if isinstance(i, int))


def _slice(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    data = operands[0]
    starts: tuple[Element, ...] | None
    ends: tuple[Element, ...] | None
    if data is None:
        return None
    if node.attribute("starts") is not None:
        starts, ends = tuple(node.attribute("starts")), tuple(node.attribute("ends"))
        steps: tuple[Element, ...] = (1,)
    else:
        starts, ends = operands[1], operands[2] if len(operands) > 2 else None
        steps = (operands[4] if len(operands) > 4 and node.input(4) else (1,)) or (None,)
    if starts is None or ends is None or len(starts) != 1 or len(ends) != 1:
        return None
    start, end, step = starts[0], ends[0], steps[0]
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step):
        return None
    return data[start:end:step]


def _concat(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    parts: list[Element] = []
    for operand in operands:
        if operand is None:
            return None
        parts += operand
    return tuple(parts)


def _same(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    return operands[0] if operands else None


def _cast(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    data = operands[0]
    to = node.attribute("to", 0)
    if data is None or to not in (1, 6, 7, 10, 11):  # float, int32, int64, float16, double
        return None
    if to in (6, 7):
        return tuple(math.trunc(e) if isinstance(e, float) and math.isfinite(e) else e for e in data)
    return data


def _binary(
    symbol: str, compute: Callable[[float, float], float]
) -> Callable[[Node, Operands], tuple[Element, ...] | None]:
    def evaluate(node: Node, operands: Operands) -> tuple[Element, ...] | None:
        rows = _broadcast(operands, 2)
        return None if rows is None else tuple(one(a, b) for a, b in rows)

    def one(a: Element, b: Element) -> Element:
        if a is None or b is None:
            return None
        if isinstance(a, int | float) and isinstance(b, int | float):
            try:
                return compute(a, b)
            except (ArithmeticError, ValueError):
                return None
        if (b == 1 and symbol in "*/") or (b == 0 and symbol in "+-"):
            return a
        if (a == 1 and symbol == "*") or (a == 0 and symbol == "+"):
            return b
        text = f"({a} {symbol} {b})"
        return Expr(text) if len(text) < 200 else Expr("…")

    return evaluate


def _divide(a: float, b: float) -> float:
    if isinstance(a, int) and isinstance(b, int):
        quotient = abs(a) // abs(b)  # integer division of ONNX truncates
        return quotient if (a < 0) == (b < 0) else -quotient
    return a / b


def _unary(name: str, compute: Callable[[float], float]) -> Callable[[Node, Operands], tuple[Element, ...] | None]:
    def evaluate(node: Node, operands: Operands) -> tuple[Element, ...] | None:
        data = operands[0] if operands else None
        if data is None:
            return None
        return tuple(
            compute(e)
            if isinstance(e, int | float)
            else e
            if isinstance(e, Dim) and name in ("floor", "ceil", "round")
            else (Expr(f"{name}({e})") if e is not None else None)
            for e in data
        )

    return evaluate


def _broadcast(operands: Operands, count: int) -> list[tuple[Element, ...]] | None:
    """Rows of elements that belong together; None where an operand is unknown or they do not broadcast."""
    known = [operand for operand in operands if operand]
    if len(known) != count or len(operands) != count:
        return None
    size = max(map(len, known))
    if any(len(operand) not in (1, size) for operand in known):
        return None
    return list(zip(*(operand * (size // len(operand)) for operand in known), strict=True))


def _where(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    rows = _broadcast(operands, 3)
    if rows is None:
        return None
    return tuple(
        (yes if condition else no) if isinstance(condition, int) else (yes if yes == no else None)
        for condition, yes, no in rows
    )


def _equal(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    def one(a: Element, b: Element) -> Element:
        if isinstance(a, int | float) and isinstance(b, int | float):
            return a == b
        # A size is never negative.
        if (isinstance(a, Dim) and isinstance(b, int) and b < 0) or (
            isinstance(b, Dim) and isinstance(a, int) and a < 0
        ):
            return False
        return None

    rows = _broadcast(operands, 2)
    return None if rows is None else tuple(one(a, b) for a, b in rows)


def _constant_of_shape(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    size = operands[0] if operands else None
    if size is not None and len(size) == 1 and isinstance(size[0], int) and 0 <= size[0] <= MAX_ELEMENTS:
        tensor = node.attribute("value")
        value = node.graph.view.small_array(tensor) if tensor is not None else None
        fill: Element = 0 if value is None else value.reshape(-1).tolist()[0]
        return (fill,) * size[0]
    return None


def _reduce_prod(node: Node, operands: Operands) -> tuple[Element, ...] | None:
    data = operands[0] if operands else None
    if data is None or any(e is None for e in data):
        return None
    numbers = [e for e in data if isinstance(e, int | float)]
    others = [str(e) for e in data if not isinstance(e, int | float)]
    product = math.prod(numbers)
    if not others:
        return (product,)
    return (Expr(" * ".join(([str(product)] if product != 1 else []) + others)),)


_EVALUATORS: dict[str, Callable[[Node, Operands], tuple[Element, ...] | None]] = {
    "Add": _binary("+", lambda a, b: a + b),
    "Cast": _cast,
    "Ceil": _unary("ceil", math.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary("/", _divide),
    "Equal": _equal,
    "Flatten": _same,
    "Floor": _unary("floor", math.floor),
    "Gather": _gather,
    "Identity": _same,
    "Mod": _binary("%", lambda a, b: a % b),
    "Mul": _binary("*", lambda a, b: a * b),
    "Neg": _unary("-", lambda a: -a),
    "ReduceProd": _reduce_prod,
    "Reshape": _same,
    "Round": _unary("round", round),
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _same,
    "Sub": _binary("-", lambda a, b: a - b),
    "Unsqueeze": _same,
    "Where": _where,
}
