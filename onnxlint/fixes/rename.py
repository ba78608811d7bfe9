"""Inputs and outputs get other names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.model.metadata import DROPPED_KEY, HEADS_KEY, SYMBOLS_KEY
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView


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
        if not new.isprintable():  # control characters, and bytes that are not UTF-8
            raise OnnxlintError(
                f"--rename: {printable(new)!r} has characters that cannot be printed; choose another name"
            )
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
        if entry.key in _RECORDS:
            entry.value = _renamed(entry.key, entry.value, names)
    return model


_RECORDS = (HEADS_KEY, DROPPED_KEY, SYMBOLS_KEY)
"""onnxlint's own metadata that names inputs or outputs; they are JSON."""


def _renamed(key: str, text: str, names: Mapping[str, str]) -> str:
    """One of `_RECORDS` with the new names; the same where it is damaged."""
    try:
        record = json.loads(text)
        if key == HEADS_KEY:
            for joined in record:
                joined["output"] = names.get(joined["output"], joined["output"])
        elif key == DROPPED_KEY:
            record = {names.get(output, output): entry for output, entry in record.items()}
        else:
            record = {
                symbol: [[names.get(name, name), axis] for name, axis in places] for symbol, places in record.items()
            }
        return json.dumps(record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text
