"""SHP005: an Expand that broadcasting makes needless."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Options, Request, Rule, Silent, printable
from onnxlint.rulekit import bypass
from onnxlint_rules.shp._operands import computed_operands, is_expand_by_shape

if TYPE_CHECKING:
    from onnxlint import Surgeon


class ExpandByShape(Rule):
    """A tensor is expanded to a shape that broadcasting would give it anyway.

    ## What it does

    Reports each Expand whose target is the shape of a value, where everything that reads the result is an elementwise
    operator with that same value as its other operand. `F.normalize` exports as such.

    ## Why it hurts

    - The Shape and Expand nodes do nothing, and ncnn (no Shape) and phone delegates stop at them.
    - The expanded copy costs memory and a pass over it.

    ## Fix it at the source

    ```python
    # before
    x = F.normalize(x, p=2, dim=1)
    # after
    x = x / x.norm(p=2, dim=1, keepdim=True).clamp_min(1e-12)
    ```

    ## Fix safety

    Exact: elementwise operators of ONNX broadcast (since opset 7), and the sizes were equal to begin with.

    ## References

    - [Broadcasting in ONNX](https://onnx.ai/onnx/repo-docs/Broadcasting.html)
    - [Expand](https://onnx.ai/onnx/operators/onnx__Expand.html)
    - [torch.nn.functional.normalize](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html)
    """

    code = "SHP005"
    name = "expand-by-shape"
    help = "remove the Expand: the operator after it broadcasts"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,16] x) => (float[N,16] y) <float eps = {0.001}> {
                norm = ReduceL2 <axes = [1], keepdims = 1> (x)
                safe = Clip (norm, eps)
                shape = Shape (x)
                wide = Expand (safe, shape)
                y = Div (x, wide)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,16] x) => (float[N,16] y) <float eps = {0.001}> {
                norm = ReduceL2 <axes = [1], keepdims = 1> (x)
                safe = Clip (norm, eps)
                y = Div (x, safe)
            }
            """,
            says="the Div after it broadcasts",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,16] x, float[N,16] like, float[N,16] z) => (float[M,16] y) {
                shape = Shape (like)
                wide = Expand (x, shape)
                y = Concat <axis = 0> (wide, z)
            }
            """,
            why="Concat does not broadcast",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,16] x, float[N,16] like) => (float[N,16] y, float[N,16] wide) {
                shape = Shape (like)
                wide = Expand (x, shape)
                y = Add (wide, like)
            }
            """,
            why="the expanded tensor is an output",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for operand in computed_operands(view):
            if is_expand_by_shape(operand):
                node = operand.node
                reader = node.consumers()[0].op
                yield self.found(
                    view.at(node),
                    f"Expand to the shape of {printable(operand.chain.shapes[0].input(0))!r} is not needed: "
                    f"the {reader} after it broadcasts",
                    fix=SAFE,
                    group="Expands to the shape of another value are not needed: what reads them broadcasts",
                )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        bypass(surgeon.node(view.find(finding.location)))
