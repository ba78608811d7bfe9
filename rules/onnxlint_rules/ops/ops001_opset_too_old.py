"""OPS001: the model imports an old operator set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Options, Request, Rule, Silent
from onnxlint_rules._graph import advice

if TYPE_CHECKING:
    import onnx


class OpsetTooOld(Rule):
    """The model imports an operator set that is older than current tools expect.

    ## What it does

    Reports a model whose standard operator set is older than `--min-opset` (11 unless you say otherwise). Models
    without standard operators (trees and linear models of `ai.onnx.ml`) are left alone.

    ## Why it hurts

    - Quantization: ONNX Runtime's quantizer does not fuse at opset 10, and below it converts the model to 11 by itself
      (`Please verify the quantized model`).
    - Resizing: PyTorch's own exporter warns that `ONNX's Upsample/Resize operator did not match Pytorch's Interpolation
      until opset 11`. Before, there was no `coordinate_transformation_mode`, and bilinear maps are shifted.
    - TensorRT 10 reads opset 9 to 20, and nothing older.
    - Old sets mean old forms that converters treat as special cases, or not at all: Upsample in place of Resize, Slice
      and Pad with attributes, Clip with fixed bounds.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, x, "model.onnx", opset_version=9)
    # after
    torch.onnx.export(model, x, "model.onnx", opset_version=17)
    ```

    ## Fix safety

    Export again where you can. `onnx.version_converter` rewrites the file; compare the outputs afterwards: its step
    from Resize 10 to 11 leaves the new attributes at their defaults, which are not what Resize 10 did (OPS007 then says
    so).

    ## References

    - [ONNX Runtime, quant_utils.py](https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/python/tools/quantization/quant_utils.py):
      `update_opset_version`
    - [PyTorch, symbolic_helper.py](https://github.com/pytorch/pytorch/blob/v2.4.0/torch/onnx/symbolic_helper.py): the
      warning about interpolation
    - [onnx-tensorrt: supported operators](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md): the range
      of opsets
    - [Resize 10 to 11 changes numbers](https://github.com/onnx/onnx/issues/8480)
    """

    code = "OPS001"
    name = "opset-too-old"
    arithmetic = True  # runtimes have other kernels for newer versions, which round in other places
    help = "export with opset_version=17 (11 at least)"
    examples = (
        Example(
            bad="""
            <ir_version: 4, opset_import: ["": 9]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            says="opset 9 is older than 11",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            options=Options(min_opset=17),
            says="opset 13 is older than 17",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 11]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            why="11 is the oldest that is accepted",
        ),
        Silent(
            """
            <ir_version: 3, opset_import: ["ai.onnx.ml": 1]>
            g (float[N,4] x) => (float[N,1] y) {
                y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0, 3.0, 4.0]> (x)
            }
            """,
            why="no standard operators",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        if 0 < view.opset < options.min_opset and any("::" not in op for op in view.ops):
            from onnxlint.rulekit import NEWEST_OPSET, OLDEST_OPSET

            yield self.found(
                view.at(),
                f"opset {view.opset} is older than {options.min_opset}",
                help=advice(view, self.help, "export for opset 17 (11 at least)"),
                opset=view.opset,
                min=options.min_opset,
                fix=SAFE if view.opset >= OLDEST_OPSET and options.min_opset <= NEWEST_OPSET else None,
            )

    def rewrite(self, finding: Finding, view: GraphView, request: Request) -> onnx.ModelProto:
        from onnxlint.rulekit import convert_opset

        return convert_opset(view, request.opset or int(dict(finding.evidence)["min"]))
