"""GRF011: a constant added to a convolution that could be its bias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Node, Options, Request, Rule, Severity, Silent, Unfixable
from onnxlint_rules._graph import fixed_tensor, integer, is_fixed, label, names_shown
from onnxlint_rules._patching import array_of, each, is_held

if TYPE_CHECKING:
    from onnxlint import Surgeon


class UnfusedBias(Rule):
    """A constant that is added to the output of a convolution could be its bias.

    ## What it does

    Reports, once with their number, the Add nodes that alone read the output of a Conv or ConvTranspose, where what is
    added is a constant with one number for each output channel, or one for all.

    ## Why it hurts

    - ncnn and most NPUs have the bias in the convolution itself; the Add is a layer of its own there, which passes over the
      whole tensor once more.
    - Quantizers see two layers, and quantize the value between them, which no fused runtime ever has.
    - A BatchNormalization or an activation after the Add is not fused with the convolution.

    Paddle2ONNX writes such pairs for every convolution that has a bias.

    ## Fix it at the source

    ```python
    # before
    self.conv = torch.nn.Conv2d(8, 16, 3, bias=False)
    x = self.conv(x) + self.shift.view(1, -1, 1, 1)
    # after
    self.conv = torch.nn.Conv2d(8, 16, 3, bias=True)
    x = self.conv(x)
    ```

    ## Fix safety

    Equal but for rounding and overflow: runtimes may add the bias before the products or after them, and where there are two
    they become one.

    ## References

    - [Graph optimizations in ONNX Runtime](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html): Conv Add fusion
    - [ncnn's Convolution](https://github.com/Tencent/ncnn/wiki/operators#convolution): `bias_term`
    """  # noqa: E501 - one link a line

    code = "GRF011"
    name = "unfused-bias"
    severity = Severity.INFO
    arithmetic = True
    help = "make it the bias of the layer before it"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y)
            <float[2,1,1,1] w = {4, 6}, float[1,2,1,1] shift = {1, -2}> {
                c = Conv (x, w)
                y = Add (c, shift)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y) <float[2,1,1,1] w = {4, 6}, float[2] bias = {1, -2}> {
                y = Conv (x, w, bias)
            }
            """,
            says="1 Add could be the bias of the Conv before it",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,4,4] x) => (float[N,2,4,4] y)
            <float[2,2,1,1] w = {4, 6, 1, 2}, float[2] b = {1, 2}, float half = {0.5}> {
                c = ConvTranspose (x, w, b)
                y = Add (half, c)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,4,4] x) => (float[N,2,4,4] y)
            <float[2,2,1,1] w = {4, 6, 1, 2}, float[2] b = {1.5, 2.5}> {
                y = ConvTranspose (x, w, b)
            }
            """,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,4,4,4] y) <float[4,1,1,1] w = {4, 6, 1, 2}, float[4] row = {1, 2, 3, 4}> {
                c = Conv (x, w)
                y = Add (c, row)
            }
            """,
            why="the numbers are for the columns, not for the channels",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y) <float[1,1,1,1] w = {4}, float[1,2,1,1] shift = {1, -2}> {
                c = Conv (x, w)
                y = Add (c, shift)
            }
            """,
            why="the constant makes two channels of one",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,4,4] x) => (float[N,2,4,4] y) <float[2,1,1,1] w = {4, 6}, float[2,1,1] shift = {1, -2}> {
                c = Conv (x, w)
                s = Add (c, shift)
                y = Mul (s, c)
            }
            """,
            why="the output of the Conv is read twice",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        found = _found(view)
        if not found:
            return
        kinds = " or ".join(sorted({layer.op for _, layer, _ in found}))
        yield self.found(
            view.at(found[0][0]),
            f"{len(found):,} Add could be the bias of the {kinds} before {'it' if len(found) == 1 else 'them'}",
            nodes=names_shown((label(node) for node, _, _ in found), 10),
            count=len(found),
            fix=SAFE if any(is_held(node.graph) for node, _, _ in found) else None,
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        found = {id(node): (layer, operand) for node, layer, operand in _found(view)}
        each(surgeon, (node for node, _, _ in _found(view)), lambda node: _fold(surgeon, node, *found[id(node)]))


def _found(view: GraphView) -> list[tuple[Node, Node, int]]:
    """(Add, layer before it, operand of the Add that is the constant); made once."""
    known: list[tuple[Node, Node, int]] | None = view.memo.get("onnxlint_rules.unfused_biases")
    if known is None:
        known = []
        for layer in view.nodes("Conv", "ConvTranspose"):
            added = _sole_add(layer)
            operand = next((i for i in (0, 1) if added and added.input(i) != layer.output()), None)
            if added is not None and operand is not None and _fits(added, operand, layer):
                known.append((added, layer, operand))
        view.memo["onnxlint_rules.unfused_biases"] = known
    return known


def _sole_add(layer: Node) -> Node | None:
    """The Add that alone reads a layer's output."""
    readers = layer.consumers()
    if len(readers) != 1 or readers[0].op != "Add" or readers[0].graph is not layer.graph:
        return None
    return None if layer.graph.is_output(layer.output()) or len(readers[0].inputs) != 2 else readers[0]


def _fits(added: Node, operand: int, layer: Node) -> bool:
    """Whether a constant has one number for each channel, or for all, and leaves the shape as it is."""
    tensor = fixed_tensor(added.graph, added.input(operand))
    if tensor is not None:
        dims: Sequence[int] = tensor.dims
    else:
        numbers = added.numbers(operand)
        if numbers is None or not is_fixed(added.graph, added.input(operand)):
            return False
        dims = numbers.dims
    channels, rank = _channels(layer)
    if not channels or len(dims) > rank or (layer.input(2) and not is_fixed(layer.graph, layer.input(2))):
        return False
    whole = [1] * (rank - len(dims)) + list(dims)
    return whole[1] in (1, channels) and all(size == 1 for axis, size in enumerate(whole) if axis != 1)


def _channels(layer: Node) -> tuple[int, int]:
    """(output channels, rank) of a layer; 0 channels where they are not known."""
    weights = layer.shape(1)
    if weights is None or len(weights) < 3:
        return 0, 0
    channels = weights[0] if layer.op == "Conv" else weights[1]
    if not isinstance(channels, int):
        return 0, 0
    return (channels if layer.op == "Conv" else channels * max(1, integer(layer, "group", 1))), len(weights)


def _fold(surgeon: Surgeon, added: Node, layer: Node, operand: int) -> None:
    """Make the addend the bias; two are added in float64, and rounded once."""
    import numpy as np

    held, held_layer = surgeon.node(added), surgeon.node(layer)
    channels, _ = _channels(layer)
    addend = array_of(added, operand)
    if addend is None or addend.dtype.kind != "f":
        raise Unfixable(f"operand {operand} of {label(added)} is not a plain tensor of floats")
    bias = np.broadcast_to(addend.reshape(-1), (channels,))
    if layer.input(2):
        before = array_of(layer, 2)
        if before is None or before.shape != (channels,) or before.dtype != addend.dtype:
            raise Unfixable("the bias of the layer does not fit its weights")
        with np.errstate(over="ignore"):
            bias = (before.astype(np.float64) + bias.astype(np.float64)).astype(addend.dtype)
        if not np.isfinite(bias).all():
            raise Unfixable("the sum of both would not be finite")
    constant = surgeon.constant(f"{layer.name or layer.output()}_bias", np.ascontiguousarray(bias), layer.graph)
    held_layer.inputs = [*held_layer.inputs[:2], constant]
    surgeon.replace_value(held.outputs[0], held_layer.outputs[0], added)
