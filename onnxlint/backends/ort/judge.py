"""How close quantized models come to the float model: SNR of the outputs, computed by onnxruntime.

Int8 is computed exactly, as on processors whose sums do not overflow (see saturation.py), so that the same model is made
everywhere: with rounded values in float, which is the same but for the last digits.

Probabilities are judged by what they are made of: behind a Softmax that is sure of nearly all inputs, the few others would
decide alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxlint.backends import Array
from onnxlint.backends.closeness import Powers
from onnxlint.backends.ort.session import part, run, start
from onnxlint.backends.rounding import Doubles
from onnxlint.backends.task import Loss, TaskLoss, size_of
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

SATURATING = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
"""Operators at outputs whose input is judged."""

PASSING = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})
"""Operators that leave every number as it is."""

REMEMBERED = 3
"""Models whose powers are kept: one is tried on few inputs first, and others beside it, before it is tried on all."""


@dataclass
class Judge:
    """SNR of quantized models' outputs against the float model's, in onnxruntime, on inputs held in memory.

    Attributes:
        inputs: Sets of inputs.
        names: Values that are judged: the outputs, or what a Softmax or Sigmoid makes them of.
        exact: Computes these of the float model.
        truth: These for the first inputs, as many as were needed.
        parts: (value, axis, from, to): an output that joins several is judged by each of them.
    """

    name: str
    inputs: Sequence[Mapping[str, Array]]
    threads: int
    names: Sequence[str]
    exact: Callable[[Mapping[str, Array]], list[Array]]
    parts: list[tuple[int, int, int, int]] = field(default_factory=list)
    truth: list[list[Array]] = field(default_factory=list)
    _tried: list[tuple[onnx.ModelProto, Doubles]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        name: str,
        model: onnx.ModelProto,
        inputs: Sequence[Mapping[str, Array]],
        threads: int,
        *,
        outputs: bool = False,
    ) -> Judge:
        """A judge by a float model; with `outputs`, by probabilities as well as by what they are made of."""
        makers = {out: node for node in model.graph.node for out in node.output}
        found: dict[str, None] = {}
        for value in model.graph.output:
            node = _maker(makers, value.name)
            found[node.input[0] if node is not None and node.op_type in SATURATING else value.name] = None
        if outputs:
            found.update(dict.fromkeys(value.name for value in model.graph.output))
        names = list(found)
        judge = cls(name, inputs, threads, names, computer(model, names, name, threads))
        judge.parts = _parts(model, name, names, inputs[0], judge._truth(1)[0])
        return judge

    def on(self, inputs: Sequence[Mapping[str, Array]]) -> Judge:
        """The same on other inputs."""
        return Judge(self.name, inputs, self.threads, self.names, self.exact, parts=self.parts)

    @property
    def first(self) -> int:
        """How many inputs models are tried on first: a quarter, and at least two."""
        return max(2, len(self.inputs) // 4)

    def _truth(self, count: int) -> list[list[Array]]:
        self.truth += [self.exact(feeds) for feeds in self.inputs[len(self.truth) : count]]
        return self.truth[:count]

    def snr(self, model: onnx.ModelProto, count: int | None = None) -> Doubles:
        """Of each part, over the first `count` inputs together, dB; −300 where outputs are not finite."""
        return self.powers(model, count).decibels

    def score(self, model: onnx.ModelProto, count: int | None = None) -> float:
        """The mean of the parts, dB; one that has more than `ENOUGH` counts so much."""
        return self.powers(model, count).score

    def powers(self, model: onnx.ModelProto, count: int | None = None) -> Powers:
        """What a model's parts differ by on the first `count` inputs. What the last models gave is not computed again."""
        count = len(self.inputs[:count])
        known = next((one for one in self._tried if one[0] is model), None)
        powers = known[1] if known is not None else np.zeros((2, 0, len(self.parts)))
        if (first := powers.shape[1]) < count:
            compute = computer(model, self.names, self.name, self.threads, integers=False)
            new = [self._of_one(self._truth(i + 1)[i], compute(self.inputs[i])) for i in range(first, count)]
            powers = np.concatenate([powers, np.stack(new, axis=1)], axis=1)
        self._tried = [(model, powers), *(one for one in self._tried if one is not known)][:REMEMBERED]
        return Powers(*powers[:, :count])

    def _of_one(self, truth: Sequence[Array], found: Sequence[Array]) -> Doubles:
        """Powers of the signal and of the noise for one set of inputs: (2, parts)."""
        powers = np.zeros((2, len(self.parts)))
        for i, (output, axis, first, last) in enumerate(self.parts):
            a, b = (np.asarray(x[output]) for x in (truth, found))
            if last > first:
                a, b = (np.take(x, range(first, last), axis) for x in (a, b))
            a = a.astype(np.float64)
            powers[:, i] = float(np.sum(a * a)), float(np.sum((a - b) ** 2)) if a.shape == b.shape else np.inf
        return powers


def probabilities(model: onnx.ModelProto) -> set[str]:
    """Outputs that a Softmax or Sigmoid makes."""
    makers = {out: node for node in model.graph.node for out in node.output}
    found = {value.name: _maker(makers, value.name) for value in model.graph.output}
    return {name for name, node in found.items() if node is not None and node.op_type in ("Softmax", "Sigmoid")}


def _maker(makers: Mapping[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    """The node that computes the numbers of a value; None: an input or a constant."""
    node = makers.get(name)
    while node is not None and node.op_type in PASSING:
        node = makers.get(node.input[0])
    return node


class Answers:
    """Measures what quantized models lose of a task's answers on inputs held in memory."""

    def __init__(self, name: str, inputs: Sequence[Mapping[str, Array]], task: TaskLoss, threads: int) -> None:
        self._name = name
        self._inputs = inputs
        self._task = task
        self._threads = threads
        self._truth: list[dict[str, Array]] = []

    @classmethod
    def of(
        cls, name: str, model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], task: TaskLoss, threads: int
    ) -> Answers:
        """Measures beside a float model."""
        answers = cls(name, inputs, task, threads)
        answers._truth = answers._outputs(model)
        return answers

    def _outputs(self, model: onnx.ModelProto) -> list[dict[str, Array]]:
        session = start(model, name=self._name, threads=self._threads, integers=False)
        names = [value.name for value in model.graph.output]
        return [dict(zip(names, run(session, self._name, feeds), strict=True)) for feeds in self._inputs]

    @property
    def are_known(self) -> bool:
        """Whether the outputs are those of the task."""
        return bool(self._measured(self._truth).rank)

    @property
    def are_objects(self) -> bool:
        """Whether the outputs are of a detector, which finds objects in the inputs."""
        return "found" in self._measured(self._truth).values

    def loss(self, model: onnx.ModelProto) -> Loss:
        """What a model of the same outputs loses."""
        return self._measured(self._outputs(model))

    def _measured(self, found: Sequence[dict[str, Array]]) -> Loss:
        sizes = [size_of(next(iter(feeds.values())).shape) for feeds in self._inputs]
        return self._task.measure(zip(self._truth, found, sizes, strict=True))


def _parts(
    model: onnx.ModelProto, name: str, judged: Sequence[str], feeds: Mapping[str, Array], truth: list[Array]
) -> list[tuple[int, int, int, int]]:
    makers = {out: node for node in model.graph.node for out in node.output}
    found: list[tuple[int, int, int, int]] = []
    for i, (value, array) in enumerate(zip(judged, truth, strict=True)):
        if np.asarray(array).dtype.kind != "f":
            continue
        node = makers.get(value)
        if node is None or node.op_type != "Concat":
            found.append((i, 0, 0, 0))
            continue
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis") % np.asarray(array).ndim
        small = part(model, list(dict.fromkeys(node.input)))
        sizes = dict(
            zip(
                (o.name for o in small.graph.output),
                run(start(small, name=name), name, _taken(small, feeds)),
                strict=True,
            )
        )
        at = 0
        for joined in node.input:
            found.append((i, axis, at, at + sizes[joined].shape[axis]))
            at += sizes[joined].shape[axis]
    if not found:
        raise OnnxlintError(f"{printable(name)}: has no floating-point output to judge int8 by; use --method minmax")
    return found


def _taken(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = {value.name for value in model.graph.input}
    return {name: value for name, value in feeds.items() if name in names}


def computer(
    model: onnx.ModelProto, names: Sequence[str], name: str, threads: int, *, integers: bool = True
) -> Callable[[Mapping[str, Array]], list[Array]]:
    """A function from inputs to the named values of a model; `integers` as in `start`."""
    inputs = {value.name for value in model.graph.input}
    inner = [one for one in names if one not in inputs]
    if not inner:
        return lambda feeds: [feeds[one] for one in names]
    small = part(model, inner)
    session = start(small, name=name, threads=threads, integers=integers)
    takes = {port.name for port in session.get_inputs()}

    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        found = dict(zip(inner, run(session, name, {k: v for k, v in feeds.items() if k in takes}), strict=True))
        return [feeds[one] if one in inputs else found[one] for one in names]

    return compute
