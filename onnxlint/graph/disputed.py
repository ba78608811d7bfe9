"""Nodes for whose results onnx's inference finds other sizes than onnxruntime has.

Seen with onnx 1.23 and onnxruntime 1.32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnxlint.graph.dims import type_of

if TYPE_CHECKING:
    import onnx

SAME = ("SAME_UPPER", "SAME_LOWER")
TO_THE_END = 2**31 - 1
"""Ends of a Slice from here on stand for all."""


def rounding_resizes(view: Any) -> list[tuple[int, int]]:
    """(node of the main graph, its input) of each scale like 0.7: onnx's inference and runtimes round it differently.

    Args:
        view: The `GraphView`.
    """
    found = []
    for node in view.nodes("Resize", "Upsample"):
        index = 2 if node.op == "Resize" and view.opset >= 11 else 1
        scales = node.numbers(index) if node.graph is view.main else None
        if scales is not None and scales.kind == "f" and any(s * 64 % 1 for s in scales.values):
            found.append((node.index, index))
    return found


def disputed_nodes(view: Any) -> list[int]:
    """Nodes of the main graph whose sizes are not to be inferred.

    Pooling with dilations and SAME padding; ConvTranspose of a given `output_shape`, or with SAME padding; Resize that
    keeps the ratio of axes that are counted from the end; Slice backwards to an end that stands for all.

    Args:
        view: The `GraphView`.
    """
    return [
        node.index
        for op in _DIFFERS
        for node in view.nodes(op)
        if node.graph is view.main and node.input(0) and node.output() and _DIFFERS[op](node)
    ]


def contradicted_nodes(view: Any, inferred: onnx.GraphProto) -> list[int]:
    """Nodes of the main graph whose sizes were inferred wrongly: what inference says of their inputs shows it.

    Einsum that repeats an axis of 1, of which inference takes the 1; pooling with `ceil_mode`, of which inference counts a
    last window that would begin in the padding, or one where onnxruntime makes nothing of a small map.

    Args:
        view: The `GraphView`.
        inferred: The main graph with inferred shapes.
    """
    einsums = [node for node in view.nodes("Einsum") if node.graph is view.main and node.input(0)]
    pools = [
        node
        for node in view.nodes("AveragePool", "LpPool", "MaxPool")
        if node.graph is view.main and node.input(0) and node.attribute("ceil_mode", 0)
    ]
    if not einsums and not pools:
        return []
    values = {value.name: value for group in (inferred.value_info, inferred.input, inferred.output) for value in group}

    def sizes(name: str) -> Sequence[Any] | None:
        tensor = view.main.initializers.get(name)
        if tensor is not None:
            return tuple(tensor.dims)
        return type_of(values[name])[1] if name in values else None

    return [
        *(node.index for node in einsums if _repeats(node, sizes)),
        *(node.index for node in pools if _is_miscounted(node, sizes)),
    ]


def _repeats(node: Any, sizes: Callable[[str], Sequence[Any] | None]) -> bool:
    terms = str(node.attribute("equation", "")).replace(" ", "").partition("->")[0].split(",")
    met: dict[str, set[Any]] = {}
    for name, term in zip(node.inputs, terms, strict=False):
        shape = sizes(name)
        if shape is None:
            continue
        front, dots, back = term.partition("...")
        rest = len(shape) - len(front) - len(back)
        letters = [*front, *(f"{k}" for k in range(rest, 0, -1) if dots), *back]
        for letter, size in zip(letters, shape, strict=False):
            met.setdefault(letter, set()).add(size)
    return any(1 in found and len(found) > 1 for found in met.values())


def _is_miscounted(node: Any, sizes: Callable[[str], Sequence[Any] | None]) -> bool:
    """Whether inference finds other numbers of windows than onnxruntime, for a pooling with `ceil_mode`."""
    shape, made = (sizes(node.input(0)) or ())[2:], (sizes(node.output()) or ())[2:]
    windows = windows_of(node)
    if not len(windows) == len(shape) == len(made):
        return False
    same = node.attribute("auto_pad", "") in SAME
    begins = _or_default(node, "pads", [0] * (2 * len(shape)))
    return any(
        isinstance(size, int)
        and isinstance(count, int)
        and stride > 0
        and count != (-(-size // stride) if same else rounded_up(size + begin, size - reach - 1, stride))
        for size, count, begin, (reach, stride) in zip(shape, made, begins, windows, strict=False)
    )


def rounded_up(size: int, room: int, stride: int) -> int:
    """How many windows of a pooling with `ceil_mode` there are: the last one may end outside, and does not begin there.

    Args:
        size: Of the map and the padding before it.
        room: How far the first window can move, padding included.
        stride: Its stride.
    """
    count = -(-room // stride) + 1
    return count - ((count - 1) * stride >= size)


def windows_of(node: Any) -> list[tuple[int, int]]:
    """How far each axis of a pooling's window reaches beyond its first element and the padding, and its stride.

    Args:
        node: The node; attributes that are not of the specification count as absent.
    """
    kernel = whole_numbers(node, "kernel_shape")
    rank = len(kernel)
    dilations, strides = (_or_default(node, name, [1] * rank) for name in ("dilations", "strides"))
    pads = _or_default(node, "pads", [0] * (2 * rank))
    return [((kernel[i] - 1) * dilations[i] - pads[i] - pads[i + rank], strides[i]) for i in range(rank)]


def _or_default(node: Any, name: str, default: list[int]) -> list[int]:
    given = whole_numbers(node, name)
    return given if len(given) == len(default) else default


def whole_numbers(node: Any, name: str) -> list[int]:
    """A list of whole numbers; empty where the attribute is absent, or something else."""
    given = node.attribute(name)
    return given if isinstance(given, list) and all(isinstance(number, int) for number in given) else []


def _is_dilated(node: Any) -> bool:
    return node.attribute("auto_pad", "") in SAME and any(number != 1 for number in whole_numbers(node, "dilations"))


def _is_of_given_size(node: Any) -> bool:
    return bool(node.attribute("output_shape")) or node.attribute("auto_pad", "") in SAME


def _keeps_ratio(node: Any) -> bool:
    keeps = node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    return keeps and any(axis < 0 for axis in whole_numbers(node, "axes"))


def _goes_backwards(node: Any) -> bool:
    steps = node.numbers(4) if node.input(4) else None
    if steps is None or all(step >= 0 for step in steps.values):
        return False
    ends = node.numbers(2)
    return ends is None or any(end >= TO_THE_END for end in ends.values)


_DIFFERS = {
    "AveragePool": _is_dilated,
    "ConvTranspose": _is_of_given_size,
    "LpPool": _is_dilated,
    "MaxPool": _is_dilated,
    "Resize": _keeps_ratio,
    "Slice": _goes_backwards,
}
