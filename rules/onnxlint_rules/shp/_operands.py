"""Shared by the SHP rules: the operands of a model that are computed from shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from onnxlint import SAFE, Applicability, Fix, GraphView, Node, printable
from onnxlint.rulekit import (
    SHAPE_OPERANDS,
    AnySize,
    Chain,
    Number,
    Quotient,
    Sizes,
    Symbolic,
    assumed_sizes,
    ceil_div,
    exact_sizes,
    in_single,
    is_made_up,
    ratio_of,
    shape_chain,
    substitute,
    symbols,
    when_equal,
)
from onnxlint_rules._graph import integers, is_fixed

MAX_DENOMINATOR = 64
"""A constant ratio is one of small numbers: `floor(h/8) + 1` against `floor(h/16) + 1` is almost 2, and never."""


@dataclass(frozen=True)
class Operand:
    """An operand that says a shape and is computed from one.

    Attributes:
        node: The consumer (Reshape, Resize, Expand, …).
        index: Which of its inputs.
        chain: The nodes that compute it.
    """

    node: Node
    index: int
    chain: Chain

    def numbers(self) -> tuple[Number | None, ...] | None:
        """The operand's numbers, sizes among them; None if it cannot be followed."""
        value = exact_sizes(self.node.graph.view).val(self.node, self.index)
        return None if value is None else value.numbers

    def data(self) -> Sizes | None:
        """Sizes of the consumer's first input."""
        return exact_sizes(self.node.graph.view).of(self.node, 0)

    def describe(self) -> str:
        """`Shape → Gather → Unsqueeze → Concat → Reshape`, one way through the chain."""
        return " → ".join([*self.chain.path(), self.node.op])


def computed_operands(view: GraphView) -> list[Operand]:
    """Operands that end a shape chain, in the order of the file; consumers inside another's chain are left out."""
    known: list[Operand] | None = view.memo.get("onnxlint_rules.computed_operands")
    if known is not None:
        return known
    operands: list[Operand] = []
    inside: set[int] = set()
    if any(True for _ in view.nodes("Shape", "Size")):
        for node in view.nodes(*SHAPE_OPERANDS):
            for index in SHAPE_OPERANDS[node.op]:
                chain = shape_chain(node, index)
                if chain is not None:
                    operands.append(Operand(node, index, chain))
                    inside.update(id(member) for member in chain.nodes)
    # A Slice of a Shape is a link of a chain, not its end.
    ends = [operand for operand in operands if id(operand.node) not in inside]
    view.memo["onnxlint_rules.computed_operands"] = ends
    return ends


def resize_factors(node: Node) -> tuple[int, str]:
    """(input index, `sizes` or `scales`) of what drives a Resize or Upsample; index -1 where nothing does."""
    if node.op == "Resize" and node.input(3):
        return 3, "sizes"
    opset = node.graph.view.opset
    index = 2 if node.op == "Resize" and opset >= 11 else 1
    return (index, "scales") if node.input(index) else (-1, "")


def is_resize_by_sizes(operand: Operand) -> bool:
    """Whether SHP001 reports this operand."""
    node = operand.node
    if node.op not in ("Resize", "Upsample"):
        return False
    return operand.index == resize_factors(node)[0]


class Scales(NamedTuple):
    """The factors of a Resize or Upsample whose size is computed, as far as known.

    Attributes:
        factors: One for each number of its operand, or None if they are not the same for every input.
        conditions: Under which they are; empty if they always are.
        exact: The condition in terms of the sizes involved (`ceil(h/16) % 2 == 0`), for the reader.
        why: What stood in the way, where factors is None.
        special: Whether no scale is equivalent for any size of the input.
    """

    factors: tuple[Fraction, ...] | None = None
    conditions: tuple[str, ...] = ()
    exact: str = ""
    why: str = ""
    special: bool = False

    def fix(self) -> Fix | None:
        """The fix and its conditions; None if it cannot be fixed."""
        if self.factors is None:
            return None
        return SAFE if not self.conditions else Fix(Applicability.ASSUMES, " and ".join(self.conditions))


def resize_scales(node: Node) -> Scales:
    """Constant factors for a Resize or Upsample whose size or scale is computed: proved, proved if, or why not; found once
    for a view.
    """
    known: dict[int, Scales] = node.graph.view.memo.setdefault("onnxlint_rules.scales", {})
    if id(node) not in known:
        known[id(node)] = _scales(node)
    return known[id(node)]


def known_sizes(node: Node) -> list[int] | None:
    """The sizes that a Resize computes, where they are numbers and no scale says the same; else None."""
    if resize_factors(node)[0] != 3 or resize_scales(node).factors is not None:
        return None
    value = exact_sizes(node.graph.view).val(node, 3)
    sizes = [] if value is None else [number for number in value.numbers if isinstance(number, int) and number > 0]
    return sizes if value is not None and len(sizes) == len(value.numbers) else None


def _scales(node: Node) -> Scales:
    view = node.graph.view
    index, _ = resize_factors(node)
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Scales(why="it keeps the aspect ratio, so its factors depend on the input")
    if index == 3 and node.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return Scales(
            why="it crops, and runtimes differ in whether a scale is one of the whole map or of what is cut out"
        )
    sides = _sides(exact_sizes(view), node, index)
    if isinstance(sides, str):
        return Scales(why=sides)
    fixed = [(out, size) for out, size in sides if isinstance(size, int) and not isinstance(out, int)]
    if fixed and index == 3:
        return _from_fixed(node, fixed)
    apart = [(out, size) for out, size in sides if _are_apart(out, size)]
    if apart and index == 3:
        after, before = (_shown(side) for side in zip(*apart, strict=True))
        return Scales(why=f"{before} is resized to {after}, a size of its own: no constant factor exists", special=True)
    ratios = [ratio_of(out, size) for out, size in sides]
    if any(ratio is not None and ratio <= 0 for ratio in ratios):
        return Scales(why="one of its sizes is no positive number")
    if None not in ratios:
        return _kept(sides, Scales(tuple(ratio for ratio in ratios if ratio is not None)))
    if view.multiples:
        assumed = _sides(assumed_sizes(view), node, index)
        factors = [] if isinstance(assumed, str) else [ratio_of(out, size) for out, size in assumed]
        if factors and None not in factors:
            names = set().union(*(symbols(out) | symbols(size) for out, size in sides if ratio_of(out, size) is None))
            assumptions = [f"{name} % {m} == 0" for name, m in view.multiples.items() if name in names]
            return _kept(sides, Scales(tuple(f for f in factors if f is not None), tuple(assumptions), _exact(sides)))
    return _kept(sides, _find_condition(sides))


def _from_fixed(node: Node, sides: Sequence[tuple[AnySize, AnySize]]) -> Scales:
    """Why a map of fixed size cannot reach a free one by a constant factor."""
    after, before = (_shown(side) for side in zip(*sides, strict=True))
    what = f"a constant of {before}" if is_fixed(node.graph, node.input(0)) else f"a {before} map"
    verb = "enlarged" if all(size == 1 for _, size in sides) else "resized"
    return Scales(why=f"{what} is {verb} to {after}: no constant factor exists", special=True)


def _are_apart(out: AnySize, size: AnySize) -> bool:
    """Whether a size and what it becomes depend on different sizes of the inputs."""
    names = (symbols(out), symbols(size))
    return all(names) and names[0].isdisjoint(names[1]) and not any(map(is_made_up, names[0] | names[1]))


def _shown(sizes: Iterable[AnySize]) -> str:
    text = printable("×".join(map(str, sizes)))
    return text if len(text) <= 60 else "a free size"


def _kept(sides: Sequence[tuple[AnySize, AnySize]], scales: Scales) -> Scales:
    """The factors, unless a runtime that is given one in single precision may find less than the size that was given."""
    for (out, size), factor in zip(sides, scales.factors or (), strict=False):
        if isinstance(out, int) and isinstance(size, int):
            if not _comes_out(out, size):
                return Scales(
                    why=f"{size} times {out}/{size} rounds to less than {out}, so that a scale may lose a pixel"
                )
        elif Fraction(in_single(factor.numerator / factor.denominator)) < factor:
            return Scales(why=f"{factor} rounds down, so that a scale may lose a pixel")
    return scales


def _comes_out(out: int, size: int) -> bool:
    """Whether a runtime that is given the scale out/size as float32 finds `out` again, as floor(size * scale).

    Some multiply in float32 and some in double: both have to.
    """
    scale = in_single(in_single(out) / in_single(size))
    return math.floor(in_single(in_single(size) * scale)) == out == math.floor(size * scale)


def _sides(symbolic: Symbolic, node: Node, index: int) -> list[tuple[AnySize, AnySize]] | str:
    """(output size, input size) of each axis that the operand speaks of; or why they are not known."""
    data, value = symbolic.of(node, 0), symbolic.val(node, index)
    if data is None or value is None:
        return "its size cannot be followed through the graph"
    axes = integers(node, "axes") or range(len(data))
    if len(axes) != len(value.numbers) or not all(-len(data) <= axis < len(data) for axis in axes):
        return "its sizes are not for the axes that it has"
    sides: list[tuple[AnySize, AnySize]] = []
    for axis, number in zip(axes, value.numbers, strict=True):
        size = data[axis]
        if number is None:
            return f"the size of axis {axis} cannot be followed through the graph"
        if index == 3:
            if isinstance(number, Quotient):
                return f"the size of axis {axis} is not a whole number"
            sides.append((number, size))
        elif isinstance(number, Quotient):
            sides.append((number.num, number.den))
        else:
            sides.append((number, 1))
    return sides


def _find_condition(sides: list[tuple[AnySize, AnySize]]) -> Scales:
    """Factors that hold where some symbols are multiples of some number, found by trying the ratio far out."""
    factors: list[Fraction] = []
    conditions: dict[str, None] = {}
    for out, size in sides:
        ratio = ratio_of(out, size)
        if ratio is None:
            ratio = _limit(out, size)
            if ratio is None or max(ratio.denominator, ratio.numerator) > MAX_DENOMINATOR:
                return Scales(why=f"{printable(str(out))} against {printable(str(size))} is not a constant factor")
            found = when_equal(out * ratio.denominator, size * ratio.numerator)
            if found is None or any(condition.multiple is None for condition in found):
                return Scales(
                    why=f"{printable(str(out))} is not {ratio} × {printable(str(size))} under any simple condition"
                )
            conditions.update(dict.fromkeys(map(str, found)))
        factors.append(ratio)
    return Scales(tuple(factors), tuple(conditions), _exact(sides))


def _limit(out: AnySize, size: AnySize) -> Fraction | None:
    """The positive ratio of two sizes of the same symbols where the symbols are large multiples of everything in sight."""
    names = symbols(out) | symbols(size)
    if len(names) != 1:
        return None
    (name,) = names
    far = {name: math.lcm(*range(1, 33)) * 4}
    above, below = substitute(out, far), substitute(size, far)
    if not (isinstance(above, int) and isinstance(below, int)) or above <= 0 or below <= 0:
        return None
    return Fraction(above, below)


def _exact(sides: list[tuple[AnySize, AnySize]]) -> str:
    """`ceil(h/16) % 2 == 0`, where the input is the output halved and rounded up."""
    texts = []
    for out, size in sides:
        ratio = None if ratio_of(out, size) is not None else _limit(out, size)
        if ratio is not None and ratio.denominator == 1 and ceil_div(out, ratio.numerator) == size:
            texts.append(f"{out} % {ratio} == 0")
    return printable(" and ".join(texts))


def is_expand_by_shape(operand: Operand) -> bool:
    """Whether an Expand repeats a tensor to the shape of the very tensors that it then meets (SHP005).

    True if each reader of the Expand is an operator that broadcasts, and its other operand has the expanded shape.
    """
    node, graph = operand.node, operand.node.graph
    if node.op != "Expand" or graph.is_output(node.output()):
        return False
    symbolic = exact_sizes(graph.view)
    expanded = symbolic.shape(graph, node.output())
    readers = node.consumers()
    return bool(readers and expanded) and all(
        reader.op in BROADCASTING
        and len(reader.inputs) == 2
        and any(name != node.output() and symbolic.shape(reader.graph, name) == expanded for name in reader.inputs)
        for reader in readers
    )


BROADCASTING = frozenset(
    ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Or", "Pow", "Sub", "Xor")
)


def is_flatten(operand: Operand) -> bool:
    """Whether a Reshape is `x.view(x.size(0), -1)` (SHP006)."""
    node = operand.node
    data, target = operand.data(), operand.numbers()
    return bool(
        node.op == "Reshape" and data and target and len(target) == 2 and target[0] == data[0] and target[1] == -1
    )


def show_numbers(numbers: tuple[Number | None, ...]) -> str:
    """An operand in short form: `[N, -1, 4]`; empty if that helps no reader."""
    texts = [f"{n.num}/{n.den}" if isinstance(n, Quotient) else "?" if n is None else str(n) for n in numbers]
    text = "[" + ", ".join(texts) + "]"
    return "" if "?" in text or len(text) > 80 else printable(text)
