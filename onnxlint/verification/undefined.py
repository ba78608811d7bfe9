"""Sizes at which a runtime runs a model though the specification does not allow it: what it computes there means nothing.

onnxruntime's Concat, for one, takes maps of other sizes where they are empty, and leaves a part of its output as the memory
was: that is what a space-to-depth of slices does with an image of one pixel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.demands import described, impossible_demands
from onnxlint.symbolic.view import make_view
from onnxlint.verification.inputs import Contract, dims_of
from onnxlint.verification.results import Trial, Verification

if TYPE_CHECKING:
    import onnx


def without_undefined(found: Verification, original: onnx.ModelProto, contract: Contract) -> Verification:
    """The same, without the differences at sizes that the original does not allow; they are `original failed`."""
    if found.equal:
        return found
    return replace(found, trials=tuple(_judged(trial, original, contract) for trial in found.trials))


def _judged(trial: Trial, original: onnx.ModelProto, contract: Contract) -> Trial:
    if trial.outcome != "different" or not trial.sizes:
        return trial
    proto = _at_sizes(original, contract, dict(trial.sizes))
    demand = next(impossible_demands(make_view(Model("", proto, 0))), None)
    if demand is None:
        return trial
    return Trial(trial.dims, trial.kind, "original failed", why=described(demand), sizes=trial.sizes)


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
