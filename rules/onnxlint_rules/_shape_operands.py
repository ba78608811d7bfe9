"""What the SHP rules share: the operands of a model that are computed from shapes."""

from __future__ import annotations

from dataclasses import dataclass

from onnxlint.chains import SHAPE_OPERANDS, Chain, Dim, Element, elements, known_size, trace
from onnxlint.errors import printable
from onnxlint.view import GraphView, Node, is_invented


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

    def elements(self) -> tuple[Element, ...] | None:
        """What each element of the operand is; None where that cannot be followed."""
        return elements(self.node, self.index)

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
                chain = trace(node, index)
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
    index, kind = resize_factors(node)
    return operand.index == index and (kind == "sizes" or node.graph.view.opset < 11)


def is_expand_by_shape(operand: Operand) -> bool:
    """Whether an Expand repeats a tensor to the shape of the very tensor that it then meets (SHP005).

    True where each reader of the Expand is an operator that broadcasts, and its other operand is the value whose shape
    was taken.
    """
    node = operand.node
    if node.op != "Expand" or node.graph.is_output(node.output()):
        return False
    target = operand.elements()
    shape = node.shape(0)
    if not target or shape is None or len(shape) > len(target):
        return False
    values = {element.value for element in target if isinstance(element, Dim)}
    if len(values) != 1:
        return False
    (value,) = values
    if target != tuple(Dim(value, axis) for axis in range(len(target))):
        return False
    readers = node.consumers()
    return bool(readers) and all(
        reader.op in BROADCASTING and value in reader.inputs and len(reader.inputs) == 2 for reader in readers
    )


BROADCASTING = frozenset(
    ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Or", "Pow", "Sub", "Xor")
)


def is_flatten(operand: Operand) -> bool:
    """Whether a Reshape is `x.view(x.size(0), -1)` (SHP006)."""
    node = operand.node
    if node.op != "Reshape":
        return False
    target = operand.elements()
    return (
        target is not None
        and len(target) == 2
        and target[1] == -1
        and isinstance(target[0], Dim)
        and copies(node, target[0]) == 0
    )


def copies(node: Node, element: Element) -> int | None:
    """The axis of the node's first input whose size an element is; None where that cannot be told.

    Sizes are the same where they are the size of the same axis of the same value, the batch of both values, or have
    the same symbol.
    """
    if not isinstance(element, Dim):
        return None
    view, graph = node.graph.view, node.graph
    if element.value == node.input(0):
        rank = len(shape) if (shape := node.shape(0)) is not None else None
        return element.axis if element.axis >= 0 else None if rank is None else element.axis + rank
    if view.batch_axis(graph, element.value) == element.axis:
        axis = view.batch_axis(graph, node.input(0))
        if axis is not None:
            return axis
    size = known_size(graph, element)
    shape = node.shape(0)
    if isinstance(size, str) and shape is not None and shape.count(size) == 1:
        return shape.index(size)
    return None


def simplest_target(node: Node, target: tuple[Element, ...]) -> list[int] | None:
    """A constant Reshape target that says the same: numbers, `0` for copied sizes and at most one `-1`.

    None where more than one size is neither constant nor a copy of the same-numbered one of the input: such a target
    has to be computed.
    """
    constant: list[int] = []
    for i, element in enumerate(target):
        size = known_size(node.graph, element)
        if isinstance(element, int):
            constant.append(element)
        elif copies(node, element) == i:
            constant.append(0)
        else:
            constant.append(size if isinstance(size, int) else -1)
    return constant if constant.count(-1) <= 1 else None


def show_element(node: Node, element: Element) -> str:
    """An element as people would write it: `-1`, `batch`, `x.shape[2]`, `(h / 2)`, `?`."""
    if isinstance(element, Dim):
        size = known_size(node.graph, element)
        if node.graph.view.batch_axis(node.graph, element.value) == element.axis:
            return "batch"
        if size is not None and not is_invented(size):
            return printable(str(size))
        return printable(f"{element.value}.shape[{element.axis}]")
    return "?" if element is None else printable(str(element))


def show_target(node: Node, target: tuple[Element, ...] | None) -> str:
    """A whole operand: `[batch, -1, 4]`; empty where it is unknown."""
    return "" if target is None else "[" + ", ".join(show_element(node, element) for element in target) + "]"
