"""SPC003: operators with inputs of types that do not go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent
from onnxlint.errors import printable
from onnxlint.view import STANDARD_DOMAINS, Graph

MAX_FINDINGS = 50


class TypeConflict(Rule):
    """An operator gets inputs of element types that it does not take, or not together.

    ## What it does

    Reports operators of the ONNX specification of which two inputs that must have one type have two (`Add` of float and
    float16), or of which an input has a type that the operator, in the imported operator set, does not take.
    `onnx.checker` sees neither.

    ## Why it hurts

    - onnxruntime refuses the model: `Type Error: Type parameter (T) of Optype (Mul) bound to different types
      (tensor(float16) and tensor(float) in node (…)`.
    - It is what conversions to float16 leave behind where they miss a constant, an output of Resize or Cast, or the body
      of an If.

    ## Fix it at the source

    ```python
    # before: a Python scalar or a float32 buffer in a half model
    mask = torch.full((n, n), -1e9)
    # after
    mask = torch.full((n, n), -1e4, dtype=x.dtype, device=x.device)
    ```

    For onnxconverter-common's float16 conversion, name the operator in `op_block_list`, or convert after simplification.

    ## Fix safety

    A Cast in front of the odd input makes the model load; whether it is the right type is the author's to say.

    ## References

    - [Type constraints of each operator](https://onnx.ai/onnx/operators/)
    - [onnxruntime #6782](https://github.com/microsoft/onnxruntime/issues/6782),
      [#6470](https://github.com/microsoft/onnxruntime/issues/6470),
      [PaddleNLP #3386](https://github.com/PaddlePaddle/PaddleNLP/issues/3386): the error quoted above
    """

    code = "SPC003"
    name = "type-conflict"
    severity = Severity.ERROR
    help = "give both operands one type at the source, or put a Cast in front of the odd one"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x) => (float[2,4] y) <float16[1] scale = {2}> {
                a = Relu (x)
                y = Mul (a, scale)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x) => (float[2,4] y) <float[1] scale = {2}> {
                a = Relu (x)
                y = Mul (a, scale)
            }
            """,
            says="Mul takes inputs of one type, and gets float ('a') and float16 ('scale')",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (int64[2,4] x) => (int64[2,4] y) { y = Relu (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 14]>
            g (int64[2,4] x) => (int64[2,4] y) { y = Relu (x) }
            """,
            says="Relu of opset 13 does not take int64 ('x')",
            equal=False,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2,4] x, int64[1] i, bool[2,4] c) => (float[2,4] y, float[A,B] z)
            <int64[2] s = {2, 4}, float[4] w = {1, 2, 3, 4}> {
                a = Reshape (x, s)
                b = Where (c, a, w)
                y = Clip (b)
                z = Gather (y, i)
            }
            """,
            why="operators may take inputs of different types where the specification says so",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "com.example": 1]>
            g (float[2,4] x, int64[2,4] i) => (float[2,4] y) {
                a = com.example.Fancy (x, i)
                y = Add (a, x)
            }
            """,
            why="foreign operators, and what they make, have unknown types",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        left = MAX_FINDINGS
        for graph in view.graphs:
            if graph.is_function and not view.element_types(graph):
                continue
            for node in _suspects(view, graph):
                said = _conflict(node)
                if said:
                    yield self.found(view.at(node), said)
                    left -= 1
                    if not left:
                        return


@dataclass(frozen=True)
class _Signature:
    """Types that an operator takes.

    Attributes:
        version: The operator set that the operator is of.
        parameters: Type parameter of each input (`T`, `tensor(int64)`); the last one repeats where `variadic`.
        variadic: Whether the last input repeats, with one type.
        allowed: Types that each parameter may stand for.
    """

    version: int
    parameters: tuple[str, ...]
    variadic: bool
    allowed: dict[str, frozenset[str]]


@cache
def _signature(op: str, domain: str, opset: int) -> _Signature | None:
    from onnx import defs

    try:
        schema = defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return None  # SPC001 reports it
    inputs = list(schema.inputs)
    variadic = bool(inputs) and inputs[-1].option == defs.OpSchema.FormalParameterOption.Variadic
    if variadic and not inputs[-1].is_homogeneous:
        inputs.pop()
        variadic = False
    return _Signature(
        schema.since_version,
        tuple(formal.type_str for formal in inputs),
        variadic,
        {entry.type_param_str: frozenset(entry.allowed_type_strs) for entry in schema.type_constraints},
    )


def _suspects(view: GraphView, graph: Graph) -> list[Node]:
    """Nodes that read a value of another type than most of the graph's: others cannot mix types.

    Most values are float, so that this leaves few to look at. Nodes are checked for types that they do not take where
    they read an odd type, or where the usual one is not float.
    """
    types = view.element_types(graph)
    if not types:
        return []
    usual = Counter(types.values()).most_common(1)[0][0]
    if usual not in (0, 1):
        return graph.nodes
    found = {
        id(node): node
        for name, kind in types.items()
        if kind not in (0, usual)
        for node in graph.consumers(name)
        if node.graph is graph
    }
    return sorted(found.values(), key=lambda node: node.index)


def _conflict(node: Node) -> str:
    """What is wrong with the types of a node's inputs; empty where nothing is."""
    domain = node.proto.domain
    opset = node.graph.view.opset_of(domain)
    if domain not in (*STANDARD_DOMAINS, "ai.onnx.ml") or not 0 < opset < 2**31:
        return ""
    signature = _signature(node.proto.op_type, "" if domain in STANDARD_DOMAINS else domain, opset)
    if signature is None:
        return ""
    bound: dict[str, tuple[str, str]] = {}
    for i, name in enumerate(node.inputs):
        kind = node.graph.dtype(name) if name else 0
        if not kind or (i >= len(signature.parameters) and not signature.variadic):
            continue
        parameter = signature.parameters[min(i, len(signature.parameters) - 1)]
        shown = _type_name(kind)
        allowed = signature.allowed.get(parameter, frozenset((parameter,)))
        if f"tensor({shown})" not in allowed:
            if not any(one.startswith("tensor(") for one in allowed):
                continue  # a sequence or map, whose type inference told as a tensor's
            return f"{printable(node.op)} of opset {opset} does not take {shown} ({printable(name)!r})"
        first = bound.setdefault(parameter, (shown, name))
        if first[0] != shown:
            return (
                f"{printable(node.op)} takes inputs of one type, and gets {first[0]} ({printable(first[1])!r}) and "
                f"{shown} ({printable(name)!r})"
            )
    return ""


@cache
def _type_name(kind: int) -> str:
    from onnx import TensorProto

    return TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
