"""OPS002: operators that the imported operator set no longer has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
    Example,
    Finding,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    Unfixable,
    counted,
    printable,
)
from onnxlint.rulekit import operator_schema
from onnxlint_rules._patching import each
from onnxlint_rules.ops._common import EXPERIMENTAL, own_functions, split_op

if TYPE_CHECKING:
    from onnxlint import Surgeon

_INSTEAD = {
    "GroupNormalization": "GroupNormalization of opset 21, whose scale and bias are per channel",
    "Scatter": "ScatterElements",
    "TreeEnsembleClassifier": "TreeEnsemble",
    "TreeEnsembleRegressor": "TreeEnsemble",
    "Upsample": "Resize",
}
_STILL_RUN = frozenset({"GroupNormalization"})
"""What ONNX Runtime loads all the same; onnx.checker refuses it."""


class DeprecatedOp(Rule):
    """An operator is deprecated in the operator set that the model imports.

    ## What it does

    Reports operators that the imported version of their operator set marks as deprecated (Upsample from 10, Scatter
    from 11, GroupNormalization 18 to 20, the tree ensembles of `ai.onnx.ml` 5), and the experimental operators that
    ONNX had taken back by 1.5 (Affine, Crop, ImageScaler, …). One finding for each operator. In a model of opset 9
    Upsample is not deprecated; OPS001 reports such a model.

    ## Why it hurts

    A deprecated operator is not there: `onnx.checker` and ONNX Runtime refuse the whole model (`Op registered for
    Upsample is deprecated in domain_version of 11`). It happens where a tool raises the number of the operator set
    without rewriting the nodes, as quantizers and hand-made scripts do. GroupNormalization 18 has scale and bias per
    group rather than per channel; `onnx.checker` refuses it, ONNX Runtime runs it. Experimental operators have no
    versions and no guarantees: `onnx.checker` warns, TensorRT and ONNX Runtime have some of them, others none. These
    two are warnings.

    ## Fix it at the source

    ```python
    # before
    model.opset_import[0].version = 11
    # after
    model = onnx.version_converter.convert_version(model, 11)
    ```

    ## Fix safety

    Upsample and Resize with `coordinate_transformation_mode = "asymmetric"` and `nearest_mode = "floor"` are the same;
    so are Scatter and ScatterElements. Affine, ImageScaler, Scale and the like become Mul and Add with the same
    constants.

    ## References

    - [Upsample](https://onnx.ai/onnx/operators/onnx__Upsample.html),
      [Scatter](https://onnx.ai/onnx/operators/onnx__Scatter.html),
      [GroupNormalization](https://onnx.ai/onnx/operators/onnx__GroupNormalization.html) in the ONNX specification
    - [ONNX Runtime: the error, after quantization](https://github.com/microsoft/onnxruntime/issues/9197)
    - [onnx.checker: the error](https://github.com/jkjung-avt/tensorrt_demos/issues/70)
    - [ONNX: no more experimental operators](https://github.com/onnx/onnx/issues/1752), and
      [what takes their place](https://github.com/onnx/onnxmltools/issues/259)
    """

    code = "OPS002"
    name = "deprecated-op"
    apart = True
    severity = Severity.ERROR
    help = "convert the model with 'onnxlint fix --opset N', or export it again"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 11]>
            g (float[1,4,8,8] x) => (float[1,4,32,32] y) <float[4] scales = {1, 1, 2, 2}> {
                a = Upsample <mode = "nearest"> (x, scales)
                y = Upsample <mode = "nearest"> (a, scales)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 11]>
            g (float[1,4,8,8] x) => (float[1,4,32,32] y) <float[4] scales = {1, 1, 2, 2}, float[0] roi = {}> {
                a = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                            nearest_mode = "floor"> (x, roi, scales)
                y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                            nearest_mode = "floor"> (a, roi, scales)
            }
            """,
            equal=False,
            says="Upsample (2 nodes) is deprecated since opset 10, and the model imports 11: use Resize",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 9]>
            g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
                y = ImageScaler <scale = 0.5, bias = [0.0, 0.0, 0.0, 0.0]> (x)
            }
            """,
            says="ImageScaler (1 node) was experimental and is not an operator of ONNX since 1.5: use Mul and Add",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 9]>
            g (float[1,4,8,8] x) => (float[1,4,16,16] y) <float[4] scales = {1, 1, 2, 2}> {
                y = Upsample <mode = "nearest"> (x, scales)
            }
            """,
            why="Upsample is what opset 9 has",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 21]>
            g (float[N,4,8,8] x, float[4] s, float[4] b) => (float[N,4,8,8] y) {
                y = GroupNormalization <num_groups = 2> (x, s, b)
            }
            """,
            why="GroupNormalization 21 is not deprecated",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        own = own_functions(view)
        for op in sorted(view.ops):
            domain, name = split_op(op)
            if op in own or not (domain == "" or domain.startswith("ai.onnx")):
                continue
            text, severity = "", None
            if operator_schema(view, op, newest=True) is not None:
                imported = operator_schema(view, op)
                if imported is not None and imported.deprecated:
                    version = view.opset_of(domain)
                    text = f"is deprecated since opset {imported.since}, and the model imports {version}"
                    severity = Severity.WARNING if name in _STILL_RUN else None
            elif domain == "" and name in EXPERIMENTAL:
                text, severity = "was experimental and is not an operator of ONNX since 1.5", Severity.WARNING
            if text:
                nodes = list(view.nodes(op))
                instead = _INSTEAD.get(name) or EXPERIMENTAL.get(name)
                yield self.found(
                    view.at(nodes[0]),
                    f"{printable(name)} ({counted(len(nodes), 'node')}) {text}"
                    + (f": use {instead}" if instead else ""),
                    severity=severity,
                    nodes=len(nodes),
                    fix=SAFE if op in _REPLACED else None,
                    not_fixed="" if op in _REPLACED else "no single operator does the same",
                )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        op = finding.location.op_type
        each(surgeon, view.nodes(op), lambda node: _replace(surgeon, node))


_REPLACED = ("Scatter", "Upsample")


def _replace(surgeon: Surgeon, node: Node) -> None:
    import numpy as np

    held, opset = surgeon.node(node), node.graph.view.opset
    if node.op == "Scatter":
        held.op = "ScatterElements"
        return
    if not node.input(1):
        raise Unfixable("it has no scales")
    held.op = "Resize"
    data, scales = held.inputs[:2]
    if opset >= 11:
        # The defaults of Resize changed in opset 11: what Upsample does has to be written out from there on.
        held.attrs["coordinate_transformation_mode"] = "asymmetric"
        held.attrs.setdefault("mode", "nearest")
        if node.attribute("mode", "nearest") == "nearest":
            held.attrs["nearest_mode"] = "floor"
        nothing = surgeon.constant(f"{node.name or node.output()}_roi", np.zeros(0, np.float32))
        held.inputs = [data, nothing, scales]
