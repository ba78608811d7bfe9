"""Shape chains: the nodes that compute a shape operand.

`x.view(x.size(0), -1)` exports as Shape → Gather → Unsqueeze → Concat → Reshape. `trace` follows such an operand back to
its Shape nodes; `onnxlint.symbolic` finds its numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onnxlint.graph.view import Node

MAX_CHAIN = 2000
"""Maximum number of nodes in a trace."""

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
"""Operator → inputs that hold a shape, a range or an extent."""

_ARITHMETIC = frozenset(
    """Abs Add And Cast CastLike Ceil Concat ConstantOfShape Div Equal Expand Flatten Floor Gather GatherElements
    GatherND Greater GreaterOrEqual Identity If Less LessOrEqual Max Mean Min Mod Mul Neg Not Or Pow Range ReduceMax
    ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements ScatterND Shape Sign Size Slice Split Sqrt Squeeze Sub
    Sum Tile Transpose Unsqueeze Where Xor Reciprocal SequenceAt SequenceConstruct ConcatFromSequence
    SplitToSequence""".split()
)


class Chain(NamedTuple):
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
    """The chain behind an operand of `node`; None if no shape of a value goes into it."""
    chain = origins(node, operand)
    return chain if chain is not None and chain.shapes else None


def origins(node: Node, operand: int) -> Chain | None:
    """All nodes that compute an operand of `node`, from shapes or not; None if it is a constant or absent."""
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
