"""Nodes of a graphsurgeon graph: which are dead, which values nested graphs capture, in which order they run."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def is_graph(value: object) -> bool:
    """Whether an attribute's value is a graph of graphsurgeon's."""
    import onnx_graphsurgeon as gs

    return isinstance(value, gs.Graph)  # gs.Graph answers hasattr with a log line, so types are asked


def dead_nodes(graph: gs.Graph, kept: AbstractSet[int] = frozenset()) -> list[gs.Node]:
    """Nodes that no output depends on, however far, and no node in `kept` (ids)."""
    outputs = {tensor.name for tensor in graph.outputs}
    inside = captured(graph.nodes)
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            uses[tensor.name] = uses.get(tensor.name, 0) + 1
    makers = {tensor.name: node for node in graph.nodes for tensor in node.outputs if tensor.name}

    def is_dead(node: gs.Node) -> bool:
        return id(node) not in kept and not any(
            t.name and (t.name in outputs or t.name in inside or uses.get(t.name)) for t in node.outputs
        )

    dead: list[gs.Node] = []
    seen: set[int] = set()
    pending = [node for node in graph.nodes if is_dead(node)]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        dead.append(node)
        for tensor in node.inputs:
            if not tensor.name:
                continue
            uses[tensor.name] -= 1
            maker = makers.get(tensor.name)
            if maker is not None and uses[tensor.name] == 0 and is_dead(maker):
                pending.append(maker)
    return dead


def captured(nodes: Sequence[gs.Node]) -> set[str]:
    """Names that the graphs nested in some nodes read from outside, or return."""
    names: set[str] = set()
    pending = [node for node in nodes if node.attrs]
    while pending:
        for body in pending.pop().attrs.values():
            if is_graph(body):
                names.update(tensor.name for tensor in body.outputs)
                for inner in body.nodes:
                    names.update(tensor.name for tensor in inner.inputs)
                    pending.append(inner)
    return names


def in_order(graph: gs.Graph) -> Iterator[gs.Node]:
    """Nodes in topological order, as near to their present order as that allows.

    Patches append nodes at the end: each moves up to just before its first reader.
    """
    nodes = graph.nodes
    if _is_sorted(nodes):
        yield from nodes
        return
    place = {id(node): i for i, node in enumerate(nodes)}
    makers = {tensor.name: node for node in nodes for tensor in node.outputs if tensor.name}
    needs: dict[int, set[int]] = {}
    readers: dict[int, list[gs.Node]] = {}
    for node in nodes:
        wanted = {t.name for t in node.inputs if t.name}
        if any(map(is_graph, node.attrs.values())):
            wanted |= captured([node])
        for name in wanted:
            maker = makers.get(name)
            if maker is not None and maker is not node:
                needs.setdefault(id(node), set()).add(id(maker))
                readers.setdefault(id(maker), []).append(node)
    # A node's rank is the smallest place among its own and its readers'.
    rank = dict(place)
    for node in reversed(list(_topological(nodes, needs, readers, place))):
        for reader in readers.get(id(node), ()):
            rank[id(node)] = min(rank[id(node)], rank[id(reader)])
    yield from _topological(nodes, needs, readers, rank)


def _is_sorted(nodes: Sequence[gs.Node]) -> bool:
    """Whether no node, itself or in its bodies, reads an output of a later one."""
    coming = {tensor.name for node in nodes for tensor in node.outputs}
    coming.discard("")
    for node in nodes:
        if any(tensor.name in coming for tensor in node.inputs):
            return False
        if node.attrs and any(map(is_graph, node.attrs.values())) and not coming.isdisjoint(captured([node])):
            return False
        coming.difference_update([tensor.name for tensor in node.outputs])
    return True


def _topological(
    nodes: list[gs.Node], needs: dict[int, set[int]], readers: dict[int, list[gs.Node]], rank: dict[int, int]
) -> Iterator[gs.Node]:
    """Kahn's algorithm, the smallest rank first."""
    place = {id(node): i for i, node in enumerate(nodes)}
    waiting = {key: len(value) for key, value in needs.items()}
    heap = [(rank[id(node)], place[id(node)]) for node in nodes if not waiting.get(id(node))]
    heapq.heapify(heap)
    while heap:
        node = nodes[heapq.heappop(heap)[1]]
        yield node
        for reader in readers.get(id(node), ()):
            waiting[id(reader)] -= 1
            if waiting[id(reader)] == 0:
                heapq.heappush(heap, (rank[id(reader)], place[id(reader)]))
