"""onnxsim, made safe: `onnxlint fix --simplify`.

onnxsim runs in a process of its own, with limits on time and memory, because it crashes on some models. It is given neither
declared shapes of computed values, which may be wrong, nor large weights, which become inputs for the time being: so nothing
is held in memory twice, and what it cannot do then is fold weights into others (BatchNormalization into Conv: GRF006 does
that). What it drops is put back: metadata, doc strings, names, scopes and stack traces of nodes, declared shapes. The caller
runs both models, as after every other fix.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.model.skeleton import Model, inline_span, is_external, walk_tensors
from onnxlint.model.wire import DATA_NUMBERS, key_bytes
from onnxlint.symbolic.view import make_view
from onnxlint.telemetry import turn_off_telemetry
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.dims import Shape

SECONDS = 300
"""Wall time and CPU time that onnxsim gets."""

MEMORY = 8 << 30
"""Bytes of address space that onnxsim gets; weights are not in it."""

LARGE = 1 << 14
"""Elements from which on an initializer is a weight, which onnxsim is not shown."""

_CODE = """
import inspect, json, sys
sys.path[:] = json.loads(sys.argv[5])
seconds, memory = int(sys.argv[3]), int(sys.argv[4])
try:
    import resource
except ImportError:
    pass  # Windows: the parent's timeout alone
else:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if sys.platform == "linux":  # macOS does not limit address space
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
import onnx, onnxsim
# 0.7, the last for Python 3.10, does not certify unless it is asked to.
options = {"certify": False} if "certify" in inspect.signature(onnxsim.simplify).parameters else {}
model, _ = onnxsim.simplify(onnx.load(sys.argv[1], load_external_data=False), **options)
onnx.save(model, sys.argv[2])
"""


@dataclass(frozen=True)
class Outcome:
    """What onnxsim made of a model.

    Attributes:
        proto: The simplified skeleton, what onnxsim drops put back; None if it cannot be used.
        removed: Operator → nodes removed, most first; negative numbers are nodes that it added.
        refused: Why there is no result.
    """

    proto: onnx.ModelProto | None
    removed: tuple[tuple[str, int], ...] = ()
    refused: str = ""


def require_onnxsim() -> None:
    """Say early that onnxsim is missing.

    Raises:
        OnnxlintError: It is not installed.
    """
    from importlib.util import find_spec

    if find_spec("onnxsim") is None:
        raise OnnxlintError("--simplify needs onnxsim: install it with \"pip install 'onnxlint[simplify]'\"")


def simplify(model: Model, skeleton: onnx.ModelProto, seconds: int = SECONDS, memory: int = MEMORY) -> Outcome:
    """Let onnxsim simplify a skeleton.

    Args:
        model: Where its small constants are.
        skeleton: The model; not changed.
        seconds, memory: Limits of the other process.

    Returns:
        The original object where onnxsim changed nothing.

    Raises:
        OnnxlintError: onnxsim is not installed.
    """
    import json

    import onnx

    require_onnxsim()
    turn_off_telemetry()
    shown, hidden = _shown(model, skeleton)
    with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
        source, target = os.path.join(folder, "model.onnx"), os.path.join(folder, "simplified.onnx")
        try:
            Path(source).write_bytes(shown.SerializeToString())
        except ValueError:
            return Outcome(None, refused="the graph alone is larger than protobuf's 2 GiB")
        command = [sys.executable, "-c", _CODE, source, target, str(seconds), str(memory), json.dumps(sys.path)]
        problem = _run(command, folder, seconds)
        if problem:
            return Outcome(None, refused=problem)
        try:
            simplified = onnx.load(target, load_external_data=False)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes protobuf raise
            return Outcome(None, refused=f"its result cannot be read ({printable(str(error))[:200]})")
    problem = _other_interface(shown, simplified)
    if problem:
        return Outcome(None, refused=problem)
    proto = _restored(skeleton, shown, simplified, hidden)
    before, after = _operators(skeleton), _operators(proto)
    if _same_nodes(skeleton, proto):
        return Outcome(skeleton)
    if after.total() > before.total():
        return Outcome(None, refused=f"its result has more nodes ({after.total():,} in place of {before.total():,})")
    removed = {op: before[op] - after[op] for op in sorted(before | after) if before[op] != after[op]}
    return Outcome(proto, tuple(sorted(removed.items(), key=lambda item: -item[1])))


def _run(command: list[str], folder: str, seconds: int) -> str:
    """Run onnxsim; why it did not end well, or nothing."""
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=folder,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"onnxsim took longer than {seconds} s"
        if done.returncode == 0:
            return ""
        if done.returncode < 0:
            return f"onnxsim crashed (signal {-done.returncode})"
        errors.seek(0)
        lines = errors.read()[-10_000:].decode("utf-8", "replace").strip().splitlines()
    return f"onnxsim failed: {printable(lines[-1])[:200]}" if lines else "onnxsim failed"


# To onnxsim


def _shown(model: Model, skeleton: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """What onnxsim sees of a model: no declared shapes but the inputs', large weights as inputs; and their names."""
    import onnx
    from onnx import helper

    shown = onnx.ModelProto()
    shown.CopyFrom(skeleton)
    for graph in _graphs(shown.graph):
        del graph.value_info[:]
    graph_view = make_view(replace(model, proto=skeleton)).main
    for value in shown.graph.output:
        if value.type.HasField("tensor_type"):
            _leave_open(value.type.tensor_type, graph_view.shape(value.name))
    listed = {value.name for value in shown.graph.input}
    hidden: set[str] = set()
    small = []
    for tensor in shown.graph.initializer:
        if _is_large(tensor) or not _bring(model, tensor):
            hidden.add(tensor.name)
            if tensor.name not in listed:
                shown.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            small.append(tensor)
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in small]
    del shown.graph.initializer[:]
    shown.graph.initializer.extend(kept)
    for tensor in walk_tensors(shown):
        _bring(model, tensor)
    return shown, hidden


def _leave_open(tensor: onnx.TypeProto.Tensor, shape: Shape | None) -> None:
    """Sizes of an output become unknown; onnxsim demands its rank."""
    rank = len(tensor.shape.dim) if tensor.HasField("shape") else None if shape is None else len(shape)
    tensor.ClearField("shape")
    if rank is not None:
        tensor.shape.SetInParent()
        for _ in range(rank):
            tensor.shape.dim.add()


def _is_large(tensor: onnx.TensorProto) -> bool:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count >= LARGE


def _bring(model: Model, tensor: onnx.TensorProto) -> bool:
    """Bring a tensor's numbers into its message; False if they lie in another file, or cannot be had."""
    import onnx

    span = inline_span(tensor)
    if span is None:
        return not is_external(tensor)
    if model.buffer is None:
        return False
    header = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    data = model.buffer[span.offset : span.offset + span.length]
    field = key_bytes(DATA_NUMBERS[span.field], len(data)) + data
    tensor.CopyFrom(onnx.TensorProto.FromString(header.SerializeToString() + field))
    return True


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that are nested in it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


# And back


def _other_interface(shown: onnx.ModelProto, simplified: onnx.ModelProto) -> str:
    """What onnxsim changed of inputs and outputs, which nobody asked for; empty if nothing."""
    for what, before, after in (
        ("input", shown.graph.input, simplified.graph.input),
        ("output", shown.graph.output, simplified.graph.output),
    ):
        names = [value.name for value in after]
        for value in before:
            if value.name not in names:
                return f"onnxsim dropped {what} {printable(value.name)!r}"
        if len(names) != len(before):
            return f"onnxsim added an {what}"
    old = {one.domain: one.version for one in shown.opset_import}
    new = {one.domain: one.version for one in simplified.opset_import}
    changed = [domain for domain, version in new.items() if old.get(domain, version) != version]
    return f"onnxsim changed the opset of domain {printable(changed[0] or 'ai.onnx')}" if changed else ""


def _restored(
    skeleton: onnx.ModelProto, shown: onnx.ModelProto, simplified: onnx.ModelProto, hidden: set[str]
) -> onnx.ModelProto:
    """The original with onnxsim's nodes and constants, and all else as it was."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(skeleton)
    domains = {one.domain for one in proto.opset_import}
    proto.opset_import.extend(one for one in simplified.opset_import if one.domain not in domains)
    graph = proto.graph
    makers = {name: node for node in skeleton.graph.node for name in node.output if name}
    del graph.node[:]
    graph.node.extend(_node(node, makers) for node in simplified.graph.node)
    read = {name for each in _graphs(graph) for node in each.node for name in node.input}
    read |= {value.name for each in _graphs(graph) for value in each.output}
    originals = {tensor.name: tensor for tensor in skeleton.graph.initializer}
    kept = [tensor for tensor in skeleton.graph.initializer if tensor.name in hidden and tensor.name in read]
    given = {tensor.name: tensor for tensor in shown.graph.initializer}
    kept += [
        originals[tensor.name] if _is_same(tensor, given.get(tensor.name)) else tensor
        for tensor in simplified.graph.initializer
        if tensor.name in read
    ]
    listed = {value.name for value in skeleton.graph.input}
    names = {tensor.name for tensor in kept}
    kept += [tensor for name, tensor in originals.items() if name in listed and name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    _drop_stale_shapes(graph)
    return proto


def _is_same(tensor: onnx.TensorProto, given: onnx.TensorProto | None) -> bool:
    """Whether onnxsim left a constant as it was: the original's bytes can then stay where they are."""
    from onnx import numpy_helper

    if given is None or (given.data_type, given.dims) != (tensor.data_type, tensor.dims):
        return False
    return numpy_helper.to_array(given).tobytes() == numpy_helper.to_array(tensor).tobytes()


def _node(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> onnx.NodeProto:
    """A node of onnxsim's with the original's name, doc string and metadata."""
    import onnx

    original = next((makers[name] for name in node.output if name in makers), None)
    if original is None:
        return node
    if _content(node) == _content(original):
        return original
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.name = original.name if original.op_type == node.op_type else node.name
    made.doc_string = original.doc_string
    del made.metadata_props[:]
    made.metadata_props.extend(original.metadata_props)
    bodies = {attribute.name: attribute.g for attribute in original.attribute if attribute.HasField("g")}
    for attribute in made.attribute:
        if attribute.HasField("g") and attribute.name in bodies:
            _restore_body(attribute.g, bodies[attribute.name])
    return made


def _restore_body(body: onnx.GraphProto, original: onnx.GraphProto) -> None:
    """Put back what onnxsim drops in a nested graph, in place."""
    import onnx

    makers = {name: node for node in original.node for name in node.output if name}
    nodes = [onnx.NodeProto.FromString(_node(node, makers).SerializeToString()) for node in body.node]
    del body.node[:]
    body.node.extend(nodes)
    body.name, body.doc_string = original.name, original.doc_string
    del body.value_info[:], body.metadata_props[:]
    body.value_info.extend(original.value_info)
    body.metadata_props.extend(original.metadata_props)
    if [value.name for value in body.output] == [value.name for value in original.output]:
        del body.output[:]
        body.output.extend(original.output)
    _drop_stale_shapes(body)


def _content(node: onnx.NodeProto) -> tuple[Any, ...]:
    """A node without name, doc string and metadata."""
    attributes = []
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            attributes.append((attribute.name, b"", id(attribute)))  # bodies are compared node by node
        else:
            attributes.append((attribute.name, attribute.SerializeToString(deterministic=True), 0))
    inputs = list(node.input)
    while inputs and not inputs[-1]:
        inputs.pop()
    return node.op_type, node.domain, inputs, list(node.output), sorted(attributes)


def _drop_stale_shapes(graph: onnx.GraphProto) -> None:
    """Remove declared shapes of values that are gone, in place."""
    names = {name for node in graph.node for name in node.output}
    names |= {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    kept = [type(value).FromString(value.SerializeToString()) for value in graph.value_info if value.name in names]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)


def _operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for graph in _graphs(proto.graph) for node in graph.node if node.op_type != "Constant")


def _same_nodes(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    if len(one.graph.node) != len(other.graph.node):
        return False
    return all(a == b for a, b in zip(one.graph.node, other.graph.node, strict=True))
