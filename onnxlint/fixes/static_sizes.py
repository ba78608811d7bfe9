"""Sizes of inputs become numbers: `--static 'image=1,3,640,640'`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.demands import refuse_impossible, refuse_misread
from onnxlint.fixes.shapes import parse_shape
from onnxlint.graph.dims import Shape
from onnxlint.graph.view import Graph, GraphView
from onnxlint.model.assumptions import clause_symbols, note_symbols
from onnxlint.model.metadata import ASSUMES_KEY
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.batch import input_batch_axes
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx


def make_static(view: GraphView, shapes: Sequence[str]) -> onnx.ModelProto:
    """Give inputs fixed sizes.

    Args:
        view: The model.
        shapes: `name=1,3,640,?`. A symbol gets its number everywhere that it stands; `?` leaves an axis as it is.

    Returns:
        A new skeleton, its declared shapes brought up to date.

    Raises:
        OnnxlintError: A shape does not fit its input, or a node does not accept the sizes.
    """
    wanted = [parse_shape(view, "--static", text) for text in shapes]
    bound: dict[str, int] = {}
    for name, dims in wanted:
        for axis, (dim, now) in enumerate(zip(dims, view.main.shape(name) or (), strict=True)):
            if dim is None:
                continue
            if isinstance(dim, str):
                raise OnnxlintError(
                    f"--static: axis {axis} of {printable(name)!r} is {printable(dim)!r}: write a number, or ? where it "
                    "stays as it is"
                )
            if isinstance(now, int) and now != dim:
                raise OnnxlintError(
                    f"--static: axis {axis} of {printable(name)!r} is fixed to {now} already, and cannot become {dim} "
                    "without --dynamic"
                )
            if isinstance(now, str) and bound.setdefault(now, dim) != dim:
                raise OnnxlintError(f"--static: {printable(now)!r} cannot be both {bound[now]} and {dim}")
    model = copied(view)
    if ASSUMES_KEY in {entry.key for entry in model.metadata_props}:
        assumed = next(entry.value for entry in model.metadata_props if entry.key == ASSUMES_KEY)
        note_symbols(model, clause_symbols(assumed))
    for value in model.graph.input:
        given = dict(wanted).get(value.name, ())
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param in bound:
                size.dim_value = bound[size.dim_param]
            elif axis < len(given) and isinstance(wanted_size := given[axis], int):
                size.dim_value = wanted_size
    after = make_view(replace(view.model, proto=model))
    refuse_impossible(after, view, "--static")
    refuse_misread(after, view, "--static")
    _refuse_contradictions(view, after)
    for graph in after.graphs:
        if not graph.is_function:
            declare(graph, lambda name, graph=graph: graph.shape(name), bound)  # type: ignore[misc]
    return model


def at_batch(model: Model, batch: int) -> onnx.ModelProto:
    """A new skeleton whose inputs are declared to have a batch of this size, where it is free."""
    view = make_view(model)
    proto, axes = copied(view), input_batch_axes(view.main)
    free = {shape[axes[name]] for name in axes if (shape := view.main.shape(name))}
    for value in proto.graph.input:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value") and (size.dim_param in free or axis == axes.get(value.name)):
                size.dim_value = batch
    return proto


def copied(view: GraphView) -> onnx.ModelProto:
    """A copy of the view's skeleton."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(view.proto)
    return model


def declare(graph: Graph, shape_of: Callable[[str], Shape | None], bound: dict[str, int]) -> None:
    """Bring declared shapes of a graph's values up to date, in place."""
    proto: Any = graph.proto
    for value in (*proto.value_info, *proto.output):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            continue
        shape = shape_of(value.name)
        if shape is None or len(shape) != len(tensor.shape.dim):
            tensor.ClearField("shape")
            continue
        for dim, size in zip(tensor.shape.dim, shape, strict=True):
            if isinstance(size, int):
                dim.dim_value = size
            elif dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]
            elif size is not None and not size.startswith(("unk__", "?")):
                dim.dim_param = size
            else:
                dim.Clear()


def _refuse_contradictions(before: GraphView, after: GraphView) -> None:
    if before.is_contradictory or not after.is_contradictory:
        return
    from onnxlint.model.native import infer_shapes

    data = after.without_claims().SerializeToString()
    try:
        infer_shapes(data)
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise OnnxlintError(f"--static: the model does not accept these sizes: {reason}") from None
