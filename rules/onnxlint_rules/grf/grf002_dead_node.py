"""GRF002: nodes and initializers that no output depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from onnxlint import SAFE, Example, Finding, Graph, GraphView, Node, Options, Request, Rule, Severity, Silent, counted
from onnxlint.rulekit import byte_size, tensor_bytes
from onnxlint_rules._graph import constant_tensor, label, names_shown, overridable, places_of, whole_graphs
from onnxlint_rules._patching import each, is_held
from onnxlint_rules.grf._liveness import Liveness, liveness

if TYPE_CHECKING:
    from onnxlint import Surgeon

HEAVY = 1_000_000
"""Unread data of this many bytes is worth a warning: it is shipped to every device."""


class DeadNode(Rule):
    """Nodes or initializers that no output depends on.

    ## What it does

    Reports each group of connected nodes from which no path leads to a graph output, named by the node that it ends in,
    and once for each graph the initializers and Constant nodes that nothing reads. What a nested graph (If, Loop, Scan)
    reads from around it counts as read. Operators of other domains are taken to have a purpose of their own.

    A warning from 1 MB of unread data on, else for information.

    ## Why it hurts

    - Unread weights are shipped all the same. onnxruntime says `Removing initializer … It is not used by any node and
      should be removed from the model` for each of them, at every start.
    - Runtimes that do not look for dead nodes compute them; calibration collects ranges for them; ncnn keeps them as
      further outputs.
    - A head that was meant to be an output and is not looks just like this.

    ## Fix it at the source

    ```python
    # before
    def forward(self, x):
        features = self.backbone(x)
        aux = self.aux_head(features)  # for training only
        return self.head(features)
    # after
    def forward(self, x):
        features = self.backbone(x)
        if self.training:
            return self.head(features), self.aux_head(features)
        return self.head(features)
    ```

    ## Fix safety

    Exact: nothing that is removed has a way to an output, and operators of the ONNX standard have no side effects. An
    unread initializer that is listed as an input is part of the interface, and stays.

    ## References

    - [onnxruntime#6094](https://github.com/microsoft/onnxruntime/issues/6094): a log full of the message quoted above
    - [Graph optimizations in ONNX Runtime](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html)
    """

    code = "GRF002"
    name = "dead-node"
    apart = True
    severity = Severity.INFO
    help = "remove it, or add it to the outputs if it should be one"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                y = Relu (x)
                a = MatMul (x, w)
                b = Sigmoid (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) {
                y = Relu (x)
            }
            """,
            says="no output depends on 2 nodes (MatMul → Sigmoid), which read 16 bytes of weights",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}, int64 batches_tracked = {7}> {
                y = MatMul (x, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            says="nothing reads 1 initializer, 8 bytes (batches_tracked)",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, bool c) => (float[N,2] y) <float[2] w = {1, 2}> {
                t = Relu (x)
                y = If (c) <
                    then_branch = then () => (float[N,2] a) { a = Mul (t, w) },
                    else_branch = other () => (float[N,2] b) { b = Identity (x) }
                >
            }
            """,
            why="the branch reads the node and the initializer",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,2] a) <int64[2] parts = {2, 2}> {
                a, b = Split <axis = 1> (x, parts)
            }
            """,
            why="one of its two outputs is read",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        state = liveness(view)
        dead = state.dead
        by_graph: dict[int, list[Node]] = {}
        for node in dead.values():
            by_graph.setdefault(id(node.graph), []).append(node)
        for graph in view.graphs:
            if state.is_inside_dead(graph):
                continue
            nodes = sorted(by_graph.get(id(graph), []), key=lambda node: node.index)
            constants = []
            for tail in _tails(nodes, state):
                if tail.nodes[-1].op == "Constant":
                    constants.append(tail.nodes[-1])
                else:
                    yield self._tail(view, tail, state)
            yield from self._unread(view, graph, state, constants)

    def _tail(self, view: GraphView, tail: _Tail, state: Liveness) -> Finding:
        ops = [node.op for node in tail.nodes if node.op != "Constant"]
        way = " → ".join(ops if len(ops) <= 4 else [ops[0], "…", ops[-1]])
        size = _weight_bytes(tail)
        reads = f", which read{'s' if len(ops) == 1 else ''} {byte_size(size)} of weights" if size else ""
        return self.found(
            view.at(tail.end),
            f"no output depends on {counted(len(ops), 'node')} ({way}){reads}",
            severity=Severity.WARNING if size >= HEAVY else None,
            nodes=names_shown((label(node) for node in tail.nodes), 10),
            bytes=size,
            fix=SAFE if is_held(tail.end.graph) else None,
            covers=(*places_of(view, tail.nodes), *whole_graphs(view, state.bodies_of(tail.nodes))),
        )

    def _unread(self, view: GraphView, graph: Graph, state: Liveness, constants: list[Node]) -> Iterator[Finding]:
        if view.proto.training_info and graph is view.main:
            return  # the training graphs read the main graph's initializers
        names, size = [], 0
        interface = overridable(view) if graph is view.main else frozenset()
        for name, tensor in graph.initializers.items():
            if not state.is_read(graph, name) and name not in interface:
                names.append(name)
                size += tensor_bytes(tensor) or 0
        for name, sparse in graph.sparse_initializers.items():
            if not state.is_read(graph, name):
                names.append(name)
                size += (tensor_bytes(sparse.values) or 0) + (tensor_bytes(sparse.indices) or 0)
        for node in constants:
            held = constant_tensor(node)
            size += (tensor_bytes(held) or 0) if held is not None else 0
        if not names and not constants:
            return
        kinds = [counted(len(names), "initializer")] if names else []
        kinds += [counted(len(constants), "Constant node")] if constants else []
        shown = [*names, *(node.output() for node in constants)]
        place = view.at(value=names[0], graph=graph) if names else view.at(constants[0])
        yield self.found(
            place,
            f"nothing reads {' and '.join(kinds)}, {byte_size(size)} ({names_shown(shown)})",
            severity=Severity.WARNING if size >= HEAVY else None,
            help="remove them",
            bytes=size,
            fix=SAFE if is_held(graph) else None,
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        state = liveness(view)
        place = finding.location
        if place.op_type and place.op_type != "Constant":
            end = view.find(place)
            each(surgeon, _tails_by_end(view, state, end.graph)[id(end)].nodes, surgeon.remove_dead)
            return
        graph = next(graph for graph in view.graphs if graph.path == place.graph)
        interface = overridable(view) if graph is view.main else frozenset()
        for name in (*graph.initializers, *graph.sparse_initializers):
            if not state.is_read(graph, name) and name not in interface:
                surgeon.drop_initializer(graph, name)
        for tail in _tails_by_end(view, state, graph).values():
            if tail.nodes[-1].op == "Constant":
                surgeon.remove_dead(tail.nodes[-1])


def _dead(state: Liveness, graph: Graph) -> list[Node]:
    """Dead nodes of a graph, in the order of the file."""
    return sorted((node for node in state.dead.values() if node.graph is graph), key=lambda node: node.index)


class _Tail(NamedTuple):
    """Connected dead nodes, in the order of the file, and the last of them that no other reads."""

    nodes: list[Node]
    end: Node


def _tails(nodes: list[Node], state: Liveness) -> list[_Tail]:
    """Groups of connected dead nodes of one graph, in the order of the file."""
    leader: dict[int, int] = {id(node): id(node) for node in nodes}

    def find(key: int) -> int:
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    inner: set[int] = set()
    for node in nodes:
        for name, reader in state.reads(node):
            producer = reader.graph.producer(name)
            if producer is not None and id(producer) in leader:
                leader[find(id(producer))] = find(id(node))
                inner.add(id(producer))
    groups: dict[int, list[Node]] = {}
    for node in nodes:
        groups.setdefault(find(id(node)), []).append(node)
    return [
        _Tail(group, next((node for node in reversed(group) if id(node) not in inner), group[-1]))
        for group in groups.values()
    ]


def _tails_by_end(view: GraphView, state: Liveness, graph: Graph) -> dict[int, _Tail]:
    """The groups of a graph by the identity of their last nodes, found once for all patches of a view."""
    key = f"dead tails {id(graph)}"
    if key not in view.memo:
        view.memo[key] = {id(tail.end): tail for tail in _tails(_dead(state, graph), state)}
    tails: dict[int, _Tail] = view.memo[key]
    return tails


def _weight_bytes(tail: _Tail) -> int:
    """Bytes of the constants that only these nodes read."""
    graph = tail.nodes[0].graph
    reads = Counter(name for node in tail.nodes for name in set(node.inputs) if name in graph.initializers)
    size = sum(
        tensor_bytes(graph.initializers[name]) or 0
        for name, count in reads.items()
        if count == len(graph.consumers(name)) and not graph.is_output(name)
    )
    for node in tail.nodes:
        if node.op == "Constant" and (tensor := constant_tensor(node)) is not None:
            size += tensor_bytes(tensor) or 0
    return size
