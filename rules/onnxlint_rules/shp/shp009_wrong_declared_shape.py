"""SHP009: a declared shape that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Options, Request, Rule, Severity, Shape, Silent, printable
from onnxlint.rulekit import is_invented
from onnxlint_rules._tensors import type_name

if TYPE_CHECKING:
    from onnxlint import Surgeon


class WrongDeclaredShape(Rule):
    """The file declares a shape or type for a value that its operators contradict.

    ## What it does

    Infers all shapes from the inputs and the operators alone, and reports outputs and intermediate values whose declared
    rank, size or element type differs.

    ## Why it hurts

    Declared shapes are claims that nobody checks when the file is written. Tools that believe them (simplifiers,
    converters, memory planners) fold the wrong number in and silently break the model; onnxruntime warns of a merge
    conflict, allocates again, and plans memory worse.

    ## Fix it at the source

    ```python
    # before: a file edited by hand, or by a tool that left the shapes of the original behind
    onnx.save(model, "model.onnx")
    # after
    del model.graph.value_info[:]
    onnx.save(onnx.shape_inference.infer_shapes(model), "model.onnx")
    ```

    ## Fix safety

    Removing a wrong claim about an intermediate value is exact. A wrong claim about an output is part of the interface:
    the numbers stay, the declaration changes.

    ## References

    - [ONNX IR: static tensor shapes](https://onnx.ai/onnx/repo-docs/IR.html#static-tensor-shapes)
    - [onnxruntime: "Output shape … does not match" warnings](https://github.com/microsoft/onnxruntime/issues)
    """

    code = "SHP009"
    name = "wrong-declared-shape"
    help = "remove the declared shape, or run shape inference again"
    severity = Severity.WARNING
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,3,8,4] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,3,8,8] y) {
                y = Relu (x)
            }
            """,
            says="output 'y' is declared [1, 3, 8, 4], but is [1, 3, 8, 8]",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,192] y) <float[1,3,64] t> {
                t = Flatten (x)
                y = Relu (t)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,192] y) <float[1,192] t> {
                t = Flatten (x)
                y = Relu (t)
            }
            """,
            says="value 't' is declared [1, 3, 64], but is [1, 192]",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[batch,3,height,width] y) {
                y = Relu (x)
            }
            """,
            why="names of symbols are arbitrary",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for graph in view.graphs:
            if graph.is_function:
                continue
            inputs = set(graph.inputs)
            for name, (kind, shape) in view.declared(graph).items():
                if name in inputs:
                    continue
                true_kind, true_shape = view.inferred(graph, name)
                if (kind and true_kind and kind != true_kind) or _contradicts(shape, true_shape):
                    what = "output" if graph.is_output(name) else "value"
                    yield self.found(
                        view.at(graph.producer(name), value=name, graph=graph),
                        f"{what} {printable(name)!r} is declared {_show(kind, shape, true_kind)}, "
                        f"but is {_show(true_kind, true_shape, kind)}",
                        fix=SAFE if what == "value" and graph is view.main else None,
                        group=f"declared shapes or types of {what}s are wrong",
                    )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        surgeon.drop_value_info.add(finding.location.value)


def _contradicts(declared: Shape | None, inferred: Shape | None) -> bool:
    if declared is None or inferred is None or declared == inferred:
        return False
    return len(declared) != len(inferred) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(declared, inferred, strict=True)
    )


def _show(kind: int, shape: Shape | None, other_kind: int) -> str:
    dims = (
        "of unknown shape" if shape is None else "[" + ", ".join("?" if is_invented(d) else str(d) for d in shape) + "]"
    )
    if kind == other_kind:
        return printable(dims)
    return printable(f"{type_name(kind)} {dims}")
