"""OPS010: padding that runtimes work out from the size of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
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
    listed,
)
from onnxlint.rulekit import Size, exact_sizes
from onnxlint_rules._graph import integer, integers, label, names_shown
from onnxlint_rules._patching import UNHELD, each, is_held
from onnxlint_rules.ops._common import targets_only

if TYPE_CHECKING:
    from onnxlint import Surgeon
    from onnxlint.rulekit import AnySize

_OPS = ("AveragePool", "Conv", "LpPool", "MaxPool")
_SAME = ("SAME_UPPER", "SAME_LOWER")
_FREE = "their padding depends on sizes that are free: --static NAME=SIZES fixes the sizes"
_DISPUTED = "runtimes disagree on the padding (dilations, ceil_mode, or windows smaller than the stride)"


class AutoPad(Rule):
    """A Conv or pooling leaves its padding to the runtime (`auto_pad`), and converters work it out in different ways.

    ## What it does

    Reports Conv, MaxPool, AveragePool and LpPool with `auto_pad` of `SAME_UPPER` or `SAME_LOWER`, as exporters of Keras
    and TensorFlow write them (`padding="same"`). One finding for the whole model.

    ## Why it hurts

    ONNX calls `auto_pad` deprecated. pnnx, which makes nets for ncnn, pads MaxPool on both sides where `SAME_UPPER` means
    one side only, computes other numbers for AveragePool, and refuses `SAME_LOWER` for Conv. Quantizers and shape tools
    that read `pads` take such a layer for one without padding.

    ## Fix it at the source

    ```python
    # before: Keras
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    # after: the padding is a part of the network
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # behind a ReLU, where zeros change nothing
    x = layers.MaxPooling2D(3, strides=2, padding="valid")(x)
    ```

    ## Fix safety

    Exact: `pads` gets the numbers that `auto_pad` stands for. These are the same for all sizes where the stride is 1 or
    divides the size; where that is not known, and where runtimes disagree (dilations), nothing is changed.

    ## References

    - [Conv](https://onnx.ai/onnx/operators/onnx__Conv.html): `auto_pad`
    - [MaxPool](https://onnx.ai/onnx/operators/onnx__MaxPool.html): "auto_pad is a DEPRECATED attribute"
    """

    code = "OPS010"
    name = "auto-pad"
    severity = Severity.WARNING
    help = "write the padding as numbers, in `pads`"
    since = "0.2.0"
    fix = SAFE
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,24,H] x) => (float[N,1,12,A] y) <float[1,1,3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
                a = Conv <auto_pad = "SAME_UPPER"> (x, w)
                y = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [3, 2], strides = [2, 1]> (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,24,H] x) => (float[N,1,12,A] y) <float[1,1,3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
                a = Conv <pads = [1, 1, 1, 1]> (x, w)
                y = MaxPool <kernel_shape = [3, 2], pads = [0, 0, 1, 1], strides = [2, 1]> (a)
            }
            """,
            says="2 nodes leave their padding to the runtime (auto_pad): Conv and MaxPool",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,23] x) => (float[N,1,12] y) {
                y = AveragePool <auto_pad = "SAME_LOWER", kernel_shape = [4], strides = [2]> (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,23] x) => (float[N,1,12] y) {
                y = AveragePool <kernel_shape = [4], pads = [2, 1], strides = [2]> (x)
            }
            """,
            says="1 node leaves its padding to the runtime (auto_pad): AveragePool",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y) {
                y = MaxPool <auto_pad = "VALID", kernel_shape = [2, 2]> (x)
            }
            """,
            why="VALID is no padding, everywhere",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        found = _found(view)
        if not found or targets_only(options, "onnxruntime", "tensorrt"):
            return
        kinds = listed(sorted({node.op for node in found}))
        leave = "leaves its" if len(found) == 1 else "leave their"
        held = [node for node in found if is_held(node.graph)]
        obstacles = [_obstacle(node) for node in held]
        fixable = "" in obstacles
        yield self.found(
            view.at(found[0]),
            f"{counted(len(found), 'node')} {leave} padding to the runtime (auto_pad): {kinds}",
            fix=SAFE if fixable else None,
            not_fixed="" if fixable else obstacles[0] if held else UNHELD,
            nodes=names_shown(map(label, found), 10),
            count=len(found),
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        each(surgeon, _found(view), partial(_write, surgeon))


def _found(view: GraphView) -> list[Node]:
    return [node for node in view.nodes(*_OPS) if node.attribute("auto_pad", "NOTSET") in _SAME]


def _obstacle(node: Node) -> str:
    """Why the padding of a node cannot be written as numbers; empty if it can."""
    try:
        _pads(node)
    except Unfixable as why:
        return str(why)
    return ""


def _pads(node: Node) -> list[int]:
    """The numbers that `auto_pad` stands for, begins first.

    Raises:
        Unfixable: They depend on a free size, or on the runtime.
    """
    sizes = exact_sizes(node.graph.view).of(node, 0)
    if sizes is None:
        raise Unfixable(_FREE)
    rank = len(sizes) - 2
    kernel: Sequence[int | str | None] = integers(node, "kernel_shape") or (node.shape(1) or ())[2:]
    strides, dilations = integers(node, "strides") or [1] * rank, integers(node, "dilations") or [1] * rank
    are_plain = rank > 0 and len(kernel) == len(strides) == len(dilations) == rank
    if not are_plain or any(one != 1 for one in dilations) or integer(node, "ceil_mode", 0):
        raise Unfixable(_DISPUTED)
    begins, ends = [], []
    for size, window, stride in zip(sizes[2:], kernel, strides, strict=True):
        rest = _remainder(size, stride)
        if rest is None or not isinstance(window, int):
            raise Unfixable(_FREE)
        total = window - (rest or stride)
        if total < 0:
            raise Unfixable(_DISPUTED)
        less = total // 2
        begin = less if node.attribute("auto_pad", "") == "SAME_UPPER" else total - less
        begins.append(begin)
        ends.append(total - begin)
    return [*begins, *ends]


def _remainder(size: AnySize, stride: int) -> int | None:
    """What is left of a size, divided by a stride; None if it may be one thing or another."""
    if stride < 1:
        return None
    if isinstance(size, int):
        return size % stride
    fits = isinstance(size, Size) and all(factor % stride == 0 for _, factor in size.terms)
    return size.constant % stride if fits else None


def _write(surgeon: Surgeon, node: Node) -> None:
    pads = _pads(node)
    held = surgeon.node(node)
    held.attrs.pop("auto_pad", None)
    held.attrs["pads"] = pads
