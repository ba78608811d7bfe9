"""What the TGT rules share: the targets that the user named, and which nodes of a model a target gets to see."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import GraphView, Node, Options, printable
from onnxlint.rulekit import GRAPH_OPS, Target, load_target


def targets(options: Options) -> list[Target]:
    """The targets that the user named, each once."""
    return list(dict.fromkeys(load_target(name) for name in options.targets))


def nodes_for(view: GraphView, target: Target, op: str) -> list[Node]:
    """Nodes of an operator that are still there when the target looks operators up."""
    if not target.folds:
        return list(view.nodes(op))
    live = data_nodes(view)
    return [node for node in view.nodes(op) if id(node) in live and not _does_nothing(node)]


def _does_nothing(node: Node) -> bool:
    if node.op == "CastLike":
        return 0 < node.graph.dtype(node.input(0)) == node.graph.dtype(node.input(1))
    return node.op == "Cast" and node.attribute("to") == node.graph.dtype(node.input(0))


def data_nodes(view: GraphView) -> set[int]:
    """Ids of the nodes that depend on what the user feeds, not on its shape alone: the others can be folded."""
    known: set[int] | None = view.memo.get("onnxlint_rules.data_nodes")
    if known is not None:
        return known
    live: set[int] = set()
    values: dict[int, set[str]] = {}
    for graph in view.graphs:
        parent = graph.parent
        names = set(graph.inputs) if parent is not None or graph.is_function else set(graph.data_inputs)
        if parent is not None:
            names |= values[id(parent)]
        for node in graph.order:
            if node.op in ("Shape", "Size"):
                continue
            if node.op in _SOURCES or "::" in node.op or not names.isdisjoint(node.inputs) or _has_live_body(node):
                live.add(id(node))
                names.update(node.outputs)
        names.discard("")
        values[id(graph)] = names
    view.memo["onnxlint_rules.data_nodes"] = live
    return live


_SOURCES = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


def _has_live_body(node: Node) -> bool:
    # An If whose condition is computed from shapes is folded with one of its bodies; loops are not.
    return node.op in GRAPH_OPS and node.op != "If"


def local_functions(view: GraphView) -> frozenset[str]:
    """Operators that the model itself defines as functions: a target inlines them."""
    return frozenset(f"{f.domain}::{f.name}" if f.domain else f.name for f in view.proto.functions)


def names_of(nodes: list[Node], most: int = 5) -> str:
    """`a, b, c, …`: the first nodes of many."""
    shown = [printable(node.name or f"{node.op} #{node.index}") for node in nodes[:most]]
    return ", ".join([*shown, "…"] if len(nodes) > most else shown)


def count(nodes: list[Node]) -> str:
    """` (3 nodes)`; empty for one."""
    return f" ({len(nodes)} nodes)" if len(nodes) > 1 else ""


def operators(view: GraphView) -> Iterator[str]:
    """Operators in use, but for those that the model defines itself, in a stable order."""
    own = local_functions(view)
    return (op for op in sorted(view.ops) if op not in own)
