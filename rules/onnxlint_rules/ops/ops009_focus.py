"""OPS009: a Focus layer, which one Conv could do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from onnxlint import SAFE, Example, Finding, GraphView, Node, Options, Request, Rule, Severity, Silent, Unfixable
from onnxlint_rules._graph import constant_integers, integer, integers, is_fixed
from onnxlint_rules._patching import UNHELD, array_of, each, is_held

if TYPE_CHECKING:
    from onnxlint import Surgeon

_PIXELS = ((0, 0), (0, 1), (1, 0), (1, 1))
_FAR = 2**30
"""An end of a slice from here on means "to the end"."""


class Focus(Rule):
    """A Focus layer (four strided Slices and a Concat) precedes a Conv that could do its work.

    ## What it does

    Reports the Focus layer of YOLOv5 and YOLOX: four strided Slices of one map, a Concat, and a Conv that alone reads it.
    Off by default: it is right as it is, and whether the Conv is faster depends on the device. Select it to have it fixed:
    `onnxlint fix --extend-select OPS009`.

    ## Why it hurts

    - Strided slices are slow on most accelerators, and run on the CPU on some; ncnn needs a layer of its own for it
      (`YoloV5Focus`), which models had to be edited for by hand.
    - Eight Slices and a Concat read and write the largest map of the network.

    ## Fix it at the source

    ```python
    # before
    x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    x = nn.Conv2d(12, 32, 3, 1, 1)(x)
    # after, as YOLOv5 does since 6.0
    x = nn.Conv2d(3, 32, 6, 2, 2)(x)
    ```

    ## Fix safety

    Exact within rounding and overflow: the weights of the Conv move to the pixels that they belong to. Odd sizes, at
    which the original fails, run afterwards.

    ## References

    - [YOLOv5: Focus replaced by an equivalent Conv](https://github.com/ultralytics/yolov5/issues/4825)
    - [ncnn: YoloV5Focus](https://github.com/Tencent/ncnn/blob/master/examples/yolov5.cpp)
    """

    code = "OPS009"
    name = "focus"
    severity = Severity.INFO
    help = "replace Focus and its Conv by one Conv of twice the kernel, stride and padding"
    since = "0.2.0"
    default = False
    fix = SAFE
    arithmetic = True
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y)
            <float[1,4,1,1] w = {1, 2, 3, 4}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
             int64[1] three = {3}, int64[1] end = {9223372036854775807}> {
                even = Slice (x, zero, end, two, two)
                odd = Slice (x, one, end, two, two)
                a = Slice (even, zero, end, three, two)
                b = Slice (odd, zero, end, three, two)
                c = Slice (even, one, end, three, two)
                d = Slice (odd, one, end, three, two)
                joined = Concat <axis = 1> (a, b, c, d)
                y = Conv <pads = [1, 1, 1, 1]> (joined, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y) <float[1,1,2,2] w = {1, 3, 2, 4}> {
                y = Conv <dilations = [1, 1], kernel_shape = [2, 2], pads = [2, 2, 2, 2], strides = [2, 2]> (x, w)
            }
            """,
            says="7 nodes in front of the Conv take 2×2 pixels as channels",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y)
            <float[1,2,1,1] w = {1, 2}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
             int64[1] end = {9223372036854775807}> {
                even = Slice (x, zero, end, two, two)
                odd = Slice (x, one, end, two, two)
                joined = Concat <axis = 1> (even, odd)
                y = Conv (joined, w)
            }
            """,
            why="only rows are split",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for node in view.nodes("Conv"):
            found = _focus(node)
            if found is not None:
                held = is_held(node.graph)
                yield self.found(
                    view.at(node),
                    f"{len(found.slices) + 1} nodes in front of the Conv take 2×2 pixels as channels",
                    fix=SAFE if held else None,
                    not_fixed="" if held else UNHELD,
                )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        each(surgeon, [view.find(finding.location)], partial(_to_conv, surgeon))


class _Focus(NamedTuple):
    """Input of a Conv.

    Attributes:
        first: A Slice that reads the map.
        slices: All of them.
        pixels: (row, column) of each group of channels, in their order.
    """

    first: Node
    slices: tuple[Node, ...]
    pixels: tuple[tuple[int, int], ...]


def _focus(conv: Node) -> _Focus | None:
    concat = conv.producer(0)
    if concat is None or concat.op != "Concat" or concat.graph is not conv.graph or len(concat.inputs) != 4:
        return None
    graph, shape = conv.graph, concat.output_shape()
    alone = len(graph.consumers(concat.output())) == 1 and not graph.is_output(concat.output())
    if not alone or shape is None or len(shape) != 4 or integer(concat, "axis", 0) % 4 != 1:
        return None
    if integer(conv, "group", 1) != 1 or any(step != 1 for step in integers(conv, "dilations") or []):
        return None
    if conv.attribute("auto_pad", "NOTSET") not in ("", "NOTSET") or not is_fixed(graph, conv.input(1)):
        return None
    pixels: list[tuple[int, int]] = []
    slices: dict[int, Node] = {}
    sources: set[str] = set()
    first: Node | None = None
    for i in range(4):
        starts: dict[int, int] = {}
        node = concat.producer(i)
        while node is not None and node.op == "Slice" and node.graph is graph and not graph.is_output(node.output()):
            taken = _every_second(node)
            if taken is None or set(taken) & set(starts):
                return None
            starts.update(taken)
            slices[id(node)] = first = node
            if len(starts) == 2:
                break
            node = node.producer(0)
        if set(starts) != {2, 3} or first is None:
            return None
        pixels.append((starts[2], starts[3]))
        sources.add(first.input(0))
    if sorted(pixels) != list(_PIXELS) or len(sources) != 1 or first is None:
        return None
    return _Focus(first, tuple(slices.values()), tuple(pixels))


def _every_second(node: Node) -> dict[int, int] | None:
    """Axis → start, for a Slice that takes every second element of an axis up to its end; None for any other."""
    operands = [constant_integers(node, i) for i in (1, 2, 3, 4)]
    shape = node.shape(0)
    if shape is None or len(shape) != 4 or any(operand is None for operand in operands):
        return None
    found: dict[int, int] = {}
    for start, end, axis, step in zip(*(operand or [] for operand in operands), strict=False):
        size = shape[axis] if -4 <= axis < 4 else None
        to_the_end = end >= _FAR or (isinstance(size, int) and end >= size)
        if step != 2 or start not in (0, 1) or not to_the_end or not -4 <= axis < 4:
            return None
        found[axis % 4] = start
    return found if len(found) == len(operands[0] or []) else None


def _to_conv(surgeon: Surgeon, conv: Node) -> None:
    import numpy as np

    found, weights = _focus(conv), array_of(conv, 1)
    if found is None or weights is None or weights.ndim != 4 or weights.shape[1] % 4:
        raise Unfixable("the weights of the Conv are not those of a Focus")
    held, first = surgeon.node(conv), surgeon.node(found.first)
    outputs, channels, rows, columns = weights.shape[0], weights.shape[1] // 4, *weights.shape[2:]
    spread = np.zeros((outputs, channels, 2 * rows, 2 * columns), weights.dtype)
    for group, (row, column) in enumerate(found.pixels):
        spread[:, :, row::2, column::2] = weights[:, group * channels : (group + 1) * channels]
    strides, pads = integers(conv, "strides") or [1, 1], integers(conv, "pads") or [0, 0, 0, 0]
    held.attrs.update(
        kernel_shape=[2 * rows, 2 * columns],
        strides=[2 * step for step in strides],
        pads=[2 * pad for pad in pads],
        dilations=[1, 1],
    )
    held.inputs[1] = surgeon.constant(f"{conv.input(1)}_focus", spread)
    held.inputs[0] = first.inputs[0]
