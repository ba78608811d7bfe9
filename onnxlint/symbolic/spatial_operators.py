"""Sizes of the outputs of operators on maps: convolutions, pooling, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from onnxlint.graph.disputed import SAME, rounded_up, scales_index
from onnxlint.graph.view import Node
from onnxlint.symbolic.engine import Sizes, Symbolic
from onnxlint.symbolic.sizes import AnySize, ceil_div, truncated
from onnxlint.symbolic.values import Number, Quotient, in_single, number_of


def conv(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of Conv, ConvInteger and QLinearConv."""
    data, weight = s.of(node, 0), s.of(node, 3 if node.op == "QLinearConv" else 1)
    if data is None or weight is None:
        return [None]
    return [(data[0], weight[0], *_windows(s, node, data[2:], weight[2:]))]


def _windows(s: Symbolic, node: Node, sizes: Sizes, weights: Sequence[AnySize] = ()) -> list[AnySize]:
    """How often a window fits into each axis; the window is that of the node, or of its weights."""
    given, pools = node.attributes(), not weights
    rank = len(sizes)
    kernel = given.get("kernel_shape") or weights
    strides = given.get("strides") or [1] * rank
    dilations = given.get("dilations") or [1] * rank
    pads = given.get("pads") or [0] * (2 * rank)
    auto = given.get("auto_pad", "NOTSET")
    ceil_mode = given.get("ceil_mode", 0)
    out: list[AnySize] = []
    for i, size in enumerate(sizes):
        if auto in SAME:
            # onnxruntime pads pooling as if there were no dilation.
            out.append(s.fresh() if pools and dilations[i] != 1 else ceil_div(size, strides[i]))
            continue
        begin, end = (0, 0) if auto == "VALID" else (pads[i], pads[i + rank])
        room = size + (begin + end) - (kernel[i] - 1) * dilations[i] - 1 if pools else 0
        if pools and not ceil_mode:
            out.append(_pooled(s, room, strides[i]))
            continue
        if pools and isinstance(room, int) and isinstance(size, int):
            out.append(rounded_up(size + begin, room, strides[i]))
            continue
        windows = _fitting(size, begin + end, (kernel[i] - 1) * dilations[i], strides[i])
        if ceil_mode and (rounded := ceil_div(room, strides[i]) + 1) != windows:
            # The last window must start inside: always so where the padding at the end is small.
            extent = (kernel[i] - 1) * dilations[i] + 1
            windows = rounded if isinstance(extent, int) and end <= extent - strides[i] else s.fresh()
        out.append(windows)
    return out


def _pooled(s: Symbolic, room: AnySize, stride: int) -> AnySize:
    """How many windows of pooling fit where there is so much room beside the first: by the specification, and in
    onnxruntime, which makes one of a window that is larger than the map by less than the stride."""
    if stride < 1 or (isinstance(room, int) and room < 0 and room % stride):
        return s.fresh()
    return truncated(room, stride, s.may_be_empty) + 1


@lru_cache(maxsize=4096)
def _fitting(size: AnySize, padding: int, reach: AnySize, stride: int) -> AnySize:
    """How many windows that reach so far beyond their first element fit; networks ask the same again and again."""
    return (size + padding - reach - 1) // stride + 1


def conv_transpose(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of ConvTranspose."""
    data, weight = s.of(node, 0), s.of(node, 1)
    if data is None or weight is None:
        return [None]
    rank = len(data) - 2
    strides = node.attribute("strides") or [1] * rank
    channels = weight[1] * node.attribute("group", 1)
    dilations = node.attribute("dilations") or [1] * rank
    pads = node.attribute("pads") or [0] * (2 * rank)
    extra = node.attribute("output_padding") or [0] * rank
    kernel = node.attribute("kernel_shape") or list(weight[2:])
    wanted = node.attribute("output_shape")
    if wanted:
        return [(data[0], channels, *wanted[-rank:])]
    if node.attribute("auto_pad", "") in SAME:
        # onnxruntime leaves gaps between windows out where there is nothing that padding could take off.
        extents = [(kernel[i] - 1) * dilations[i] + 1 + extra[i] for i in range(rank)]
        fills = [isinstance(extent, int) and extent >= strides[i] for i, extent in enumerate(extents)]
        return [(data[0], channels, *(data[2 + i] * strides[i] if fills[i] else s.fresh() for i in range(rank)))]
    spatial = [
        (data[2 + i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + rank]
        for i in range(rank)
    ]
    return [(data[0], channels, *spatial)]


def pool(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of pooling over windows."""
    data = s.of(node, 0)
    if data is None:
        return [None]
    sizes = (data[0], data[1], *_windows(s, node, data[2:]))
    return [sizes] * len(node.outputs)


def global_pool(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of pooling over whole maps."""
    data = s.of(node, 0)
    return [None if data is None else (*data[:2], *(1,) * (len(data) - 2))]


def resize(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of Resize and Upsample."""
    data = s.of(node, 0)
    if data is None:
        return [None]
    axes = node.attribute("axes")
    places = [range(len(data))[axis] for axis in axes] if axes else list(range(len(data)))
    out = list(data)
    sizes = s.val(node, 3)
    if sizes is not None:
        if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            return [tuple(s.fresh() for _ in data)]
        for axis, number in zip(places, sizes.numbers, strict=True):
            out[axis] = s.whole(number)
        return [tuple(out)]
    index = scales_index(node)
    scales = s.val(node, index) if node.input(index) else None
    given = node.attribute("scales")
    numbers = tuple(map(number_of, given)) if given else scales.numbers if scales else None
    if numbers is None or len(numbers) != len(places) or node.attribute("coordinate_transformation_mode") == _CROP:
        return [tuple(s.fresh() for _ in data)]
    for axis, number in zip(places, numbers, strict=True):
        out[axis] = _scaled(s, data[axis], number)
    return [tuple(out)]


_CROP = "tf_crop_and_resize"


def _scaled(s: Symbolic, size: AnySize, scale: Number | None) -> AnySize:
    if scale is None:
        return s.fresh()
    if not isinstance(scale, Quotient):
        return size * scale
    if isinstance(scale.num, int) and isinstance(scale.den, int):
        if scale.is_exact:
            return size * scale.num // scale.den
        if isinstance(size, int):
            # Runtimes multiply in single or in double precision: believed where both give the same.
            factor = in_single(scale.num / scale.den)
            single, double = math.floor(in_single(in_single(size) * factor)), math.floor(size * factor)
            return single if single == double else s.fresh()
    return s.fresh()


def depth_to_space(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of DepthToSpace and SpaceToDepth."""
    data, block = s.of(node, 0), node.attribute("blocksize")
    if data is None:
        return [None]
    if node.op == "DepthToSpace":
        return [(data[0], data[1] // block**2, data[2] * block, data[3] * block)]
    return [(data[0], data[1] * block**2, data[2] // block, data[3] // block)]


def grid_sample(s: Symbolic, node: Node) -> list[Sizes | None]:
    """Sizes of GridSample."""
    data, grid = s.of(node, 0), s.of(node, 1)
    return [None if data is None or grid is None else (*data[:2], *grid[1:-1])]
