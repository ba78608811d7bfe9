"""The few nodes around a finding, for reports that draw them: a reporter never looks at a graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnxlint.finding import Finding
from onnxlint.view import Graph, GraphView, Node, Shape, is_invented

MOST = 8
"""Boxes in a picture."""

_USERS = 2
"""Consumers of the finding's node that are drawn before what leads to it."""

_SCANNED = 64
"""Inputs of a node that are looked at: a Concat of thousands must not be searched for each finding."""


@dataclass(frozen=True)
class Box:
    """One thing in a picture.

    Attributes:
        kind: `node`, or `input`, `output` or `constant` for values.
        title: Operator, or name of the value.
        name: Node name; empty for nameless nodes and for values.
    """

    kind: str
    title: str
    name: str = ""


@dataclass(frozen=True)
class Neighbourhood:
    """What is around a finding; names are not yet escaped.

    Attributes:
        boxes: In the order of the graph: inputs, nodes, outputs.
        edges: (from, to, label): indices into `boxes`; the label is the value's shape, or else its name.
        center: Index of the box that the finding is about.
    """

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int, str], ...]
    center: int


def with_neighbourhoods(view: GraphView, findings: list[Finding]) -> list[Finding]:
    """The findings, each with what is around its place; those about the whole model stay as they are."""
    graphs = {graph.path: graph for graph in view.graphs}
    return [
        replace(finding, neighbourhood=_around(graphs.get(finding.location.graph), finding)) for finding in findings
    ]


def _around(graph: Graph | None, finding: Finding) -> Neighbourhood | None:
    place = finding.location
    if graph is None:
        return None
    if place.index is not None:
        if not 0 <= place.index < len(graph.nodes):
            return None
        node = graph.nodes[place.index]
        operand = dict(finding.evidence).get("operand", "")
        return _Picture(node, operand if operand in node.inputs[:_SCANNED] else "").drawn()
    if place.value and (graph.owns(place.value) or graph.is_output(place.value)):
        return _Picture(_Value(_kind(graph, place.value), place.value, graph)).drawn()
    return None


@dataclass(frozen=True)
class _Value:
    """A value that has a box of its own: at the border of a graph, or what the finding is about."""

    kind: str
    name: str
    graph: Graph


_Thing = Node | _Value


class _Picture:
    """Collects at most `MOST` boxes: the center, what it reads, two consumers, and then what leads to `operand`."""

    def __init__(self, center: _Thing, operand: str = "") -> None:
        self.center = center
        self.boxes: dict[_Thing, None] = {center: None}
        before = list(_before(center))
        for thing in before[: MOST - 1 - _USERS]:
            self._add(thing)
        for thing in _after(center, _USERS if before else MOST):
            self._add(thing)
        start = center.producer(center.inputs.index(operand)) if isinstance(center, Node) and operand else None
        self._fill([start] if start is not None else before)

    def _add(self, thing: _Thing) -> None:
        if len(self.boxes) < MOST:
            self.boxes.setdefault(thing)

    def _fill(self, things: list[_Thing]) -> None:
        """Add what leads to `things`, the nearest first."""
        pending, seen = deque(things), set(things)
        while pending and len(self.boxes) < MOST:
            thing = pending.popleft()
            self._add(thing)
            for other in _before(thing):
                if other not in seen:
                    seen.add(other)
                    pending.append(other)

    def drawn(self) -> Neighbourhood:
        things = sorted(self.boxes, key=_order)
        index = {thing: i for i, thing in enumerate(things)}
        edges: dict[tuple[int, int, str], None] = {}
        for thing in things:
            for source, value, graph in _edges_into(thing):
                if source in index and source != thing:
                    edges.setdefault((index[source], index[thing], _label(graph, value)))
        return Neighbourhood(tuple(_box(thing) for thing in things), tuple(edges), index[self.center])


def _edges_into(thing: _Thing) -> Iterator[tuple[_Thing, str, Graph]]:
    """(source, value, graph that the value is read in) of all that arrives at a thing but constants."""
    if isinstance(thing, Node):
        for name in thing.inputs[:_SCANNED]:
            for source in _sources(thing.graph, name):
                yield source, name, thing.graph
    elif thing.kind == "output":
        producer = thing.graph.producer(thing.name)
        if producer is not None:
            yield producer, thing.name, thing.graph
        elif thing.name in thing.graph.inputs:
            yield _Value("input", thing.name, thing.graph), thing.name, thing.graph


def _sources(graph: Graph, name: str) -> Iterator[_Thing]:
    """Where a value that a node reads comes from; a constant only as itself, where it has a box."""
    owner = graph.owner(name) if name else None
    if owner is None:
        return
    producer = owner.producer(name)
    if producer is None:
        yield _Value(_kind(owner, name), name, owner)
    else:
        yield producer


def _kind(graph: Graph, name: str) -> str:
    if name in graph.initializers or name in graph.sparse_initializers:
        return "constant"
    return "output" if graph.is_output(name) else "input"


def _before(thing: _Thing) -> Iterator[_Thing]:
    for source, _, _ in _edges_into(thing):
        is_constant = source.op == "Constant" if isinstance(source, Node) else source.kind == "constant"
        if not is_constant:
            yield source


def _after(thing: _Thing, most: int) -> Iterator[_Thing]:
    """Consumers of what a thing gives, and graph outputs that it is: `most` of each."""
    if isinstance(thing, _Value) and thing.kind == "output":
        return
    graph, names = thing.graph, thing.outputs if isinstance(thing, Node) else (thing.name,)
    for name in names[:_SCANNED]:
        if name and graph.is_output(name):
            yield _Value("output", name, graph)
        yield from graph.consumers(name)[:most]


def _order(thing: _Thing) -> tuple[int, int, str]:
    if isinstance(thing, Node):
        return 1, thing.index, thing.graph.path
    return 2 if thing.kind == "output" else 0, 0, thing.name


def _box(thing: _Thing) -> Box:
    return Box("node", thing.op, thing.name) if isinstance(thing, Node) else Box(thing.kind, thing.name)


def _label(graph: Graph, value: str) -> str:
    shape = graph.shape(value)
    return _written(shape) if shape is not None else value


def _written(shape: Shape) -> str:
    return "×".join("?" if is_invented(dim) else str(dim) for dim in shape) or "scalar"
