"""Inputs that give sizes at run time, such as the scales of a Resize: what most backends need as constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView

SIZE_OPERANDS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Tile": (1,),
    "Upsample": (1,),
}
"""Operator → which of its inputs decide the shape of its result."""


def size_inputs(view: GraphView) -> list[str]:
    """Inputs of at most one axis whose values decide shapes."""
    main = view.main
    small = [name for name in main.data_inputs if len(main.shape(name) or (0, 0)) <= 1]
    found = []
    for name in small:
        values = {name}
        for node in main.order:
            operands = SIZE_OPERANDS.get(node.op, ())
            if any(i < len(node.inputs) and node.inputs[i] in values for i in operands):
                found.append(name)
                break
            if node.op not in ("Shape", "Size") and not values.isdisjoint(node.inputs):
                values.update(one for one in node.outputs if one)
    return found


def bind_hint(view: GraphView) -> str:
    """The command that makes a size input a constant, appended to an error; empty without such an input."""
    names = size_inputs(view)
    if not names:
        return ""
    name, model = printable(names[0]), printable(view.model.path)
    shape = view.main.shape(names[0]) or ()
    count = shape[0] if shape and isinstance(shape[0], int) else 4
    values = ",".join(["1", "1", "2", "2"] if count == 4 else ["1"] * max(1, count if shape else 1))
    command = f"onnxlint fix {model} --bind {name}={values}"
    return f"; its input {name!r} gives a size at run time: make it a constant with '{command}'"
