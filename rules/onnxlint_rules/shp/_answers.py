"""Replacements for an operand that is computed from shapes."""

from __future__ import annotations

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
    is_invented,
    may_copy,
    reshape_steps,
    sizes_where,
    symbols,
)
from onnxlint_rules.shp._operands import (
    Operand,
    computed_operands,
    is_resize_by_sizes,
    resize_scales,
)

_MULTIPLES = (2, 4, 8, 16, 32)
"""Numbers that input sizes are tried as multiples of."""

_TRIED_NODES = 5000
"""Nodes of models in which they are tried: each takes an inference of all sizes."""


class Answer(NamedTuple):
    """A replacement for a computed operand.

    Attributes:
        constant: An equivalent constant.
        steps: For a Reshape that no single constant target can replace, several with constant targets.
        conditions: Under which the constant or the steps are equivalent; or, of a Pad, under which it adds nothing.
        why: What stood in the way of all that.
    """

    constant: list[int] | None = None
    steps: tuple[Step, ...] = ()
    conditions: tuple[str, ...] = ()
    why: str = ""

    def repeats(self, numbers: tuple[Number | None, ...]) -> bool:
        """Whether the constant equals the operand's known numbers."""
        return self.constant is not None and list(numbers) == self.constant

    def after(self, numbers: tuple[Number | None, ...] | None) -> str:
        """How the message goes on."""
        where = f" if {printable(' and '.join(self.conditions))}" if self.conditions else ""
        if self.steps:
            return f"; {sum(step.nodes for step in self.steps)} nodes with constant operands are equivalent{where}"
        if self.constant is None:
            return f"; all are 0{where}" if where else f"; {self.why}"
        if numbers is not None and self.repeats(numbers):
            return f", and always {self.constant}"
        return f"; constant {self.constant} is equivalent{where}"

    def fix(self) -> Fix:
        """Applicability of replacing the operand with the constant."""
        return Fix(Applicability.ASSUMES, " and ".join(self.conditions)) if self.conditions else SAFE


def simplest(operand: Operand) -> Answer:
    """The simplest equivalent of a computed operand; found once for a view."""
    known: dict[tuple[int, int], Answer] = operand.node.graph.view.memo.setdefault("onnxlint_rules.answers", {})
    key = (id(operand.node), operand.index)
    if key not in known:
        known[key] = _simplest(operand)
    return known[key]


def _simplest(operand: Operand) -> Answer:
    numbers, node, view = operand.numbers(), operand.node, operand.node.graph.view
    if node.op == "Pad":
        conditions = padless_conditions(operand)
        if conditions:
            return Answer(conditions=conditions)
    if node.op == "Reshape":
        answer = _of_reshape(operand, exact_sizes(view))
        if answer.constant is None and not answer.steps and view.multiples:
            assumed = _of_reshape(operand, assumed_sizes(view))
            if assumed.constant is not None or assumed.steps:
                return assumed._replace(conditions=_assumptions(view))
        return answer
    if node.op == "Slice":
        for symbolic, conditions in ((exact_sizes(view), ()), (assumed_sizes(view), _assumptions(view))):
            bounds = _of_slice(operand, symbolic)
            if bounds is not None:
                return Answer(bounds, conditions=conditions)
    if numbers is None:
        return Answer(why=UNKNOWN)
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) == len(numbers):
        return Answer(whole)
    return Answer([1] * len(numbers)) if is_no_op(operand) else Answer(why="it depends on a free size")


UNKNOWN = "its value is not known before the model runs"


def _assumptions(view: GraphView) -> tuple[str, ...]:
    """What the user assumes, as conditions."""
    return tuple(f"{name} % {number} == 0" for name, number in view.multiples.items())


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


def _of_slice(operand: Operand, symbolic: Symbolic) -> list[int] | None:
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
        return resize_scales(operand.node).factors is not None
    answer = simplest(operand)
    return answer.constant is not None or bool(answer.steps) or bool(answer.conditions) or pads_nothing(operand)


def pads_nothing(operand: Operand) -> bool:
    """Whether a Pad adds nothing, under the assumptions that the user makes about the inputs."""
    node = operand.node
    pads = assumed_sizes(node.graph.view).val(node, 1) if node.op == "Pad" and operand.index == 1 else None
    return pads is not None and bool(pads.numbers) and all(number == 0 for number in pads.numbers)


def padless_conditions(operand: Operand) -> tuple[str, ...]:
    """Conditions on free sizes of the inputs under which a Pad adds nothing; empty if none was found."""
    node, data, view = operand.node, operand.data(), operand.node.graph.view
    numbers = operand.numbers()
    if operand.index != 1 or data is None or (numbers is not None and all(isinstance(n, int) for n in numbers)):
        return ()
    sizes = {size for size in (*data, *(numbers or ())) if isinstance(size, Size)}
    spatial = sorted(set().union(*map(symbols, sizes)) & free_symbols(view, 2))
    if not spatial or node.graph is not view.main or len(view.main.nodes) > _TRIED_NODES:
        return ()
    for multiple in _MULTIPLES:
        tried = sizes_where(view, dict.fromkeys(spatial, multiple))
        pads = tried.val(node, 1)
        if pads is not None and pads.numbers and all(number == 0 for number in pads.numbers):
            return tuple(f"{name} % {multiple} == 0" for name in spatial)
    return ()


def free_symbols(view: GraphView, axis: int = 0) -> frozenset[str]:
    """Names of the free sizes of the main graph's inputs, from an axis on."""
    shapes = (view.main.shape(name) or () for name in view.main.data_inputs)
    return frozenset(dim for shape in shapes for dim in shape[axis:] if isinstance(dim, str) and not is_invented(dim))


def is_no_op(operand: Operand) -> bool:
    """Whether an Expand gives back what it gets."""
    symbolic, node = exact_sizes(operand.node.graph.view), operand.node
    data = operand.data()
    return node.op == "Expand" and data is not None and symbolic.shape(node.graph, node.output()) == data
