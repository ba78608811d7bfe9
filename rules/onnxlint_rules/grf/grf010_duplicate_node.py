"""GRF010: nodes that compute what another node has computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Node, Options, Request, Rule, Severity, Silent, listed
from onnxlint.rulekit import GRAPH_OPS, STANDARD_DOMAINS
from onnxlint_rules._graph import fixed_tensor, label, names_shown
from onnxlint_rules._patching import each, is_held
from onnxlint_rules.shp._answers import replaced_nodes

if TYPE_CHECKING:
    from onnxlint import Graph, Surgeon

_NEVER = GRAPH_OPS | frozenset(
    """Bernoulli DequantizeLinear Dropout Identity Multinomial QuantizeLinear RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike""".split()
)
"""Random operators, those with bodies, the quantized form of tensors, which runtimes fuse with each reader, and copies."""


class DuplicateNode(Rule):
    """A node computes what another node has computed already.

    ## What it does

    Reports nodes of the same operator and attributes that read the same values or equal small constants, once for the
    whole model. What reads a duplicate counts as reading the first node, so that repeated sequences are found as a whole.

    Left out are random operators, operators with bodies, operators of other domains, QuantizeLinear and
    DequantizeLinear, which runtimes want next to each reader, nodes that GRF004 and SHP002 remove anyway, and nodes whose
    outputs both have to keep their names because the graph returns them.

    ## Why it hurts

    - The work is done twice, and the result held twice. Big runtimes merge such nodes at start; ncnn and the runtimes of
      microcontrollers and NPUs run them all.
    - Typical causes: a layer that is called for several readers (`norm(x)` for queries, keys and values), sizes and
      masks that each layer computes anew, and quantizers that write the same scale for the bias and for the output.

    ## Fix it at the source

    ```python
    # before
    q, k = self.q(self.norm(x)), self.k(self.norm(x))
    # after
    y = self.norm(x)
    q, k = self.q(y), self.k(y)
    ```

    ## Fix safety

    Exact: all readers read the first node's outputs. A graph output keeps its name.

    ## References

    - [EliminateCommonSubexpression](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html) in ONNX Runtime
    - [onnx_ir.passes.common.CommonSubexpressionEliminationPass](https://onnx.ai/ir-py/api/ir_passes_common.html)
    """  # noqa: E501 - one link a line

    code = "GRF010"
    name = "duplicate-node"
    severity = Severity.INFO
    help = "remove it and connect its consumers to the first node"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <float one = {1}, float uno = {1}> {
                a = Relu (x)
                b = Add (a, one)
                c = Relu (x)
                d = Add (c, uno)
                y = Mul (b, d)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <float one = {1}> {
                a = Relu (x)
                b = Add (a, one)
                y = Mul (b, b)
            }
            """,
            says="2 nodes compute what other nodes have computed: Add and Relu",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
                a = Sigmoid (x)
                z = Neg (a)
                y = Sigmoid (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
                y = Sigmoid (x)
                z = Neg (y)
            }
            """,
            says="1 node computes what another node has computed: Sigmoid",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[N,4] z) <float slope = {0.5}, float steeper = {0.25}> {
                a = LeakyRelu <alpha = 0.1> (x)
                b = LeakyRelu <alpha = 0.2> (x)
                y = PRelu (a, slope)
                z = PRelu (b, steeper)
            }
            """,
            why="attributes differ",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
                y = Relu (x)
                z = Relu (x)
            }
            """,
            why="the graph returns both, by two names",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                a = RandomNormalLike (x)
                b = RandomNormalLike (x)
                y = Sub (a, b)
            }
            """,
            why="they draw different numbers",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x, bool c) => (float[N,4] y) {
                a = Relu (x)
                b = If (c) <
                    then_branch = then () => (float[N,4] p) { p = Relu (x) },
                    else_branch = other () => (float[N,4] q) { q = Neg (x) }
                >
                y = Add (a, b)
            }
            """,
            why="the second one runs only in one branch",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        found = [node for node, _ in _duplicates(view)]
        if not found:
            return
        ops = Counter(node.op for node in found)
        kinds = listed(f"{count:,} {op}" if len(found) > len(ops) else op for op, count in sorted(ops.items()))
        one = len(found) == 1
        yield self.found(
            view.at(found[0]),
            f"1 node computes what another node has computed: {kinds}"
            if one
            else f"{len(found):,} nodes compute what other nodes have computed: {kinds}",
            nodes=names_shown(map(label, found), 10),
            count=len(found),
            fix=SAFE,
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        firsts = {id(node): first for node, first in _duplicates(view)}

        def merge(node: Node) -> None:
            held, first = surgeon.node(node), surgeon.node(firsts[id(node)])
            pairs = [(a, b) for a, b in zip(list(held.outputs), list(first.outputs), strict=True) if a.name]
            for before, instead in pairs:
                surgeon.replace_value(before, instead, node)

        each(surgeon, (node for node, _ in _duplicates(view)), merge)


def _duplicates(view: GraphView) -> list[tuple[Node, Node]]:
    """(duplicate, first node) pairs that can be merged, in topological order; made once."""
    known: list[tuple[Node, Node]] | None = view.memo.get("onnxlint_rules.duplicate_nodes")
    if known is None:
        known = [pair for graph in view.graphs if is_held(graph) for pair in _of_graph(graph)]
        if not _reads_shapes_only(known):
            gone = replaced_nodes(view)
            known = [(node, first) for node, first in known if id(node) not in gone]
        if _reads_shapes_only(known):
            known = []  # it costs nothing to read a shape twice
        view.memo["onnxlint_rules.duplicate_nodes"] = known
    return known


def _reads_shapes_only(pairs: Iterable[tuple[Node, Node]]) -> bool:
    return all(node.op == "Shape" for node, _ in pairs)


def _of_graph(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Pairs of one graph. Nodes are told apart by what costs little; attributes are compared where that is not enough."""
    never = _NEVER | {one.name for one in graph.view.proto.functions if one.domain in STANDARD_DOMAINS}
    constants = set(graph.initializers)
    same: dict[str, str] = {}
    alike: dict[tuple[Hashable, ...], Node] = {}
    exact: dict[Hashable, Node] = {}
    compared: set[Hashable] = set()
    pairs: list[tuple[Node, Node]] = []
    for node in graph.order:
        if not node.inputs:
            if node.op == "Constant":
                constants.update(node.outputs)
            continue
        if node.op == "Identity" and node.inputs[0] in constants:
            constants.update(node.outputs)
            continue
        key = (node.op, *[None if name in constants else same.get(name, name) for name in node.inputs])
        other = alike.setdefault(key, node)
        if other is node or node.op in never or "::" in node.op or not any(key[1:]):
            continue
        if key not in compared:
            compared.add(key)
            exact[key, _details(other, key)] = other
        first = exact.setdefault((key, _details(node, key)), node)
        if first is node or any(a and not b for a, b in zip(node.outputs, first.outputs, strict=True)):
            continue
        same.update((a, b) for a, b in zip(node.outputs, first.outputs, strict=True) if a)
        pairs.append((node, first))
    return _mergeable(graph, pairs) if pairs else iter(())


def _details(node: Node, key: Sequence[Hashable]) -> Hashable:
    """What decides, with the operator and its computed inputs, what a node computes."""
    constants = [_content(node, i) for i, name in enumerate(key[1:]) if name is None]
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.proto.attribute)
    return (len(node.outputs), tuple(constants), tuple(attributes))


def _content(node: Node, i: int) -> Hashable:
    """What equal constants have in common: their bytes or numbers, and their type; the name where these are not at hand."""
    tensor = fixed_tensor(node.graph, node.input(i))
    if tensor is not None and tensor.HasField("raw_data") and len(tensor.raw_data) <= _LARGEST:
        return (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
    numbers = node.numbers(i)
    if numbers is None or any(number != number for number in numbers.values):
        return node.input(i)
    return numbers._replace(values=(repr(numbers.values),))  # 0.0 equals -0.0


_LARGEST = 2**16
"""Bytes of constants that are compared at most."""


def _mergeable(graph: Graph, pairs: Iterable[tuple[Node, Node]]) -> Iterator[tuple[Node, Node]]:
    """The pairs after whose merging all that read or return a value still find it by its name."""
    below = _names_below(graph)
    renamed: set[int] = set()
    for node, first in pairs:
        if not below.isdisjoint((*node.outputs, *first.outputs)):
            continue
        if any(map(graph.is_output, node.outputs)):
            # The first takes the name over, unless it has to keep its own.
            if len(node.outputs) > 1 or graph.is_output(first.output()) or id(first) in renamed:
                continue
            renamed.add(id(first))
        elif not node.consumers():
            continue  # GRF002: it is dead
        yield node, first


def _names_below(graph: Graph) -> set[str]:
    """Names that nested graphs define or return: these, or the values behind them, cannot change."""
    names: set[str] = set()
    pending = list(graph.children)
    while pending:
        child = pending.pop()
        names.update(child.inputs, child.outputs, child.initializers)
        names.update(name for node in child.nodes for name in node.outputs)
        pending += child.children
    return names
