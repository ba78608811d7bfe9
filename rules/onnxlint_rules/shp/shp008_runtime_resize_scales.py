"""SHP008: a Resize whose factor is a graph input."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Silent, printable
from onnxlint.rulekit import operand_origins
from onnxlint_rules._graph import advice
from onnxlint_rules.shp._operands import resize_factors


class RuntimeResizeScales(Rule):
    """The scale of a Resize or Upsample is an input of the model.

    ## What it does

    Reports each Resize and Upsample whose `scales` or `sizes` depend on a value that the user feeds, such as the factor of
    a super-resolution network.

    ## Why it hurts

    - ncnn's Interp and most phone delegates take factors as constants: the model does not convert.
    - TensorRT needs the factor as a host-side shape tensor with a profile for its *values*; float scales at run time are
      not supported.
    - The output size cannot be inferred, so nothing after the Resize can be planned ahead.

    ## Fix it at the source

    ```python
    # before
    def forward(self, x, factor):
        return self.body(F.interpolate(x, scale_factor=factor.item(), mode="bicubic"))
    # after: one export for each factor
    def forward(self, x):
        return self.body(F.interpolate(x, scale_factor=self.factor, mode="bicubic"))
    ```

    ## Fix safety

    Putting a constant in the input's place removes an input: only the author knows which factor is wanted.
    `onnxlint fix MODEL -o FILE --bind factor=1,1,3,3` does it, for one factor a file.

    ## References

    - [Resize](https://onnx.ai/onnx/operators/onnx__Resize.html)
    - [TensorRT operators: Resize](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md)
    - [ncnn Interp](https://github.com/Tencent/ncnn/blob/master/docs/developer-guide/operators.md#interp)
    """

    code = "SHP008"
    name = "runtime-resize-scales"
    help = "export one model for each factor, with scale_factor as a Python number"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x, float[4] factor) => (float[N,3,A,B] y) {
                y = Resize <mode = "linear"> (x, , factor)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[N,3,A,B] y) <float[4] factor = {1, 1, 3, 3}> {
                y = Resize <mode = "linear"> (x, , factor)
            }
            """,
            equal=False,
            says="scales depend on input 'factor'",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x, float[N,3,A,B] y) => (float[N,3,A,B] z) {
                sizes = Shape (y)
                z = Resize <mode = "nearest"> (x, , , sizes)
            }
            """,
            why="it depends on the input's shape only, which is SHP001's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        inputs = set(view.main.data_inputs)
        for node in view.nodes("Resize", "Upsample"):
            index, kind = resize_factors(node)
            chain = operand_origins(node, index) if index >= 0 else None
            if chain is None:
                continue
            fed = [name for name in chain.ends if name in inputs and not (chain.shapes and kind == "sizes")]
            if fed:
                bind = f"or bind the input: --bind {printable(fed[0])}=VALUES"
                yield self.found(
                    view.at(node),
                    f"{node.op} {kind} depend on input {printable(fed[0])!r}",
                    help=advice(view, f"{self.help}; {bind}", f"export one model for each factor; {bind}"),
                    operand=node.input(index),
                    group="Resize sizes or scales depend on inputs",
                )
