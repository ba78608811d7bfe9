"""How the target onnx-fp16 is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from onnxlint.backends import Array, Artifact, Decision, Job, Progress
from onnxlint.backends.ort import half, half_graph
from onnxlint.backends.ort.artifact import measured, opened, outputs_of, some_inputs, tidy, write_model
from onnxlint.backends.ort.prepare import MOST, weight_bytes
from onnxlint.backends.ort.session import OrtSession, load
from onnxlint.backends.ort.targets import FP16
from onnxlint.backends.ort.trial import crashes, culprits
from onnxlint.backends.ort.walk import Walk
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
    ranges = half.measure(session, [name for name in floats if name in made_by or name in taken], inputs, progress)
    plan = half.plan(model, kinds, ranges, job.keep, session.path)
    for _ in range(REPAIRS):
        _write_surviving(model, kinds, plan, path, inputs[0], job, session)
        result = opened(session, path, job.threads)
        culprit = _first_not_finite(model, session, result, inputs[0])
        if culprit is None:
            break
        plan.keep_float32(culprit, "makes NaN or infinity in float16")
        for i, node in enumerate(model.graph.node):
            if not set(node.output).isdisjoint(model.graph.node[culprit].input):
                plan.keep_float32(i, "its output becomes NaN or infinity in float16")
    details = measured(session, result, inputs)
    decisions = tuple(
        Decision(node.name, node.op_type, "fp32" if i in plan.spared else "fp16", plan.spared.get(i, "fits"))
        for i, node in enumerate(model.graph.node)
        if any(name in ranges for name in (*node.input, *node.output))
    )
    return Artifact(FP16.name, (path,), decisions, tuple(notes), {**details, "inputs_measured": len(inputs)})


def _write_surviving(
    model: onnx.ModelProto,
    kinds: Mapping[str, str],
    plan: half.Plan,
    path: str,
    feeds: Mapping[str, Array],
    job: Job,
    session: OrtSession,
) -> None:
    """Write the float16 model; nodes that onnxruntime crashes on in float16 are added to the plan.

    Raises:
        OnnxlintError: It crashes on more than a few.
    """

    def write(spared: Iterable[int]) -> None:
        made = half_graph.converted(model, kinds, spared)
        tidy(session, made)
        write_model(made, path)

    def survives(spared: Iterable[int]) -> bool:
        write({*plan.spared, *spared})
        return not crashes(path, feeds, job.threads)

    write(plan.spared)
    how = crashes(path, feeds, job.threads)
    if not how:
        return
    found = culprits([i for i in range(len(model.graph.node)) if i not in plan.spared], survives)
    if found is None:
        raise OnnxlintError(f"{printable(session.path)}: onnxruntime crashes on the float16 model ({how})")
    for i in found:
        plan.keep_float32(i, f"onnxruntime crashes on it in float16 ({how})")
    write(plan.spared)


def _first_not_finite(
    model: onnx.ModelProto, session: OrtSession, result: OrtSession, feeds: Mapping[str, Array]
) -> int | None:
    """The first node that makes NaN or infinity in float16 and not in float32; None if all outputs are well."""
    outputs = outputs_of(session, result, feeds)
    if all(_finite(b) or not _finite(a) for a, b in zip(session.run(feeds), outputs, strict=True)):
        return None
    there = {name for node in result.proto.graph.node for name in node.output}
    floats = {name for name, _ in session.tensors()}
    makers = {name: i for i, node in enumerate(model.graph.node) for name in node.output if name in there & floats}
    single: dict[str, Array] = {}
    halves: dict[str, Array] = {}
    walks = [Walk(one, makers).values(feeds) for one in (session, result)]
    for (name, a), (other, b) in zip(*walks, strict=True):  # in the same order, as a rule
        single[name], halves[other] = a, b
        for both in {name, other} & single.keys() & halves.keys():
            before, after = single.pop(both), halves.pop(both)
            if both in makers and _finite(before) and not _finite(after):
                return makers[both]
    return None


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
