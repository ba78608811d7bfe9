"""TGT004: operators that a target has, used in a way that it does not take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import Limit, target_names
from onnxlint_rules._tensors import type_name
from onnxlint_rules.tgt._tables import count, data_nodes, names_of, nodes_for, operators, targets, varying_rank


class TargetLimit(Rule):
    """An operator is used in a way that the target does not support or computes differently.

    ## What it does

    Checks the limits that each `--target` puts on the operators that it reads: attribute values, inputs that must be
    constants, outputs that it does not make, ranks, element types, zero points. One finding for each operator and limit.
    A limit that cannot be decided on the graph (an unknown rank, a computed value) is not reported.

    ## Why it hurts

    - The converter stops at the node, often with a message about its own data structures.
    - Some do not stop: pnnx turns Gather with several indices into a crop of the first one, onnx2ncnn ignores the axes of
      a ReduceMean of opset 18 and reduces all axes. The numbers are wrong, and there is no message.

    ## Fix it at the source

    ```python
    # before: asymmetric activations, which TensorRT does not support
    quantize_static("model.onnx", "int8.onnx", reader, activation_type=QuantType.QUInt8)
    # after
    quantize_static("model.onnx", "int8.onnx", reader, activation_type=QuantType.QInt8,
                    extra_options={"ActivationSymmetric": True})
    ```

    ## Fix safety

    Making a computed input constant is exact for the sizes that it was computed for. Other limits ask for another
    operator.

    ## References

    - [onnx-tensorrt's operators](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md): restrictions
    - [pnnx: supported ONNX operators](https://github.com/Tencent/ncnn/tree/master/tools/pnnx#supported-onnx-operator-status),
      [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp)
    - [Core ML provider: supported operators](https://onnxruntime.ai/docs/execution-providers/CoreML-ExecutionProvider.html#supported-operators)
    """

    code = "TGT004"
    name = "target-limit"
    apart = True
    severity = Severity.ERROR
    help = "stay within the limits of the target, or use another operator"
    targets = frozenset(target_names())
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,4,8,8] x) => (float[1,1,16,16] y) {
                y = DepthToSpace <blocksize = 2> (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,4,8,8] x) => (float[1,1,16,16] y) {
                y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)
            }
            """,
            says="does not support DepthToSpace with mode DCR",
            options=Options(targets=("ncnn",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,2,8,8] y) <int64[2] i = {0, 2}> { y = Gather <axis = 1> (x, i) }
            """,
            says="accepts Gather, but computes something else, with indices that are not one constant number",
            options=Options(targets=("ncnn",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 18]>
            g (float[1,3,8,8] x) => (float[1,1,8,8] y) <int64[1] axes = {1}> { y = ReduceMean (x, axes) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,1,8,8] y) { y = ReduceMean <axes = [1]> (x) }
            """,
            says="accepts ReduceMean, but computes something else, with a single axis that is an input (opset 18 and newer)",
            options=Options(targets=("ncnn",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,3,1,1] y) { y = ReduceMax <axes = [2, 3]> (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,3,1,1] y) {
                rows = ReduceMax <axes = [3]> (x)
                y = ReduceMax <axes = [2]> (rows)
            }
            """,
            says="does not support ReduceMax with several axes (axes = [2, 3])",
            options=Options(targets=("ncnn",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3] x) => (float[1,3] y) <float s = {0.1}, uint8 z = {128}> {
                q = QuantizeLinear (x, s, z)
                y = DequantizeLinear (q, s, z)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3] x) => (float[1,3] y) <float s = {0.1}, int8 z = {0}> {
                q = QuantizeLinear (x, s, z)
                y = DequantizeLinear (q, s, z)
            }
            """,
            findings=4,
            says="zero points other than 0",
            equal=False,
            options=Options(targets=("tensorrt",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,3,4,4] y, int64[1,3,4,4] i) {
                y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,3,4,4] y) { y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }
            """,
            says="does not support MaxPool with the Indices output",
            equal=False,
            options=Options(targets=("tensorrt",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,1,1] x) => (float[A,B] y) {
                flat = Squeeze (x)
                y = Relu (flat)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,1,1] x) => (float[A,B] y) <int64[2] axes = {2, 3}> {
                flat = Squeeze (x, axes)
                y = Relu (flat)
            }
            """,
            says="Squeeze with no axes on a free shape (rank 1 where N is 1, else 2)",
            options=Options(targets=("tensorrt",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,C,4] x) => (float[A,B] y) <int64 one = {1}, int64[1] axes = {1}, int64 axis = {1}> {
                shape = Shape (x)
                size = Gather <axis = 0> (shape, axis)
                single = Equal (size, one)
                y = If (single) <
                    then_branch = yes () => (float[N,4] a) { a = Squeeze (x, axes) },
                    else_branch = no () => (float[N,C,4] b) { b = Identity (x) }
                >
            }
            """,
            says="If with branches with outputs of different rank (2 where C == 1, else 3)",
            options=Options(targets=("tensorrt",)),
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 18]>
            g (float[1,3,8,8] x) => (float[1,3,1,1] y) <int64[2] axes = {2, 3}, int64 one = {1}> {
                m = ReduceMean (x, axes)
                n = MaxPool <kernel_shape = [1, 1], dilations = [1, 1]> (m)
                y = Resize <mode = "cubic"> (n, , , one)
            }
            """,
            why="the target supports it, and unknown limits are not reported",
            options=Options(targets=("tensorrt",)),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for target in targets(options):
            for op in operators(view):
                known = target.ops.get(op)
                if known is None or not known.limits:
                    continue
                nodes = nodes_for(view, target, op)
                for limit in known.limits:
                    broken = [node for node in nodes if _breaks(node, limit)]
                    if broken:
                        does = (
                            "accepts {}, but computes something else, with"
                            if limit.wrong
                            else "does not support {} with"
                        )
                        yield self.found(
                            view.at(broken[0]),
                            f"{target} {does.format(printable(op))} {limit.text}{_value(broken[0], limit)}{count(broken)}",
                            severity=Severity.WARNING if target.falls_back else None,
                            help=_help(op, limit),
                            target=target.name,
                            nodes=names_of(broken),
                            count=len(broken),
                        )


_VARYING_RANK = {
    "If": "fix the size that decides, so that one branch is left: onnxlint fix --static NAME=1,3,H,W",
    "Squeeze": "name the axes: x.flatten(1) or x.squeeze(dim)",
}
"""Operator → what to do where its output has no fixed rank."""

_AXES = {
    "ReduceMax": "reduce one axis after the other: x.amax(3).amax(2)",
    "ReduceMin": "reduce one axis after the other: x.amin(3).amin(2)",
    "ReduceSum": "lower the operator set, in which axes are an attribute: onnxlint fix --opset 12",
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean"),
        "lower the operator set, in which axes are an attribute: onnxlint fix --opset 17",
    ),
}
"""Operator → what to do where its axes are too many or too few."""


def _help(op: str, limit: Limit) -> str | None:
    if limit.varying_rank:
        return _VARYING_RANK.get(op)
    return _AXES.get(op) if limit.counts else None


def _breaks(node: Node, limit: Limit) -> bool:
    """Whether a node certainly is beyond a limit."""
    if limit.unless_constant is not None and _is_constant(node, node.input(limit.unless_constant)):
        return False
    if limit.attribute:
        value = _attribute(node, limit)
        return value is not None and not _allows(limit, _elements(value))
    if limit.values is not None:
        given = node.numbers(limit.values)
        return given is not None and not _allows(limit, given.values)
    if limit.constant is not None:
        name = node.input(limit.constant)
        return bool(name) and not _is_constant(node, name)
    if limit.scalar is not None:
        name = node.input(limit.scalar)
        return bool(name) and (not _is_constant(node, name) or node.shape(limit.scalar) not in ((), None))
    if limit.no_input is not None:
        return bool(node.input(limit.no_input))
    if limit.no_output is not None:
        name = node.output(limit.no_output)
        return bool(name) and (node.graph.is_output(name) or bool(node.graph.consumers(name)))
    if limit.ranks:
        shape = node.shape(0)
        return shape is not None and len(shape) not in limit.ranks
    if limit.varying_rank:
        return bool(varying_rank(node))
    if limit.types:
        name = node.input(limit.type_of)
        kind = node.graph.dtype(name) if name else 0
        return kind != 0 and type_name(kind) not in limit.types
    return False


def _allows(limit: Limit, elements: Sequence[Any]) -> bool:
    """Whether a limit is kept by the elements of an attribute or input."""
    return len(elements) in limit.counts if limit.counts else all(element in limit.allowed for element in elements)


def _is_constant(node: Node, name: str) -> bool:
    """Whether a value is a constant, or computed from constants and shapes alone: most targets fold that first."""
    producer = node.graph.producer(name)
    return node.graph.is_constant(name) if producer is None else id(producer) not in data_nodes(node.graph.view)


def _attribute(node: Node, limit: Limit) -> Any:
    return node.attribute(limit.attribute, limit.default)


def _elements(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)


def _value(node: Node, limit: Limit) -> str:
    """` ('cubic')`: the value that breaks a limit on one."""
    if limit.attribute:
        return f" ({limit.attribute} = {printable(str(_attribute(node, limit)))})"
    if limit.types:
        return f" ({type_name(node.graph.dtype(node.input(limit.type_of)))})"
    if limit.varying_rank:
        return f" ({varying_rank(node)})"
    if limit.ranks:
        return f" (rank {len(node.shape(0) or ())})"
    return ""
