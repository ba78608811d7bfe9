"""Shape operands that have to be computed, in their shortest form.

`[b, C, H*W] → [b, C, H, W]` needs H and W at run time. However long a chain the exporter left for them: some value of the
graph has an axis of that size, and Shape, with a Slice where Shape cannot pick axes itself, and Concat are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onnxlint import GraphView, Node
from onnxlint.rulekit import AnySize, Number, Size, Symbolic, exact_sizes
from onnxlint_rules.shp._operands import Operand

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxlint import Surgeon

MAX_OPERANDS = 100
"""In models with more operands that stay, they stay as they are."""

WHOLE = frozenset(("ConstantOfShape", "Expand", "Reshape", "Tile"))
"""Operators whose operand is a vector of int64 in every opset."""


class Piece(NamedTuple):
    """Sizes of some axes of a value, `start` to `stop`."""

    value: str
    start: int
    stop: int


Part = Piece | tuple[int, ...]


def shortest_forms(view: GraphView, staying: Iterable[Operand]) -> dict[tuple[int, int], tuple[Part, ...]]:
    """What to concatenate in the place of each operand that gets shorter by it: (node's id, input) → parts.

    Chains share nodes, so all operands are weighed together: a form counts only where fewer nodes are left with it.
    """
    graph = view.main
    operands = [one for one in staying if one.node.graph is graph and one.node.op in WHOLE]
    if not 0 < len(operands) <= MAX_OPERANDS:
        return {}
    places = {id(node): i for i, node in enumerate(graph.order)}
    finder = _Finder(view, places)
    forms = {_key(one): form for one in operands if (form := _form(one, finder)) and _gains(view, one, form)}
    members = {id(n): n for one in operands if _key(one) in forms for n in one.chain.nodes if n.graph is graph}
    chain = sorted(members.values(), key=lambda node: places[id(node)], reverse=True)
    kept = dict(forms)
    best = _cost(view, chain, kept)
    for key in forms:
        fewer = {other: form for other, form in kept.items() if other != key}
        cost = _cost(view, chain, fewer)
        if cost <= best:
            kept, best = fewer, cost
    return kept if best < _cost(view, chain, {}) else {}


def _gains(view: GraphView, operand: Operand, form: tuple[Part, ...]) -> bool:
    """Whether a form takes fewer nodes than the chain has; else it would be put in the place of itself, round by round."""
    taken = {node for part in form if isinstance(part, Piece) for node in _nodes_of(view, part)}
    return len(taken) + (len(form) > 1) < len(operand.chain.nodes)


def put(surgeon: Surgeon, operand: Operand, parts: Sequence[Part], base: str) -> None:
    """Let a node read the shortest form of its operand."""
    import numpy as np

    node = operand.node
    view = node.graph.view
    known_by, made = view.memo.get("onnxlint_rules.pieces", (None, {}))
    if known_by is not surgeon:
        made = {}
        view.memo["onnxlint_rules.pieces"] = (surgeon, made)
    held = surgeon.node(node)
    values = {part.value for part in parts if isinstance(part, Piece)}
    # All are looked up before anything is made: one that another patch has changed puts this one off.
    made.update({name: _tensor(surgeon, view, name) for name in values if name not in made})
    tensors: list[gs.Tensor] = []
    for part in parts:
        if not isinstance(part, Piece):
            tensors.append(surgeon.constant(f"{base}_sizes", np.array(part, np.int64)))
            continue
        if part not in made:
            made[part] = _sizes(surgeon, node, made, part, base)
        tensors.append(made[part])
    if len(tensors) > 1:
        tensors = [surgeon.add("Concat", tensors, node, base, axis=0)]
    held.attrs.pop("allowzero", None)
    held.inputs[operand.index] = tensors[0]


def _key(operand: Operand) -> tuple[int, int]:
    return id(operand.node), operand.index


def _form(operand: Operand, finder: _Finder) -> tuple[Part, ...] | None:
    """The parts of one operand; None if a size of it is that of no axis."""
    node, numbers, data = operand.node, operand.numbers(), operand.data()
    value = exact_sizes(node.graph.view).val(node, operand.index)
    if numbers is None or value is None or len(value.dims) != 1:
        return None
    places: list[Number | None] = list(numbers)
    if node.op != "Reshape":
        return _parts(node, places, finder)
    exact = exact_sizes(node.graph.view)
    if node.attribute("allowzero", 0):
        # What `put` writes has none: a -1 beside a size of 0 runs with it, and fails without.
        rest = [number for number in places if number != -1]
        if 0 in places or (len(rest) < len(places) and not all(_is_filled(exact, number) for number in rest)):
            return None
    for i, number in enumerate(places):
        if isinstance(number, Size) and data is not None and i < len(data) and number == data[i]:
            places[i] = 0
    free = [i for i, number in enumerate(places) if not isinstance(number, int)]
    if -1 in places or not free:
        return _parts(node, places, finder)
    # One of the free sizes is what is left over: the one without which the fewest parts are left. Runtimes refuse that
    # where another size is 0.
    sizes = exact.shape(node.graph, node.output()) or ()
    may_be_empty = [i for i, size in enumerate(sizes) if not exact.is_never_empty(size)]
    if len(sizes) != len(places) or len(may_be_empty) > 1:
        return _parts(node, places, finder)
    free = [i for i in free if not may_be_empty or may_be_empty == [i]]
    choices = [_parts(node, [*places[:i], -1, *places[i + 1 :]], finder) for i in free]
    return min((form for form in choices if form is not None), key=len, default=None)


def _is_filled(exact: Symbolic, number: Number | None) -> bool:
    return isinstance(number, int | Size) and exact.is_never_empty(number)


def _parts(node: Node, numbers: Sequence[Number | None], finder: _Finder) -> tuple[Part, ...] | None:
    parts: list[Part] = []
    i = 0
    while i < len(numbers):
        number = numbers[i]
        if isinstance(number, int):
            before = parts.pop() if parts and not isinstance(parts[-1], Piece) else ()
            assert not isinstance(before, Piece)
            parts.append((*before, number))
            i += 1
            continue
        piece = finder.find(node, numbers[i:])
        if piece is None:
            return None
        parts.append(piece)
        i += piece.stop - piece.start
    return tuple(parts)


class _Finder:
    """Where in a graph a value has axes of given sizes."""

    def __init__(self, view: GraphView, places: dict[int, int]) -> None:
        self.view = view
        self.places = places
        self._axes: dict[AnySize, list[tuple[int, str, int]]] = {}
        graph = view.main
        made = [(-1, name) for name in graph.data_inputs]
        made += [(places[id(node)], name) for node in graph.order for name in node.outputs if name]
        for place, name in made:
            for axis, size in enumerate(exact_sizes(view).shape(graph, name) or ()):
                if isinstance(size, Size):
                    self._axes.setdefault(size, []).append((place, name, axis))

    def find(self, node: Node, sizes: Sequence[Number | None]) -> Piece | None:
        """The earliest value, before a node, with axes of the most of these sizes, from the first on."""
        first = sizes[0]
        best: Piece | None = None
        for place, name, axis in self._axes.get(first, ()) if isinstance(first, Size) else ():
            if place >= self.places[id(node)]:
                break
            shape = exact_sizes(self.view).shape(self.view.main, name) or ()
            length = 1
            while (
                length < min(len(sizes), len(shape) - axis)
                and isinstance(sizes[length], Size)
                and sizes[length] == shape[axis + length]
            ):
                length += 1
            if best is None or length > best.stop - best.start:
                best = Piece(name, axis, axis + length)
        return best


def _cost(view: GraphView, chain: Sequence[Node], forms: dict[tuple[int, int], tuple[Part, ...]]) -> int:
    """Nodes of the chains, last to first, that are left with these forms, and nodes that the forms add."""
    dead: set[int] = set()
    for node in chain:
        names = [name for name in node.outputs if name]
        if not any(view.main.is_output(name) for name in names) and all(
            id(reader) in dead or all(name != read or (id(reader), i) in forms for i, read in enumerate(reader.inputs))
            for name in names
            for reader in view.main.consumers(name)
        ):
            dead.add(id(node))
    new: set[object] = set()
    concats = 0
    for parts in forms.values():
        concats += len(parts) > 1
        for part in parts:
            if isinstance(part, Piece):
                new.update(_nodes_of(view, part))
    return len(chain) - len(dead) + concats + len(new)


def _nodes_of(view: GraphView, piece: Piece) -> Iterator[object]:
    """What stands for the nodes that a piece takes."""
    if view.opset >= 15:
        yield piece
        return
    yield piece.value
    if piece.start or piece.stop < len(exact_sizes(view).shape(view.main, piece.value) or ()):
        yield piece


def _tensor(surgeon: Surgeon, view: GraphView, name: str) -> gs.Tensor:
    producer = view.main.producer(name)
    if producer is not None:
        return surgeon.tensor(producer, name)
    return next(tensor for tensor in surgeon.graph.inputs if tensor.name == name)


def _sizes(surgeon: Surgeon, node: Node, made: dict[object, gs.Tensor], piece: Piece, base: str) -> gs.Tensor:
    """The nodes of a piece."""
    import numpy as np

    view = node.graph.view
    rank = len(exact_sizes(view).shape(view.main, piece.value) or ())
    data = made[piece.value]
    if view.opset >= 15:
        bounds = {"start": piece.start} if piece.start else {}
        bounds |= {"end": piece.stop} if piece.stop < rank else {}
        return surgeon.add("Shape", [data], node, f"{base}_Shape", **bounds)
    whole = ("Shape", piece.value)
    if whole not in made:
        made[whole] = surgeon.add("Shape", [data], node, f"{base}_Shape")
    if not piece.start and piece.stop == rank:
        return made[whole]
    if view.opset < 10:
        return surgeon.add("Slice", [made[whole]], node, f"{base}_Slice", starts=[piece.start], ends=[piece.stop])
    bounds_of = [surgeon.constant(f"{base}_axis", np.array([i], np.int64)) for i in (piece.start, piece.stop)]
    return surgeon.add("Slice", [made[whole], *bounds_of], node, f"{base}_Slice")
