"""What the SHP rules share: the operands of a model that are computed from shapes."""

from __future__ import annotations

from dataclasses import dataclass

from onnxlint.chains import SHAPE_OPERANDS, Chain, trace
from onnxlint.errors import printable
from onnxlint.symbolic import Number, Quotient, Sizes
from onnxlint.view import GraphView, Node


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
        """The operand's numbers, sizes among them; None where it cannot be followed."""
        value = self.node.graph.view.symbolic.val(self.node, self.index)
        return None if value is None else value.numbers

    def data(self) -> Sizes | None:
        """Sizes of the consumer's first input."""
        return self.node.graph.view.symbolic.of(self.node, 0)

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
    """Whether an Expand repeats a tensor to the shape of the very tensors that it then meets (SHP005).

    True where each reader of the Expand is an operator that broadcasts, and its other operand has the expanded shape.
    """
    node, graph = operand.node, operand.node.graph
    if node.op != "Expand" or graph.is_output(node.output()):
        return False
    symbolic = graph.view.symbolic
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
    """An operand as people would write it: `[N, -1, 4]`; empty where it says nothing that a reader could use."""
    texts = [f"{n.num}/{n.den}" if isinstance(n, Quotient) else "?" if n is None else str(n) for n in numbers]
    text = "[" + ", ".join(texts) + "]"
    return "" if "?" in text or len(text) > 80 else printable(text)
