"""Types for a strongly typed network: float16 inside, Q/DQ with float16 scales, float32 inputs and outputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from onnxlint.backends import Array, Job, Progress
from onnxlint.backends.ort import half, half_graph
from onnxlint.backends.ort.artifact import write_model
from onnxlint.backends.ort.session import OrtSession
from onnxlint.backends.tensorrt.symmetric import SMALLEST_SCALE
from onnxlint.fixes import opset
from onnxlint.model.save import save
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view

OPSET = 19
"""The first one whose QuantizeLinear and DequantizeLinear take float16."""

PAIR = ("QuantizeLinear", "DequantizeLinear")


def strongly_typed(
    model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], job: Job, progress: Progress
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A QDQ model in float16, and why nodes stay in float32, by name.

    Args:
        model: With float32 Q/DQ.
        inputs: On which it is measured what float16 has to hold.
        job: How.
        progress: Called with the current action.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, path = os.path.join(folder, "before.onnx"), os.path.join(folder, "float.onnx")
        write_model(model, before)
        opened = open_model(before)
        view = make_view(opened)
        save(opened, opset.convert(view, OPSET) if view.opset < OPSET else opened.proto, path, inline=True)
        raised = onnx.load(path)
        half.with_initializers(raised)
        write_model(raised, path)
        session = OrtSession(path, job.threads)
        kinds = session.kinds()
        own = {name for node in raised.graph.node for name in node.output} | {port.name for port in session.inputs}
        floats = [name for name, kind in kinds.items() if kind == "tensor(float)" and name in own]
        measured = half.measure(session, floats, inputs, progress)
    plan = half.plan(raised, kinds, measured, (), path)
    _let_pairs_be_half(raised, plan)
    made = half_graph.converted(raised, kinds, plan.spared)
    return made, {raised.graph.node[i].name: why for i, why in plan.spared.items()}


def _let_pairs_be_half(model: onnx.ModelProto, plan: half.Plan) -> None:
    """Take Q/DQ out of the nodes that stay in float32, where float16 has all digits of their scales."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for i, node in enumerate(model.graph.node):
        if node.op_type in PAIR and node.input[1] in arrays:
            scale = np.abs(arrays[node.input[1]])
            if scale.min() >= SMALLEST_SCALE and scale.max() < half.LARGEST:
                plan.spared.pop(i, None)
            else:
                plan.spared[i] = "float16 has too few digits for its scales"
