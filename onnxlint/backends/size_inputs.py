"""Inputs that give sizes at run time, such as the scales of a Resize: what most backends need as constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxlint.text import listed, printable

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView

SIZE_OPERANDS: dict[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Operator → which of its inputs decide the shape of its result."""


def size_inputs(view: GraphView) -> list[str]:
    """Inputs of at most one axis whose values decide shapes."""
    return [name for name in view.main.data_inputs if _read_by(view, name)]


def bind_hint(view: GraphView) -> str:
    """The command that makes size inputs constants, appended to an error; empty without such an input."""
    names = size_inputs(view)
    if not names:
        return ""
    values = " ".join(f"--bind {printable(name)}={_example(view, name)}" for name in names)
    what = f"its input {printable(names[0])!r} gives" if len(names) == 1 else f"its inputs {_quoted(names)} give"
    it = "it a constant" if len(names) == 1 else "them constants"
    command = f"onnxlint fix {printable(view.model.path)} {values} -o FILE"
    return f"; {what} a size at run time: make {it} with '{command}'"


def _read_by(view: GraphView, name: str) -> str:
    """The operator whose result's shape an input decides; empty if there is none."""
    main = view.main
    shape = main.shape(name)
    if shape is None or len(shape) > 1:
        return ""
    values = {name}
    for node in main.order:
        operands = SIZE_OPERANDS.get(node.op, ())
        if any(i < len(node.inputs) and node.inputs[i] in values for i in operands):
            return node.op
        if node.op not in ("Shape", "Size") and not values.isdisjoint(node.inputs):
            values.update(one for one in node.outputs if one)
    return ""


def _example(view: GraphView, name: str) -> str:
    """What a value looks like: scales of a Resize, or a place for each number."""
    shape = view.main.shape(name) or ()
    count = shape[0] if shape and isinstance(shape[0], int) else 1
    if count == 4 and _read_by(view, name) in ("Resize", "Upsample"):
        return "1,1,2,2"
    return ",".join(["N"] * min(max(count, 1), 8))


def _quoted(names: Sequence[str]) -> str:
    return listed(repr(printable(name)) for name in names)
