"""SHP006: x.view(x.size(0), -1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Options, Request, Rule, Silent
from onnxlint_rules._graph import advice
from onnxlint_rules.shp._operands import computed_operands, is_flatten
from onnxlint_rules.shp._python import with_flatten

if TYPE_CHECKING:
    from onnxlint import Surgeon


class FlattenIdiom(Rule):
    """A Reshape to `[x.size(0), -1]` could be a Flatten.

    ## What it does

    Reports each Reshape whose target is computed as the batch size of its input followed by `-1`.

    ## Why it hurts

    The idiom exports as Shape → Gather → Unsqueeze → Concat → Reshape in place of one Flatten: five nodes, of which
    ncnn knows none but the last, and a shape chain that TensorRT and phone delegates run on the host.

    ## Fix it at the source

    ```python
    # before
    x = x.view(x.size(0), -1)
    # after
    x = torch.flatten(x, 1)
    ```

    ## Fix safety

    Exact for every input with at least one element. (With an axis of size 0, `-1` cannot be inferred and the
    original fails.)

    ## References

    - [Flatten](https://onnx.ai/onnx/operators/onnx__Flatten.html)
    - [torch.flatten](https://docs.pytorch.org/docs/stable/generated/torch.flatten.html)
    """

    code = "SHP006"
    name = "flatten-idiom"
    help = "use torch.flatten(x, 1)"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,3,3] x) => (float[N,72] y)
            <int64 zero = {0}, int64[1] axes = {0}, int64[1] minus = {-1}> {
                shape = Shape (x)
                batch = Gather <axis = 0> (shape, zero)
                lead = Unsqueeze (batch, axes)
                target = Concat <axis = 0> (lead, minus)
                y = Reshape (x, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,3,3] x) => (float[N,72] y) {
                y = Flatten <axis = 1> (x)
            }
            """,
            says="x.view(x.size(0), -1)",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,3,3] x) => (float[N,72] y) {
                y = Flatten <axis = 1> (x)
            }
            """,
            why="it is a Flatten already",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for operand in computed_operands(view):
            if is_flatten(operand):
                place = view.at(operand.node)
                better = with_flatten(place.source[-1].code) if place.source else ""
                yield self.found(
                    place,
                    f"x.view(x.size(0), -1) exported as a shape chain ({operand.describe()})",
                    help=advice(view, self.help, "flatten with a Flatten, or with the constant target [0, -1]"),
                    fix=SAFE,
                    replacement=better,
                    group="x.view(x.size(0), -1) exported as shape chains",
                )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        held = surgeon.node(view.find(finding.location))
        held.op = "Flatten"
        held.attrs.clear()
        held.attrs["axis"] = 1
        held.inputs = held.inputs[:1]
