"""Which node of one graph is which node of another: by structure, module scopes, weights and names, in linear time.

Exporters number nodes and values anew each time, so that names alone say little. Nodes are paired in passes, the surest
first: equal everything up- and downstream; equal place in a module; equal weights; equal everything upstream or
downstream; then the neighbours of pairs; and last the order within the gaps that are left. A pair never changes again.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from onnxlint.difference.constants import Constant, constant_of, is_operand
from onnxlint.graph.view import Graph, Node

GAP = 60_000
"""Cells of the table that the order in one gap is found with, at most; larger gaps stay unpaired."""

NUMBERED = re.compile(r"(?:^|[_./:])\d+$|^\d+$|^(?:val|node|onnx::|tmp|input|output)[\w:]*?\d+$")
"""Names that an exporter made up with a number: they say nothing about which node it is."""


@dataclass
class Alignment:
    """Pairs of nodes of two graphs, Constant nodes left out.

    Attributes:
        old: Nodes of the old graph, in topological order.
        new: Nodes of the new graph, in topological order.
        pairs: Old node → new node.
        inputs: Old input → the same input of the new graph.
        gave_up: Whether a gap was too large to look for pairs in.
    """

    old: list[Node]
    new: list[Node]
    inputs: dict[str, str] = field(default_factory=dict)
    pairs: dict[Node, Node] = field(default_factory=dict)
    gave_up: bool = False

    def __post_init__(self) -> None:
        self.back = {new: old for old, new in self.pairs.items()}

    def add(self, old: Node, new: Node) -> None:
        """Make a pair of two nodes that have none."""
        self.pairs[old] = new
        self.back[new] = old

    def free(self, old: Node | None, new: Node | None) -> bool:
        """Whether both are there and neither has a pair."""
        return old is not None and new is not None and old not in self.pairs and new not in self.back


def align(old: Graph, new: Graph, inputs: dict[str, str]) -> Alignment:
    """Pair the nodes of two graphs.

    Args:
        old, new: The graphs.
        inputs: Name of an input of `old` → name of the same input in `new`.
    """
    result = Alignment(_nodes(old), _nodes(new), inputs)
    before, after = _Marks(result.old, inputs), _Marks(result.new, {})
    for key in (_Marks.place, _Marks.module_place, _Marks.weights, _Marks.before, _Marks.after, _Marks.own_name):
        _pair_groups(result, key, before, after)
    _spread(result, same_operator=True)
    _fill_gaps(result, before, after)
    _spread(result, same_operator=True)
    _replaced(result)
    return result


def _nodes(graph: Graph) -> list[Node]:
    return [node for node in graph.order if node.op != "Constant"]


class _Marks:
    """Hashes of the context before and after each node of one graph."""

    def __init__(self, nodes: Sequence[Node], inputs: dict[str, str]) -> None:
        self._inputs = inputs
        self._constants: dict[tuple[int, str], Constant | None] = {}
        self.own: dict[Node, int] = {node: hash((node.op, attributes_key(node))) for node in nodes}
        self.upstream: dict[Node, int] = {}
        self.downstream: dict[Node, int] = {}
        for node in nodes:
            self.upstream[node] = hash((self.own[node], *(self._source(node, i) for i in range(len(node.inputs)))))
        for node in reversed(nodes):
            self.downstream[node] = hash((self.own[node], self.operands(node), self._uses(node)))

    def constant(self, node: Node, i: int) -> Constant | None:
        """The constant at an input."""
        key = id(node.graph), node.inputs[i]
        if key not in self._constants:
            self._constants[key] = constant_of(node.graph, node.inputs[i])
        return self._constants[key]

    def operands(self, node: Node) -> tuple[Hashable, ...]:
        """The constant inputs of a node: value of small ones, type and shape of weights."""
        found = ((i, self.constant(node, i)) for i in range(len(node.inputs)))
        return tuple((i, constant_key(node, constant)) for i, constant in found if constant is not None)

    def weights(self, node: Node) -> Hashable:
        """The samples of the weights that a node reads; None if it reads none."""
        found = [self.constant(node, i) for i in range(len(node.inputs))]
        large = [one.signature() for one in found if one is not None and not is_operand(node, one)]
        return (node.op, *large) if large else None

    def before(self, node: Node) -> Hashable:
        """All that is upstream."""
        return self.upstream[node]

    def after(self, node: Node) -> Hashable:
        """All that is downstream."""
        return self.downstream[node]

    def place(self, node: Node) -> Hashable:
        """All that is up- and downstream."""
        return self.upstream[node], self.downstream[node]

    def module_place(self, node: Node) -> Hashable:
        """Module path and operator; None if the exporter kept no module."""
        scope = node.graph.view.sources.scope(node.proto)
        return (scope, node.op) if scope else None

    def own_name(self, node: Node) -> Hashable:
        """Name and operator; None for names that an exporter made up."""
        return None if not node.name or NUMBERED.search(node.name) else (node.name, node.op)

    def _source(self, node: Node, i: int) -> Hashable:
        name = node.inputs[i]
        if not name:
            return ""
        constant = self.constant(node, i)
        if constant is not None:
            return constant_key(node, constant)
        producer = node.graph.producer(name)
        if producer is None:
            return "input", self._inputs.get(name, name)
        if producer.graph is not node.graph:
            return "outer", producer.op
        return self.upstream.get(producer, 0), producer.outputs.index(name)

    def _uses(self, node: Node) -> tuple[Hashable, ...]:
        uses: list[int] = []
        for k, name in enumerate(node.outputs):
            for user in node.graph.consumers(name):
                if user.graph is node.graph:
                    uses += (hash((k, i, self.downstream.get(user, 0))) for i, x in enumerate(user.inputs) if x == name)
                else:
                    uses.append(hash((k, "inner", user.op)))
            if node.graph.is_output(name):
                uses.append(hash((k, "output", node.graph.outputs.index(name))))
        return tuple(sorted(uses))


def attributes_key(node: Node) -> Hashable:
    """The attributes of a node, graphs by the operators in them."""
    parts: list[tuple[str, Hashable]] = []
    for attribute in node.proto.attribute:
        if attribute.HasField("g"):
            parts.append((attribute.name, tuple(inner.op_type for inner in attribute.g.node)))
        else:
            # Deterministic: one message of one library version, without maps.
            parts.append((attribute.name, attribute.SerializeToString(deterministic=True)))
    return tuple(sorted(parts, key=lambda part: part[0]))


def constant_key(node: Node, constant: Constant) -> Hashable:
    """What makes two constants the same operand: the value of small ones, type and shape of weights."""
    return constant.signature() if is_operand(node, constant) else (constant.dtype, constant.shape)


_Key = Callable[[_Marks, Node], Hashable]


def _pair_groups(result: Alignment, key: _Key, before: _Marks, after: _Marks) -> None:
    """Pair free nodes whose keys are equal, where both graphs have equally many of a key.

    Of several with one key (the same layer twice), those of one module, of one weight or of one name come first; the
    others are paired in order.
    """
    olds = [node for node in result.old if node not in result.pairs]
    news = [node for node in result.new if node not in result.back]
    for left, right in _groups(olds, news, key, before, after):
        if len(left) != len(right):
            continue
        if len(left) > 1:
            for finer in (_Marks.module_place, _Marks.weights, _Marks.own_name):
                for one, other in _groups(left, right, finer, before, after):
                    if len(one) == len(other) == 1:
                        result.add(one[0], other[0])
                left = [node for node in left if node not in result.pairs]
                right = [node for node in right if node not in result.back]
        for old, new in zip(left, right, strict=True):
            result.add(old, new)


def _groups(
    olds: Iterable[Node], news: Iterable[Node], key: _Key, before: _Marks, after: _Marks
) -> Iterable[tuple[list[Node], list[Node]]]:
    """Nodes of both graphs by key; those without one are left out."""
    groups: dict[Hashable, tuple[list[Node], list[Node]]] = defaultdict(lambda: ([], []))
    for side, nodes, marks in ((0, olds, before), (1, news, after)):
        for node in nodes:
            value = key(marks, node)
            if value is not None:
                groups[value][side].append(node)
    return groups.values()


def _spread(result: Alignment, same_operator: bool) -> None:
    """From each pair to its neighbours: what makes the same input, and the only reader of an operator."""
    pending = deque(result.pairs.items())
    while pending:
        old, new = pending.popleft()
        for one, other in _neighbours(old, new):
            if result.free(one, other) and (one.op == other.op or not same_operator):
                result.add(one, other)
                pending.append((one, other))


def _neighbours(old: Node, new: Node) -> Iterator[tuple[Node, Node]]:
    for i in range(min(len(old.inputs), len(new.inputs))):
        one, other = old.producer(i), new.producer(i)
        if one is None or other is None or "Constant" in (one.op, other.op):
            continue
        if one.graph is old.graph and other.graph is new.graph:
            yield one, other
    for k in range(min(len(old.outputs), len(new.outputs))):
        readers, others = _by_operator(old, k), _by_operator(new, k)
        for op, nodes in readers.items():
            found = others.get(op, [])
            if len(nodes) == 1 and len(found) == 1:
                yield nodes[0], found[0]


def _by_operator(node: Node, k: int) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = defaultdict(list)
    for user in node.graph.consumers(node.outputs[k])[:64]:
        if user.graph is node.graph:
            found[user.op].append(user)
    return found


def _fill_gaps(result: Alignment, before: _Marks, after: _Marks) -> None:
    """Pair the remaining nodes between neighbouring pairs, by the longest common order of operators."""
    labels: tuple[_Key, ...] = (
        lambda marks, node: (marks.own[node], marks.operands(node)),
        lambda _, node: node.op,
    )
    for label in labels:
        for olds, news in _gaps(result):
            if len(olds) * len(news) > GAP:
                result.gave_up = True
                continue
            left = [label(before, node) for node in olds]
            right = [label(after, node) for node in news]
            for i, j in _common(left, right):
                result.add(olds[i], news[j])


def _gaps(result: Alignment) -> list[tuple[list[Node], list[Node]]]:
    """Runs of free nodes of the old graph, each with the free ones of the new graph in the same place."""
    position = {node: i for i, node in enumerate(result.new)}
    anchors: list[tuple[int, int]] = []
    for i, node in enumerate(result.old):
        if node in result.pairs:
            anchors.append((i, position[result.pairs[node]]))
    chain = _increasing(anchors)
    edges = [(-1, -1), *chain, (len(result.old), len(result.new))]
    gaps = []
    for (a, b), (c, d) in pairwise(edges):
        olds = [node for node in result.old[a + 1 : c] if node not in result.pairs]
        news = [node for node in result.new[b + 1 : d] if node not in result.back]
        if olds and news:
            gaps.append((olds, news))
    return gaps


def _increasing(anchors: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of anchors whose places increase in both graphs (patience sorting)."""
    from bisect import bisect_left

    tails: list[int] = []
    ends: list[int] = []
    previous = [-1] * len(anchors)
    for k, (_, place) in enumerate(anchors):
        at = bisect_left(tails, place)
        previous[k] = ends[at - 1] if at else -1
        if at == len(tails):
            tails.append(place)
            ends.append(k)
        else:
            tails[at], ends[at] = place, k
    chain: list[tuple[int, int]] = []
    k = ends[-1] if ends else -1
    while k >= 0:
        chain.append(anchors[k])
        k = previous[k]
    return chain[::-1]


def _common(left: Sequence[Hashable], right: Sequence[Hashable]) -> Iterable[tuple[int, int]]:
    """Index pairs of a longest common subsequence."""
    width = len(right) + 1
    table = [[0] * width for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            table[i][j] = table[i + 1][j + 1] + 1 if left[i] == right[j] else max(table[i + 1][j], table[i][j + 1])
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            yield i, j
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1


def _replaced(result: Alignment) -> None:
    """Pair a node with one of another operator that stands in its place: between the same neighbours."""
    for old in result.old:
        if old in result.pairs:
            continue
        new = _in_its_place(old, result)
        if new is not None and result.free(old, new):
            result.add(old, new)


def _in_its_place(old: Node, result: Alignment) -> Node | None:
    """The free node whose data input and readers are the pairs of this one's."""
    if not result.new:
        return None
    graph = result.new[0].graph
    makers: set[Node | None] = set()
    for user in old.consumers():
        other = result.pairs.get(user)
        if user.graph is old.graph and other is not None:
            slots = [i for i, name in enumerate(user.inputs) if name in old.outputs]
            makers |= {other.producer(i) for i in slots}
        elif user.graph is old.graph:
            return None
    for k, name in enumerate(old.graph.outputs):
        if name in old.outputs and k < len(graph.outputs):
            makers.add(graph.producer(graph.outputs[k]))
    new = makers.pop() if len(makers) == 1 else None
    if new is None or new.graph is not graph or new.op == "Constant":
        return None
    source, other_source = old.producer(0), new.producer(0)
    if source is None or source not in result.pairs:  # an input, or a value of an outer graph
        return new if other_source is None or other_source not in result.back else None
    return new if result.pairs[source] is other_source else None
