"""What the operators of a model demand of its sizes: two that have to be equal where a node is to run.

A Reshape to constant numbers, a weight that is added or multiplied, an initial state of constants: each makes runtimes fail
at other sizes, whatever the model declares.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.symbolic.engine import MISUSE, Sizes, Symbolic
from onnxlint.symbolic.first_iteration import first_sizes, scan_axis
from onnxlint.symbolic.inference import knows_sizes
from onnxlint.symbolic.met import Inferred, UndecidedError
from onnxlint.symbolic.refused import may_be_refused, refusal
from onnxlint.symbolic.shape_operators import ELEMENTWISE, einsum_terms
from onnxlint.symbolic.sizes import AnySize, Size, TooComplexError, is_made_up, lower_bound, product, ratio_of, symbols
from onnxlint.symbolic.spatial_operators import conv
from onnxlint.text import printable


class Demand(NamedTuple):
    """Two sizes that have to be equal where a node is to run.

    Attributes:
        node: The node.
        left, right: The sizes; a negative one and 0 where a node is asked for that size.
        or_one: Whether it also runs where one of them is 1, which is then repeated.
        multiple: Whether it is enough that left is a multiple of right.
        pairs: Sizes that correspond by position in a Reshape that may mix up elements.
        why: Why no run survives the node's constants or attributes, whatever sizes are; else empty.
    """

    node: Node
    left: AnySize
    right: AnySize
    or_one: bool = False
    multiple: bool = False
    pairs: tuple[tuple[AnySize, AnySize], ...] = ()
    why: str = ""

    @property
    def is_negative(self) -> bool:
        """Whether the node is asked for a size below 0."""
        return isinstance(self.left, int) and self.left < 0 and not self.right

    @property
    def is_of_inputs(self) -> bool:
        """Whether the sizes depend on those of inputs."""
        return isinstance(self.left, Size) or isinstance(self.right, Size)


def demands(view: GraphView) -> tuple[Demand, ...]:
    """Constraints of the nodes that always run on sizes that do not hold for all inputs."""
    key = "onnxlint.symbolic.demands"
    known: tuple[Demand, ...] | None = view.memo.get(key)
    if known is None:
        known = () if are_met(view) else tuple(_of_graph(first_sizes(view), view.main, _read(view)))
        view.memo[key] = known
    return known


def impossible_demands(view: GraphView) -> Iterator[Demand]:
    """Demands that no input satisfies: 128 elements reshaped to 96, or 128*b to 96*b, say.

    Of sizes that inputs decide this holds where these are at least 1: nothing is said where they may be 0.
    """
    for demand in demands(view):
        if demand.why:
            yield demand
            continue
        if not (isinstance(demand.left, int) and isinstance(demand.right, int)):
            if _never_agree(demand, first_sizes(view).may_be_empty):
                yield demand
            continue
        if demand.or_one and 1 in (demand.left, demand.right):
            continue
        if min(demand.left, demand.right) < 0 and not demand.is_negative:
            continue  # what follows from a node that was asked for a negative size
        if not demand.multiple or not demand.right or demand.left % demand.right:
            yield demand


def _never_agree(demand: Demand, empty: Collection[str]) -> bool:
    """Whether two sizes differ for all sizes of the inputs from 1 on, or from 0 on: h and h + 1, or 128*b and 96*b."""
    left, right = demand.left, demand.right
    if demand.or_one or any(map(is_made_up, symbols(left) | symbols(right))):
        return False

    def is_positive(size: AnySize) -> bool:
        return (lower_bound(size, empty) or 0) > 0

    try:
        if demand.multiple:
            ratio = ratio_of(left, right)
            return ratio is not None and ratio.denominator > 1 and is_positive(left)
        if demand.node.op == "Concat" and not (is_positive(left) and is_positive(right)):
            return False  # onnxruntime leaves out operands without elements
        return is_positive(left - right) or is_positive(right - left)
    except TooComplexError:
        return False


def described(demand: Demand) -> str:
    """The node and what it cannot do, for messages."""
    if demand.why:
        return f"{node_label(demand.node)} always fails: {demand.why}"
    if demand.is_negative:
        return f"{node_label(demand.node)} cannot make a size of {demand.left:,}"
    if demand.node.op == "Reshape":
        rest = "a multiple of " if demand.multiple else ""
        left, right = map(number_text, (demand.left, demand.right))
        return f"{node_label(demand.node)} cannot reshape {left} elements to {rest}{right}"
    return f"{node_label(demand.node)} needs sizes {demand.left} and {demand.right} to be equal"


def number_text(size: AnySize) -> str:
    """`1,024`, or an expression."""
    return f"{size:,}" if isinstance(size, int) else printable(str(size))


def node_label(node: Node) -> str:
    """`Conv 'stem'`; by its output or number where it has no name."""
    return f"{printable(node.op)} {printable(node.label)!r}"


def are_met(view: GraphView) -> bool:
    """Whether the sizes that onnx's inference finds meet all constraints, as in most networks for inputs of fixed size:
    then symbolic inference, which takes longer than all else, is left out. False where they leave one open.
    """
    if knows_sizes(view) or view.main.children or view.is_contradictory or view.inference_error:
        return False
    sizes = Inferred(view)
    for node in view.main.nodes:
        if node.op in _SIZED and _may_be_negative(node):
            return False
        rule = _RULES.get(node.op)
        if rule is None and not may_be_refused(node):
            continue
        try:
            if may_be_refused(node) and refusal(sizes, node):
                return False
            if rule is not None and any(demand.left != demand.right for demand in rule(sizes, node)):
                return False
        except (UndecidedError, TooComplexError, *MISUSE):
            return False
    return True


def _of_graph(symbolic: Symbolic, graph: Graph, read: Collection[int]) -> Iterator[Demand]:
    bodies: dict[int, list[Graph]] = {}
    for child in graph.children:
        bodies.setdefault(id(child.parent_node), []).append(child)
    for node in graph.nodes:
        if id(node) not in read:
            continue
        if node.op in _SIZED or node.op == "Reshape":
            below = _negative(symbolic, node)
            if below is not None:
                yield Demand(node, below, 0)
                continue
        why = refusal(symbolic, node) if may_be_refused(node) else ""
        if why:
            yield Demand(node, 0, 1, why=why)
            continue
        yield from _of_node(symbolic, node)
        inner = bodies.get(id(node), ())
        if inner:
            yield from _of_bodies(symbolic, node, inner, read)


def _read(view: GraphView) -> set[int]:
    """Ids of the nodes whose numbers an output depends on.

    Runtimes leave out the others, whatever they demand: those that nothing reads, and those of which only the shape is
    asked for, which is known before anything runs.
    """
    bodies: dict[int, list[Graph]] = {}
    for graph in view.graphs:
        bodies.setdefault(id(graph.parent_node), []).append(graph)
    found: set[int] = set()
    pending = [(view.main, name) for name in view.main.outputs]
    while pending:
        graph, name = pending.pop()
        node = graph.producer(name)
        if node is None or id(node) in found:
            continue
        found.add(id(node))
        if node.op != "Shape":
            pending += [(node.graph, one) for one in node.inputs if one]
        for body in bodies.get(id(node), ()):
            pending += [(body, one) for one in body.outputs]
    return found


def _negative(symbolic: Symbolic, node: Node) -> int | None:
    """A size below 0 that a node is asked for; None if there is none, or its input has one already."""

    def below(sizes: Iterable[Any] | None) -> int | None:
        return next((size for size in sizes or () if isinstance(size, int) and size < 0), None)

    if below(symbolic.of(node, 0)) is not None:
        return None
    if node.op in ("Expand", "OneHot", "Tile", "TopK"):
        value = symbolic.val(node, 1)
        return None if value is None else below(value.numbers)
    if node.op == "Reshape" and (target := symbolic.val(node, 1)) is not None and target.numbers.count(-1) > 1:
        return -1  # one of them can be inferred
    made = (below(symbolic.shape(node.graph, name)) for name in node.outputs if name)
    return next((size for size in made if size is not None), None)


_SIZED = {"ConstantOfShape": 0, "Expand": 1, "OneHot": 1, "Pad": 1, "Resize": 3, "Split": 1, "Tile": 1, "TopK": 1}
"""Operator → the operand that holds sizes, which have to be at least 0."""


def _may_be_negative(node: Node) -> bool:
    """Whether sizes that an operand holds are computed, or below 0."""
    operand = _SIZED[node.op]
    numbers = node.numbers(operand) if node.input(operand) else None
    return bool(node.input(operand)) and (numbers is None or any(number < 0 for number in numbers.values))


def _of_node(symbolic: Symbolic, node: Node) -> list[Demand]:
    rule = _RULES.get(node.op)
    if rule is None:
        return []
    try:
        return [demand for demand in rule(symbolic, node) if demand.left != demand.right]
    except (TooComplexError, *MISUSE):
        return []  # an operator used against its specification (SPC001 reports it), or sizes beyond bounds


def _of_bodies(symbolic: Symbolic, node: Node, bodies: Sequence[Graph], read: Collection[int]) -> Iterator[Demand]:
    """What the bodies of a node demand whenever it runs: of an If with both branches, what both demand."""
    each = [list(_of_graph(symbolic, body, read)) for body in bodies]
    if node.op == "If":
        condition = node.numbers(0)
        if condition is not None and len(condition.values) == 1:
            taken = "then_branch" if condition.single else "else_branch"
            yield from (demand for demand in itertools.chain(*each) if demand.node.graph.path.endswith(f".{taken}"))
        elif len(each) == 2:
            others = {demand._replace(node=node) for demand in each[1]}
            yield from (demand for demand in each[0] if demand._replace(node=node) in others)
    elif (node.op == "Scan" and _has_slices(symbolic, node)) or (node.op == "Loop" and _runs_once(node)):
        yield from itertools.chain(*each)
        if node.op == "Scan":
            yield from _of_states(symbolic, node, bodies[0])


def _of_states(symbolic: Symbolic, scan: Node, body: Graph) -> Iterator[Demand]:
    """States of a Scan keep their sizes: those that its body makes are those that it got, if it runs more than once."""
    length = _length(symbolic, scan)
    if not isinstance(length, int) or length < 2:
        return
    carried = len(scan.inputs) - scan.attribute("num_scan_inputs", 0)
    for before, after in zip(body.inputs[:carried], body.outputs[:carried], strict=False):
        sizes, made = symbolic.shape(body, before), symbolic.shape(body, after)
        if sizes is not None and made is not None and len(sizes) == len(made):
            yield from (Demand(scan, own, new) for own, new in zip(sizes, made, strict=True) if own != new)


def _runs_once(loop: Node) -> bool:
    """Whether a Loop runs its body at least once, whatever its inputs are."""
    count, condition = loop.numbers(0), loop.numbers(1)
    counts = not loop.input(0) or (count is not None and len(count.values) == 1 and count.single > 0)
    return counts and (not loop.input(1) or (condition is not None and bool(condition.single)))


def _has_slices(symbolic: Symbolic, scan: Node) -> bool:
    """Whether a Scan runs its body at least once: sizes of inputs are at least 1, what data decides may be 0."""
    if scan.graph.view.opset < 9:
        return True
    length = _length(symbolic, scan)
    return length is not None and symbolic.is_never_empty(length)


def _length(symbolic: Symbolic, scan: Node) -> AnySize | None:
    """How many slices a Scan goes over; None if that is unknown, and before opset 9, where there was a batch."""
    if scan.graph.view.opset < 9:
        return None
    try:
        sizes = symbolic.of(scan, len(scan.inputs) - scan.attribute("num_scan_inputs", 0))
        return None if sizes is None else sizes[scan_axis(scan, 0)]
    except MISUSE:
        return None


# What operators demand


def _reshape(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, value = s.of(node, 0), s.val(node, 1)
    if data is None or value is None:
        return
    target: list[AnySize] = []
    copies = not node.attribute("allowzero", 0)
    for i, number in enumerate(value.numbers):
        if not isinstance(number, int | Size) or (isinstance(number, Size) and not s.is_filled(number)):
            return
        target.append(data[i] if number == 0 and copies else number)
    known = [number for number in target if number != -1]
    pairs = tuple(_by_place(data, target))
    yield Demand(node, product(data), product(known), multiple=len(known) < len(target), pairs=pairs)


def _by_place(data: Sequence[AnySize], target: Sequence[AnySize]) -> Iterator[tuple[AnySize, AnySize]]:
    """Sizes of a Reshape's input and target that stand for each other, where their places say so.

    Equal ends are left out. What is left must be a run of free sizes on the one side and as many numbers on the other,
    possibly beside numbers of the same product; a `-1` stands for the size in its place.
    """
    left, right = list(data), list(target)
    while left and right and (left[0] == right[0] or (right[0] == -1 and -1 not in right[1:])):
        del left[0], right[0]
    while left and right and left[-1] == right[-1]:
        del left[-1], right[-1]
    if len(right) == 1 and left and isinstance(left[0], int) and isinstance(right[0], int) and right[0] > 1:
        # A map in one row: `[N, 16, h, w]` to `[-1, 400]`.
        yield product(left), right[0]
        return
    for _ in range(2):  # what the right splits, then what it joins: 2 heads of 8 to 16
        left, right = _without_numbers(left, right)
        left, right = (part[::-1] for part in _without_numbers(left[::-1], right[::-1]))
        left, right = right, left
    while len(right) > len(left) and 1 in right:
        right.remove(1)
    if len(right) == 2 * len(left) and all(isinstance(size, int) and size > 1 for size in right):
        right = [a * b for a, b in zip(right[::2], right[1::2], strict=True)]  # windows: `h` to `[h/8, 8]`
    if len(left) == len(right) and all(isinstance(size, Size) for size in left):
        yield from ((a, b) for a, b in zip(left, right, strict=True) if isinstance(b, int) and b > 1)


def _without_numbers(left: list[AnySize], right: list[AnySize]) -> tuple[list[AnySize], list[AnySize]]:
    """Both without the numbers that the left begins with and the right splits: 9 against 1, 3, 3."""
    while left and isinstance(left[0], int):
        part = used = 1
        for used, size in enumerate(right, 1):
            if not isinstance(size, int) or size <= 0 or part == left[0]:
                used -= 1
                break
            part *= size
        if part != left[0]:
            break
        left, right = left[1:], right[used:]
    return left, right


def _broadcast(s: Symbolic, node: Node) -> Iterator[Demand]:
    shapes = [shape for i in range(len(node.inputs)) if (shape := s.of(node, i)) is not None]
    if len(shapes) == len(node.inputs) and not node.attribute("broadcast", 0):
        yield from _meet(node, shapes)


def _meet(node: Node, shapes: Iterable[Sizes]) -> Iterator[Demand]:
    known = list(shapes)
    for k in range(1, max(map(len, known), default=0) + 1):
        sizes = list(dict.fromkeys(shape[-k] for shape in known if k <= len(shape) and shape[-k] != 1))
        for size in sizes[1:]:
            yield Demand(node, sizes[0], size, or_one=True)


def _expand(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, value = s.of(node, 0), s.val(node, 1)
    if data is not None and value is not None:
        sizes = tuple(number for number in value.numbers if isinstance(number, int | Size))
        if len(sizes) == len(value.numbers):
            yield from _meet(node, (data, sizes))


def _concat(s: Symbolic, node: Node) -> Iterator[Demand]:
    shapes = [shape for i in range(len(node.inputs)) if (shape := s.of(node, i)) is not None]
    if not shapes:
        return
    joined = range(len(shapes[0]))[node.attribute("axis", 1)]
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        if axis != joined:
            for size in dict.fromkeys(sizes):
                yield Demand(node, sizes[0], size)


def _matmul(s: Symbolic, node: Node) -> Iterator[Demand]:
    left, right = s.of(node, 0), s.of(node, 3 if node.op == "QLinearMatMul" else 1)
    if not left or not right:
        return
    yield Demand(node, left[-1], right[-1] if len(right) == 1 else right[-2])
    yield from _meet(node, (left[:-2], right[:-2]))


def _gemm(s: Symbolic, node: Node) -> Iterator[Demand]:
    left, right, added = s.of(node, 0), s.of(node, 1), s.of(node, 2)
    if left is None or right is None:
        return
    rows, inner = left[::-1] if node.attribute("transA", 0) else left
    other, columns = right[::-1] if node.attribute("transB", 0) else right
    yield Demand(node, inner, other)
    if added is not None and not node.attribute("broadcast", 0):
        yield from _fits(node, (rows, columns), added)


def _fits(node: Node, whole: Sizes, part: Sizes) -> Iterator[Demand]:
    """What is broadcast to sizes that it does not change: it has them, or is 1 there."""
    for size, own in zip(whole[::-1], part[::-1], strict=False):
        if own != 1:
            yield Demand(node, size, own, or_one=not isinstance(own, int))


def _einsum(s: Symbolic, node: Node) -> Iterator[Demand]:
    terms = einsum_terms(s, node)
    if terms is None:
        return
    known: dict[str, AnySize] = {}
    for term, sizes in terms[0]:
        for letter, size in zip(term, sizes, strict=True):
            if size != 1 and known.setdefault(letter, size) != size:
                yield Demand(node, known[letter], size, or_one=True)


def _conv(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, weight = s.of(node, 0), s.of(node, 3 if node.op == "QLinearConv" else 1)
    if data is not None and weight is not None:
        turned = node.op == "ConvTranspose"
        yield Demand(node, data[1], weight[0] if turned else weight[1] * node.attribute("group", 1))


def _channels(s: Symbolic, node: Node) -> Iterator[Demand]:
    data = s.of(node, 0)
    for i in (1, 2):
        scale = s.of(node, i)
        if data is not None and scale is not None and len(data) > 1:
            yield Demand(node, data[1], scale[0])


def _norm(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, scale = s.of(node, 0), s.of(node, 1)
    if data is not None and scale is not None:
        yield from _fits(node, data, scale)


def _groups(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, scale = s.of(node, 0), s.of(node, 1)
    if data is not None and scale is not None:
        groups = node.attribute("num_groups", 1)
        if node.graph.view.opset >= 21:
            yield Demand(node, data[1], scale[0])
        elif groups != 1:
            yield Demand(node, data[1], groups, multiple=True)


def _slope(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, slope = s.of(node, 0), s.of(node, 1)
    if data is not None and slope is not None:
        yield from _meet(node, (data, slope))


def _scale(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, scale = s.of(node, 0), s.of(node, 1)
    if data is not None and scale is not None and len(scale) == 1 and scale != (1,) and len(data) > 1:
        yield Demand(node, data[node.attribute("axis", 1)], scale[0])


def _squeeze(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, axes = s.of(node, 0), s.ints(node, 1, "axes")
    if data is not None and axes is not None:
        yield from (Demand(node, data[axis], 1) for axis in axes)


def _grid_sample(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, grid = s.of(node, 0), s.of(node, 1)
    if data is not None and grid is not None:
        yield Demand(node, data[0], grid[0])


def _affine_grid(s: Symbolic, node: Node) -> Iterator[Demand]:
    theta, size = s.of(node, 0), s.val(node, 1)
    if theta is not None and size is not None and isinstance(size.numbers[0], int | Size):
        yield Demand(node, theta[0], size.numbers[0])


def _scatter_nd(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, indices, updates = s.of(node, 0), s.of(node, 1), s.of(node, 2)
    if data is not None and indices and updates is not None and isinstance(indices[-1], int):
        wanted = (*indices[:-1], *data[indices[-1] :])
        yield from (Demand(node, size, own) for size, own in zip(wanted, updates, strict=True))


def _scatter_elements(s: Symbolic, node: Node) -> Iterator[Demand]:
    indices, updates = s.of(node, 1), s.of(node, 2)
    if indices is not None and updates is not None:
        yield from (Demand(node, size, own) for size, own in zip(indices, updates, strict=True))


def _reverse_sequence(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, lengths = s.of(node, 0), s.of(node, 1)
    if data is not None and lengths is not None:
        yield Demand(node, data[node.attribute("batch_axis", 1)], lengths[0])


def _attention(s: Symbolic, node: Node) -> Iterator[Demand]:
    query, key, value = (s.of(node, i) for i in range(3))
    if query is None or key is None or value is None:
        return
    yield Demand(node, query[0], key[0])
    yield Demand(node, query[0], value[0])
    yield Demand(node, key[-2], value[-2])
    mask = s.of(node, 3)
    if mask is not None and len(mask) > 1 and isinstance(mask[-2], int) and mask[-2] != 1:
        yield Demand(node, query[-2], mask[-2])
    if mask is not None and len(mask) == 4 and isinstance(mask[0], int) and mask[0] != 1:
        yield Demand(node, query[0], mask[0])


def _rotary(s: Symbolic, node: Node) -> Iterator[Demand]:
    data = s.of(node, 0)
    for i in (1, 2):
        cache = s.of(node, i)
        if data is not None and cache is not None and len(cache) == 3 and not node.input(3):
            yield Demand(node, data[0], cache[0])
            yield Demand(node, data[-2], cache[1])


def _deform_conv(s: Symbolic, node: Node) -> Iterator[Demand]:
    yield from _conv(s, node)
    data, offset = s.of(node, 0), s.of(node, 2)
    (out,) = conv(s, node)
    if data is not None and offset is not None and out is not None:
        yield Demand(node, data[0], offset[0])
        yield from (Demand(node, size, own) for size, own in zip(out[2:], offset[2:], strict=True))


def _recurrent(s: Symbolic, node: Node) -> Iterator[Demand]:
    data = s.of(node, 0)
    if data is None:
        return
    axis = 0 if node.attribute("layout", 0) else 1
    lengths = s.of(node, 4)
    if lengths is not None:
        yield Demand(node, data[axis], lengths[0])
    for i in (5, 6):
        state = s.of(node, i)
        if state is not None:
            yield Demand(node, data[axis], state[axis])
    weight = s.of(node, 1)
    if weight is not None:
        yield Demand(node, data[2], weight[2])


def _split(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, parts = s.of(node, 0), s.ints(node, 1, "split")
    if data is not None and parts is not None:
        yield Demand(node, data[node.attribute("axis", 0)], sum(parts))


_RULES: dict[str, Callable[[Symbolic, Node], Iterator[Demand]]] = {
    **dict.fromkeys(ELEMENTWISE, _broadcast),
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "QLinearConv"), _conv),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _channels),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _scale),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _norm),
    "AffineGrid": _affine_grid,
    "Attention": _attention,
    "Concat": _concat,
    "DeformConv": _deform_conv,
    "Einsum": _einsum,
    "Expand": _expand,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "GroupNormalization": _groups,
    "PRelu": _slope,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "RotaryEmbedding": _rotary,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Split": _split,
    "Squeeze": _squeeze,
}
