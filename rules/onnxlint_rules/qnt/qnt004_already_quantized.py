"""QNT004: a model that is quantized, or half precision, already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, counted, printable
from onnxlint_rules._graph import BFLOAT16, FLOAT16, FLOATS, names_shown


class AlreadyQuantized(Rule):
    """The model is quantized already, or its weights are half precision.

    ## What it does

    Reports, once, a model with QuantizeLinear and DequantizeLinear, with operators on integers (QLinear…, MatMulInteger,
    ConvInteger, MatMulNBits, …), with ranges taken at run time (DynamicQuantize…), or whose weights are float16 or bfloat16.

    ## Why it hurts

    This is not a fault where the model runs as it is. It is the wrong file to convert further:

    - Quantizers want float32: what is rounded twice loses twice, and ranges are those of rounded values.
    - TensorRT takes Q/DQ nodes for explicit quantization: what the calibration of another tool found is
      then what runs, and precision flags do not apply. ConvInteger, MatMulInteger, QLinearConv and DynamicQuantizeLinear
      it does not support.
    - ncnn quantizes by its own table, from float32; its converters know no QuantizeLinear.
    - On CPUs without half precision arithmetic onnxruntime casts a float16 model to float32 and back around each node.

    ## Fix it at the source

    ```python
    # before
    quantize_dynamic("model.onnx", "int8.onnx")
    convert("int8.onnx", target="ncnn-int8")
    # after: keep the float32 export, and make each target from it
    convert("model.onnx", target="ncnn-int8")
    ```

    ## Fix safety

    There is no fix: dequantizing gives float32 operators with the precision that is left.

    ## References

    - [TensorRT: explicit quantization](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html)
    - [onnx-tensorrt: supported operators](https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md)
    - [onnxruntime insert_cast_transformer.cc](https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/insert_cast_transformer.cc)
    - [Quantize ONNX models](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html): QOperator, QDQ, dynamic and static
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp): the operators that it knows
    """  # noqa: E501 - one link a line

    code = "QNT004"
    name = "already-quantized"
    apart = True
    severity = Severity.INFO
    help = "to convert or quantize further, start from the float32 export"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 19]>
            g (float[N,2] x) => (float[N,2] y)
            <int8[2,2] w = {64, 127, -64, 32}, float s = {0.0078125}, int8 z = {0}> {
                v = DequantizeLinear (w, s, z)
                y = MatMul (x, v)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 19]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] v = {0.5, 0.9921875, -0.5, 0.25}> {
                y = MatMul (x, v)
            }
            """,
            says="quantized already: 1 DequantizeLinear (weights only)",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float16[N,2] x) => (float16[N,2] y) <float16[2,2] w = {1, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            equal=False,
            says="half precision already: 1 of 1 weight tensor is float16",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (uint8[N,2] pixels) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                x = Cast <to = 1> (pixels)
                y = MatMul (x, w)
            }
            """,
            why="integer inputs are not quantized weights",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        counts = Counter({op: sum(1 for _ in view.nodes(op)) for op in view.ops if _is_quantized(op)})
        tensors = [t for graph in view.graphs for t in graph.initializers.values() if len(t.dims) >= 2]
        kinds = Counter(tensor.data_type for tensor in tensors)
        total = sum(kinds[kind] for kind in FLOATS)
        parts = []
        if counts:
            shown = ", ".join(f"{count:,} {op}" for op, count in counts.most_common(4))
            more = f" and {len(counts) - 4} other operators" if len(counts) > 4 else ""
            parts.append(printable(f"quantized already: {shown}{more} ({_kind(set(counts))})"))
        for kind, name in ((FLOAT16, "float16"), (BFLOAT16, "bfloat16")):
            if kinds[kind]:
                verb = "is" if kinds[kind] == 1 else "are"
                parts.append(
                    f"half precision already: {kinds[kind]:,} of {counted(total, 'weight tensor')} {verb} {name}"
                )
        if parts:
            first = next(iter(view.nodes(*counts)), None) if counts else None
            yield self.found(
                view.at(first),
                "; ".join(parts),
                operators=names_shown((f"{count} {op}" for op, count in counts.most_common()), len(counts)),
            )


_STARTS = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantize",
    "GatherBlockQuantized",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulInteger",
    "MatMulNBits",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QLinear",
    "QMoE",
    "QOrdered",
    "QuantizeLinear",
    "TRT_FP8",
    "TRT_INT8",
)
"""How the names of quantized operators start, in any domain."""


def _is_quantized(op: str) -> bool:
    return op.rsplit("::", 1)[-1].startswith(_STARTS)


def _key(op: str) -> str:
    return op.rsplit("::", 1)[-1]


def _kind(ops: set[str]) -> str:
    """How the model is quantized, in the words of onnxruntime's documentation."""
    names = {_key(op) for op in ops}
    if any(name.startswith(("Dynamic", "MatMulInteger", "ConvInteger")) for name in names):
        return "dynamic: ranges are taken at run time"
    if any(name.startswith(("QLinear", "QGemm", "QAttention", "QEmbed", "QOrdered")) for name in names):
        return "QOperator"
    if "QuantizeLinear" in names or any(name.endswith("QuantizeLinear") and name[0] == "T" for name in names):
        return "QDQ"
    return "weights only"
