"""Replacements for an operand that is computed from shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import NamedTuple

from onnxlint import SAFE, Applicability, Fix, GraphView, printable
from onnxlint.rulekit import (
    Number,
    Quotient,
    Size,
    Step,
    Symbolic,
    assumed_sizes,
    constant_target,
    exact_sizes,
    floors_in,
    free_sizes,
    may_copy,
    reshape_steps,
    sizes_where,
    symbols,
)
from onnxlint_rules.shp._operands import (
    Operand,
    computed_operands,
    is_resize_by_sizes,
    known_sizes,
    resize_scales,
)

_MULTIPLES = (2, 4, 8, 16, 32)
"""Numbers that input sizes are tried as multiples of, where the graph does not say what they are divided by."""

_LARGEST_MULTIPLE = 4096
_MOST_MULTIPLES = 8
"""That are tried for one operand."""

_TRIED_NODES = 5000
"""Nodes of models in which they are tried: each takes an inference of all sizes."""


class Answer(NamedTuple):
    """A replacement for a computed operand.

    Attributes:
        constant: An equivalent constant.
        steps: For a Reshape that no single constant target can replace, several with constant targets.
        conditions: Under which the constant or the steps are equivalent.
        why: What stood in the way of all that.
        is_asked_for: Whether the user has to allow the conditions first.
    """

    constant: list[int] | None = None
    steps: tuple[Step, ...] = ()
    conditions: tuple[str, ...] = ()
    why: str = ""
    is_asked_for: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nothing was found."""
        return self.constant is None and not self.steps

    def repeats(self, numbers: tuple[Number | None, ...]) -> bool:
        """Whether the constant equals the operand's known numbers."""
        return self.constant is not None and list(numbers) == self.constant

    def after(self, op: str, numbers: tuple[Number | None, ...] | None) -> str:
        """How the message goes on."""
        where = f" if {printable(' and '.join(self.conditions))}" if self.conditions else ""
        if self.steps:
            return f"; {sum(step.nodes for step in self.steps)} nodes with constant operands are equivalent{where}"
        if self.constant is None:
            return f"; {self.why}"
        if op == "Pad" and where:
            return f"; all are 0{where}"
        if numbers is not None and self.repeats(numbers):
            return f", and always {self.constant}"
        return f"; constant {self.constant} is equivalent{where}"

    def fix(self) -> Fix | None:
        """Applicability of replacing the operand with the constant; None if nothing was found."""
        if self.is_open:
            return None
        return Fix(Applicability.ASSUMES, " and ".join(self.conditions)) if self.conditions else SAFE


def simplest(operand: Operand) -> Answer:
    """The simplest equivalent of a computed operand; found once for a view."""
    known: dict[tuple[int, int], Answer] = operand.node.graph.view.memo.setdefault("onnxlint_rules.answers", {})
    key = (id(operand.node), operand.index)
    if key not in known:
        known[key] = _simplest(operand)
    return known[key]


def _simplest(operand: Operand) -> Answer:
    view = operand.node.graph.view
    constants = _CONSTANTS.get(operand.node.op, _of_numbers)
    answer = constants(operand, exact_sizes(view))
    if not answer.is_open:
        return answer
    found = _where_it_holds(operand, constants)
    if found is not None and not found.is_asked_for:
        return found
    if view.multiples:
        assumed = constants(operand, assumed_sizes(view))
        if not assumed.is_open:
            return assumed._replace(
                conditions=tuple(f"{name} % {number} == 0" for name, number in view.multiples.items())
            )
    return found or answer


def _where_it_holds(operand: Operand, constants: Constants) -> Answer | None:
    """The constants that an operand is where some free sizes of the inputs are multiples of a number, as few as possible."""
    node, view = operand.node, operand.node.graph.view
    numbers, data = operand.numbers(), operand.data()
    if data is None or (numbers is None and node.op != "Pad"):
        return None
    if node.graph is not view.main or len(view.main.nodes) > _TRIED_NODES:
        return None
    sizes = [size for size in (*data, *(numbers or ())) if isinstance(size, Size)]
    floors = [floor for size in sizes for floor in floors_in(size)]
    within = set().union(*map(symbols, sizes if numbers is None else [floor.num for floor in floors]))
    free = sorted(within & _free_symbols(view, 1 if numbers is None else 0))
    if not free:
        return None
    for multiple in _tried({floor.den for floor in floors}, numbers is None):
        answer = constants(operand, sizes_where(view, dict.fromkeys(free, multiple)))
        if not answer.is_open:
            conditions = tuple(f"{name} % {multiple} == 0" for name in free)
            unmet = any(view.multiples.get(name, 1) % multiple for name in free)
            return answer._replace(conditions=conditions, is_asked_for=unmet)
    return None


def _tried(divisors: Set[int], usual: bool) -> list[int]:
    """Numbers that sizes are tried as multiples of, the smallest first, where the graph divides them by some."""
    whole = math.lcm(*divisors)
    if whole > _LARGEST_MULTIPLE:
        whole = 1
    parts = [number for number in range(2, whole) if whole % number == 0][: _MOST_MULTIPLES - 1]
    return sorted({*parts, *([whole] if whole > 1 else []), *(_MULTIPLES if usual else ())})


UNKNOWN = "its value is not known before the model runs"


def _of_numbers(operand: Operand, symbolic: Symbolic) -> Answer:
    """Constants where all numbers are known."""
    value = symbolic.val(operand.node, operand.index)
    if value is None:
        return Answer(why=UNKNOWN)
    whole = [number for number in value.numbers if isinstance(number, int)]
    if len(whole) == len(value.numbers):
        return Answer(whole)
    return Answer([1] * len(value.numbers)) if is_no_op(operand) else Answer(why="it depends on a free size")


def _of_reshape(operand: Operand, symbolic: Symbolic) -> Answer:
    """Constants for the target of a Reshape, as far as these sizes are known."""
    node = operand.node
    value, data = symbolic.val(node, operand.index), symbolic.of(node, 0)
    if value is None:
        return Answer(why=UNKNOWN)
    if node.attribute("allowzero", 0) and any(number == 0 for number in value.numbers):
        return Answer(why="it uses 0 for an axis without elements")
    if may_copy(node, symbolic):
        return Answer(why="a size in it that is 0 would copy another")
    target = constant_target(data or (), value.numbers, symbolic.is_never_empty)
    if target is not None:
        return Answer(target)
    sizes = symbolic.shape(node.graph, node.output())
    steps = None
    if data is not None and sizes is not None:
        steps = reshape_steps(data, sizes, symbolic.is_never_empty)
    if steps and sum(step.nodes for step in steps) <= len(operand.chain.nodes):
        return Answer(steps=tuple(steps))
    return Answer(why="it has more than one free size")


def _of_pad(operand: Operand, symbolic: Symbolic) -> Answer:
    """Constant pads; where they depend on an assumption, only those that add nothing."""
    answer = _of_numbers(operand, symbolic)
    is_exact = symbolic is exact_sizes(operand.node.graph.view)
    return answer if is_exact or not any(answer.constant or ()) else Answer(why=answer.why)


def _of_slice(operand: Operand, symbolic: Symbolic) -> Answer:
    bounds = _bounds(operand, symbolic)
    return _of_numbers(operand, symbolic) if bounds is None else Answer(bounds)


def _bounds(operand: Operand, symbolic: Symbolic) -> list[int] | None:
    """Constant starts or ends of a Slice: numbers, `WHOLE` for the size of the axis, and what counts from its end.

    A bound that is the size less 2 is -2 where it is never negative: there it would count from the end itself.
    """
    node, index = operand.node, operand.index
    value, data = symbolic.val(node, index), symbolic.of(node, 0)
    if value is None or data is None or index not in (1, 2):
        return None
    axes = symbolic.ints(node, 3) if node.input(3) else [*range(len(value.numbers))]
    steps = symbolic.ints(node, 4) if node.input(4) else [1]
    if axes is None or steps is None or len(axes) != len(value.numbers) or any(step < 1 for step in steps):
        return None
    bounds: list[int] = []
    for axis, number in zip(axes, value.numbers, strict=True):
        if number is None or isinstance(number, Quotient) or not -len(data) <= axis < len(data):
            return None
        behind = data[axis] - number
        if isinstance(number, int):
            bounds.append(number)
        elif isinstance(behind, int) and (behind == 0 or (behind > 0 and symbolic.is_positive(number + 1))):
            bounds.append(-behind if behind else WHOLE)
        else:
            return None
    return bounds


Constants = Callable[[Operand, Symbolic], Answer]
"""Finds the constants of an operand among the sizes of one inference."""

_CONSTANTS: dict[str, Constants] = {"Pad": _of_pad, "Reshape": _of_reshape, "Slice": _of_slice}

WHOLE = 2**63 - 1
"""A bound of a Slice that means the end of the axis; as large as its type has it."""


def replaced_nodes(view: GraphView) -> frozenset[int]:
    """Ids of the nodes that compute only operands which fixes can replace, at least where an assumption holds."""
    going: set[int] = set()
    staying: set[int] = set()
    for operand in computed_operands(view):
        (going if _is_replaceable(operand) else staying).update(id(node) for node in operand.chain.nodes)
    return frozenset(going - staying)


def _is_replaceable(operand: Operand) -> bool:
    if is_resize_by_sizes(operand):
        return resize_scales(operand.node).factors is not None or known_sizes(operand.node) is not None
    return not simplest(operand).is_open


def _free_symbols(view: GraphView, axis: int = 0) -> frozenset[str]:
    """Symbols of the free sizes of the main graph's inputs, from an axis on."""
    return frozenset(symbol for size in free_sizes(view) if size.axis >= axis for symbol in (size.symbol, *size.within))


def is_no_op(operand: Operand) -> bool:
    """Whether an Expand gives back what it gets."""
    symbolic, node = exact_sizes(operand.node.graph.view), operand.node
    data = operand.data()
    return node.op == "Expand" and data is not None and symbolic.shape(node.graph, node.output()) == data
