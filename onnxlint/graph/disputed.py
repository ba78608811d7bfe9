"""Nodes for whose results onnx's inference finds other sizes than onnxruntime has.

Seen with onnx 1.23 and onnxruntime 1.32.
"""

from __future__ import annotations

from typing import Any

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
    return [node.index for op in _DIFFERS for node in view.nodes(op) if node.graph is view.main and _DIFFERS[op](node)]


def _is_dilated(node: Any) -> bool:
    dilations = node.attribute("dilations")
    return bool(dilations) and node.attribute("auto_pad", "") in SAME and dilations != [1] * len(dilations)


def _is_of_given_size(node: Any) -> bool:
    return bool(node.attribute("output_shape")) or node.attribute("auto_pad", "") in SAME


def _keeps_ratio(node: Any) -> bool:
    axes = node.attribute("axes")
    keeps = node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    return keeps and isinstance(axes, list) and any(axis < 0 for axis in axes)


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
