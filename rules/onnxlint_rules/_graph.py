"""What rules of several prefixes share: which values are constants, attributes of broken files, and how nodes are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnxlint import Graph, GraphView, Node, listed, printable

if TYPE_CHECKING:
    import onnx

FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
FLOATS = (FLOAT, FLOAT16, DOUBLE, BFLOAT16)
"""TensorProto.DataType of the floating-point types that weights come in."""

OVERRIDABLE_SINCE = 4
"""IR version from which an initializer that is also listed as an input is a default that callers may override."""


def overridable(view: GraphView) -> frozenset[str]:
    """Initializers of the main graph that a caller may override: no runtime may treat them as constants."""
    if view.proto.ir_version < OVERRIDABLE_SINCE:
        return frozenset()
    key = "onnxlint_rules.overridable"
    known: frozenset[str] | None = view.memo.get(key)
    if known is None:
        initializers = view.main.initializers
        known = view.memo[key] = frozenset(name for name in view.main.inputs if name in initializers)
    return known


def is_fixed(graph: Graph, name: str) -> bool:
    """Whether a value is an initializer that nobody may override, or comes from a Constant node; of any size."""
    owner = graph.owner(name) if name else None
    if owner is None:
        return False
    if name in owner.initializers or name in owner.sparse_initializers:
        return owner is not graph.view.main or name not in overridable(graph.view)
    node = owner.producer(name)
    return node is not None and node.op == "Constant"


def fixed_tensor(graph: Graph, name: str) -> onnx.TensorProto | None:
    """The tensor behind a constant, through any Identity; None for what is not one dense tensor."""
    for _ in range(64):
        owner = graph.owner(name) if name else None
        if owner is None:
            return None
        tensor = owner.initializers.get(name)
        if tensor is not None:
            return None if owner is graph.view.main and name in overridable(graph.view) else tensor
        node = owner.producer(name)
        if node is None:
            return None
        if node.op == "Constant":
            return constant_tensor(node)
        if node.op != "Identity":
            return None
        graph, name = node.graph, node.input(0)
    return None


def places_of(view: GraphView, nodes: Iterable[Node]) -> tuple[tuple[str, int | None], ...]:
    """Places of nodes, for `covers` of a finding; without those in graphs that share their path with another."""
    paths = _paths(view)
    return tuple((node.graph.path, node.index) for node in nodes if paths[node.graph.path] == 1)


def whole_graphs(view: GraphView, graphs: Iterable[Graph]) -> tuple[tuple[str, int | None], ...]:
    """Places of whole graphs and of all that are nested in them, for `covers` of a finding."""
    paths, found = _paths(view), list(graphs)
    for graph in found:
        found += graph.children
    return tuple((graph.path, None) for graph in found if paths[graph.path] == 1)


def _paths(view: GraphView) -> Counter[str]:
    """How many graphs have each path."""
    key = "onnxlint_rules.paths"
    known: Counter[str] | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = Counter(graph.path for graph in view.graphs)
    return known


def is_parametric(node: Node) -> bool:
    """Whether it is in a function whose caller gives some of its attributes: nothing is known of these."""
    return any(attribute.ref_attr_name for attribute in node.proto.attribute)


def integer(node: Node, name: str, default: int) -> int:
    """An integer attribute; the default where it is absent or, in a broken file, of another type."""
    value = node.attribute(name)
    return value if isinstance(value, int) else default


def integers(node: Node, name: str) -> list[int] | None:
    """A list of integers in an attribute; None if it is absent or, in a broken file, of another type."""
    value = node.attribute(name)
    return value if isinstance(value, list) and all(isinstance(item, int) for item in value) else None


def constant_integers(node: Node, i: int) -> list[int] | None:
    """Integers of a small constant input; None if it is absent, no constant or, in a broken file, of another type."""
    value = node.numbers(i)
    return None if value is None or value.kind not in "iu" else list(value.values)


def constant_reals(node: Node, i: int) -> list[float] | None:
    """Numbers of a small constant input; None if it is absent, no constant or, in a broken file, of another type."""
    value = node.numbers(i)
    return None if value is None or value.kind == "b" else [float(item) for item in value.values]


def constant_tensor(node: Node) -> onnx.TensorProto | None:
    """The tensor that a Constant node holds; None if it holds something else."""
    return next((a.t for a in node.proto.attribute if a.name == "value" and a.HasField("t")), None)


_OTHER_EXPORTERS = (
    "caffe",
    "coreml",
    "darknet",
    "keras",
    "mxnet",
    "onnxmltools",
    "paddle",
    "skl2onnx",
    "tf2onnx",
    "tflite",
)


def is_from_elsewhere(view: GraphView) -> bool:
    """Whether the file names another program than PyTorch as its maker: advice about torch.onnx.export does not fit."""
    key = "onnxlint_rules.is_from_elsewhere"
    known: bool | None = view.memo.get(key)
    if known is None:
        maker = view.proto.producer_name.lower()
        # Paddle2ONNX names itself in some versions only, and its nodes in all.
        known = any(name in maker for name in _OTHER_EXPORTERS) or (
            not maker and any(node.name.startswith("p2o.") for node in view.main.nodes)
        )
        view.memo[key] = known
    return known


def advice(view: GraphView, torch: str, elsewhere: str) -> str:
    """Help that fits the exporter: `torch` unless another one made the file."""
    return elsewhere if is_from_elsewhere(view) else torch


def label(node: Node) -> str:
    """A node's name or, where it has none, its operator and position; safe to show."""
    return printable(node.name or f"{node.op} #{node.index}")


def names_shown(names: Iterable[str], limit: int = 3) -> str:
    """`a, b, c and 4 more`; safe to show."""
    return listed(map(printable, names), limit)


WEIGHT_OPERANDS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "GRU": (1, 2),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}
"""Operators that multiply their input with weights, and which operands can be these."""


PARAMETER_OPERANDS: dict[str, tuple[int, ...]] = {
    "Pad": (1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Upsample": (1,),
}
"""Operators with operands that converters turn into parameters of a layer, and which these are."""


def hides(node: Node) -> str:
    """Role of a constant that a node computes: `weights`, `parameters of Resize`, or nothing.

    Quantizers and converters look for weights and parameters among the initializers.
    """
    outputs = set(node.outputs)
    found = ""
    for reader in node.consumers():
        if any(reader.input(i) in outputs for i in WEIGHT_OPERANDS.get(reader.op, ())):
            return "weights"
        if any(reader.input(i) in outputs for i in PARAMETER_OPERANDS.get(reader.op, ())):
            found = found or f"parameters of {reader.op}"
    return found
