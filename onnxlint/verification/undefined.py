"""Sizes at which a runtime runs a model though the specification does not allow it: what it computes there means nothing.

onnxruntime's Concat, for one, takes maps of other sizes where they are empty, and leaves a part of its output as the memory
was: that is what a space-to-depth of slices does with an image of one pixel. And where a window of pooling is larger than
the map, of which the specification makes an empty map, it makes one element, by another rule for each opset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.graph.disputed import SAME
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.demands import described, impossible_demands, node_label
from onnxlint.symbolic.engine import MISUSE
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.view import make_view
from onnxlint.verification.inputs import Contract, dims_of
from onnxlint.verification.results import Trial, Verification

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView, Node
    from onnxlint.symbolic.sizes import AnySize


def without_undefined(found: Verification, original: onnx.ModelProto, contract: Contract) -> Verification:
    """The same, without the differences at sizes that the original does not allow; they are `original failed`."""
    if found.equal:
        return found
    return replace(found, trials=tuple(_judged(trial, original, contract) for trial in found.trials))


def _judged(trial: Trial, original: onnx.ModelProto, contract: Contract) -> Trial:
    if trial.outcome != "different" or not trial.sizes:
        return trial
    why = _undefined(make_view(Model("", _at_sizes(original, contract, dict(trial.sizes)), 0)))
    return Trial(trial.dims, trial.kind, "original failed", why=why, sizes=trial.sizes) if why else trial


def _undefined(view: GraphView) -> str:
    """What the specification does not allow in a model of fixed sizes; empty if nothing is known."""
    for demand in impossible_demands(view):
        return described(demand)
    sizes = exact_sizes(view)
    for node in view.nodes(*_POOLS):
        data = sizes.shape(node.graph, node.input(0))
        kernel = node.attribute("kernel_shape", [])
        if data is None or len(data) != len(kernel) + 2 or node.attribute("auto_pad", "NOTSET") in SAME:
            continue
        try:
            rooms = _rooms(node, data[2:], kernel)
        except MISUSE:  # attributes of other types or lengths
            continue
        for size, room in zip(data[2:], rooms, strict=True):
            if room < 0:
                return f"{node_label(node)} has a window that is larger than its map of {size}"
    return ""


_POOLS = ("AveragePool", "LpPool", "MaxPool")


def _rooms(node: Node, sizes: Sequence[AnySize], kernel: Sequence[int]) -> list[int]:
    """How far a window can move along each axis; less than 0 where it does not fit."""
    rank = len(kernel)
    pads = node.attribute("pads", [0] * 2 * rank)
    dilations = node.attribute("dilations", [1] * rank)
    return [
        size + pads[i] + pads[i + rank] - (kernel[i] - 1) * dilations[i] - 1 if isinstance(size, int) else 0
        for i, size in enumerate(sizes)
    ]


def _at_sizes(original: onnx.ModelProto, contract: Contract, sizes: dict[str, int]) -> onnx.ModelProto:
    """A copy whose inputs have these sizes, and which declares no others."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    inputs = {one.name: one for one in contract.inputs}
    for value in proto.graph.input:
        one = inputs.get(value.name)
        if one is None or one.dims is None:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, dims_of(one, 0), strict=True):
            if not isinstance(size, int) and size in sizes:
                dim.dim_value = sizes[size]
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return proto
