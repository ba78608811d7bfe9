"""Schemas of operators as text; imports nothing that imports onnx."""

from __future__ import annotations

from onnxlint.graph.schemas import newest_opset, schema
from onnxlint.graph.view import GraphView


def shown(view: GraphView) -> str:
    """All that `schema` says about the operators of a model."""
    lines = [str(newest_opset())]
    for op in sorted(view.ops):
        for newest in (False, True):
            found = schema(view, op, newest)
            allowed = found and sorted((name, sorted(types)) for name, types in found.allowed.items())
            lines.append(repr((op, newest, found and found[:4], allowed)))
    return "\n".join(lines)
