"""The parts of an artifact's outputs: whole outputs, and heads that were concatenated into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.backends import Array
from onnxlint.errors import OnnxlintError
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Part:
    """An output of an artifact, or a head in it.

    Attributes:
        name: Its name in the ONNX model.
        output: Index of the artifact's output that holds it.
        axis: The axis along which heads were concatenated; None for a whole output.
        start, stop: Its slice of that axis.
        activation: Operator that was removed from the model and has to be applied; empty: none.
        along: The axis that it is applied along, counted from the end.
    """

    name: str
    output: int
    axis: int | None = None
    start: int = 0
    stop: int = 0
    activation: str = ""
    along: int = -1

    def of(self, outputs: Sequence[Array]) -> Array:
        """Its numbers, before the activation."""
        array = outputs[self.output]
        return array if self.axis is None else array[(slice(None),) * self.axis + (slice(self.start, self.stop),)]


def parts_of(model: onnx.ModelProto, names: Sequence[str], outputs: Sequence[Array]) -> list[Part]:
    """The parts of an artifact's outputs, from the records in the ONNX model that it was made from.

    Args:
        model: That ONNX model.
        names: Of the artifact's outputs; where they differ from the model's, outputs are matched by order.
        outputs: Arrays with a batch axis.

    Raises:
        OnnxlintError: The number of outputs differs from the model's, or an output does not match its record.
    """
    from onnxlint.fixes.heads import read_dropped, read_heads
    from onnxlint.model.metadata import metadata

    own = {value.name: value for value in model.graph.output}
    if len(own) != len(names):
        raise OnnxlintError(
            f"the artifact has {counted(len(names), 'output')}, and the model it was made from has {len(own)}"
        )
    known = list(names) if set(own) == set(names) else list(own)
    joined = {one.output: one for one in read_heads(model)}
    dropped = read_dropped(metadata(model))
    parts: list[Part] = []
    for i, (name, array) in enumerate(zip(known, outputs, strict=True)):
        rank = len(own[name].type.tensor_type.shape.dim) or array.ndim
        if name not in joined:
            parts.append(Part(name, i, **_dropped(dropped, name, rank)))
            continue
        axis = joined[name].axis - rank + array.ndim
        if not 0 <= axis < array.ndim or array.shape[axis] < joined[name].heads[-1].stop:
            raise OnnxlintError(
                f"output {printable(name)!r} does not match its record of concatenated heads; fix the original again"
            )
        parts += [
            Part(head.name, i, axis, head.start, head.stop, **_dropped(dropped, head.name, rank))
            for head in joined[name].heads
        ]
    return parts


def _dropped(record: Mapping[str, tuple[str, int | None]], name: str, rank: int) -> dict[str, Any]:
    """The activation that was removed from an output, and its axis counted from the end."""
    op, axis = record.get(name, ("", None))
    along = -1 if axis is None else axis
    return {"activation": op, "along": along if along < 0 else along - rank}
