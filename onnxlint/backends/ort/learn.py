"""`--method learned`: scales, weights and biases of an int8 model trained part by part, without labels.

A part is a few layers with what lies between them. It reads what the int8 model gives it, and gradients (Adam) bring what
it makes closer to the float model's values; rounding passes them on unchanged (Bengio et al., 2013), and scales are learned
beside the weights (LSQ: Esser et al., 2020; parts in place of layers: BRECQ, Li et al., 2021). What is learned of a part is
kept as far as it is closer on inputs that it was not learned from: int8 models of few images are easily fitted to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxlint.backends import Array, Progress, silent
from onnxlint.backends.ort.calibrate import Range
from onnxlint.backends.ort.heads import corrected
from onnxlint.backends.ort.judge import Answers, computer
from onnxlint.backends.ort.plan import mirrors
from onnxlint.backends.ort.qdq import Floats, layers, quantize
from onnxlint.backends.ort.reconstruct import Reconstructed
from onnxlint.backends.ort.torch_part import BIASES, DEQUANTIZE, INTEGERS, QUANTIZE, SCALES, Part, understood
from onnxlint.backends.outputs import CORRECTION_COST, count_for, evenly
from onnxlint.text import counted

if TYPE_CHECKING:
    import torch

    from onnxlint.backends.ort.calibration import Calibration
    from onnxlint.backends.ort.rivals import Rivals

LAYERS = 3
"""Layers with int8 weights in a part."""

STEPS = 200
"""Of gradient descent, for each part; the rate falls to 0 as a half cosine."""

BATCH = (1, 4)
"""Fewest and most inputs of a step."""

PIXELS = 4 * 320 * 320
"""Of the inputs of a step."""

CHECKS = 4
"""How often a part is measured on inputs that it is not learned from, evenly over the steps."""

RATES = {INTEGERS: 0.02, SCALES: 0.002, BIASES: 0.002}
"""How far a step moves: integers by so much of one, scales by so much of themselves, biases by so much of the standard
deviation of what the part makes."""

INPUTS = 64
"""Inputs, at most, that parts are learned from."""

APART = 4
"""Where no images judge, one of so many tells what is kept of what is learned from the others."""

BYTES = 1 << 29
"""Of the values of a part on all inputs: of large ones there are fewer inputs."""

CLOSE = 1e-4
"""Part of the power of a value by which PyTorch may differ from onnxruntime: rounding the other way, now and then."""

Feeds = Mapping[str, Array]
Pair = tuple[list[Array], list[Array]]


@dataclass(frozen=True)
class Made:
    """An int8 model.

    Attributes:
        model: It.
        exact: The float model whose values it rounds.
        notes: What the user should know.
    """

    model: onnx.ModelProto
    exact: onnx.ModelProto
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Learned:
    """What came out.

    Attributes:
        model: The int8 model.
        parts: Of it.
        closer: Those of them that came closer to the float model on inputs that they were not learned from.
    """

    model: onnx.ModelProto
    parts: int
    closer: int


def improved(
    made: Made,
    calibration: Calibration,
    rivals: Rivals,
    answers: Answers | None,
    trials: dict[str, float],
    progress: Progress,
) -> tuple[Made, dict[str, int]]:
    """The model with its scales and weights trained, where its outputs are closer and it loses no more answers of the task;
    and what is to be recorded.

    Args:
        made: The model.
        calibration: The inputs.
        rivals: With what judges.
        answers: Of the task; None: it is not known.
        trials: Label → dB; what is tried is added.
        progress: Called with the current action.
    """
    plan, judge, judged = rivals.plan, rivals.judge, rivals.judged
    inputs = calibration.some(INPUTS)
    if not calibration.unfitted and len(inputs) >= APART:
        others = inputs[::APART]
        inputs = [feeds for i, feeds in enumerate(inputs) if i % APART]
        judge, judged = judge.on([*others, *mirrors(others)]), "images that nothing was learned from"
    found = learn(
        made.exact,
        made.model,
        inputs,
        judge.inputs,
        name=plan.name,
        levels=plan.levels,
        threads=plan.threads,
        progress=progress,
    )
    facts = {"inputs": len(inputs), "parts": found.parts, "closer": found.closer}
    if not found.closer:
        said = f"none of {counted(found.parts, 'part')} came closer on {judged} with learned scales and weights"
        return replace(made, notes=(*made.notes, said)), facts
    best = found.model
    before, after = judge.score(made.model), judge.score(best)
    trials["learned"] = after
    fitted, keep = reconstructed(made.exact, best)
    turned = mirrors(evenly(calibration.held, len(judge.inputs)))
    last = corrected(
        made.exact, fitted, turned, name=plan.name, keep=sorted(keep), levels=plan.levels, threads=plan.threads
    )
    if last is not fitted:
        better = quantize(last.model, last.ranges, keep, last.weights, plan.levels)
        trials["learned, last layers corrected"] = score = judge.score(better)
        if score >= after - CORRECTION_COST:
            best, after = better, score
    said = f"learned scales and weights: {after:.1f} dB on {judged}, {before:.1f} before"
    if after <= before:
        return replace(made, notes=(*made.notes, f"{said}: left as they were")), facts
    if answers is not None and answers.loss(best).rank[0] > answers.loss(made.model).rank[0]:
        return replace(made, notes=(*made.notes, f"{said}, but more answers are lost: left as they were")), facts
    return replace(made, model=best, notes=(*made.notes, said)), facts


def learn(
    exact: onnx.ModelProto,
    made: onnx.ModelProto,
    inputs: Sequence[Feeds],
    others: Sequence[Feeds],
    *,
    name: str,
    levels: int = 127,
    threads: int = 2,
    progress: Progress = silent,
) -> Learned:
    """Train an int8 model part by part, in graph order.

    Args:
        exact: The float model, whose values have the names of the int8 model's.
        made: The QDQ model; it is not changed.
        inputs: To learn from, in memory.
        others: That tell what is kept.
        name: Of the model, for errors.
        levels: Largest integer of a weight.
        threads: For onnxruntime; PyTorch takes one, so that the result does not depend on it.
        progress: Called with the current action.
    """
    import torch

    model = onnx.ModelProto()
    model.CopyFrom(made)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    parts = list(_parts(model, constants, levels))
    closer = 0
    batch = count_for(BATCH, next(iter(inputs[0].values())).shape[:1:-1], PIXELS)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for i, part in enumerate(parts, 1):
            better = _learned(_Values(exact, model, part, name, threads), inputs, others, batch)
            for key, value in better.items():
                constants[key].CopyFrom(numpy_helper.from_array(value, key))
            closer += bool(better)
            progress("learning scales and weights", i, len(parts))
    finally:
        torch.set_num_threads(before)
    return Learned(model, len(parts), closer)


def _parts(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto], levels: int) -> Iterator[Part]:
    """The parts of a model: from the first of some layers to the next part, or to a node that is not understood."""
    nodes = list(model.graph.node)
    ranks = {name: len(tensor.dims) for name, tensor in constants.items()}
    weights = [node for node in nodes if node.op_type == DEQUANTIZE and node.input[0] in constants]
    ranks.update((node.output[0], ranks[node.input[0]]) for node in weights)
    behind = {node.output[0] for node in weights}
    starts = [_first(nodes, i) for i, node in enumerate(nodes) if not behind.isdisjoint(node.input)]
    stop = 0
    while starts := [start for start in starts if start >= stop]:
        start, end = starts[0], starts[LAYERS] if len(starts) > LAYERS else len(nodes)
        stop = next((i for i in range(start, end) if not understood(nodes[i], ranks)), end)
        some, stop = nodes[start:stop], max(stop, start + 1)
        made = {out for node in some for out in node.output}
        read = {name for node in nodes[stop:] for name in node.input}
        read |= {value.name for value in model.graph.output}
        inputs = dict.fromkeys(x for node in some for x in node.input if x and x not in made and x not in constants)
        outputs = (out for node in some if node.op_type not in (QUANTIZE, DEQUANTIZE) for out in node.output)
        part = Part(some, constants, tuple(inputs), tuple(out for out in outputs if out in read), levels)
        if part.outputs and part.layers:
            yield part


def reconstructed(exact: onnx.ModelProto, made: onnx.ModelProto) -> tuple[Reconstructed, frozenset[str]]:
    """What the layers of an int8 model compute with, and the layers that are not int8.

    Args:
        exact: The float model that it rounds.
        made: The QDQ model, as `qdq.quantize` makes it.
    """
    constants = {tensor.name: tensor for tensor in made.graph.initializer}

    def array(name: str) -> Array:
        return np.asarray(numpy_helper.to_array(constants[name]))

    model = onnx.ModelProto()
    model.CopyFrom(exact)
    weights: dict[str, tuple[Floats, Floats]] = {}
    ranges: dict[str, Range] = {}
    keep = set()
    for layer in layers(exact).values():
        key = layer.weight
        if f"{key}_quantized" not in constants:
            keep.add(layer.name)
            continue
        integers, scales = array(f"{key}_quantized"), array(f"{key}_scale")
        shape = [1] * integers.ndim
        shape[layer.axis] = -1
        weights[key] = (integers * scales.reshape(shape)).astype(np.float32), scales
        step, zero = float(array(f"{layer.source}_scale")), int(array(f"{layer.source}_zero_point"))
        ranges[layer.source] = -zero * step, (255 - zero) * step
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name][0], tensor.name))
        elif tensor.name in constants:
            tensor.CopyFrom(constants[tensor.name])
    return Reconstructed(model, weights, ranges), frozenset(keep)


def _first(nodes: Sequence[onnx.NodeProto], layer: int) -> int:
    """The first of the nodes directly before a layer that round what it reads."""
    while layer and nodes[layer - 1].op_type in (QUANTIZE, DEQUANTIZE):
        layer -= 1
    return layer


class _Values:
    """What a part reads in the int8 model, and what it should make of it: what the float model has there."""

    def __init__(self, exact: onnx.ModelProto, made: onnx.ModelProto, part: Part, name: str, threads: int) -> None:
        self.part = part
        self._given = computer(made, part.inputs, name, threads, integers=False)
        self._found = computer(made, part.outputs, name, threads, integers=False)
        self._wanted = computer(exact, part.outputs, name, threads)

    def of(self, inputs: Sequence[Feeds]) -> list[Pair]:
        """For some inputs, as many as `BYTES` allow."""
        found: list[Pair] = []
        size = 0
        for feeds in inputs:
            pair = [np.array(x) for x in self._given(feeds)], [np.array(x) for x in self._wanted(feeds)]
            size += sum(x.nbytes for x in [*pair[0], *pair[1]])
            if found and size > BYTES:
                break
            found.append(pair)
        return found

    def is_understood(self, feeds: Feeds, given: list[Array]) -> bool:
        """Whether PyTorch computes what onnxruntime does."""
        for right, made in zip(self._found(feeds), self.part(given), strict=True):
            a, b = np.asarray(right, np.float64), made.detach().numpy()
            if a.shape != b.shape or not float(((a - b) ** 2).sum()) <= CLOSE * float((a**2).sum()):
                return False
        return True


def _learned(values: _Values, inputs: Sequence[Feeds], others: Sequence[Feeds], batch: int) -> dict[str, Array]:
    """Initializers of a part with what was learned; none, if it is not closer on the others."""
    import torch

    part = values.part
    pairs, judging = values.of(inputs), values.of(others)
    if any(x.dtype != np.float32 for each in pairs[0] for x in each):
        return {}
    with torch.no_grad():
        if not values.is_understood(inputs[0], pairs[0][0]):
            return {}
    power = [
        max(float(np.mean([np.square(wanted[i], dtype=np.float64).mean() for _, wanted in pairs])), 1e-30)
        for i in range(len(part.outputs))
    ]

    def loss(some: Sequence[Pair]) -> torch.Tensor:
        total = torch.zeros(())
        for given, wanted in some:
            for made, right, scale in zip(part(given), wanted, power, strict=True):
                total = total + (made - torch.from_numpy(right)).square().mean() / scale
        return total / len(some)

    def judged() -> float:
        with torch.no_grad():
            return float(loss(judging))

    return part.changed(_descend(part, loss, judged, pairs, batch, math.sqrt(power[0])))


def _descend(
    part: Part,
    loss: Callable[[Sequence[Pair]], torch.Tensor],
    judged: Callable[[], float],
    pairs: Sequence[Pair],
    batch: int,
    spread: float,
) -> dict[tuple[str, str], torch.Tensor]:
    """The parameters with which a part was closest on the inputs that judge; none: as they were."""
    import torch

    rates = {**RATES, BIASES: RATES[BIASES] * spread}
    groups: list[dict[str, Any]] = [
        {"params": [one], "lr": rates[kind], "first": rates[kind]} for (kind, _), one in part.parameters.items()
    ]
    optimizer = torch.optim.Adam(groups)
    generator = np.random.default_rng(0)
    least, best = judged(), {}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["first"] * (1 + math.cos(math.pi * step / STEPS)) / 2
        some = generator.choice(len(pairs), min(batch, len(pairs)), replace=False)
        optimizer.zero_grad()
        loss([pairs[i] for i in some]).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        optimizer.step()
        if (step + 1) % (STEPS // CHECKS) == 0 and (found := judged()) < least:
            least, best = found, {key: one.detach().clone() for key, one in part.parameters.items()}
    return best
