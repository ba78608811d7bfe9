"""Changes to a model's interface that its user asks for: joined heads, dropped activations, renamed and resized inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.model.assumptions import SYMBOLS_KEY
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

    from onnxlint.graph.view import GraphView
    from onnxlint.lint.rule import Request
    from onnxlint.model.skeleton import Model
    from onnxlint.surgery.surgeon import Surgeon

HEADS_KEY = "onnxlint.heads"
"""Key of `metadata_props` that tells what is where in an output that heads were joined into; see `Head`."""

DROPPED_KEY = "onnxlint.dropped_activations"
"""Key of `metadata_props`: output (or head) name → activation that post-processing has to apply, as JSON."""


class HeadsError(OnnxlintError):
    """Outputs cannot be concatenated as asked: those that are named, or none that the model has."""


@dataclass(frozen=True)
class Head:
    """One part of a joined output.

    Attributes:
        name: The output that it was.
        start, stop: Its slice of the joined axis.
        activation: An operator that was dropped and that post-processing has to apply; empty where there is none.
    """

    name: str
    start: int
    stop: int
    activation: str = ""


@dataclass(frozen=True)
class Joined:
    """An output that heads were joined into.

    Attributes:
        output: Its name.
        axis: The axis that they were joined along, non-negative.
        heads: Its parts, in order.
    """

    output: str
    axis: int
    heads: tuple[Head, ...]


def changed_interface(model: Model, request: Request) -> tuple[onnx.ModelProto, list[str]]:
    """The model with the input sizes and the names that a request asks for, and what was done, in words.

    Returns:
        The original skeleton where nothing is asked for.

    Raises:
        OnnxlintError: Something is asked for that the model does not allow.
    """

    proto, done = model.proto, []
    if request.dynamic:
        from onnxlint.fixes.free_sizes import make_dynamic

        proto = make_dynamic(make_view(replace(model, proto=proto)), request.dynamic)
        done += [f"set free: {printable(shape)}" for shape in request.dynamic]
    if request.static:
        from onnxlint.fixes.free_sizes import make_static

        proto = make_static(make_view(replace(model, proto=proto)), request.static)
        done += [f"fixed: {printable(shape)}" for shape in request.static]
    if request.rename:
        proto = rename_ends(make_view(replace(model, proto=proto)), dict(request.rename))
        done += [f"renamed {printable(old)!r} to {printable(new)!r}" for old, new in request.rename]
    return proto, done


def rename_ends(view: GraphView, names: Mapping[str, str]) -> onnx.ModelProto:
    """Give inputs and outputs other names: old → new.

    Raises:
        OnnxlintError: There is no such input or output, or a new name is in use.
    """
    import onnx

    ends = (*view.main.inputs, *view.main.outputs)
    for old in names:
        if old not in ends:
            known = ", ".join(map(printable, (*view.main.data_inputs, *view.main.outputs)))
            raise OnnxlintError(f"--rename {printable(old)}: no input or output has that name (there are: {known})")
    used = {name for graph in view.graphs for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    used |= {name for graph in view.graphs for name in (*graph.inputs, *graph.outputs, *graph.initializers)}
    for new in names.values():
        if not new or (new in used - names.keys()) or list(names.values()).count(new) > 1:
            raise OnnxlintError(
                f"--rename: the model has a value called {printable(new)!r} already; choose another name"
            )
    model = onnx.ModelProto()
    model.CopyFrom(view.proto)
    pending: list[tuple[Any, Mapping[str, str]]] = [(model.graph, names)]
    while pending:
        graph, here = pending.pop()
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = here.get(value.name, value.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = here.get(sparse.values.name, sparse.values.name)
        for annotation in graph.quantization_annotation:
            annotation.tensor_name = here.get(annotation.tensor_name, annotation.tensor_name)
            for entry in annotation.quant_parameter_tensor_names:
                entry.value = here.get(entry.value, entry.value)
        for node in graph.node:
            for side in (node.input, node.output):
                for i, name in enumerate(side):
                    if name in here:
                        side[i] = here[name]
            for attribute in node.attribute:
                for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                    own = {value.name for value in (*body.input, *body.initializer)}
                    own.update(name for inner in body.node for name in inner.output)
                    pending.append((body, {old: new for old, new in here.items() if old not in own}))
    for entry in model.metadata_props:
        if entry.key in (HEADS_KEY, DROPPED_KEY, SYMBOLS_KEY):
            entry.value = _renamed(entry.value, names)
    return model


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Names in onnxlint's own metadata, which is JSON."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {names.get(key, key): walk(part) for key, part in value.items()}
        if isinstance(value, list):
            return [walk(part) for part in value]
        return names.get(value, value) if isinstance(value, str) else value

    try:
        return json.dumps(walk(json.loads(text)))
    except ValueError:
        return text


def pick_heads(view: GraphView, names: Sequence[str]) -> list[str]:
    """Output names for what a user calls them: a name, or a part of a name or of the module that makes it.

    Raises:
        OnnxlintError: One of them fits no output, or several.
    """
    graph = view.main
    scopes = {output: _scopes(view, output) for output in graph.outputs}
    picked = []
    for name in names:
        if name in graph.outputs:
            picked.append(name)
            continue
        folded = name.lower()
        found = [output for output, texts in scopes.items() if any(folded in text.lower() for text in texts)]
        if len(found) != 1:
            what = "several outputs" if found else "no output"
            known = ", ".join(map(printable, graph.outputs))
            raise HeadsError(f"--concat-heads: {name!r} fits {what}; the model has {known}")
        picked.append(found[0])
    if len(set(picked)) < len(picked):
        raise HeadsError("--concat-heads: an output is named twice")
    return picked


def _scopes(view: GraphView, output: str) -> set[str]:
    """The output's name, and the modules that its values come from."""
    texts = {output}
    node = view.main.producer(output)
    for _ in range(8):
        if node is None:
            break
        producers = [p for p in (node.producer(i) for i in range(len(node.inputs))) if p is not None]
        texts |= {view.sources.scope(n.proto) for n in (node, *producers)}
        node = producers[0] if len(producers) == 1 else None
    return texts - {""}


def join_heads(view: GraphView, surgeon: Surgeon, names: Sequence[str], axis: int | None, output: str) -> Joined:
    """Put a Concat of some outputs in their place.

    Args:
        names: The outputs, in the order in which they are to be joined.
        axis: Along which; None for the only one in which they differ.
        output: Name of the new output.

    Raises:
        OnnxlintError: They do not fit together.
    """
    import onnx_graphsurgeon as gs

    shapes = [view.main.shape(name) for name in names]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1:
        ranks = ", ".join(f"{printable(n)} {'?' if s is None else len(s)}" for n, s in zip(names, shapes, strict=True))
        raise HeadsError(f"--concat-heads: the outputs do not have one rank ({ranks})")
    rank = len(known[0])
    if len({view.main.dtype(name) for name in names}) != 1:
        raise HeadsError("--concat-heads: the outputs do not have one element type")
    if axis is None:
        differing = [i for i in range(rank) if len({shape[i] for shape in known}) > 1 and _numbers(known, i)]
        axis = differing[0] if len(differing) == 1 else rank - 1
    if not -rank <= axis < rank:
        raise OnnxlintError(f"--axis {axis}: the outputs have {rank} axes")
    axis %= rank
    for i in range(rank):
        across = {size for shape in known if isinstance(size := shape[i], int)}
        if i != axis and len(across) > 1:
            raise HeadsError(f"--concat-heads: the outputs differ in axis {i} too ({sorted(across)})")
    sizes = [shape[axis] for shape in known]
    if not all(isinstance(size, int) for size in sizes):
        raise HeadsError(f"--concat-heads: the sizes of axis {axis} are not constant")
    others = set(view.main.outputs) - set(names)
    if output in others or (output not in names and view.main.owner(output) is not None):
        raise OnnxlintError(f"--concat-name {output!r}: the model has a value of that name; choose another")
    graph = surgeon.graph
    tensors = {tensor.name: tensor for tensor in graph.outputs}
    parts = [tensors[name] for name in names]
    place = min(graph.outputs.index(part) for part in parts)
    if output in names:
        part = tensors[output]
        part.name = surgeon.name(f"{output}_head")
    total = sum(size for size in sizes if isinstance(size, int))
    merged = [
        total if i == axis else next((shape[i] for shape in known if isinstance(shape[i], int)), _shared(known, i))
        for i in range(rank)
    ]
    joined = gs.Variable(output, dtype=parts[0].dtype, shape=merged)
    graph.nodes.append(gs.Node("Concat", surgeon.name(f"{output}_concat"), {"axis": axis}, parts, [joined]))
    kept = [tensor for tensor in graph.outputs if not any(tensor is part for part in parts)]
    kept.insert(place, joined)
    graph.outputs = kept
    heads, start = [], 0
    for name, size in zip(names, sizes, strict=True):
        assert isinstance(size, int)
        heads.append(Head(name, start, start + size))
        start += size
    result = Joined(output, axis, tuple(heads))
    surgeon.metadata[HEADS_KEY] = to_json([*read_heads(view.proto), result])
    return result


def _numbers(shapes: Sequence[tuple[Any, ...]], axis: int) -> bool:
    return all(isinstance(shape[axis], int) for shape in shapes)


def _shared(shapes: Sequence[tuple[Any, ...]], axis: int) -> str | None:
    """A symbol that all shapes have for an axis."""
    names = {shape[axis] for shape in shapes}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) and name.isidentifier() else None


def drop_activation(surgeon: Surgeon, node: gs.Node, outputs: Sequence[str]) -> None:
    """Let an activation go; what it made, its input's maker makes."""
    take_over(surgeon, node)
    dropped = json.loads(surgeon.metadata.get(DROPPED_KEY) or _metadata(surgeon.view.proto).get(DROPPED_KEY) or "{}")
    axis = node.attrs.get("axis")
    for output in outputs:
        dropped[output] = {"op": node.op, **({"axis": axis} if axis is not None else {})}
    surgeon.metadata[DROPPED_KEY] = json.dumps(dropped)


def take_over(surgeon: Surgeon, node: gs.Node) -> None:
    """Take a node out whose first output is to be its first input; names of graph outputs stay."""
    from onnxlint.surgery.wiring import bypass, detach, replace

    before, after = node.inputs[0], node.outputs[0]
    maker = before.inputs[0] if before.inputs else None
    if not surgeon.is_returned(after):
        bypass(node)
    elif maker is None or surgeon.is_returned(before):
        node.op = "Identity"  # an output that is an input, a constant or another output needs a node of its own
        node.attrs.clear()
        node.inputs = node.inputs[:1]
    else:
        detach(node)
        replace(before, after)
        maker.outputs = [after if tensor is before else tensor for tensor in maker.outputs]


def read_heads(proto: onnx.ModelProto) -> list[Joined]:
    """What a fixed model's metadata says about its joined outputs.

    Raises:
        OnnxlintError: The metadata is damaged.
    """
    properties = _metadata(proto)
    try:
        dropped = json.loads(properties.get(DROPPED_KEY, "{}"))
        return [
            Joined(
                str(entry["output"]),
                int(entry["axis"]),
                tuple(
                    Head(str(h["name"]), int(h["start"]), int(h["stop"]), dropped.get(h["name"], {}).get("op", ""))
                    for h in entry["heads"]
                ),
            )
            for entry in json.loads(properties.get(HEADS_KEY, "[]"))
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OnnxlintError(
            f"the model's metadata {HEADS_KEY!r} is damaged ({error}); fix the original again"
        ) from None


def to_json(joined: Sequence[Joined]) -> str:
    """The value of `HEADS_KEY`."""
    return json.dumps(
        [
            {
                "output": one.output,
                "axis": one.axis,
                "heads": [{"name": h.name, "start": h.start, "stop": h.stop} for h in one.heads],
            }
            for one in joined
        ]
    )


def describe_heads(joined: Joined, rank: int) -> str:
    """What is where in a joined output, and how to take it apart in NumPy and in C++."""
    lines = [f"{printable(joined.output)}: {len(joined.heads)} heads along axis {joined.axis}"]
    for head in joined.heads:
        after = f"  (apply {head.activation})" if head.activation else ""
        lines.append(f"  {head.start:>5} to {head.stop - 1:<5} {printable(head.name)}{after}")
    names = [_identifier(head.name) for head in joined.heads]
    cuts = ", ".join(str(head.stop) for head in joined.heads[:-1])
    lines += [
        "",
        "NumPy:",
        f'  output = session.run(["{printable(joined.output)}"], feeds)[0]',
        f"  {', '.join(names)} = np.split(output, [{cuts}], axis={joined.axis})",
    ]
    total = joined.heads[-1].stop
    if joined.axis == rank - 1:
        lines += ["", "C++ (row-major floats, one candidate after another):"]
        lines.append(f"  const float* candidate = output + i * {total};")
        lines += [
            f"  const float* {name} = candidate + {head.start};  // {head.stop - head.start} values"
            for name, head in zip(names, joined.heads, strict=True)
        ]
    else:
        lines += ["", f"C++ (row-major floats; `inner` values for each index of axis {joined.axis}):"]
        lines += [
            f"  const float* {name} = output + {head.start} * inner;  // {head.stop - head.start} × inner values"
            for name, head in zip(names, joined.heads, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _identifier(name: str) -> str:
    text = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    return text if text and not text[0].isdigit() else f"head_{text}"


def _metadata(proto: onnx.ModelProto) -> Mapping[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}
