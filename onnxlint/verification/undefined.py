"""Sizes at which a runtime runs a model though the specification does not allow it: what it computes there means nothing.

onnxruntime's Concat, for one, takes maps of other sizes where they are empty, and leaves a part of its output as the memory
was: that is what a space-to-depth of slices does with an image of one pixel. And where a window of pooling is larger than
the map, of which the specification makes an empty map, it makes one element, by another rule for each opset.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.graph.disputed import SAME, windows_of
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.demands import described, impossible_demands, node_label
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.view import make_view
from onnxlint.verification.inputs import Contract, dims_of
from onnxlint.verification.results import Trial, Verification

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView


def without_undefined(found: Verification, original: onnx.ModelProto, contract: Contract) -> Verification:
    """The same, without the differences at sizes that the original does not allow; they are `original failed`."""
    places = {trial.sizes for trial in found.trials if trial.outcome == "different" and trial.sizes}
    reasons = {
        sizes: _undefined(make_view(Model("", _at_sizes(original, contract, dict(sizes)), 0))) for sizes in places
    }

    def judged(trial: Trial) -> Trial:
        why = reasons.get(trial.sizes, "") if trial.outcome == "different" else ""
        return Trial(trial.dims, trial.kind, "original failed", why=why, sizes=trial.sizes) if why else trial

    return replace(found, trials=tuple(map(judged, found.trials))) if any(reasons.values()) else found


def _undefined(view: GraphView) -> str:
    """What the specification does not allow in a model of fixed sizes; empty if nothing is known."""
    for demand in impossible_demands(view):
        return described(demand)
    sizes = exact_sizes(view)
    for node in view.nodes(*_POOLS):
        if node.attribute("auto_pad", "NOTSET") in SAME:
            continue
        for size, (reach, _) in zip((sizes.of(node, 0) or ())[2:], windows_of(node), strict=False):
            if isinstance(size, int) and size <= reach:
                return f"{node_label(node)} has a window that is larger than its map of {size}"
    return ""


_POOLS = ("AveragePool", "LpPool", "MaxPool")


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
