"""SPC003: operators with inputs of types that do not go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent
from onnxlint_rules.spc._signatures import type_conflict

MAX_FINDINGS = 50


class TypeConflict(Rule):
    """An operator does not support the element types of its inputs.

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
    apart = True
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
            why="foreign operators and their outputs have unknown types",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        left = MAX_FINDINGS
        for node in _suspects(view):
            said = type_conflict(node)
            if said:
                yield self.found(view.at(node), said)
                left -= 1
                if not left:
                    return


def _suspects(view: GraphView) -> list[Node]:
    """Nodes that read a value of another type than most of the values around it: others cannot mix types.

    Most values are float, so that this leaves few to look at. Nodes are checked for types that they do not take where
    they read an odd type, or where the usual one is not float.
    """
    found: dict[int, Node] = {}
    for graph in view.graphs:
        types = view.element_types(graph)
        usual = Counter(types.values()).most_common(1)[0][0] if types else 0
        if usual not in (0, 1):
            found.update((id(node), node) for node in graph.nodes)
            continue
        for name, kind in types.items():
            if kind not in (0, usual):
                found.update((id(node), node) for node in graph.consumers(name))
    order = {id(graph): i for i, graph in enumerate(view.graphs)}
    return sorted(found.values(), key=lambda node: (order[id(node.graph)], node.index))
