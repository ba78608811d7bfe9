"""TGT001: operators that a target does not have."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import Target, target_names
from onnxlint_rules.tgt._tables import count, names_of, nodes_for, operators, targets


class UnsupportedOp(Rule):
    """The model uses an operator that the target does not support.

    ## What it does

    Looks every operator up in the table of each `--target`, and reports those that it lacks, or has only in older operator
    sets; once for each operator. The tables name the version that they were read from, and their sources
    (`onnxlint_rules/targets/*.json`). Left out are nodes that depend on constants and shapes alone, where the target
    computes these beforehand, and calls of functions that the model defines itself.

    ## Why it hurts

    - Converters refuse the model or, like pnnx and onnx2ncnn, exit with 0 and write one that does not load.
    - onnxruntime's providers for phones (Core ML, NNAPI, QNN) leave the operator to the CPU: the graph is cut in two
      around it, and what was to be fast pays for copies.

    ## Fix it at the source

    ```python
    # before: Where and comparison, which ncnn lacks
    y = torch.where(x > 0, x, 0.1 * x)
    # after: the same in operators that it has
    y = F.leaky_relu(x, 0.1)
    ```

    For an operator that is only too new for the target, export with an older `opset_version`. What cannot be expressed
    otherwise goes out of the model, in front of it or behind it.

    ## Fix safety

    Where another operator computes the same, the change is exact; the rule does not know which.

    ## References

    - [onnx-tensorrt's operators](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md)
    - [pnnx: supported ONNX operators](https://github.com/Tencent/ncnn/tree/master/tools/pnnx#supported-onnx-operator-status)
    - [OpenVINO: supported ONNX operators](https://github.com/openvinotoolkit/openvino/blob/master/src/frontends/onnx/docs/supported_ops.md)
    - onnxruntime: [CPU](https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md),
      [Core ML](https://onnxruntime.ai/docs/execution-providers/CoreML-ExecutionProvider.html),
      [NNAPI](https://onnxruntime.ai/docs/execution-providers/NNAPI-ExecutionProvider.html),
      [QNN](https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html)
    - [onnx2tf](https://github.com/PINTO0309/onnx2tf): supported layers
    """

    code = "TGT001"
    name = "unsupported-op"
    apart = True
    severity = Severity.ERROR
    help = "replace it with operators that the target supports, or move it out of the model"
    targets = frozenset(target_names())
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,3,8,8] y) <float zero = {0}, float slope = {0.1}> {
                c = Greater (x, zero)
                s = Mul (x, slope)
                y = Where (c, x, s)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = LeakyRelu <alpha = 0.1> (x) }
            """,
            findings=2,
            says="does not support Greater: pnnx exits with 0",
            options=Options(targets=("ncnn",)),
        ),
        Example(
            bad="""
            <ir_version: 10, opset_import: ["": 22]>
            g (float[1,3,8,8] x, float[1,4] r, int64[1] i) => (float[1,3,2,2] y) {
                y = RoiAlign <output_height = 2, output_width = 2> (x, r, i)
            }
            """,
            good="""
            <ir_version: 10, opset_import: ["": 21]>
            g (float[1,3,8,8] x, float[1,4] r, int64[1] i) => (float[1,3,2,2] y) {
                y = RoiAlign <output_height = 2, output_width = 2> (x, r, i)
            }
            """,
            says="reads RoiAlign only up to opset 21, and the model imports 22",
            equal=False,
            options=Options(targets=("onnxruntime",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
            g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = com.microsoft.BiasGelu (x, x) }
            """,
            says="does not support com.microsoft::BiasGelu",
            options=Options(targets=("trt", "tensorrt")),
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,H,W] x) => (float[A,B,C] y) <int64[1] n = {-1}, int64 two = {2}, int64 zero = {0}> {
                s = Shape (x)
                b = Gather (s, zero)
                c = Gather <axis = 0> (s, two)
                d = Mod (c, two)
                e = Equal (d, zero)
                f = Where (e, b, b)
                u = Unsqueeze (f, n)
                t = Concat <axis = 0> (u, n, n)
                y = Reshape (x, u)
            }
            """,
            why="pnnx computes what depends on shapes alone",
            options=Options(targets=("ncnn",)),
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17, "local": 1]>
            g (float[1,3] x) => (float[1,3] y) { y = local.Act (x) }
            <domain: "local", opset_import: ["": 17]>
            Act (a) => (b) { b = Relu (a) }
            """,
            why="functions of the model are inlined",
            options=Options(targets=tuple(target_names())),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for target in targets(options):
            for op in operators(view):
                problem = _problem(view, target, op)
                nodes = nodes_for(view, target, op) if problem else []
                if nodes:
                    yield self.found(
                        view.at(nodes[0]),
                        f"{target} {problem.format(op=printable(op), count=count(nodes))}",
                        severity=Severity.WARNING if target.falls_back else None,
                        target=target.name,
                        nodes=names_of(nodes),
                        count=len(nodes),
                    )


def _problem(view: GraphView, target: Target, op: str) -> str:
    """Why a target does not support an operator, as a template; empty if it does."""
    domain = op.rpartition("::")[0]
    known = target.ops.get(op)
    if known is None:
        return "" if domain in target.domains and domain else f"does not support {{op}}{{count}}: {target.missing}"
    if known.until is not None and view.opset > known.until:
        return f"reads {{op}}{{count}} only up to opset {known.until}, and the model imports {view.opset}"
    return ""
