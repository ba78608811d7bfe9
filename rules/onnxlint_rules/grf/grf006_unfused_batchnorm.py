"""GRF006: a BatchNormalization that could be part of the layer before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Node, Options, Request, Rule, Silent, Unfixable
from onnxlint_rules._graph import integer, is_fixed, label, names_shown
from onnxlint_rules._patching import array_of, each, is_held

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from onnxlint import Surgeon

    Array = npt.NDArray[np.generic]
    Doubles = npt.NDArray[np.float64]


class UnfusedBatchnorm(Rule):
    """A BatchNormalization could be folded into the layer before it.

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
    1e-6 of each value in float32; a variance near 0 makes it more), and for overflow: a sum beyond the largest number of the
    type (3.4e38 in float32) was infinite before a small scale could reduce it, and is not where the weights hold the
    scale. A Conv whose output something else reads cannot be folded, and is not reported.

    ## References

    - [onnxruntime quantization example](https://github.com/microsoft/onnxruntime-inference-examples/blob/main/quantization/image_classification/cpu/ReadMe.md): "Currently we can not quantize BatchNormalization by itself"
    - [Graph optimizations in ONNX Runtime](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html): Conv BatchNorm fusion
    - [ncnnoptimize.cpp](https://github.com/Tencent/ncnn/blob/master/tools/ncnnoptimize.cpp): `fuse_convolution_batchnorm`
    """  # noqa: E501 - one link a line

    code = "GRF006"
    name = "unfused-batchnorm"
    arithmetic = True
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
        every, found = sum(1 for _ in view.nodes("BatchNormalization")), _found(view)
        if not found:
            return
        kinds = " or ".join(sorted({layer.op for _, layer in found}))
        yield self.found(
            view.at(found[0][0]),
            f"{len(found):,} of {every:,} BatchNormalization could be part of the {kinds} before "
            f"{'it' if len(found) == 1 else 'them'}",
            nodes=names_shown((label(node) for node, _ in found), 10),
            count=len(found),
            fix=SAFE if any(is_held(node.graph) for node, _ in found) else None,
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        layers = {id(node): layer for node, layer in _found(view)}
        each(surgeon, (node for node, _ in _found(view)), lambda node: _fold(surgeon, node, layers[id(node)]))


def _found(view: GraphView) -> list[tuple[Node, Node]]:
    """(BatchNormalization, layer before it) pairs."""
    found = []
    for node in view.nodes("BatchNormalization"):
        layer = _layer_before(node) if _is_inference(node) else None
        if layer is not None:
            found.append((node, layer))
    return found


def _fold(surgeon: Surgeon, norm: Node, layer: Node) -> None:
    """Fold one BatchNormalization; weights are computed in float64, and rounded once."""
    import numpy as np

    added = norm.producer(0) if norm.producer(0) is not layer else None
    held, held_layer = surgeon.node(norm), surgeon.node(layer)
    held_add = surgeon.node(added) if added is not None else None
    scale, shift, mean, var = (_doubles(norm, i) for i in range(1, 5))
    weights = array_of(layer, 1)
    if weights is None or weights.ndim < 2 or weights.dtype.kind != "f":
        raise Unfixable("the weights of the layer are not a plain tensor")
    # The default is a float32 in the specification, as every value of the attribute is.
    epsilon = float(np.float32(norm.attribute("epsilon", 1e-5)))
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + epsilon)
        offset = shift - mean * factor
    folded = _scaled(layer, weights.astype(np.float64), factor)
    kind = weights.dtype
    base = norm.name or norm.output()
    if added is not None:
        operand = next(i for i in (0, 1) if is_fixed(added.graph, added.input(i)))
        bias = _doubles(added, operand) * factor + offset
    elif layer.op != "MatMul":
        operand = 2
        bias = offset
        if layer.input(2):
            amount = float(np.float32(layer.attribute("beta", 1.0))) if layer.op == "Gemm" else 1.0
            bias = _doubles(layer, 2) * amount * factor + offset
    else:
        operand, bias = 1, offset
    with np.errstate(over="ignore"):  # what overflows is refused
        results = [folded.astype(kind), np.asarray(bias).astype(kind)]
    if not all(np.isfinite(result).all() for result in results):
        raise Unfixable("the folded weights would not be finite")
    held_layer.inputs[1] = surgeon.constant(f"{base}_weight", results[0], layer.graph)
    constant = surgeon.constant(f"{base}_bias", results[1], layer.graph)
    if added is not None and held_add is not None:
        held_add.inputs[operand] = constant
        surgeon.replace_value(held.outputs[0], held_add.outputs[0], norm)
    elif layer.op == "MatMul":
        held.op, held.inputs = "Add", [held.inputs[0], constant]
        held.attrs.clear()
        held.outputs = held.outputs[:1]
    else:
        held_layer.inputs = [*held_layer.inputs[:2], constant]
        if layer.op == "Gemm":
            held_layer.attrs.pop("beta", None)
        surgeon.replace_value(held.outputs[0], held_layer.outputs[0], norm)


def _doubles(node: Node, i: int) -> Doubles:
    import numpy as np

    array = array_of(node, i)
    if array is None or array.dtype.kind != "f":
        raise Unfixable(f"operand {i} of {label(node)} is not a plain tensor of floats")
    return array.astype(np.float64)


def _scaled(layer: Node, weights: Doubles, factor: Doubles) -> Doubles:
    """The weights of a layer, each output channel multiplied by its factor."""
    import numpy as np

    if layer.op == "Conv":
        return weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    if layer.op == "ConvTranspose":
        groups = max(1, integer(layer, "group", 1))
        if weights.shape[0] % groups or weights.shape[1] * groups != factor.size:
            raise Unfixable("its channels do not fit its groups")
        each_input = np.repeat(factor.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        return weights * each_input.reshape(*weights.shape[:2], *[1] * (weights.ndim - 2))
    if layer.op == "Gemm" and integer(layer, "transB", 0):
        return weights * factor[:, None]
    return weights * factor


def _is_inference(node: Node) -> bool:
    opset = node.graph.view.opset
    if not integer(node, "spatial", 1):
        return False  # statistics for each place, as opset 7 had them
    if opset >= 14:
        trains = bool(integer(node, "training_mode", 0))
    elif opset >= 7:
        trains = any(node.outputs[1:])
    else:
        trains = not integer(node, "is_test", 0)
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
    weights = before.shape(1)
    return before if weights is not None and len(weights) == 2 else None


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
