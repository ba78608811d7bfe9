"""The few nodes around a finding, for reports that draw them: a reporter never looks at a graph."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.graph.dims import Shape, is_invented
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.lint.finding import Applicability, Finding, Fix
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.model.assumptions import read_clause
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.lint.rule import Rule

MOST = 8
"""Boxes in a picture."""

FIXED_OF_A_RULE = 3
"""Findings of one rule in a model whose fix is drawn."""

_FIXED_NODES = 12_000
"""Nodes of a model times fixes that are drawn: a patch reads and writes the whole graph, in about 0.1 ms a node."""

_USERS = 2
"""Consumers of the finding's node that are drawn before what leads to it."""

_SCANNED = 64
"""Inputs of a node that are looked at: a Concat of thousands must not be searched for each finding."""


def with_neighbourhoods(
    view: GraphView, findings: list[Finding], rules: Mapping[str, type[Rule]] | None = None
) -> list[Finding]:
    """The findings, each with its neighbourhood in the graph; those about the whole model stay unchanged.

    Args:
        view: The model.
        findings: Its findings.
        rules: Code → rule; if given, the first findings of each also get the neighbourhood after the fix.
    """
    graphs = {graph.path: graph for graph in view.graphs}
    pictures = [_around(graphs.get(finding.location.graph), finding) for finding in findings]
    out = [
        replace(finding, neighbourhood=picture.drawn()) if picture is not None else finding
        for finding, picture in zip(findings, pictures, strict=True)
    ]
    old: _Nodes | None = None
    for i in _to_fix(view, findings, rules or {}):
        picture = pictures[i]
        if picture is not None:
            old = old or _Nodes(view)
            out[i] = _with_fix(view, old, findings[i], (rules or {})[findings[i].code], picture)
    return out


def around(node: Node, changed: Callable[[Node], bool] = lambda node: False) -> Neighbourhood:
    """What is around a node; nodes that `changed` says yes to are marked."""
    return _Picture(node).drawn(changed)


def _to_fix(view: GraphView, findings: list[Finding], rules: Mapping[str, type[Rule]]) -> list[int]:
    """Indices of the findings whose fix is drawn: one of each rule, then a second of each, as many as the model allows."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for i, finding in enumerate(findings):
        exact = finding.fix is not None and finding.fix.applicability is not Applicability.UNSAFE
        if exact and finding.code in rules and seen[finding.code] < FIXED_OF_A_RULE:
            ranked.append((seen[finding.code], i))
            seen[finding.code] += 1
    nodes = sum(len(graph.nodes) for graph in view.graphs)
    return [i for _, i in sorted(ranked)[: max(_FIXED_NODES // max(nodes, 1), 1)]]


def _around(graph: Graph | None, finding: Finding) -> _Picture | None:
    place = finding.location
    if graph is None:
        return None
    if place.index is not None:
        if not 0 <= place.index < len(graph.nodes):
            return None
        node = graph.nodes[place.index]
        operand = dict(finding.evidence).get("operand", "")
        return _Picture(node, operand if operand in node.inputs[:_SCANNED] else "")
    if place.value and (graph.owns(place.value) or graph.is_output(place.value)):
        return _Picture(_Value(_kind(graph, place.value), place.value, graph))
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

    def drawn(self, changed: Callable[[Node], bool] = lambda node: False) -> Neighbourhood:
        return _drawn(self.boxes, self.center, changed)


def _drawn(boxes: Iterable[_Thing], center: _Thing | None, changed: Callable[[Node], bool]) -> Neighbourhood:
    things = sorted(boxes, key=_order)
    index = {thing: i for i, thing in enumerate(things)}
    edges: dict[tuple[int, int, str], None] = {}
    for thing in things:
        for source, value, graph in _edges_into(thing):
            if source in index and source != thing:
                edges.setdefault((index[source], index[thing], _label(graph, value)))
    return Neighbourhood(
        tuple(_box(thing) for thing in things),
        tuple(edges),
        -1 if center is None else index[center],
        tuple(i for i, thing in enumerate(things) if isinstance(thing, Node) and changed(thing)),
    )


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


# What a fix makes of it

_Key = tuple[str, ...]


def _with_fix(view: GraphView, old: _Nodes, finding: Finding, rule: type[Rule], picture: _Picture) -> Finding:
    """The finding with its neighbourhood before and after its patch, or the reason why there is no picture."""
    from onnxlint.lint.rule import Unfixable

    why = ""
    fixed = view
    try:
        fixed = _patched(view, finding, rule)
    except (Unfixable, OnnxlintError) as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - a patch must not take the report down, which says what happened
        why = f"its patch failed with {type(error).__name__}: {printable(str(error))[:200]}; please report it"
    if why:
        return replace(finding, neighbourhood=picture.drawn(), after=why)
    new = _Nodes(fixed)
    kept = {thing: new.same(thing, old) for thing in picture.boxes}
    things = dict.fromkeys(thing for thing in kept.values() if thing is not None)
    pending = deque(things)
    while pending and len(things) < MOST + 2:
        thing = pending.popleft()
        for other in (*_before(thing), *_after(thing, MOST)):
            if isinstance(other, Node) and other not in things and new.key(other) not in old.nodes:
                things[other] = None
                pending.append(other)
    center = kept[picture.center]
    begun = [thing for thing in things if thing == center or (isinstance(thing, Node) and old.differs(thing, new))]
    if begun:
        things = dict.fromkeys(
            _connected(begun, things)
        )  # what the fix leaves alone, and no longer leads here, says nothing
    before = picture.drawn(lambda node: new.differs(node, old))
    after = _drawn(things, center, lambda node: old.differs(node, new))
    if replace(after, center=before.center) == before and not before.changed:
        return replace(finding, neighbourhood=before, after="the fix changes nothing that this picture shows")
    return replace(finding, neighbourhood=before, after=after if things else "nothing of this is left")


def _connected(start: Iterable[_Thing], things: Iterable[_Thing]) -> set[_Thing]:
    """Those of `things` that edges among them connect with `start`."""
    beside: dict[_Thing, set[_Thing]] = {thing: set() for thing in things}
    for thing in beside:
        for source, _, _ in _edges_into(thing):
            if source in beside:
                beside[thing].add(source)
                beside[source].add(thing)
    pending, seen = list(start), set(start)
    while pending:
        for other in beside[pending.pop()] - seen:
            seen.add(other)
            pending.append(other)
    return seen


def _patched(view: GraphView, finding: Finding, rule: type[Rule]) -> GraphView:
    """The model after the patch of one finding.

    Raises:
        Unfixable: It cannot be patched, or the fix concerns the model as a whole.
    """
    from onnxlint.lint.rule import Request, Rule, Unfixable
    from onnxlint.surgery.surgeon import Surgeon

    if rule.rewrite is not Rule.rewrite:
        raise Unfixable("the fix concerns the model as a whole")
    multiples = _multiples(finding.fix)
    request = Request(multiples=multiples)
    assumed = make_view(view.model, view.sources, multiples) if multiples else view
    surgeon = Surgeon(assumed)
    surgeon.begin()
    rule().patch(finding, assumed, surgeon, request)
    surgeon.end()
    return make_view(replace(view.model, proto=surgeon.close()), view.sources)


def _multiples(fix: Fix | None) -> tuple[tuple[str, int], ...]:
    """The condition of a fix on symbols."""
    clauses = (fix.condition or "").split(" and ") if fix is not None else []
    return tuple(found for clause in clauses if (found := read_clause(clause)) is not None)


class _Nodes:
    """The nodes of a model by what patches elsewhere leave as it is: their names or, where those say nothing, outputs."""

    def __init__(self, view: GraphView) -> None:
        self.graphs = {graph.path: graph for graph in view.graphs}
        self._names = Counter((graph.path, node.name) for graph in view.graphs for node in graph.nodes)
        self.nodes: dict[_Key, Node] = {self.key(node): node for graph in view.graphs for node in graph.nodes}

    def key(self, node: Node) -> _Key:
        place = node.graph.path, node.name
        return place if node.name and self._names[place] == 1 else (node.graph.path, node.op, *node.outputs)

    def same(self, thing: _Thing, others: _Nodes) -> _Thing | None:
        """A node or value of the other model in this one; None if it is gone."""
        if isinstance(thing, Node):
            return self.nodes.get(others.key(thing))
        graph = self.graphs.get(thing.graph.path)
        there = graph is not None and (graph.owns(thing.name) or graph.is_output(thing.name))
        return replace(thing, graph=graph) if there and graph is not None else None

    def differs(self, node: Node, others: _Nodes) -> bool:
        """Whether this model has no such node as a node of the other, or a different one."""
        mine = self.nodes.get(others.key(node))
        return mine is None or _signature(mine) != _signature(node)


def _signature(node: Node) -> tuple[object, ...]:
    """Signature of a node, without its data inputs."""
    inputs = [
        ("constant", name) if name and node.graph.is_constant(name) else ("data" if name else "", "")
        for name in node.inputs
    ]
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.proto.attribute)
    return node.proto.domain, node.op, inputs, attributes
