"""GRF006: a BatchNormalization that could be part of the layer before it."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Silent
from onnxlint.view import Node
from onnxlint_rules._grf_graph import is_fixed, label, listed


class UnfusedBatchnorm(Rule):
    """A BatchNormalization follows a linear layer whose weights it could be folded into.

    ## What it does

    Reports, once with their number, the BatchNormalization nodes in inference mode with constant parameters that alone read
    the output of a Conv, ConvTranspose, Gemm, MatMul or MatMul + Add with constant weights.

    ## Why it hurts

    - Quantizers see two layers: onnxruntime's cannot quantize a BatchNormalization by itself, so that its input is
      dequantized and its output quantized again. The ranges collected between the two are those of values that no
      fused runtime ever has.
    - Runtimes that fuse do so at every start; those that do not, pass over the whole tensor a second time.
    - ncnn keeps it as a layer of its own until `ncnnoptimize` has run.

    ## Fix it at the source

    ```python
    # before: exported in training mode, or with the fusing switched off
    torch.onnx.export(model.train(), args, "model.onnx", training=torch.onnx.TrainingMode.PRESERVE)
    # after
    torch.onnx.export(model.eval(), args, "model.onnx")
    ```

    In PyTorch itself: `torch.nn.utils.fusion.fuse_conv_bn_eval(conv, bn)`. For a file from elsewhere:
    `python -m onnxruntime.quantization.preprocess --input model.onnx --output fused.onnx`.

    ## Fix safety

    With s = scale / sqrt(var + epsilon) for each channel: weights · s and (bias - mean) · s + B. Equal but for rounding (about
    1e-6 of each value in float32; a variance near 0 makes it more). A Conv whose output something else reads cannot be
    folded, and is not reported.

    ## References

    - [onnxruntime quantization example](https://github.com/microsoft/onnxruntime-inference-examples/blob/main/quantization/image_classification/cpu/ReadMe.md): "Currently we can not quantize BatchNormalization by itself"
    - [Graph optimizations in ONNX Runtime](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html): Conv BatchNorm fusion
    - [ncnnoptimize.cpp](https://github.com/Tencent/ncnn/blob/master/tools/ncnnoptimize.cpp): `fuse_convolution_batchnorm`
    """  # noqa: E501 - one link a line

    code = "GRF006"
    name = "unfused-batchnorm"
    help = "fold it into the layer before it"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y)
            <float[2,1,1,1] w = {4, 6}, float[2] b = {1, 2}, float[2] scale = {1, 2}, float[2] shift = {3, 0},
             float[2] mean = {1, 4}, float[2] var = {4, 4}> {
                c = Conv (x, w, b)
                n = BatchNormalization <epsilon = 0.0> (c, scale, shift, mean, var)
                y = Relu (n)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y) <float[2,1,1,1] w = {2, 6}, float[2] b = {3, -2}> {
                n = Conv (x, w, b)
                y = Relu (n)
            }
            """,
            says="1 of 1 BatchNormalization could be part of the Conv before it",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[N,1] x) => (float[N,2] y)
            <float[1,2] w = {4, 6}, float[2] b = {1, 2}, float[2] scale = {1, 2}, float[2] shift = {3, 0},
             float[2] mean = {1, 4}, float[2] var = {4, 4}> {
                m = MatMul (x, w)
                a = Add (b, m)
                y = BatchNormalization <epsilon = 0.0> (a, scale, shift, mean, var)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[N,1] x) => (float[N,2] y) <float[1,2] w = {2, 6}, float[2] b = {3, -2}> {
                m = MatMul (x, w)
                y = Add (b, m)
            }
            """,
            says="could be part of the MatMul before it",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,1,4,4] y)
            <float[1,1,1,1] w = {4}, float[1] scale = {1}, float[1] shift = {3}, float[1] mean = {1}, float[1] var = {4}> {
                c = Conv (x, w)
                n = BatchNormalization (c, scale, shift, mean, var)
                y = Add (n, c)
            }
            """,
            why="the output of the Conv is read twice",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 14]>
            g (float[N,1,4,4] x) => (float[N,1,4,4] y, float[1] mean2, float[1] var2)
            <float[1,1,1,1] w = {4}, float[1] scale = {1}, float[1] shift = {3}, float[1] mean = {1}, float[1] var = {4}> {
                c = Conv (x, w)
                y, mean2, var2 = BatchNormalization <training_mode = 1> (c, scale, shift, mean, var)
            }
            """,
            why="in training mode the statistics come from the input (OPS003)",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,4] x) => (float[N,2,3] y)
            <float[4,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[2] scale = {1, 2}, float[2] shift = {3, 0},
             float[2] mean = {1, 4}, float[2] var = {4, 4}> {
                m = MatMul (x, w)
                y = BatchNormalization (m, scale, shift, mean, var)
            }
            """,
            why="axis 1 of a sequence is the time, not the features",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        every, found = 0, []
        for node in view.nodes("BatchNormalization"):
            every += 1
            layer = _layer_before(node) if _is_inference(node) else None
            if layer is not None:
                found.append((node, layer))
        if not found:
            return
        kinds = " or ".join(sorted({layer.op for _, layer in found}))
        yield self.found(
            view.at(found[0][0]),
            f"{len(found):,} of {every:,} BatchNormalization could be part of the {kinds} before "
            f"{'it' if len(found) == 1 else 'them'}",
            nodes=listed((label(node) for node, _ in found), 10),
            count=len(found),
        )


def _is_inference(node: Node) -> bool:
    opset = node.graph.view.opset
    if opset >= 14:
        trains = bool(node.attribute("training_mode", 0))
    elif opset >= 7:
        trains = any(node.outputs[1:])
    else:
        trains = not node.attribute("is_test", 0)
    return not trains and all(is_fixed(node.graph, node.input(i)) for i in range(1, 5))


def _layer_before(node: Node) -> Node | None:
    """The linear layer whose weights a BatchNormalization can be folded into."""
    before = _only_reader_of(node, 0)
    if before is None:
        return None
    graph = before.graph
    if before.op in ("Conv", "ConvTranspose"):
        return before if is_fixed(graph, before.input(1)) and _absent_or_fixed(before, 2) else None
    if before.op == "Gemm":
        return before if is_fixed(graph, before.input(1)) and _absent_or_fixed(before, 2) else None
    shape = before.output_shape()
    if shape is None or len(shape) != 2:
        return None  # the channels of BatchNormalization are axis 1, the features of MatMul the last
    if before.op == "Add":
        bias = next((i for i in (0, 1) if is_fixed(graph, before.input(i))), None)
        before = _only_reader_of(before, 1 - bias) if bias is not None else None
    if before is None or before.op != "MatMul" or not is_fixed(graph, before.input(1)):
        return None
    return before


def _only_reader_of(node: Node, operand: int) -> Node | None:
    """The node that makes an operand, where nothing else reads it."""
    before = node.producer(operand)
    if before is None or before.graph is not node.graph:
        return None
    name = node.input(operand)
    is_shared = len(node.graph.consumers(name)) > 1 or node.graph.is_output(name)
    return None if is_shared else before


def _absent_or_fixed(node: Node, operand: int) -> bool:
    return not node.input(operand) or is_fixed(node.graph, node.input(operand))
