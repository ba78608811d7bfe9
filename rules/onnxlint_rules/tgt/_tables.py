"""What the TGT rules share: the targets that the user named, and which nodes of a model a target gets to see."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import GraphView, Node, Options, printable
from onnxlint.rulekit import GRAPH_OPS, Target, exact_sizes, is_invented, load_target


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
            fed = node.op in _SOURCES or "::" in node.op or not names.isdisjoint(node.inputs)
            if fed or _has_live_body(node):
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
    # An If whose condition the sizes of the inputs settle is folded with one of its bodies; others and loops are not.
    if node.op != "If":
        return node.op in GRAPH_OPS
    condition = exact_sizes(node.graph.view).val(node, 0)
    return condition is None or not all(isinstance(number, int) for number in condition.numbers)


def varying_rank(node: Node) -> str:
    """How the rank of a node's output depends on sizes, in words; empty if it does not, or is not known to."""
    return _rank_of_if(node) if node.op == "If" else _rank_of_squeeze(node)


def _rank_of_if(node: Node) -> str:
    branches = {g.path.rsplit(".", 1)[-1]: g for g in node.graph.children if g.parent_node is node}
    then, other = branches.get("then_branch"), branches.get("else_branch")
    if then is None or other is None:
        return ""
    for one, two in zip(then.outputs, other.outputs, strict=False):
        shapes = then.shape(one), other.shape(two)
        if shapes[0] is not None and shapes[1] is not None and len(shapes[0]) != len(shapes[1]):
            ranks = len(shapes[0]), len(shapes[1])
            when = _condition(node)
            return f"{ranks[0]} where {when}, else {ranks[1]}" if when else f"{ranks[0]} or {ranks[1]}"
    return ""


def _rank_of_squeeze(node: Node) -> str:
    shape = node.shape(0)
    if node.op != "Squeeze" or shape is None or node.input(1) or node.attribute("axes") is not None:
        return ""
    rank = sum(size != 1 for size in shape)
    free = [size for size in shape if not isinstance(size, int)]
    if len(free) == 1 and not is_invented(free[0]):
        return f"rank {rank - 1} where {printable(str(free[0]))} is 1, else {rank}"
    return f"rank {rank - len(free)} to {rank}" if free else ""


_COMPARED = {"Equal": "==", "Greater": ">", "GreaterOrEqual": ">=", "Less": "<", "LessOrEqual": "<="}


def _condition(node: Node) -> str:
    """`C == 1`: the comparison of sizes that an If depends on; empty if it is no single one."""
    maker = node.producer(0)
    while maker is not None and maker.op in ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"):
        maker = maker.producer(0)
    if maker is None or maker.op not in _COMPARED:
        return ""
    symbolic = exact_sizes(node.graph.view)
    values = symbolic.val(maker, 0), symbolic.val(maker, 1)
    if any(value is None or len(value.numbers) != 1 or value.numbers[0] is None for value in values):
        return ""
    sides = [str(value.numbers[0]) for value in values if value is not None]
    return printable(f"{sides[0]} {_COMPARED[maker.op]} {sides[1]}")


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
