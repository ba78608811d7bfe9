"""Shared by the targets of onnxruntime: test inputs, the state of nodes, and writing of files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Decision, Job
from onnxlint.backends.ort.feeds import from_images, image_port, made_up, spread
from onnxlint.backends.ort.session import OrtSession, read_by
from onnxlint.errors import OnnxlintError
from onnxlint.text import did_you_mean, printable

if TYPE_CHECKING:
    import onnx

MEASURED = 32
"""Images, evenly from all, that say what float16 has to hold."""


def some_inputs(
    session: OrtSession, job: Job, count: int = MEASURED
) -> tuple[Sequence[Mapping[str, Array]], list[str]]:
    """Inputs to run a model on, and a note on their source: some of the images, or generated ones."""
    why = "no images were given"
    if job.images is not None:
        try:
            image_port(session.path, session.inputs)
        except OnnxlintError:
            why = "it takes no images"
        else:
            return list(from_images(session.path, session.inputs, job, spread(job.images, count))), []
    return made_up(session.path, job.shape, session.run), [f"run on made-up inputs: {why}"]


def check_kept(model: onnx.ModelProto, keep: Collection[str], name: str) -> None:
    """Raise OnnxlintError if a name in `keep` is not that of a node.

    Args:
        model: After its nodes got names.
        keep: Names of nodes, as the user gives them.
        name: Of the model, for errors.
    """
    known = [node.name for node in model.graph.node]
    for one in keep:
        if one not in known:
            raise OnnxlintError(
                f"{printable(name)}: has no node {printable(one)!r} to keep in float{did_you_mean(one, known)}"
            )


def states(model: onnx.ModelProto, made: onnx.ModelProto, chosen: Sequence[Decision]) -> tuple[Decision, ...]:
    """What became of each node with weights."""
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    int8 = {
        tensor.name.removesuffix("_quantized")
        for tensor in made.graph.initializer
        if tensor.name.endswith("_quantized")
    }
    by_name = {one.layer: one for one in chosen}
    found = []
    for node in model.graph.node:
        own = [name for name in node.input if name in constants]
        if node.name in by_name:
            found.append(by_name[node.name])
        elif own and not int8.isdisjoint(own):
            found.append(Decision(node.name, node.op_type, "int8", "weights and what it reads"))
        elif own:
            found.append(Decision(node.name, node.op_type, "fp32", "not quantized"))
    return tuple(found)


def write_model(model: onnx.ModelProto, path: str) -> None:
    """Write a model file.

    Raises:
        OnnxlintError: It cannot be written.
    """
    if model.ByteSize() >= 2**31 - 1:
        raise OnnxlintError(f"{printable(path)}: would be larger than protobuf's 2 GiB; split the model first")
    try:
        with open(path, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise OnnxlintError(f"{printable(path)}: cannot be written: {error.strerror or error}") from None


def finish(
    session: OrtSession, made: onnx.ModelProto, path: str, inputs: Sequence[Mapping[str, Array]], job: Job
) -> dict[str, Any]:
    """Write the model with the original's metadata, load it, run it, and measure its SNR.

    Raises:
        OnnxlintError: It cannot be written, does not load or run, or its outputs are not finite where the original's are.
    """
    tidy(session, made)
    write_model(made, path)
    return measured(session, opened(session, path, job.threads), inputs)


def tidy(session: OrtSession, made: onnx.ModelProto) -> None:
    """Give a model the original's metadata, the operator sets that it uses and sorted nodes, in place."""
    import onnx

    source = session.proto
    del made.metadata_props[:]
    made.metadata_props.extend(source.metadata_props)
    made.graph.name = source.graph.name
    used = {node.domain for node in _all_nodes(made)} | {f.domain for f in made.functions}
    kept = [entry for entry in made.opset_import if entry.domain in used or entry.domain in ("", "ai.onnx")]
    copies = [onnx.OperatorSetIdProto.FromString(entry.SerializeToString()) for entry in kept]
    del made.opset_import[:]
    made.opset_import.extend(sorted(copies, key=lambda entry: entry.domain))
    del made.graph.value_info[:]
    _sort(made)


def opened(session: OrtSession, path: str, threads: int) -> OrtSession:
    """The model that was written.

    Raises:
        OnnxlintError: It does not load.
    """
    try:
        return OrtSession(path, threads)
    except OnnxlintError as error:
        raise _does_not_run(session, path, error) from error


def outputs_of(session: OrtSession, result: OrtSession, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs of the model that was made.

    Raises:
        OnnxlintError: It does not run.
    """
    try:
        return result.run(feeds)
    except OnnxlintError as error:
        raise _does_not_run(session, result.path, error) from error


def _does_not_run(session: OrtSession, path: str, error: OnnxlintError) -> OnnxlintError:
    why = str(error).removeprefix(f"{printable(path)}: ")
    return OnnxlintError(f"{printable(session.path)}: the converted model does not run: {why}")


def measured(session: OrtSession, result: OrtSession, inputs: Sequence[Mapping[str, Array]]) -> dict[str, Any]:
    """Size and SNR of a model that was made.

    Raises:
        OnnxlintError: It does not run, or its outputs are not finite where the original's are.
    """
    path = result.path
    some = list(islice(inputs, 4))
    outputs = [outputs_of(session, result, feeds) for feeds in some]
    signal = noise = 0.0
    for feeds, made_of_them in zip(some, outputs, strict=True):
        for port, a, b in zip(session.outputs, session.run(feeds), made_of_them, strict=True):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
                continue
            if a.shape != b.shape:
                continue  # what it finds, such as boxes, differs in number
            if np.isfinite(a).all() and not np.isfinite(b).all():
                raise OnnxlintError(
                    f"{printable(session.path)}: as {printable(os.path.basename(path))} its output {printable(port.name)!r} "
                    "is no longer finite; keep the nodes that cause it in float with --keep"
                )
            finite = np.isfinite(a) & np.isfinite(b)
            x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
            signal, noise = signal + float(x @ x), noise + float((x - y) @ (x - y))
    snr = round(10 * float(np.log10(signal / max(noise, signal * 1e-30))), 2) if signal else None
    return {"bytes": os.path.getsize(path), "snr_db": snr}


def _sort(model: onnx.ModelProto) -> None:
    """Sort nodes topologically, as ONNX requires and onnxruntime's tools do not guarantee."""
    nodes = list(model.graph.node)
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    ready: dict[int, None] = {}
    for first in range(len(nodes)):
        stack = [first]
        while stack:
            if stack[-1] in ready:
                stack.pop()
                continue
            before = sorted(maker[name] for name in read_by(nodes[stack[-1]]) if name in maker)
            waiting = [i for i in before if i not in ready]
            if not waiting:
                ready[stack.pop()] = None
            stack += waiting
    copies = [type(nodes[i]).FromString(nodes[i].SerializeToString()) for i in ready]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)
