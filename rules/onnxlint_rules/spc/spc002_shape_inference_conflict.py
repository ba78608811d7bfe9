"""SPC002: operators whose inputs cannot go together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import impossible_demands, number_text
from onnxlint_rules._tensors import type_name
from onnxlint_rules.spc._copy import Copy
from onnxlint_rules.spc._signatures import type_conflict

MAX_CONFLICTS = 20

_ERROR = re.compile(
    r"\(op_type:(?P<op>[^,()]*)(?:, node name: (?P<label>§\d+\.\d+§))?\): \[(?:Type|Shape)InferenceError\] "
    r"(?P<said>(?!(?:\[\w+\] )?Inference error\(s\)).*)"
)
"""The error of strict inference in one line; of nested errors, the innermost."""

_NOT_ITS_FAULT = re.compile(
    r"expected to have type but instead is null|external (tensor|data)|InferShapes.*not supported"
)
"""Errors that follow from an earlier one, or from missing weights."""


_ELEMENT = re.compile(r"Inferred elem type differs from existing elem type: \((\d+)\) vs \((\d+)\)")


class ShapeInferenceConflict(Rule):
    """The shapes of an operator's inputs contradict each other or its attributes.

    ## What it does

    Runs ONNX's shape inference in strict mode, with types and with values of shape tensors, after taking away every shape
    that the file merely declares for computed values: what is left to contradict are the operators themselves, from
    the graph's inputs and weights on. What strict mode lets pass is computed as well: Reshape targets of another number of
    elements, channels that a Conv has no weights for. So is what constants ask for and no run survives: a Range with a step
    of 0, an index beyond its axis, a window larger than its map, whole numbers divided by 0. Each operator that cannot have
    the inputs that it has is one finding.
    An output of another element type than declared is one too. (A declared shape that is not the inferred one is SHP009's.)

    ## Why it hurts

    - onnxruntime infers shapes when it loads a model, and refuses it: `Node (…) Op (MatMul) [ShapeInferenceError]
      Incompatible dimensions for matrix multiplication`.
    - Converters, which need every shape, stop or write a model with wrong sizes.

    ## Fix it at the source

    ```python
    # after surgery on a model, infer strictly before saving it
    onnx.checker.check_model(model, full_check=True)
    ```

    ## Fix safety

    There is no safe fix: which of the operands is wrong is not in the file.

    ## References

    - [onnx.shape_inference](https://onnx.ai/onnx/api/shape_inference.html): `strict_mode`, `check_type`, `data_prop`
    - [Broadcasting in ONNX](https://onnx.ai/onnx/repo-docs/Broadcasting.html)
    """

    code = "SPC002"
    name = "shape-inference-conflict"
    apart = True
    severity = Severity.ERROR
    help = "make the operands agree; onnx.checker.check_model(model, full_check=True) reports whether they do"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,5] y) <float[3,5] w = {1,2,3,4,5, 1,2,3,4,5, 1,2,3,4,5}> {
                a = Relu (x)
                y = MatMul (a, w)
            }
            """.replace("<float[3,5] w>", "<float[3,5] w = {1,2,3,4,5, 1,2,3,4,5, 1,2,3,4,5}>").replace(
                "[classify] ", ""
            ),
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,5] y) <float[4,5] w = {1,2,3,4,5, 1,2,3,4,5, 1,2,3,4,5, 1,2,3,4,5}> {
                a = Relu (x)
                y = MatMul (a, w)
            }
            """,
            says="Incompatible dimensions for matrix multiplication: inputs are [N, 4] and [3, 5]",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x, float[2,5] z) => (float[A,B] y, float[C,D] b) {
                y = Concat <axis = 0> (x, z)
                a = Relu (y)
                b = Transpose <perm = [0, 2, 1]> (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x, float[2,5] z) => (float[A,B] y, float[C,D] b) {
                y = Concat <axis = 1> (x, z)
                a = Relu (y)
                b = Transpose <perm = [1, 0]> (a)
            }
            """,
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x) => (float16[2,4] y) { y = Relu (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x) => (float16[2,4] y) {
                a = Relu (x)
                y = Cast <to = 10> (a)
            }
            """,
            says="it makes float, and the file declares float16",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x, bool c) => (float[A,B] y) {
                y = If (c) <
                    then_branch = t () => (float[A,B] a) { a = MatMul (x, x) },
                    else_branch = e () => (float[A,B] b) { b = Relu (x) }
                >
            }
            """,
            says="Incompatible dimensions",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,8,16] x) => (float[1,6,16] y) <int64[3] target = {1, 6, 16}> {
                y = Reshape (x, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,8,16] x) => (float[1,4,32] y) <int64[3] target = {1, 4, 32}> {
                y = Reshape (x, target)
            }
            """,
            says="Reshape: 128 elements cannot be reshaped to 96",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,H] x) => (float[N,A,8] y) <int64[1] first = {0}, int64[1] last = {2}, int64[1] eight = {8}> {
                shape = Shape (x)
                n = Gather (shape, first)
                h = Gather (shape, last)
                more = Add (h, eight)
                target = Concat <axis = 0> (n, more, eight)
                y = Reshape (x, target)
            }
            """,
            says="Reshape: 8*H*N elements cannot be reshaped to 8*H*N + 64*N",
            equal=False,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x) => (float[7,9] y) { y = Relu (x) }
            """,
            why="a wrong declared shape is SHP009's",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "com.example": 1]>
            g (float[2,4] x) => (float[2,4] y) {
                a = com.example.Fancy (x)
                y = MatMul (a, x)
            }
            """,
            why="outputs of a foreign operator are unknown, not contradictory",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x) => (float[A,B] y) <int64[2] s = ["location": "nowhere.bin"]> { y = Reshape (x, s) }
            """,
            why="a shape in another file is unknown, not contradictory",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        seen: set[int] = set()
        refused = list(_refused(view))
        follows = _after([node for node, _ in refused])
        impossible = ((node, said) for node, said in _impossible(view) if id(node) not in follows)
        for node, said in (*refused, *impossible):
            if id(node) not in seen:
                seen.add(id(node))
                if len(seen) > MAX_CONFLICTS:
                    return
                yield self.found(view.at(node), f"{printable(node.op)}: {said}")


def _refused(view: GraphView) -> Iterator[tuple[Node, str]]:
    """Nodes that strict inference refuses, but for those that SPC001 and SPC003 report, and why."""
    if not view.is_contradictory:
        return
    copy = Copy(view, view.without_claims())
    copy.label()
    for said, node in _conflicts(copy):
        if node is not None and not copy.refusals([node]) and not type_conflict(node):
            yield node, f"{said}{_operands(node)}"


def _after(nodes: list[Node]) -> set[int]:
    """Ids of nodes and of all that depends on what they make."""
    seen = {id(node) for node in nodes}
    pending = list(nodes)
    for node in pending:
        for user in node.consumers():
            if id(user) not in seen:
                seen.add(id(user))
                pending.append(user)
    return seen


def _impossible(view: GraphView) -> Iterator[tuple[Node, str]]:
    """Nodes that no input satisfies, which strict inference lets pass."""
    for demand in impossible_demands(view):
        if type_conflict(demand.node):
            continue
        if demand.why:
            yield demand.node, f"it always fails: {demand.why}{_operands(demand.node)}"
        elif demand.is_negative:
            yield demand.node, f"a size of {demand.left:,} cannot be made{_operands(demand.node)}"
        elif demand.node.op == "Reshape":
            rest = "a multiple of " if demand.multiple else ""
            left, right = map(number_text, (demand.left, demand.right))
            yield demand.node, f"{left} elements cannot be reshaped to {rest}{right}"
        else:
            yield demand.node, f"sizes {demand.left} and {demand.right} have to be equal{_operands(demand.node)}"


def _conflicts(copy: Copy) -> Iterator[tuple[str, Node | None]]:
    """The error of strict inference, and its node."""
    from onnx import shape_inference

    from onnxlint.rulekit import Crashed, in_child

    def infer() -> bytes:
        shape_inference.infer_shapes(copy.proto, check_type=False, strict_mode=True, data_prop=True)  # types: SPC003
        return b""

    try:
        in_child(infer)
    except Crashed as error:
        yield f"onnx's shape inference does not survive this model: {error}", None
    except RuntimeError as error:
        for match in _ERROR.finditer(str(error)):
            if not _NOT_ITS_FAULT.search(match["said"]):
                yield _clean(copy, match["said"]), copy.labels.get(match["label"] or "")


def _clean(copy: Copy, said: str) -> str:
    kinds = _ELEMENT.search(said)
    if kinds:
        return f"it makes {type_name(int(kinds[1]))}, and the file declares {type_name(int(kinds[2]))}"
    return printable(" ".join(copy.without_labels(said).split()))[:200].rstrip(" .")


def _operands(node: Node) -> str:
    """`: inputs are [N, 4] and [3, 5]`; empty if a shape is unknown."""
    shapes = [node.shape(i) for i in range(len(node.inputs)) if node.input(i)]
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes) or len(known) > 4:
        return ""
    shown = ["[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]" for shape in known]
    what = "inputs are" if len(shown) > 1 else "its input is"
    return printable(f": {what} {' and '.join(shown)}")
