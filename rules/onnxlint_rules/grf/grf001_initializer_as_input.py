"""GRF001: weights that are listed as graph inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import Applicability, Example, Finding, Fix, GraphView, Options, Request, Rule, Silent, counted
from onnxlint_rules._graph import names_shown, overridable

if TYPE_CHECKING:
    from onnxlint import Surgeon


class InitializerAsInput(Rule):
    """Initializers are also listed as graph inputs, so runtimes may not treat them as constants.

    ## What it does

    Reports a model of IR version 4 or newer whose initializers are also graph inputs, once, with their number. IR version 3
    demands this listing, and runtimes treat its initializers as constants; such models are fine, and so is a model in
    which only single numbers are listed: an optional input with a default.

    ## Why it hurts

    From IR version 4 on, an initializer that is also an input is the *default* of an optional input: the caller may pass
    another value at every run.

    - onnxruntime warns `Initializer … appears in graph inputs and will not be treated as constant value/weight` for each
      of them, and neither folds nor fuses their consumers: with onnxruntime 1.31, a Conv and its BatchNormalization become
      one node where the weights are constants, and stay two where they are listed as inputs.
    - Converters and quantizers that look for the model's inputs find hundreds.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, args, "model.onnx", keep_initializers_as_inputs=True)
    # after
    torch.onnx.export(model, args, "model.onnx")
    ```

    A file from elsewhere: onnxruntime's `remove_initializer_from_input.py`, or
    `onnx_ir.passes.common.RemoveInitializersFromInputsPass`.

    ## Fix safety

    Taking the names off the list of inputs changes the interface, so that it needs `--unsafe`: the original accepts a
    weight from the caller, the result fails with an unknown input name. For callers who feed the model its data alone,
    results are the same within rounding and overflow.

    ## References

    - [ONNX IR: graphs](https://onnx.ai/onnx/repo-docs/IR.html#graphs): initializers as default values of inputs
    - [onnxruntime graph.cc](https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/graph/graph.cc): the warning
    - [remove_initializer_from_input.py](https://github.com/microsoft/onnxruntime/blob/main/tools/python/remove_initializer_from_input.py)
    - [RemoveInitializersFromInputsPass](https://onnx.ai/ir-py/api/generated/onnx_ir.passes.common.RemoveInitializersFromInputsPass.html)
    """

    code = "GRF001"
    name = "initializer-as-input"
    arithmetic = True  # onnxruntime packs constant weights, and sums up in another order then
    help = "remove the initializers from the graph inputs"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float[2,2] w) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            says="1 of 2 graph inputs is an initializer (w)",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x, float[2] scale) => (float[N,2,4,4] y)
            <float[2,1,1,1] w = {1, 2}, float[2] scale = {1, 2}, float[2] shift = {0, 1}, float[2] mean = {0, 1},
             float[2] var = {1, 4}> {
                a = Conv (x, w)
                y = BatchNormalization (a, scale, shift, mean, var)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y)
            <float[2,1,1,1] w = {1, 2}, float[2] scale = {1, 2}, float[2] shift = {0, 1}, float[2] mean = {0, 1},
             float[2] var = {1, 4}> {
                a = Conv (x, w)
                y = BatchNormalization (a, scale, shift, mean, var)
            }
            """,
            says="not constants to a runtime, and 1 BatchNormalization cannot be folded",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 3, opset_import: ["": 8]>
            g (float[N,2] x, float[2,2] w) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            why="IR version 3 demands it",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float threshold) => (bool[N,2] y) <float threshold = {0.5}> {
                y = Greater (x, threshold)
            }
            """,
            why="a single number is an optional input with a default",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        listed_too = overridable(view)
        names = [name for name in view.main.inputs if name in listed_too]
        if all(math.prod(view.main.initializers[name].dims) <= 1 for name in names):
            return
        verb = "is an initializer" if len(names) == 1 else "are initializers"
        norms = sum(any(node.input(i) in listed_too for i in range(1, 5)) for node in view.nodes("BatchNormalization"))
        folded = f", and {norms:,} BatchNormalization cannot be folded" if norms else ""
        yield self.found(
            view.at(),
            f"{len(names):,} of {counted(len(view.main.inputs), 'graph input')} {verb} ({names_shown(names)}): "
            f"as overridable defaults, they are not constants to a runtime{folded}",
            count=len(names),
            ir_version=view.proto.ir_version,
            fix=Fix(Applicability.UNSAFE, flag="--unsafe"),
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        surgeon.drop_inputs |= overridable(view)
