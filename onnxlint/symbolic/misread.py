"""Nodes of whose results runtimes have several opinions: what onnxruntime makes is not what it infers when it loads a model.

Seen with onnxruntime 1.32: it computes the right thing, and takes sizes from shape inference all the same, so that a Shape
of the result becomes a wrong constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from onnxlint.graph.disputed import SAME, TO_THE_END, rounded_up, scales_index, whole_numbers, windows_of
from onnxlint.graph.view import GraphView, Node
from onnxlint.symbolic.engine import MISUSE, Symbolic
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.shape_operators import einsum_terms
from onnxlint.symbolic.sizes import AnySize
from onnxlint.symbolic.values import in_single


class Misread(NamedTuple):
    """A node whose result has a size that is disputed.

    Attributes:
        node: The node.
        what: The opinions.
        help: What everybody reads in the same way.
    """

    node: Node
    what: str
    help: str


def misread_sizes(view: GraphView) -> Iterator[Misread]:
    """Nodes whose results have disputed sizes, outside of functions."""
    suspects = [node for node in view.nodes(*_OPINIONS) if not node.graph.outermost.is_function and _is_suspect(node)]
    if not suspects:
        return
    symbolic = exact_sizes(view)
    for node in suspects:
        try:
            found = _OPINIONS[node.op](symbolic, node)
        except MISUSE:
            continue  # an operator used against its specification: SPC001 reports it
        if found is not None:
            yield Misread(node, *found)


def repeated_letters(symbolic: Symbolic, node: Node) -> Iterator[tuple[str, AnySize, bool]]:
    """Letters of an Einsum of which one operand has a single element, and is repeated: (letter, size of others, whether
    onnxruntime then takes its result for one of 1: the first operand is the one that is repeated).
    """
    terms = einsum_terms(symbolic, node)
    sizes: dict[str, list[AnySize]] = {}
    read, result = ((), "") if terms is None else terms
    for term, shape in read:
        for letter, size in zip(term, shape, strict=False):
            sizes.setdefault(letter, []).append(size)
    for letter, found in sizes.items():
        others = [size for size in found if size != 1]
        if letter.isalpha() and others and len(others) < len(found):
            yield letter, others[0], letter in result and found[0] == 1


_Opinion = tuple[str, str] | None


def _einsum(symbolic: Symbolic, node: Node) -> _Opinion:
    letters = sorted(repeated_letters(symbolic, node), key=lambda one: not one[2])
    if not letters:
        return None
    letter, size, is_misread = letters[0]
    what = f"Einsum repeats axis {letter!r}, which is 1 in one operand and {size} in another: "
    if is_misread:
        what += "onnxruntime takes its result for one of size 1 there, and gives that to whoever asks for its shape"
    else:
        what += "onnxruntime does so, and ONNX does not say it"
    return what, "give both operands the same size (expand), or leave the axis of 1 out of the equation (squeeze)"


def _slice(symbolic: Symbolic, node: Node) -> _Opinion:
    steps, ends = node.numbers(4), node.numbers(2)
    if steps is None or ends is None:
        return None
    backwards = [end for step, end in zip(steps.values, ends.values, strict=True) if step < 0 and end >= TO_THE_END]
    if not backwards:
        return None
    what = f"Slice goes backwards to {backwards[0]}: that is all in onnxruntime, and nothing by the specification"
    return what, "flip with torch.flip, or let it end at -9223372036854775807"


def _pool(symbolic: Symbolic, node: Node) -> _Opinion:
    data = symbolic.of(node, 0)
    if data is None or node.attribute("auto_pad", "NOTSET") in SAME:
        return None  # OPS010 reports these
    begins = whole_numbers(node, "pads") or [0] * len(data)
    for size, begin, (reach, stride) in zip(data[2:], begins, windows_of(node), strict=False):
        if not isinstance(size, int) or stride < 1 or size - reach <= 0:
            continue
        made, inferred = rounded_up(size + begin, size - reach - 1, stride), -(-(size - reach - 1) // stride) + 1
        if made != inferred:
            what = f"{node.op} with ceil_mode makes {made:,} of {size:,}, and onnxruntime infers {inferred:,}"
            return (
                f"{what}: its last window would lie in the padding",
                "pad less at the end, so that ceil_mode=False gives the same",
            )
    return None


def _resize(symbolic: Symbolic, node: Node) -> _Opinion:
    data, scales = symbolic.of(node, 0), node.numbers(scales_index(node))
    if data is None or scales is None or node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    axes = node.attribute("axes") or range(len(data))
    for axis, scale in zip(axes, scales.values, strict=True):
        size = data[axis]
        if not isinstance(size, int):
            continue
        single, double = math.floor(in_single(in_single(size) * in_single(scale))), math.floor(size * scale)
        if single != double:
            what = f"{node.op} by {scale:g} makes {single:,} of {size:,} in single precision, and {double:,} in double"
            return f"{what}: onnxruntime computes the one and infers the other", "give the size in place of the scale"
    return None


_OPINIONS: dict[str, Callable[[Symbolic, Node], _Opinion]] = {
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Einsum": _einsum,
    "Slice": _slice,
}


def _is_suspect(node: Node) -> bool:
    """Whether sizes have to be looked at, which takes longer than all else."""
    if node.op == "Einsum":
        return True
    if node.op == "Slice":
        steps = node.numbers(4) if node.input(4) else None
        return steps is not None and min(steps.values, default=0) < 0
    if node.op in ("Resize", "Upsample"):
        index = scales_index(node)
        scales = node.numbers(index) if node.input(index) else None
        return scales is not None and any(scale * 64 % 1 for scale in scales.values)
    return bool(node.attribute("ceil_mode", 0))
