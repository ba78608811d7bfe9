"""Sizes of inputs set free: `--dynamic 'image=N,3,H,W'`.

A static export has its sizes baked into it. They are found by following the new symbols through the graph: where a
constant says a size that is no longer one number, it is written anew so that it copies the size or leaves it open; where
that cannot be done, the error names the node and the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.demands import refuse_baked
from onnxlint.fixes.freeing import Freeing
from onnxlint.fixes.freeing_checks import CHECKS
from onnxlint.fixes.shapes import WantedDim, parse_shape
from onnxlint.fixes.static_sizes import copied, declare
from onnxlint.graph.dims import Shape
from onnxlint.graph.view import GraphView
from onnxlint.model.assumptions import note_assumptions
from onnxlint.symbolic.engine import Sizes
from onnxlint.symbolic.view import make_view
from onnxlint.text import brief, listed, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx


def make_dynamic(view: GraphView, shapes: Sequence[str]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Set sizes of inputs free.

    Args:
        view: The model.
        shapes: `name=N,3,H,?`: letters stand for sizes that are to be free, numbers and `?` for those that stay.

    Returns:
        (A new skeleton that computes the same at the sizes that the model had, and accepts others, what it assumes about
        these: `H % 8 == 0`).

    Raises:
        OnnxlintError: A shape does not fit its input, or a node has a size baked in that cannot be set free.
    """
    wanted = dict(parse_shape(view, "--dynamic", text) for text in shapes)
    freed: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for name, dims in wanted.items():
        for axis, (dim, now) in enumerate(zip(dims, view.main.shape(name) or (), strict=True)):
            if dim is None:
                continue
            if isinstance(dim, int):
                if now != dim:
                    raise OnnxlintError(
                        f"--dynamic: axis {axis} of {printable(name)!r} is {printable(str(now))}, not {dim}"
                    )
            elif isinstance(now, int):
                if freed.setdefault(dim, now) != now:
                    raise OnnxlintError(
                        f"--dynamic: {printable(dim)!r} stands for {freed[dim]} and for {now}; use two names"
                    )
            elif now is not None:
                renamed[now] = dim
    model = _with_sizes(view, wanted, renamed)
    after = make_view(replace(view.model, proto=model))
    if not freed:
        refuse_baked(after, wanted)
        return model, ()
    try:
        found = Freeing(after, view, freed, CHECKS)
    except OnnxlintError as error:
        said = str(error).removeprefix("--dynamic: ")
        raise OnnxlintError(f"--dynamic: {_what_stays(view, wanted, freed)}: {said}") from None
    _write(after, found)
    needed = tuple(f"{symbol} % {number} == 0" for symbol, number in found.needed.items())
    if needed:
        note_assumptions(model, needed)
    for graph in after.graphs:
        if not graph.is_function:
            declare(graph, lambda name, graph=graph: _known(found.shape(graph, name)), {})  # type: ignore[misc]
    refuse_baked(make_view(replace(view.model, proto=model)), wanted)
    return model, needed


def _with_sizes(
    view: GraphView, wanted: Mapping[str, Sequence[WantedDim]], renamed: Mapping[str, str]
) -> onnx.ModelProto:
    """A copy of the skeleton whose inputs have the sizes that are wanted."""
    model = copied(view)
    for value in model.graph.input:
        given = wanted.get(value.name, ())
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if axis < len(given) and isinstance(symbol := given[axis], str):
                size.dim_param = symbol
            elif size.dim_param in renamed:
                size.dim_param = renamed[size.dim_param]
    return model


def _what_stays(view: GraphView, wanted: Mapping[str, Sequence[WantedDim]], freed: Mapping[str, int]) -> str:
    """The axes that cannot be free even alone, with their sizes; those that cannot be free together if there are none."""

    def fails(symbol: str) -> bool:
        alone = {name: tuple(dim if dim == symbol else None for dim in dims) for name, dims in wanted.items()}
        after = make_view(replace(view.model, proto=_with_sizes(view, alone, {})))
        try:
            Freeing(after, view, {symbol: freed[symbol]}, CHECKS)
        except OnnxlintError:
            return True
        return False

    stay = [symbol for symbol in freed if len(freed) == 1 or fails(symbol)]
    axes = [
        f"axis {axis} of {brief(name)!r} {'has to stay' if stay else 'of size'} {freed[str(dim)]}"
        for name, dims in wanted.items()
        for axis, dim in enumerate(dims)
        if dim in (stay or freed)
    ]
    return listed(axes, limit=6) + ("" if stay else " cannot be free together")


def _known(sizes: Sizes | None) -> Shape | None:
    """Sizes as dims: those that nothing is known about are None."""
    if sizes is None:
        return None
    return tuple(size if isinstance(size, int) else None if "?" in str(size) else str(size) for size in sizes)


def _write(view: GraphView, found: Freeing) -> None:
    """Put new constants into the view's own messages; nothing may look at the view's nodes afterwards."""
    import numpy as np
    from onnx import helper, numpy_helper

    names = {name for graph in view.graphs for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    graph = view.proto.graph

    def unused(base: str) -> str:
        name = next(text for k in itertools.count() if (text := f"{base}_{k}" if k else base) not in names)
        names.add(name)
        return name

    def constant(base: str, values: npt.NDArray[np.generic]) -> str:
        tensor = numpy_helper.from_array(values, unused(base))
        graph.initializer.append(tensor)
        if view.proto.ir_version < 4:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return tensor.name

    added: dict[int, list[onnx.NodeProto]] = {}
    for node, operand, axis, like, like_axis in found.repeats:
        if node.graph is not view.main:
            raise found.fail(node, "it joins a batch of 1 inside a nested graph")
        base, rank = f"{node.name or node.output()}_repeat", len(found.of(node, operand) or ())
        shape, batch, target, output = (unused(f"{base}_{part}") for part in ("shape", "batch", "target", "output"))
        ends = [constant(f"{base}_{k}", np.array([k], np.int64)) for k in (like_axis, like_axis + 1)]
        ones = [constant(f"{base}_ones", np.ones(n, np.int64)) if n else "" for n in (axis, rank - 1 - axis)]
        places = [name for name in (ones[0], batch, ones[1]) if name]
        # Slice takes its bounds as inputs from opset 10 on.
        cut = (
            helper.make_node("Slice", [shape, *ends], [batch], name=batch)
            if view.opset >= 10
            else helper.make_node("Slice", [shape], [batch], name=batch, starts=[like_axis], ends=[like_axis + 1])
        )
        added.setdefault(node.index, []).extend(
            (
                helper.make_node("Shape", [node.input(like)], [shape], name=shape),
                cut,
                helper.make_node("Concat", places, [target], name=target, axis=0),
                helper.make_node("Expand", [node.input(operand), target], [output], name=output),
            )
        )
        node.proto.input[operand] = output
    for node, operand, values in found.constants:
        name = constant(f"{node.name or node.output()}_{'scales' if operand < 0 else 'free'}", values)
        if operand < 0:
            kept = [node.input(0), node.input(1), name]
            del node.proto.input[:]
            node.proto.input.extend(kept)
        else:
            node.proto.input[operand] = name
        if node.op == "Reshape":
            for k in reversed([k for k, a in enumerate(node.proto.attribute) if a.name == "allowzero"]):
                del node.proto.attribute[k]
    if added:
        nodes = [part for i, node in enumerate(graph.node) for part in (*added.get(i, ()), node)]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
