"""Constants and attributes that no run survives, whatever the inputs are: an index beyond its axis, a step of 0.

Each was seen to fail in onnxruntime 1.32 with every input that was tried, an empty batch included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from onnxlint.graph.constants import Numbers
from onnxlint.graph.disputed import scales_index, windows_of
from onnxlint.graph.view import Node
from onnxlint.symbolic.engine import MISUSE, Sizes, Symbolic
from onnxlint.symbolic.shape_operators import einsum_terms
from onnxlint.symbolic.sizes import TooComplexError
from onnxlint.symbolic.spatial_operators import conv, conv_transpose


def refusal(s: Symbolic, node: Node) -> str:
    """Why runtimes refuse what a node's constants or attributes say; empty if they do not, or if that cannot be told."""
    try:
        beyond = _axis(s, node) if node.op in _OF_ONE_AXIS else ""
        return beyond or (_CHECKS[node.op](s, node) if node.op in _CHECKS else "")
    except (TooComplexError, *MISUSE):
        return ""  # an operator used against its specification: SPC001 reports it


def may_be_refused(node: Node) -> bool:
    """Whether there is something to look at: for `refusal`."""
    return node.op in _CHECKS or node.op in _OF_ONE_AXIS


def _axis(s: Symbolic, node: Node) -> str:
    """An axis that the first operand does not have."""
    axis = node.attribute("axis")
    data = s.of(node, 0) if isinstance(axis, int) else None
    return "" if data is None or -len(data) <= axis < len(data) else f"axis {axis} is not one of {len(data)}"


_OF_ONE_AXIS = frozenset("ArgMax ArgMin Concat Gather GatherElements Scatter ScatterElements Split TopK".split())
"""Operators with one axis of the first operand, which has to be there (a Softmax may lack it where it has no elements)."""


def _single(node: Node, i: int) -> Any:
    numbers = node.numbers(i) if node.input(i) else None
    return None if numbers is None else numbers.single


def _one_hot(s: Symbolic, node: Node) -> str:
    depth = _single(node, 1)
    return "" if depth is None or depth >= 1 else f"its depth is {depth}, and has to be at least 1"


def _range(s: Symbolic, node: Node) -> str:
    return "its step is 0" if _single(node, 2) == 0 else ""


def _divide(s: Symbolic, node: Node) -> str:
    divisor = node.numbers(1)
    return "it divides whole numbers by 0" if divisor and divisor.kind in "iu" and 0 in divisor.values else ""


def _resize(s: Symbolic, node: Node) -> str:
    index = scales_index(node)
    given, scales = node.attribute("scales"), node.numbers(index) if node.input(index) else None
    numbers = given or (scales.values if scales else ())
    least = 1 if node.op == "Upsample" else 0
    for scale in numbers:
        if scale < least or not scale:
            return f"a scale of {scale:g} is too small"
    sizes = node.numbers(3) if node.op == "Resize" and index == 2 and node.input(3) else None
    data = None if sizes is None or 0 not in sizes.values else s.of(node, 0)
    if data is None or sizes is None:
        return ""
    axes = node.attribute("axes") or range(len(data))
    sized = zip(axes, sizes.values, strict=True)
    return "a map cannot be resized to 0" if any(n == 0 and _is_filled(data[axis]) for axis, n in sized) else ""


def _top_k(s: Symbolic, node: Node) -> str:
    k = node.attribute("k", 0) if node.graph.view.opset < 10 else _single(node, 1)
    data = s.of(node, 0) if k is not None else None
    size = data[node.attribute("axis", -1)] if data else None
    return f"{k} of {size} cannot be chosen" if isinstance(size, int) and k > size else ""


def _is_filled(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _index(s: Symbolic, node: Node) -> str:
    """Gather, GatherElements and ScatterElements."""
    indices = node.numbers(1)
    data = s.of(node, 0) if indices and indices.values else None
    return "" if not data or indices is None else _beyond(indices.values, data[node.attribute("axis", 0)])


def _beyond(indices: Sequence[Any], size: object) -> str:
    if isinstance(size, int) and size >= 0:
        for index in indices:
            if not -size <= index < size:
                return f"index {index} is not one of an axis of {size:,}"
    return ""


def _index_tuples(s: Symbolic, node: Node) -> str:
    """GatherND and ScatterND."""
    indices = node.numbers(1)
    data = s.of(node, 0) if indices and indices.values else None
    if not data or indices is None:
        return ""
    first, depth = node.attribute("batch_dims", 0), indices.dims[-1]
    places = zip(range(depth), data[first:], strict=False)
    return next(filter(None, (_beyond(indices.values[k::depth], size) for k, size in places)), "")


def _blocks(s: Symbolic, node: Node) -> str:
    data, block = s.of(node, 0), node.attribute("blocksize")
    split = () if not data else data[1:2] if node.op == "DepthToSpace" else data[2:]
    number = block**2 if node.op == "DepthToSpace" else block
    uneven = [size for size in split if _is_uneven(size, number)]
    return f"{uneven[0]} is not a multiple of {number}" if uneven else ""


def _groups(s: Symbolic, node: Node) -> str:
    data, groups = s.of(node, 0), node.attribute("num_groups")
    channels = data[1] if data else None
    return f"{channels} channels cannot be shared out to {groups} groups" if _is_uneven(channels, groups) else ""


def _is_uneven(size: object, parts: int) -> bool:
    return isinstance(size, int) and size % parts != 0


def _reverse_sequence(s: Symbolic, node: Node) -> str:
    lengths = node.numbers(1)
    data = s.of(node, 0) if lengths and lengths.values else None
    size = data[node.attribute("time_axis", 0)] if data else None
    beyond = [n for n in lengths.values if not 0 <= n <= size] if lengths and isinstance(size, int) else []
    return f"a length of {beyond[0]} is not one of an axis of {size:,}" if beyond else ""


def _einsum(s: Symbolic, node: Node) -> str:
    """One operand whose axes of one letter, its diagonal, differ."""
    read = einsum_terms(s, node)
    for term, sizes in read[0] if read is not None else ():
        for letter in set(term):
            found = [size for one, size in zip(term, sizes, strict=True) if one == letter]
            if len(set(found)) > 1 and all(isinstance(size, int) for size in found):
                return f"axes of one letter, {letter!r}, are {found[0]} and {found[-1]} in one operand"
    return ""


def _lrn(s: Symbolic, node: Node) -> str:
    size = node.attribute("size")
    return f"onnxruntime takes odd sizes only, not {size}" if size < 1 or size % 2 == 0 else ""


def _windows(s: Symbolic, node: Node) -> str:
    """Convolutions and pooling of which no window fits into the map."""
    pools = node.op in _POOLS
    pads, kernel = node.attribute("pads") or (), node.attribute("kernel_shape") or ()
    if pools and any(pad >= reach for pad, reach in zip(pads, itertools.cycle(kernel), strict=False)):
        return "its padding is as large as its window, which onnxruntime refuses"
    data = s.of(node, 0)
    if not data or (pools and node.attribute("auto_pad", "NOTSET") not in ("", "NOTSET")):
        return ""
    sizes: Sizes = data[2:]
    if pools:
        # onnxruntime makes one window, or none, of a map that is too small by less than two strides.
        for size, (reach, stride) in zip(sizes, windows_of(node), strict=True):
            if isinstance(size, int) and size - reach - 1 <= -2 * stride:
                return f"its window is too large for a map of {size:,}"
        return ""
    filters, groups = (s.of(node, 3 if node.op == "QLinearConv" else 1) or (0,))[0], node.attribute("group", 1)
    if node.op != "ConvTranspose" and _is_uneven(filters, groups):
        return f"{filters} windows cannot be shared out to {groups} groups"
    (made,) = conv_transpose(s, node) if node.op == "ConvTranspose" else conv(s, node)
    too_small = [size for size, out in zip(sizes, (made or ())[2:], strict=True) if isinstance(out, int) and out < 1]
    return f"nothing is left of a map of {too_small[0]}" if too_small else ""


def _pad(s: Symbolic, node: Node) -> str:
    """A map that is mirrored beyond its own size."""
    if node.attribute("mode", "constant") != "reflect" or node.input(3):
        return ""
    given: Numbers | None = node.numbers(1) if node.input(1) else None
    pads = node.attribute("pads") or (given.values if given else ())
    data = s.of(node, 0) if pads else None
    if not data or len(pads) != 2 * len(data) or not all(map(_is_filled, data)):
        return ""
    for size, begin, end in zip(data, pads, pads[len(data) :], strict=False):
        assert isinstance(size, int)
        most = size + min(begin, 0) + min(end, 0) - 1
        if max(begin, end) > max(most, 0):
            return f"it mirrors {max(begin, end):,} of an axis of {size:,}"
    return ""


_POOLS = ("AveragePool", "LpPool", "MaxPool")

_CHECKS: dict[str, Callable[[Symbolic, Node], str]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "QLinearConv", *_POOLS), _windows),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("Div", "Mod"), _divide),
    **dict.fromkeys(("Gather", "GatherElements", "Scatter", "ScatterElements"), _index),
    **dict.fromkeys(("GatherND", "ScatterND"), _index_tuples),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Einsum": _einsum,
    "GroupNormalization": _groups,
    "LRN": _lrn,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "ReverseSequence": _reverse_sequence,
    "TopK": _top_k,
}
