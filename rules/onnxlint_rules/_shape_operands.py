"""What the SHP rules share: the operands of a model that are computed from shapes."""

from __future__ import annotations

from dataclasses import dataclass

from onnxlint.chains import SHAPE_OPERANDS, Chain, Element, elements, trace
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
