"""Compute nodes with constant inputs: in onnxruntime where it is installed, else in ONNX's reference implementation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxlint import GraphView, Node, Unfixable, printable
from onnxlint.rulekit import load_onnxruntime
from onnxlint_rules._graph import fixed_tensor
from onnxlint_rules.grf._folding import known_sizes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

MAX_NODES = 10_000
"""Nodes that are computed together at most."""

_KINDS = "biufc"
"""Kinds of NumPy arrays that initializers are made of here; strings and what is too new for NumPy stay computed."""


def evaluate(view: GraphView, nodes: Sequence[Node], wanted: Sequence[str]) -> dict[str, npt.NDArray[np.generic]]:
    """Values that nodes compute from constants and fixed sizes alone.

    Args:
        nodes: Nodes of one graph, in topological order.
        wanted: Names of values that they make.

    Raises:
        Unfixable: They cannot be computed; the message has the reason.
        OnnxlintError: A weight that they read is missing or broken.
    """
    model = _small_model(view, nodes, wanted)
    reason = ""
    for run in (_onnxruntime, _reference):
        try:
            results = run(model)
        except Exception as error:  # noqa: BLE001 - other people's code on any model: it may raise what it likes
            reason = printable(" ".join(str(error).split()))[:200]
            continue
        if all(getattr(result, "dtype", None) is not None and result.dtype.kind in _KINDS for result in results):
            return dict(zip(wanted, results, strict=True))
        reason = "its result is not a plain tensor"
    raise Unfixable(f"it cannot be computed ahead: {reason}")


def _small_model(view: GraphView, nodes: Sequence[Node], wanted: Sequence[str]) -> onnx.ModelProto:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    pending, known = list(nodes), {id(node) for node in nodes}
    for node in pending:  # a ConstantOfShape is nobody's member, and still read
        if _sizes(node) is not None:
            continue
        for i in range(len(node.inputs)):
            producer = node.producer(i)
            if producer is not None and id(producer) not in known and producer.op not in ("Constant", "Identity"):
                if producer.graph is not node.graph or len(pending) > MAX_NODES:
                    raise Unfixable("it reads what an outer graph computes")
                known.add(id(producer))
                pending.append(producer)
    order = {id(node): i for i, node in enumerate(nodes[0].graph.order)} if len(pending) > len(nodes) else {}
    nodes = sorted(pending, key=lambda node: order[id(node)]) if order else nodes
    model = onnx.ModelProto(ir_version=min(view.proto.ir_version, 10))
    model.opset_import.extend(view.proto.opset_import)
    graph = model.graph
    graph.name = "constants"
    made: set[str] = set()
    for node in nodes:
        sizes = _sizes(node)
        if sizes is not None:
            made.update(node.outputs)
            graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), node.output()))
            continue
        for name in node.inputs:
            if name and name not in made:
                made.add(name)
                tensor = fixed_tensor(node.graph, name)
                array = node.graph.constant(name) if tensor is None else view.array(tensor)
                if array is None:
                    raise Unfixable(f"{printable(name)!r} is not a plain tensor")
                graph.initializer.append(numpy_helper.from_array(array, name))
        made.update(node.outputs)
        graph.node.append(node.proto)
    for name in wanted:
        graph.output.append(onnx.ValueInfoProto(name=name))
    return model


def _sizes(node: Node) -> list[int] | None:
    """What a Shape of fixed sizes gives, whatever the data are; None for all other nodes."""
    return known_sizes(node) if node.op == "Shape" else None


def _onnxruntime(model: onnx.ModelProto) -> list[Any]:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {}))


def _reference(model: onnx.ModelProto) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(model).run(None, {}))
