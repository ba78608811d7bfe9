"""Shapes as users write them: `image=N,3,H,W`, `image=1,3,?,?`."""

from __future__ import annotations

from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import GraphView
from onnxlint.text import printable


def parse_shape(view: GraphView, flag: str, text: str) -> tuple[str, tuple[int | str, ...]]:
    name, equals, dims_text = text.rpartition("=")
    parts = [part.strip() for part in dims_text.split(",")]
    if not equals or not all(parts):
        raise OnnxlintError(f"{flag} {text!r}: write it as 'input=1,3,640,640'")
    inputs = view.main.data_inputs
    if name not in inputs:
        known = ", ".join(map(printable, inputs))
        raise OnnxlintError(f"{flag}: the model has no input {printable(name)!r}; it has {known}")
    shape = view.main.shape(name)
    if shape is None or len(shape) != len(parts):
        has = "no known rank" if shape is None else f"{len(shape)} axes"
        raise OnnxlintError(f"{flag}: {printable(name)!r} has {has}, and {len(parts)} sizes are given")
    dims = tuple(int(part) if part.isdecimal() else part for part in parts)
    if any(dim == 0 for dim in dims):
        raise OnnxlintError(f"{flag} {text!r}: a size has to be positive")
    return name, dims
