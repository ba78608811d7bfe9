"""How the target onnx-fp16 is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from onnxlint.backends import Array, Artifact, Decision, Job, Progress
from onnxlint.backends.ort import half, half_graph
from onnxlint.backends.ort.artifact import finish, some_inputs, write_model
from onnxlint.backends.ort.prepare import MOST, weight_bytes
from onnxlint.backends.ort.session import OrtSession, load, part, run, start
from onnxlint.backends.ort.targets import FP16
from onnxlint.backends.ort.trial import crashes, culprits
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

REPAIRS = 20
"""Nodes that may go back to float32 because the float16 model made NaN or infinity there."""


def make_half(session: OrtSession, path: str, job: Job, progress: Progress) -> Artifact:
    """Make a float16 file, load it and run it.

    Args:
        session: The float model.
        path: Where to write.
        job: How.
        progress: Called with the current action.

    Raises:
        OnnxlintError: It cannot be made.
    """

    size = weight_bytes(session.proto)
    if size > MOST:
        raise OnnxlintError(
            f"{printable(session.path)}: has {size:,} bytes of weights; more than 2 GiB cannot be converted in one piece, "
            "split the model first"
        )
    model = load(session.path)
    half.with_initializers(model)
    kinds = session.kinds()
    inputs, notes = some_inputs(session, job)
    floats = [name for name, kind in kinds.items() if kind == "tensor(float)"]
    made_by = {name for node in model.graph.node for name in node.output}
    taken = {port.name for port in session.inputs}
    measured = half.measure(session, [name for name in floats if name in made_by or name in taken], inputs, progress)
    plan = half.plan(model, kinds, measured, job.keep, session.path)
    for _ in range(REPAIRS):
        made = _surviving_half(model, kinds, plan, path, inputs[0], job, session)
        culprit = _first_not_finite(model, made, session, inputs[0], job, path)
        if culprit is None:
            break
        plan.keep_float32(culprit, "makes NaN or infinity in float16")
        for i, node in enumerate(model.graph.node):
            if not set(node.output).isdisjoint(model.graph.node[culprit].input):
                plan.keep_float32(i, "its output becomes NaN or infinity in float16")
    details = finish(session, made, path, inputs, job)
    decisions = tuple(
        Decision(node.name, node.op_type, "fp32" if i in plan.spared else "fp16", plan.spared.get(i, "fits"))
        for i, node in enumerate(model.graph.node)
        if any(name in measured for name in (*node.input, *node.output))
    )
    return Artifact(FP16.name, (path,), decisions, tuple(notes), {**details, "inputs_measured": len(inputs)})


def _surviving_half(
    model: onnx.ModelProto,
    kinds: Mapping[str, str],
    plan: half.Plan,
    path: str,
    feeds: Mapping[str, Array],
    job: Job,
    session: OrtSession,
) -> onnx.ModelProto:
    """The float16 model, with nodes added to the plan that onnxruntime crashes on in float16.

    Raises:
        OnnxlintError: It crashes on more than a few.
    """

    def survives(spared: Iterable[int]) -> bool:
        write_model(half_graph.converted(model, kinds, {*plan.spared, *spared}), path)
        return not crashes(path, feeds, job.threads)

    made = half_graph.converted(model, kinds, plan.spared)
    write_model(made, path)
    how = crashes(path, feeds, job.threads)
    if not how:
        return made
    found = culprits([i for i in range(len(model.graph.node)) if i not in plan.spared], survives)
    if found is None:
        raise OnnxlintError(f"{printable(session.path)}: onnxruntime crashes on the float16 model ({how})")
    for i in found:
        plan.keep_float32(i, f"onnxruntime crashes on it in float16 ({how})")
    return half_graph.converted(model, kinds, plan.spared)


def _first_not_finite(
    model: onnx.ModelProto, made: onnx.ModelProto, session: OrtSession, feeds: Mapping[str, Array], job: Job, path: str
) -> int | None:
    """The first node that makes NaN or infinity in float16 and not in float32; None if all outputs are well."""

    outputs = run(start(made, name=session.path, threads=job.threads), session.path, feeds)
    truth = session.run(feeds)
    if all(_finite(b) or not _finite(a) for a, b in zip(truth, outputs, strict=True)):
        return None
    there = {name for node in made.graph.node for name in node.output}
    floats = {name for name, _ in session.tensors()}
    names = [name for node in model.graph.node for name in node.output if name in there and name in floats]
    inner = run(start(part(made, names), name=session.path, optimize=False), session.path, feeds)
    for name, a, b in zip(names, session.run(feeds, names), inner, strict=True):
        if _finite(a) and not _finite(b):
            return next(i for i, node in enumerate(model.graph.node) if name in node.output)
    return None


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
