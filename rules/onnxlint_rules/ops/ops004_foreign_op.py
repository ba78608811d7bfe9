"""OPS004: operators that are not ONNX's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, counted, printable
from onnxlint.rulekit import newest_opset, operator_schema
from onnxlint_rules.ops._common import EXPERIMENTAL, own_functions, split_op, targets_only

_PYTORCH = re.compile(r"aten|prim|org\.pytorch\..+|org\.pytorch|caffe2|onnx_c2|torch_scatter|torchvision|quantized")
_PYTORCH_OPS = re.compile(r"ATen|PythonOp|(aten|prim)::.+")
_TENSORRT = re.compile(r"TRT|trt.*|tensorrt.*", re.IGNORECASE)
_LAYOUT_DOMAINS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})
_EXTENSIONS = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})


class ForeignOp(Rule):
    """An operator is not part of ONNX.

    ## What it does

    Reports operators outside ONNX's own domains, and unknown ones inside: one finding for each operator, with how often
    it stands in the model and where first. Operators that the model itself defines as functions are not foreign, nor
    are those of `ai.onnx.ml`. The severity says how far the model gets:

    - error: no runtime has it (`aten::`, `prim::PythonOp`, `org.pytorch.aten::ATen`, operators unknown to ONNX);
    - warning: it runs where its library is loaded (TensorRT plugins, MMDeploy, onnxruntime-extensions), or on the kind
      of processor that it was made for (`com.microsoft.nchwc`: saved by ONNX Runtime after its layout optimization);
    - information: `com.microsoft`, which every build of ONNX Runtime has, and nobody else.

    Silent where all targets that you name have them: `--target onnxruntime` for `com.microsoft`, `--target tensorrt`
    for TensorRT's plugins.

    ## Why it hurts

    A runtime refuses the whole model for one node that it does not know: ONNX Runtime says `org.pytorch.aten:ATen(-1) is
    not a registered function/op`, ncnn's converter writes a layer type that does not load, TensorRT looks for a plugin
    of that name. A file with operators of `com.microsoft` is an ONNX Runtime file, whatever its extension.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, x, "model.onnx", operator_export_type=OperatorExportTypes.ONNX_ATEN_FALLBACK)
    # after: write the layer with operators that ONNX has, or register a translation of your own
    torch.onnx.export(model, x, "model.onnx", dynamo=True, custom_translation_table={torch.ops.my.op: translated})
    ```

    For `com.microsoft`: keep the file from before ONNX Runtime's optimizer or quantizer, or quantize into QDQ format
    (`QuantFormat.QDQ`), which uses standard operators.

    ## Fix safety

    There is no general way back: each operator needs its own replacement. Exact replacements exist for some (`QuickGelu`
    is `x * Sigmoid(alpha * x)`, `FusedMatMul` is Transpose, MatMul and Mul).

    ## References

    - [PyTorch: fallbacks to ATen](https://github.com/pytorch/pytorch/issues/75623), and
      [what ONNX Runtime says to them](https://github.com/microsoft/onnxruntime/issues/13009)
    - [ONNX Runtime: contrib operators](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
    - [ONNX Runtime: graph optimizations, offline mode](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html),
      and [the warning about saved layouts](https://github.com/microsoft/onnxruntime/issues/13709)
    - [TensorRT: plugins](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/extending-custom-layers.html)
    """

    code = "OPS004"
    name = "foreign-op"
    apart = True
    help = "replace it with standard operators, or choose a target that supports it (--target)"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13, "org.pytorch.aten": 1]>
            g (float[N,4] x) => (float[N,4] y) {
                a = org.pytorch.aten.ATen <operator = "cumsum"> (x)
                y = org.pytorch.aten.ATen <operator = "cumsum"> (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <int64 axis = {1}> {
                a = CumSum (x, axis)
                y = CumSum (a, axis)
            }
            """,
            equal=False,
            says="org.pytorch.aten::ATen 'cumsum' (2 nodes) is a fallback to PyTorch that no runtime has",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13, "com.microsoft": 1, "mmdeploy": 1]>
            g (float[N,4] x) => (float[N,4] y) {
                a = com.microsoft.QuickGelu (x)
                y = mmdeploy.Roll (a)
            }
            """,
            findings=2,
            equal=False,
            says="com.microsoft::QuickGelu (1 node) runs in ONNX Runtime only",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = FancyRelu (x)
            }
            """,
            says="FancyRelu (1 node) is not an operator of ONNX",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "local": 1]>
            g (float[N,4] x) => (float[N,4] y) {
                y = local.Twice (x)
            }
            <domain: "local", opset_import: ["": 13]>
            Twice (a) => (b) {
                b = Add (a, a)
            }
            """,
            why="the model implements it as a function",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "com.microsoft": 1]>
            g (float[N,4] x) => (float[N,4] y) {
                y = com.microsoft.QuickGelu (x)
            }
            """,
            why="the target is ONNX Runtime",
            options=Options(targets=("onnxruntime",)),
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "com.microsoft": 1, "ai.onnx.ml": 2]>
            g (float[N,4] x) => (float[N,1] y) {
                y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0, 3.0, 4.0]> (x)
            }
            """,
            why="ai.onnx.ml is part of ONNX, and an import alone uses no operator",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        own = own_functions(view)
        for op in sorted(view.ops):
            domain, name = split_op(op)
            if op in own or operator_schema(view, op, newest=True) is not None:
                continue
            verdict = _verdict(view, domain, name, options)
            if verdict is None:
                continue
            severity, text = verdict
            nodes = list(view.nodes(op))
            # Fallbacks name the real operator in an attribute; they can be of many kinds.
            inner = sorted({str(node.attribute("operator")) for node in nodes if node.attribute("operator")})
            shown = f"{printable(op)} {', '.join(repr(printable(one)) for one in inner[:3])}".rstrip()
            yield self.found(
                view.at(nodes[0]),
                f"{shown} ({counted(len(nodes), 'node')}) {text}",
                severity=severity,
                nodes=len(nodes),
            )


def _verdict(view: GraphView, domain: str, name: str, options: Options) -> tuple[Severity, str] | None:
    if _PYTORCH.fullmatch(domain) or _PYTORCH_OPS.fullmatch(name):
        return Severity.ERROR, "is a fallback to PyTorch that no runtime has"
    if _TENSORRT.fullmatch(domain) or name.endswith("_TRT"):
        if targets_only(options, "tensorrt"):
            return None
        return Severity.WARNING, "is a plugin that only TensorRT runs"
    if domain in _LAYOUT_DOMAINS:
        return (
            Severity.WARNING,
            "was put in by ONNX Runtime for the processor at hand: the file belongs to that machine",
        )
    if domain in _EXTENSIONS:
        return Severity.WARNING, "runs only where onnxruntime-extensions is loaded"
    if domain.startswith("com.microsoft"):
        return None if targets_only(options, "onnxruntime") else (Severity.INFO, "runs in ONNX Runtime only")
    if domain == "" or domain.startswith("ai.onnx"):
        return _unknown_standard(view, domain, name)
    return (
        Severity.WARNING,
        f"is an operator of the domain {printable(domain)!r}: it runs only where its library is loaded",
    )


def _unknown_standard(view: GraphView, domain: str, name: str) -> tuple[Severity, str] | None:
    if (domain == "" and (name in EXPERIMENTAL or view.opset > newest_opset())) or (
        domain in ("ai.onnx.training", "ai.onnx.preview.training")
    ):
        return None  # OPS002's, newer than the installed onnx, OPS003's
    return Severity.ERROR, f"is not an operator of ONNX{f' ({domain})' if domain else ''}: no runtime has it"
