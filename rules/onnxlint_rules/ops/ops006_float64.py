"""OPS006: the model computes in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    Graph,
    GraphView,
    Location,
    Node,
    OnnxlintError,
    Options,
    Request,
    Rule,
    Silent,
    Unfixable,
    printable,
)
from onnxlint.rulekit import exact_sizes
from onnxlint_rules._graph import names_shown

if TYPE_CHECKING:
    import onnx

_FLOAT, _DOUBLE = 1, 11
_MAKERS = ("Bernoulli", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_SPREAD = frozenset({"ConstantOfShape", "Expand", "Range", "Tile", "Where"})
_SMALL = 16
"""Tensors of so few numbers are shapes and factors, not data."""


class _Entry(NamedTuple):
    """Where float64 comes from: a value, what it is, and the node that makes it."""

    graph: Graph
    value: str
    kind: str
    node: Node | None = None


class Float64(Rule):
    """Tensors are computed in float64.

    ## What it does

    Reports a model in which nodes compute in float64, and where that type enters: a graph input, a Cast, weights or a
    constant. It leaves alone constants and shape arithmetic of a few numbers, values that are cast to another type at
    once, and the trees and linear models of `ai.onnx.ml`, which have reasons for thresholds in float64.

    ## Why it hurts

    - ONNX Runtime has no float64 kernels for the operators that matter: `NOT_IMPLEMENTED: Could not find an
      implementation for Conv(11)`. BatchNormalization and Cos had none either for years.
    - TensorRT casts down to float32 and clamps. So the numbers are not those that were tested.
    - ncnn, phones and NPUs have no float64 at all; GPUs run it at a small part of their float32 speed, and weights take
      twice the memory.
    - It comes in unnoticed: a NumPy scalar, `torch.tensor(np.array(...))`, `.double()` in pre-processing.

    ## Fix it at the source

    ```python
    # before
    self.register_buffer("mean", torch.tensor(np.array([123.7, 116.3, 103.5])))
    # after
    self.register_buffer("mean", torch.tensor([123.7, 116.3, 103.5], dtype=torch.float32))
    ```

    ## Fix safety

    Float32 changes results in about the seventh digit, and overflows beyond 3.4e38. Sums of many terms and differences
    of large numbers lose more: compare outputs.

    ## References

    - [ONNX Runtime: Conv has no float64](https://github.com/microsoft/onnxruntime/issues/7546), and
      [BatchNormalization](https://github.com/microsoft/onnxruntime/issues/2874) and
      [Cos](https://github.com/microsoft/onnxruntime/issues/19710)
    - [onnx-tensorrt: supported types](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md): `TensorRT will
      attempt to cast DOUBLE down to FLOAT, clamping values`
    """

    code = "OPS006"
    name = "float64"
    apart = True
    help = "convert to float32 where float64 enters"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] image) => (float[N,3,H,W] y) <double[1,3,1,1] mean = {123.7, 116.3, 103.5}> {
                wide = Cast <to = 11> (image)
                centred = Sub (wide, mean)
                y = Cast <to = 1> (centred)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] image) => (float[N,3,H,W] y) <float[1,3,1,1] mean = {123.7, 116.3, 103.5}> {
                y = Sub (image, mean)
            }
            """,
            equal=False,
            says="1 node computes in float64, which enters through a Cast and a constant: 'wide' and 'mean'",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (double[N,4] x) => (double[N,2] y) <double[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                a = MatMul (x, w)
                y = Relu (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                a = MatMul (x, w)
                y = Relu (a)
            }
            """,
            equal=False,
            says="2 nodes compute in float64, which enters through an input and a constant: 'x' and 'w'",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <double half = {0.5}> {
                factor = Cast <to = 1> (half)
                y = Mul (x, factor)
            }
            """,
            why="a scalar that is cast at once",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (int64[2] size)
            <int64[1] start = {2}, int64[1] end = {4}, double[2] scale = {2.0, 2.0}> {
                shape = Shape (x)
                sizes = Slice (shape, start, end)
                wide = Cast <to = 11> (sizes)
                larger = Mul (wide, scale)
                floored = Floor (larger)
                size = Cast <to = 7> (floored)
            }
            """,
            why="shape arithmetic",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "ai.onnx.ml": 3]>
            g (double[N,4] x) => (float[N,1] y) {
                y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0, 3.0, 4.0]> (x)
            }
            """,
            why="classical models take float64",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        entries = [entry for entry in _suspects(view) if _is_used(entry)]
        if not any(_matters(entry) for entry in entries):
            return
        count = _reached(entries)
        if not count:
            return
        kinds = Counter(entry.kind for entry in entries)
        through = " and ".join(kind if n == 1 else f"{n} {_PLURALS[kind]}" for kind, n in kinds.items())
        names = names_shown(repr(entry.value) for entry in entries)
        nodes = "1 node computes" if count == 1 else f"{count} nodes compute"
        yield self.found(
            _place(view, entries[0]),
            f"{nodes} in float64, which enters through {through}: {names}",
            values=", ".join(printable(entry.value) for entry in entries[:50]),
            fix=Fix(Applicability.UNSAFE, flag="--unsafe"),
        )

    def rewrite(self, finding: Finding, view: GraphView, request: Request) -> onnx.ModelProto | None:
        if any(op.startswith(("ai.onnx.ml::", "com.microsoft::")) for op in view.ops) or view.proto.functions:
            raise Unfixable("operators of other domains may ask for float64")
        return _narrowed(view)


def _narrowed(view: GraphView) -> onnx.ModelProto:
    """The model with float32 wherever it says float64; weights are read and rounded.

    Raises:
        Unfixable: A number is too large for float32.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(view.proto)
    graphs: list[Any] = [model.graph]
    while graphs:
        graph = graphs.pop()
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == _DOUBLE:
                value.type.tensor_type.elem_type = _FLOAT
        for tensor in graph.initializer:
            _narrow(view, tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == _DOUBLE and node.op_type in ("Cast", *_MAKERS):
                    attribute.i = _FLOAT
                if attribute.HasField("t"):
                    _narrow(view, attribute.t)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
    return model


def _narrow(view: GraphView, tensor: onnx.TensorProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    if tensor.data_type != _DOUBLE:
        return
    try:
        wide = view.array(tensor)
    except OnnxlintError as error:
        raise Unfixable(str(error)) from None
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    if not np.array_equal(np.isfinite(wide), np.isfinite(narrow)):
        raise Unfixable(f"{printable(tensor.name)!r} has numbers that are infinite in float32")
    tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))


_PLURALS = {"an input": "inputs", "a Cast": "Casts", "a constant": "constants", "a generator": "generators"}


def _place(view: GraphView, entry: _Entry) -> Location:
    return view.at(entry.node) if entry.node is not None else view.at(value=entry.value, graph=entry.graph)


def _suspects(view: GraphView) -> Iterator[_Entry]:
    """Values of type float64 that are not computed from others of that type."""
    main = view.main
    for value in view.proto.graph.input:
        if value.name not in main.initializers and value.type.tensor_type.elem_type == _DOUBLE:
            yield _Entry(main, value.name, "an input")
    for node in view.nodes("Cast"):
        if node.attribute("to") == _DOUBLE:
            entry = _Entry(node.graph, node.output(), "a Cast", node)
            if _is_used(entry) and not _is_small(node):
                yield entry
    for graph in view.graphs:
        for name, tensor in graph.initializers.items():
            if tensor.data_type == _DOUBLE:
                yield _Entry(graph, name, "a constant")
    for node in view.nodes("Constant", "ConstantOfShape"):
        tensor = node.attribute("value")
        if tensor is not None and getattr(tensor, "data_type", 0) == _DOUBLE:
            yield _Entry(node.graph, node.output(), "a constant", node)
    for node in view.nodes(*_MAKERS):
        if node.attribute("dtype") == _DOUBLE:
            yield _Entry(node.graph, node.output(), "a generator", node)


def _is_small(node: Node) -> bool:
    """Whether a Cast converts a shape or a few factors."""
    view, graph = node.graph.view, node.graph
    if exact_sizes(view).value(graph, node.input(0)) is not None:
        return True
    size = _size(graph, node.output())
    return size is not None and size <= _SMALL and graph.dtype(node.input(0)) in (2, 3, 4, 5, 6, 7, 9, 12, 13)


def _size(graph: Graph, name: str) -> int | None:
    """Number of elements; None if it is unknown."""
    shape = graph.shape(name)
    if shape is None:
        return None
    size = 1
    for dim in shape:
        if not isinstance(dim, int):
            return None
        size *= dim
    return size


def _is_used(entry: _Entry) -> bool:
    """Whether something computes with the value, rather than casting it or deciding by it."""
    users = entry.graph.consumers(entry.value)
    return any(user.op != "Cast" and not user.op.startswith("ai.onnx.ml::") for user in users)


def _matters(entry: _Entry) -> bool:
    """Whether float64 would be there for this value alone: a few numbers beside shapes do not make it data."""
    if entry.kind != "a constant":
        return True
    size = _size(entry.graph, entry.value)
    spreads = any(user.op in _SPREAD for user in entry.graph.consumers(entry.value))
    return size is None or size > _SMALL or spreads


def _reached(entries: list[_Entry]) -> int:
    """Nodes whose results are float64 because of the entries."""
    seen: set[int] = set()
    queue = [(entry.graph, entry.value) for entry in entries]
    for graph, name in queue:
        for user in graph.consumers(name):
            if id(user) in seen or user.op == "Cast":
                continue
            wide = [output for output in user.outputs if output and user.graph.dtype(output) == _DOUBLE]
            if wide:
                seen.add(id(user))
                queue.extend((user.graph, output) for output in wide)
    return len(seen)
