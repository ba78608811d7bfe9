"""Which nodes no output depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnxlint import Graph, GraphView, Node


def liveness(view: GraphView) -> Liveness:
    """What lives in a model; made once."""
    key = "onnxlint_rules.liveness"
    known: Liveness | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = Liveness(view)
    return known


class Liveness:
    """Which nodes no output depends on.

    A node lives where a living node or an output of its graph reads it. In a graph without cycles only nodes that nobody
    reads can be the end of a dead part, so the walk starts from these: its cost is one look at each node, and the
    size of what is dead.
    """

    def __init__(self, view: GraphView) -> None:
        # Outer values that a nested graph returns as they are.
        self._returned: set[tuple[int, str]] = set()
        for graph in view.graphs:
            if graph.parent is not None:
                for name in graph.outputs:
                    owner = graph.owner(name)
                    if owner is not None and owner is not graph:
                        self._returned.add((id(owner), name))
        self._bodies: dict[int, list[Graph]] = {}
        for graph in view.graphs:
            if graph.parent_node is not None:
                self._bodies.setdefault(id(graph.parent_node), []).append(graph)
        self.dead: dict[int, Node] = {}
        self._readers: dict[int, int] = {}  # readers that are not known to be dead
        self._gone: set[tuple[str, int]] = set()  # (name, reader) pairs that have been taken off
        unread: list[Node] = []
        for graph in view.graphs:
            read = graph.read_names()
            unread += [node for node in graph.nodes if read.isdisjoint(node.outputs) and self._is_unread(node)]
        self._walk(unread)

    def is_read(self, graph: Graph, name: str) -> bool:
        """Whether any node, dead or alive, or an output reads a value that this graph defines."""
        return bool(graph.consumers(name)) or graph.is_output(name) or (id(graph), name) in self._returned

    def matters(self, graph: Graph, name: str) -> bool:
        """Whether an output depends on a value that this graph defines."""
        if graph.is_output(name) or (id(graph), name) in self._returned:
            return True
        return any(
            id(reader) not in self.dead and not self.is_inside_dead(reader.graph) for reader in graph.consumers(name)
        )

    def _is_unread(self, node: Node) -> bool:
        graph = node.graph
        return bool(node.outputs) and "::" not in node.op and not any(self.is_read(graph, n) for n in node.outputs if n)

    def _walk(self, unread: list[Node]) -> None:
        queue = list(unread)
        self.dead.update((id(node), node) for node in unread)
        for node in queue:
            for name, reader in self.reads(node):
                if (name, id(reader)) in self._gone:
                    continue
                self._gone.add((name, id(reader)))
                producer = reader.graph.producer(name)
                if producer is None or id(producer) in self.dead or "::" in producer.op:
                    continue
                key = id(producer)
                if key not in self._readers:
                    self._readers[key] = self._count(producer)
                self._readers[key] -= 1
                if self._readers[key] == 0:
                    self.dead[key] = producer
                    queue.append(producer)

    def _count(self, node: Node) -> int:
        """How many pairs of (output, reader) keep a node alive; never 0 if an output of the graph does."""
        graph = node.graph
        if any(graph.is_output(name) or (id(graph), name) in self._returned for name in node.outputs if name):
            return sum(len(graph.consumers(name)) for name in node.outputs if name) + 1
        return sum(len(graph.consumers(name)) for name in node.outputs if name)

    def reads(self, node: Node) -> Iterator[tuple[str, Node]]:
        """(name, reader) of what a node reads, and what its nested graphs read; each pair once."""
        pending = [node]
        while pending:
            reader = pending.pop()
            yield from ((name, reader) for name in dict.fromkeys(reader.inputs) if name)
            for body in self._bodies.get(id(reader), ()):
                pending.extend(body.nodes)

    def bodies_of(self, nodes: Iterable[Node]) -> list[Graph]:
        """Graphs nested directly in some nodes."""
        return [body for node in nodes for body in self._bodies.get(id(node), ())]

    def is_inside_dead(self, graph: Graph) -> bool:
        """Whether a graph is nested in a dead node."""
        here: Graph | None = graph
        while here is not None:
            if here.parent_node is not None and id(here.parent_node) in self.dead:
                return True
            here = here.parent
        return False
