"""Changes of a model's interface, undone for a comparison, so that requested changes are verified too.

A fix may rename inputs and outputs, join outputs, drop the activation at an output, or bind an input to a value. The two
models then have different inputs and outputs, and cannot be compared directly. `restored` appends to the result
what its callers now have to do (slices of the joined output, the dropped Softmax); `bound` gives the original the values
that its inputs were bound to. After that both have the original's interface, and every output is compared.

Sizes need nothing here: `--dynamic` and `--static` are seen in the declared inputs of the two models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

SOFTMAX_ALONG_ONE_AXIS = 13
"""Operator set from which Softmax and LogSoftmax compute along one axis; before, along all axes from it on."""

SLICE_TAKES_INPUTS = 10
"""Operator set from which Slice takes starts and ends as inputs."""


class Incomparable(Exception):  # noqa: N818 - an answer, not an error
    """The models cannot be compared; the message has the reason."""


class LostOutput(Exception):  # noqa: N818 - an answer, not an error
    """The result lacks an output of the original; the message names it."""


@dataclass(frozen=True)
class Slice:
    """Where an output of the original is in an output of the result.

    Attributes:
        output: The result's output.
        axis: The axis along which outputs were joined, non-negative.
        start, stop: The slice of that axis.
    """

    output: str
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class Dropped:
    """An activation that callers have to apply themselves.

    Attributes:
        op: `Softmax`, `LogSoftmax` or `Sigmoid`.
        axis: Axis of the original's output that it is applied along; without meaning for Sigmoid.
        part: (axis, start, stop): the only slice of the original's output that it is applied to; None for all of it.
    """

    op: str
    axis: int = -1
    part: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Interface:
    """How the result's inputs and outputs differ from the original's. Keys are names of the original.

    Attributes:
        renamed: Input or output → its name in the result; those that are missing kept their names.
        joined: Output → its slice in the result; overrides `renamed`.
        dropped: Output → the activations that the result no longer applies to it.
        bound: Input → the value that it was bound to; the result has no such input.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, Slice] = field(default_factory=dict)
    dropped: Mapping[str, tuple[Dropped, ...]] = field(default_factory=dict)
    bound: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


UNCHANGED = Interface()
"""For a result that has the original's inputs and outputs."""


def restored(original: onnx.ModelProto, result: onnx.ModelProto, interface: Interface) -> onnx.ModelProto:
    """The result with the original's outputs, in the original's order: joined ones cut out, dropped activations applied.

    Args:
        original: The model as it was.
        result: The fixed skeleton; returned as it is where no output changed.
        interface: What changed.

    Raises:
        LostOutput: An output of the original is missing.
        Incomparable: An activation cannot be applied.
    """
    import onnx

    if not interface.joined and not interface.dropped and not interface.renamed:
        return result
    outputs = [value.name for value in original.graph.output]
    there = [value.name for value in result.graph.output]
    model = onnx.ModelProto()
    model.CopyFrom(result)
    kinds = {value.name: value.type.tensor_type.elem_type for value in original.graph.output}
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in original.graph.output
        if value.type.tensor_type.HasField("shape")
    }
    tail = _Tail(model)
    ends = []
    for name in outputs:
        place = interface.joined.get(name)
        source = place.output if place is not None else interface.renamed.get(name, name)
        if source not in there:
            raise LostOutput(f"output {printable(name)!r} is missing")
        value = source if place is None else tail.slice(source, place.axis, place.start, place.stop)
        for dropped in interface.dropped.get(name, ()):
            value = tail.activation(value, dropped, ranks.get(name))
        ends.append(onnx.helper.make_tensor_value_info(tail.node("Identity", [value]), kinds[name], None))
    del model.graph.output[:]
    model.graph.output.extend(ends)
    return model


def bound(original: onnx.ModelProto, values: Mapping[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """The original with values for some of its inputs, which then no longer have to be given.

    Raises:
        Incomparable: It has no such input.
    """
    import onnx
    from onnx import numpy_helper

    if not values:
        return original
    inputs = {value.name for value in original.graph.input}
    unknown = [name for name in values if name not in inputs]
    if unknown:
        raise Incomparable(f"the original has no input {printable(unknown[0])!r} that could be bound")
    model = onnx.ModelProto()
    model.CopyFrom(original)
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


class _Tail:
    """Nodes appended to a model, in place. Their values have names that the model does not use."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)
        used = {name for node in self._graph.node for name in (*node.input, *node.output)}
        used.update(value.name for value in (*self._graph.input, *self._graph.output))
        used.update(tensor.name for tensor in self._graph.initializer)
        self._prefix = "onnxlint_restored"
        while any(name.startswith(self._prefix) for name in used):
            self._prefix += "_"
        self._count = 0

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node with one output, whose name is returned."""
        import onnx

        output = self._name()
        self._graph.node.append(onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def slice(self, value: str, axis: int, start: int, stop: int) -> str:
        """A slice of a value along one axis."""
        if self._opset < SLICE_TAKES_INPUTS:
            return self.node("Slice", [value], axes=[axis], starts=[start], ends=[stop])
        return self.node("Slice", [value, *map(self._number, (start, stop, axis))])

    def activation(self, value: str, dropped: Dropped, rank: int | None) -> str:
        """A dropped activation, applied to a value or to a slice of it."""
        if dropped.part is None:
            return self._applied(value, dropped, rank)
        axis, start, stop = dropped.part
        parts = [self._applied(self.slice(value, axis, start, stop), dropped, rank)]
        if start:
            parts.insert(0, self.slice(value, axis, 0, start))
        parts.append(self.slice(value, axis, stop, 2**31 - 1))
        return self.node("Concat", parts, axis=axis)

    def _applied(self, value: str, dropped: Dropped, rank: int | None) -> str:
        if dropped.op == "Sigmoid":
            return self.node("Sigmoid", [value])
        if self._opset >= SOFTMAX_ALONG_ONE_AXIS:
            return self.node(dropped.op, [value], axis=dropped.axis)
        if rank is None:
            raise Incomparable(f"the rank of the output that {printable(dropped.op)} was dropped from is not known")
        axis = dropped.axis % rank
        if axis == rank - 1:
            return self.node(dropped.op, [value], axis=axis)
        order = list(range(rank))
        order[axis], order[-1] = order[-1], order[axis]
        moved = self.node(dropped.op, [self.node("Transpose", [value], perm=order)], axis=rank - 1)
        return self.node("Transpose", [moved], perm=order)

    def _number(self, number: int) -> str:
        import numpy as np
        from onnx import numpy_helper

        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}_{self._count}"
