"""What the operators of a model demand of its sizes: which free sizes of inputs one number alone satisfies.

A Reshape to constant numbers, a weight that is added or multiplied, an initial state of constants: each makes runtimes fail
at other sizes, whatever the model declares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnxlint.graph.view import GraphView, Node
from onnxlint.symbolic.engine import MISUSE, Sizes, Symbolic
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.shape_operators import ELEMENTWISE
from onnxlint.symbolic.sizes import (
    AnySize,
    Floor,
    Size,
    TooComplexError,
    is_made_up,
    product,
    substitute,
    symbols,
)

MAX_SIZE = 2**31
"""Sizes beyond this are not looked for."""

MAX_ROUNDS = 8
"""How often sizes that were found are put into the other demands."""


@dataclass(frozen=True)
class Demand:
    """Two sizes that have to be equal where a node is to run.

    Attributes:
        node: The node, in the main graph.
        left, right: The sizes.
        or_one: Whether it also runs where one of them is 1, which is then repeated.
        multiple: Whether it is enough that left is a multiple of right.
        pairs: Sizes that correspond by position in a Reshape that may mix up elements.
    """

    node: Node
    left: AnySize
    right: AnySize
    or_one: bool = False
    multiple: bool = False
    pairs: tuple[tuple[AnySize, AnySize], ...] = ()


@dataclass(frozen=True)
class BakedSize:
    """A free size of an input that the model is right for at one number alone, or in one range.

    Attributes:
        input: Name of the graph input.
        axis: Its axis.
        smallest, largest: The sizes from the one to the other, which are the same where there is only one.
        node: The node that demands it.
        fails: Whether the model fails at all other sizes; else some of them run, and mix up elements of different axes.
        or_one: Whether the node also runs where the size is 1.
    """

    input: str
    axis: int
    smallest: int
    largest: int
    node: Node
    fails: bool
    or_one: bool = False


def baked_sizes(view: GraphView) -> list[BakedSize]:
    """Axes of inputs that are declared free, and that one size alone satisfies, in the order of the inputs."""
    key = "onnxlint.symbolic.baked"
    known: list[BakedSize] | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = list(_baked(view))
    return known


def demands(view: GraphView) -> tuple[Demand, ...]:
    """Constraints of the main graph's nodes on sizes that do not hold for all inputs."""
    key = "onnxlint.symbolic.demands"
    known: tuple[Demand, ...] | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = tuple(_demands(view))
    return known


def _demands(view: GraphView) -> Iterator[Demand]:
    symbolic = exact_sizes(view)
    for node in view.main.nodes:
        rule = _RULES.get(node.op)
        if rule is None or not view.nearest_output(node):
            continue  # what no output depends on is left out by runtimes, whatever it demands
        try:
            found = [demand for demand in rule(symbolic, node) if demand.left != demand.right]
        except (TooComplexError, *MISUSE):
            continue  # an operator used against its specification (SPC001 reports it), or sizes beyond bounds
        yield from found


def impossible_demands(view: GraphView) -> Iterator[Demand]:
    """Demands that no input satisfies: 128 elements reshaped to 96, say."""
    for demand in demands(view):
        if not (isinstance(demand.left, int) and isinstance(demand.right, int)):
            continue
        if demand.or_one and 1 in (demand.left, demand.right):
            continue
        if not demand.multiple or not demand.right or demand.left % demand.right:
            yield demand


@dataclass(frozen=True)
class _Found:
    smallest: int
    largest: int
    demand: Demand
    fails: bool


def _baked(view: GraphView) -> Iterator[BakedSize]:
    symbolic = exact_sizes(view)
    found = _solve([demand for demand in demands(view) if not _is_followed_by_data(demand)])
    main = view.main
    for name in main.data_inputs:
        for axis, size in enumerate(symbolic.shape(main, name) or ()):
            names = symbols(size)
            if isinstance(size, int) or len(names) != 1:
                continue
            answer = found.get(next(iter(names)))
            if answer is None:
                continue
            (symbol,) = names
            ends = [substitute(size, {symbol: end}) for end in (answer.smallest, answer.largest)]
            if isinstance(ends[0], int) and isinstance(ends[1], int):
                demand = answer.demand
                yield BakedSize(name, axis, ends[0], ends[1], demand.node, answer.fails, demand.or_one)


def _is_followed_by_data(demand: Demand) -> bool:
    """Whether a size in a demand is one that inference made up: nothing is known about it."""
    return any(is_made_up(name) for name in (*symbols(demand.left), *symbols(demand.right)))


def _solve(all_of: Sequence[Demand]) -> dict[str, _Found]:
    """Symbol → sizes that satisfy the constraints; constraints that runtimes enforce come first."""
    strict = [(one, one.left, one.right, True) for one in all_of if not one.multiple and not one.or_one]
    loose = [(one, one.left, one.right, True) for one in all_of if not one.multiple and one.or_one]
    by_place = [(one, left, right, False) for one in all_of for left, right in one.pairs]
    found: dict[str, _Found] = {}
    stages = (strict, loose, by_place)
    k = 0
    for _ in range(MAX_ROUNDS * len(stages)):
        before = len(found)
        for demand, left, right, fails in stages[k]:
            answer = _one_symbol(left, right, found)
            if answer is not None and answer[0] not in found:
                # What rests on a size that other inputs may have is no more certain than that.
                rests_on = [found[name] for name in (symbols(left) | symbols(right)) & found.keys()]
                is_certain = all(one.fails and not one.demand.or_one for one in rests_on)
                found[answer[0]] = _Found(answer[1], answer[2], demand, fails and is_certain)
        k = 0 if len(found) > before else k + 1  # what was found may settle more of the stricter ones
        if k == len(stages):
            break
    return found


def _one_symbol(left: AnySize, right: AnySize, found: dict[str, _Found]) -> tuple[str, int, int] | None:
    """(symbol, smallest, largest) for which two sizes are equal, where they depend on one symbol that is still open."""
    numbers: dict[str, AnySize] = {name: one.smallest for name, one in found.items() if one.smallest == one.largest}
    try:
        difference = _reduced(substitute(left, numbers) - substitute(right, numbers))
    except TooComplexError:
        return None
    names = symbols(difference)
    if isinstance(difference, int) or len(names) != 1:
        return None
    (symbol,) = names
    if any(k < 0 for _, k in difference.terms):
        difference = difference * -1
    if not isinstance(difference, Size) or not _is_rising(difference):
        return None
    smallest = _first(lambda n: _at(difference, symbol, n) >= 0)
    largest = _first(lambda n: _at(difference, symbol, n) > 0)
    if smallest is None or largest is None or largest <= smallest:
        return None
    return (symbol, smallest, largest - 1) if _at(difference, symbol, smallest) == 0 else None


def _reduced(size: AnySize) -> AnySize:
    """A size without the symbols that all its terms have as a factor: they are no 0."""
    if isinstance(size, int) or size.constant:
        return size
    shared = Counter(size.terms[0][0])
    for factors, _ in size.terms[1:]:
        shared &= Counter(factors)
    common = list(shared.elements())
    if not common:
        return size
    result: AnySize = 0
    for factors, k in size.terms:
        rest = list(factors)
        for factor in common:
            rest.remove(factor)
        result = result + (Size(((tuple(rest), k),), 0) if rest else k)
    return result


def _is_rising(size: Size) -> bool:
    """Whether a size only grows with its symbols."""
    return all(
        k > 0 and all(isinstance(factor, str) or _rises_within(factor) for factor in factors)
        for factors, k in size.terms
    )


def _rises_within(factor: Floor) -> bool:
    return _is_rising(factor.num)


def _at(size: AnySize, symbol: str, number: int) -> int:
    result = substitute(size, {symbol: number})
    return result if isinstance(result, int) else 0


def _first(holds: Callable[[int], bool]) -> int | None:
    """The smallest number from 1 on for which something holds that then goes on to hold."""
    low, high = 1, 1
    while not holds(high):
        low, high = high + 1, high * 2
        if high > MAX_SIZE:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


# What operators demand


def _reshape(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, value = s.of(node, 0), s.val(node, 1)
    if data is None or value is None:
        return
    target: list[AnySize] = []
    copies = not node.attribute("allowzero", 0)
    for i, number in enumerate(value.numbers):
        if not isinstance(number, int | Size):
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
    left, right = _without_numbers(left, right)
    left, right = (part[::-1] for part in _without_numbers(left[::-1], right[::-1]))
    while len(right) > len(left) and 1 in right:
        right.remove(1)
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
    joined = node.attribute("axis", 1) % len(shapes[0])
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
    left, right = s.of(node, 0), s.of(node, 1)
    if left is not None and right is not None:
        inner = left[0] if node.attribute("transA", 0) else left[1]
        yield Demand(node, inner, right[1] if node.attribute("transB", 0) else right[0])


def _conv(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, weight = s.of(node, 0), s.of(node, 3 if node.op == "QLinearConv" else 1)
    if data is not None and weight is not None:
        turned = node.op == "ConvTranspose"
        yield Demand(node, data[1], weight[0] if turned else weight[1] * node.attribute("group", 1))


def _channels(s: Symbolic, node: Node) -> Iterator[Demand]:
    data, scale = s.of(node, 0), s.of(node, 1)
    if data is not None and scale is not None and len(data) > 1:
        yield Demand(node, data[1], scale[0])


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
    "Concat": _concat,
    "Expand": _expand,
    "Gemm": _gemm,
    "Reshape": _reshape,
    "Split": _split,
}
