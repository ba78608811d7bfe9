"""`--method auto` and `--mixed` for static int8.

In this order: cross-layer equalization (equalize.py), ranges that clip little, weights refitted and rounded against each
layer's output (reconstruct.py), the last layers corrected (heads.py). With `mixed`, the layers that disturb the outputs
most for their bytes stay in float32. The plain methods are rivals: one that comes closer to the float model on calibration
images that nothing was fitted to, or on mirrored ones, is taken.

Every choice is made by the outputs' SNR on calibration images, computed by onnxruntime.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx

from onnxlint.backends import Array, Decision, Progress, silent
from onnxlint.backends.channels import rare, unscaled
from onnxlint.backends.closeness import is_closer
from onnxlint.backends.ort.calibrate import (
    BINS,
    Ends,
    Histogram,
    Range,
    Ranges,
    channel_extremes,
    clipped,
    histograms,
    widest,
)
from onnxlint.backends.ort.equalize import equalized
from onnxlint.backends.ort.heads import corrected
from onnxlint.backends.ort.judge import Answers, Judge, computer
from onnxlint.backends.ort.qdq import LEVELS, activations, layers, nearly_rounded, quantize
from onnxlint.backends.ort.reconstruct import reconstruct
from onnxlint.backends.ort.session import read_by
from onnxlint.backends.outputs import CORRECTION_COST, HEADROOM, mirrored, near_outputs
from onnxlint.backends.task import Loss, TaskLoss, facts_of, least_loss

IMAGES = 16
"""Calibration images that choices are made on and weights are rounded by: they are held in memory, evenly taken from all."""

JUDGED_IMAGES = 8
"""How many of them, evenly taken, choices are judged on; of their mirror images, corrections are made and the plain methods
compared with what was fitted."""

TRIAL_IMAGES = 4
"""How many of them measure the noise of a single layer."""

SMALL_SHARE = 0.002
"""Layers with less of the noise than this are quantized, even if there are bytes left."""

FEW_BYTES = 64
"""Added to the bytes that a layer costs in float: one that costs next to nothing is not a reason to take a useless one."""

EXACT_IMAGES = 2
"""Calibration images on which equalized models are checked to compute the same."""

FEWEST = 6
"""Calibration images that nothing is fitted to have to be so many, or mirrored ones judge."""

FIRST_IMAGES = 2
"""Models that are `HOPELESS` dB behind on these are not tried on the others."""

HOPELESS = 4.0

NEARLY_EXACT = 60.0
"""dB that equalization has to keep: it only regroups float32 arithmetic."""

NEGATIVE = 0.3
"""Part of the range that channels may fill which are mostly negative. The range of a tensor is the sum of both sides, and
behind a leaky ReLU the negative one carries little: filling it as well would cost all other channels a bit. (RetinaFace on
photos that are not calibration images: 22.7 dB at 1, 24.5 at 0.5, 24.9 at 0.3; chosen by these.)"""

STRENGTHS = {"equalized by half": 0.5, "equalized": 1.0}
"""How far channels are brought to the same range. By half where layers of few channels read them, whose weights would be too
far from each other otherwise."""

BASE_MARGIN = 0.3
"""dB by which a model has to be closer than what is less equalized, and by more than chance."""

ROUNDING_LEFT = 0.6
"""Of the error that weights have when they are rounded to the nearest: the part that is left when they are rounded against
the layers' outputs (about 4 dB less). Otherwise equalized models would be judged by noise that is taken off later."""

LAST_PART = 6
"""The last sixth of the layers, and at least two, have wider ranges: see `onnxlint.backends.outputs.HEADROOM`. (RetinaFace
on other photos: 13 of 594 faces were missed with two layers, 5 with six.)"""

METHODS = ("percentile", "minmax", "mse")
"""Candidate ranges of each value; reconstruct.py takes the one that disturbs the layers after it least."""

T = TypeVar("T")
Histograms = Callable[[onnx.ModelProto, Sequence[str], Progress], dict[str, Histogram]]
Adapted = Callable[[onnx.ModelProto, Mapping[str, Histogram]], dict[str, Histogram]]


@dataclass(frozen=True)
class Int8:
    """A quantized model, and how it came to be.

    Attributes:
        model: The QDQ model.
        keep: Layers that stay in float, with gain and cost.
        notes: What the user should know.
        details: For the manifest.
    """

    model: onnx.ModelProto
    keep: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How a model is to be quantized.

    Attributes:
        name: Of the model, for errors.
        keep: Nodes that stay in float.
        mixed: Whether more layers may.
        budget: Bytes that these may add, as a fraction of the pure int8 file.
        levels: Largest integer of a weight.
        threads: For onnxruntime.
        task: What outputs are used for: of several numbers of layers in float, the one is taken that loses least of its
            answers on the calibration images and their mirror images.
        adapted: What the target makes of the histograms of a model's values; None: nothing.
        whole: Whether the inputs that are held are all that the model is calibrated on.
        unfitted: Inputs that nothing is fitted to, to compare what was fitted with the plain methods; none: mirror images.
    """

    name: str
    keep: frozenset[str] = frozenset()
    mixed: bool = False
    budget: float = 0.08
    levels: int = LEVELS[8]
    threads: int = 2
    task: TaskLoss | None = None
    adapted: Adapted | None = None
    whole: bool = False
    unfitted: Sequence[Mapping[str, Array]] = ()


def auto(
    model: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Array]],
    seen: Histograms,
    plan: Plan,
    progress: Progress = silent,
) -> Int8:
    """The best int8 model that we know how to make.

    Args:
        model: As `prepare` makes it.
        inputs: Some, held in memory.
        seen: Histograms of named values of a model, over all calibration images.
        plan: How.
        progress: Called with the current action.

    Raises:
        OnnxlintError: onnxruntime fails.
    """
    judge = Judge.of(plan.name, model, evenly(inputs, JUDGED_IMAGES), plan.threads)
    trials: dict[str, float] = {}
    compute = computer(model, (names := activations(model, plan.keep)), plan.name, plan.threads)
    started = time.perf_counter()
    every = channel_extremes(inputs, compute, names)
    ends = widest(every)
    progress(f"int8: takes about {_estimate(model, plan, time.perf_counter() - started):.0f} s", 0, None)
    rivals = _Rivals.of(model, inputs, plan, ends)
    base, limits = _base(model, inputs, judge, plan, trials, every)
    if not plan.whole:
        found: Mapping[str, Histogram] = seen(base, activations(base, plan.keep), progress)
    else:
        found = rivals.seen if base is model else _histograms(base, inputs, plan, limits)
    candidates = candidate_ranges(base, found)
    first = {key: ranges[0] for key, ranges in candidates.items()}
    plain = quantize(base, first, plan.keep, levels=plan.levels)
    facts: dict[str, object] = {"pure_int8_bytes": size_of(plain)}
    steps = choose_float(base, first, judge, plan, progress) if plan.mixed else ()

    def made(count: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        keep = plan.keep | {step.layer for step in steps[:count]}
        nearest = quantize(base, first, keep, levels=plan.levels) if count else plain
        fitted = _rounded(base, candidates, nearest, keep, inputs, judge, plan, trials, progress)
        return rivals.best(fitted, keep, trials)

    answers = None
    if plan.task is not None and steps:
        answers = Answers.of(plan.name, model, [*inputs, *mirrors(inputs)], plan.task, plan.threads)
    if answers is None or not answers.are_known:
        result, notes = made(len(steps))
    else:

        def measured(count: int) -> tuple[tuple[onnx.ModelProto, tuple[str, ...]], Loss]:
            one = made(count)
            return one, answers.loss(one[0])

        count, (result, notes), tried = least_loss(len(steps), measured)
        steps = steps[:count]
        if measured_facts := facts_of(tried):
            facts["candidates"] = measured_facts
    facts["trials_db"] = {label: round(value, 2) for label, value in trials.items()}
    return Int8(result, steps, notes, facts)


def _rounded(
    base: onnx.ModelProto,
    candidates: Mapping[str, Sequence[Range]],
    plain: onnx.ModelProto,
    keep: frozenset[str],
    inputs: Sequence[Mapping[str, Array]],
    judge: Judge,
    plan: Plan,
    trials: dict[str, float],
    progress: Progress,
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model with its weights rounded against the layers' outputs, or `plain` where that is closer, with a note."""
    kept, levels, threads = sorted(keep), plan.levels, plan.threads
    reconstructed = reconstruct(
        base, candidates, inputs, name=plan.name, keep=kept, levels=levels, threads=threads, progress=progress
    )
    judged = mirrors(evenly(inputs, JUDGED_IMAGES))
    last = corrected(base, reconstructed, judged, name=plan.name, keep=kept, levels=levels, threads=threads)
    made, best = plain, -math.inf
    for label, one in (("rounded against each layer's output", reconstructed), ("last layers corrected", last)):
        trial = quantize(one.model, one.ranges, keep, one.weights, plan.levels)
        trials[label] = judge.score(trial)
        if trials[label] >= best - CORRECTION_COST:
            made, best = trial, trials[label]
    label = "rounded to the nearest, mixed" if keep != plan.keep else "rounded to the nearest"
    trials[label] = judge.score(plain, FIRST_IMAGES)
    if trials[label] < judge.score(made, FIRST_IMAGES) - HOPELESS:
        return made, ()
    trials[label] = judge.score(plain)
    if trials[label] <= best:
        return made, ()
    return plain, (
        "weights are rounded to the nearest: rounding them against each layer's output gave "
        f"{best:.1f} dB on the calibration images, not {trials[label]:.1f}",
    )


@dataclass(frozen=True)
class _Rivals:
    """The plain methods on the model as it is.

    Attributes:
        model: The float model.
        seen: Histograms of its values.
        judge: Of the outputs, on inputs that nothing is fitted to.
        judged: What these are.
        levels: Largest integer of a weight.
    """

    model: onnx.ModelProto
    seen: Mapping[str, Histogram]
    judge: Judge
    judged: str
    levels: int

    @classmethod
    def of(cls, model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], plan: Plan, ends: Ends) -> _Rivals:
        others = plan.unfitted or mirrors(evenly(inputs, JUDGED_IMAGES))
        judge = Judge.of(plan.name, model, others, plan.threads, outputs=True)
        judged = "other calibration images" if plan.unfitted else "mirrored images"
        return cls(model, _histograms(model, inputs, plan, _whole(ends)), judge, judged, plan.levels)

    def best(
        self, fitted: tuple[onnx.ModelProto, tuple[str, ...]], keep: frozenset[str], trials: dict[str, float]
    ) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """What was fitted, or what a plain method makes where that is closer by more than chance, with a note."""
        best, notes = fitted
        few, all_ = f"first {FIRST_IMAGES} {self.judged}", self.judged
        trials[f"auto, {few}"] = first = self.judge.score(best, FIRST_IMAGES)
        most: list[float] = []
        for method in METHODS:
            ranges = {key: clipped(method, one) for key, one in self.seen.items()}
            made = quantize(self.model, ranges, keep, levels=self.levels)
            trials[f"{method}, {few}"] = score = self.judge.score(made, FIRST_IMAGES)
            if score < first - HOPELESS:
                continue
            if not most:
                most = self.judge.each(best)
                trials[f"auto, {all_}"] = statistics.mean(most)
            found = self.judge.each(made)
            trials[f"{method}, {all_}"] = score = statistics.mean(found)
            if is_closer(found, most):
                auto = trials[f"auto, {all_}"]
                best, most = made, found
                notes = (f"{method} was taken: {score:.1f} dB on {self.judged}, where auto has {auto:.1f}",)
        return best, notes


def _histograms(
    model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], plan: Plan, ranges: Ranges
) -> dict[str, Histogram]:
    names = activations(model, plan.keep)
    found = histograms(inputs, computer(model, names, plan.name, plan.threads), names, ranges)
    return plan.adapted(model, found) if plan.adapted is not None else found


def _whole(ends: Ends) -> Ranges:
    """The range of each value from those of its channels."""
    return {key: (float(low.min()), float(high.max())) if low.size else (0.0, 0.0) for key, (low, high) in ends.items()}


def candidate_ranges(model: onnx.ModelProto, seen: Mapping[str, Histogram]) -> dict[str, list[Range]]:
    """Ranges to choose from, for each value that is rounded."""
    known = layers(model)
    near = near_outputs(
        [(list(read_by(node)), node.output, node.name in known) for node in model.graph.node],
        [value.name for value in model.graph.output],
        LAST_PART,
    )
    return {
        key: [(one.low * HEADROOM, one.high * HEADROOM)]
        if key in near
        else [clipped(method, one) for method in METHODS]
        for key, one in seen.items()
    }


def evenly(inputs: Sequence[T], count: int) -> list[T]:
    """At most `count` of some inputs, evenly taken."""
    if len(inputs) <= count:
        return list(inputs)
    return [inputs[i * len(inputs) // count] for i in range(count)]


def mirrors(inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The inputs, turned left to right."""
    return [{key: mirrored(value) for key, value in feeds.items()} for feeds in inputs]


def _estimate(model: onnx.ModelProto, plan: Plan, one_pass: float) -> float:
    """Seconds that `auto` will take, from those that the float model takes for all inputs."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    work = 0.0
    for layer in layers(model, plan.keep).values():
        dims = tensors[layer.weight].dims
        inside = float(np.prod(dims)) / dims[layer.axis]
        work += 10_000 * inside**2 + 4 * inside**3
    return (30 if plan.mixed else 12) * one_pass + work / 5e9


def _base(
    model: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Array]],
    judge: Judge,
    plan: Plan,
    trials: dict[str, float],
    every: Sequence[Ends],
) -> tuple[onnx.ModelProto, Ranges]:
    """The model, or an equalized one where that is computed as exactly and loses less with the widest ranges and weights
    that are rounded about as well as they will be; and the ranges of its values."""
    best, most, limits = model, list[float](), _whole(widest(every))
    even = even_models(model, inputs[0], every, plan)
    for label, (one, whole) in {"as it is": (model, limits), **even}.items() if even else ():
        if one is not model and judge.score(one, EXACT_IMAGES) < NEARLY_EXACT:
            continue
        found = {key: Histogram(*ends, np.zeros(BINS)) for key, ends in whole.items()}
        found = plan.adapted(one, found) if plan.adapted is not None else found
        ranges = {key: (histogram.low, histogram.high) for key, histogram in found.items()}
        soft = nearly_rounded(one, ROUNDING_LEFT, plan.keep, plan.levels)
        tried = quantize(soft, ranges, plan.keep, weights_too=False)
        each = judge.each(tried, integers=False)
        trials[label] = statistics.mean(each)
        if not most or (trials[label] >= statistics.mean(most) + BASE_MARGIN and is_closer(each, most)):
            best, most, limits = one, each, whole
    return best, limits


def even_models(
    model: onnx.ModelProto, feeds: Mapping[str, Array], every: Sequence[Ends], plan: Plan
) -> dict[str, tuple[onnx.ModelProto, Ranges]]:
    """What was done → the model after cross-layer equalization, and the ranges of its rounded values; nothing if no value
    has channels.

    Args:
        model: As `prepare` makes it.
        feeds: One set of inputs.
        every: For each set of inputs, smallest and largest value of each channel of the rounded values.
        plan: How.
    """
    ends = widest(every)
    names = list(dict.fromkeys([*ends, *_floats(model)]))
    values = computer(model, names, plan.name, plan.threads)(feeds)
    shapes = {key: value.shape for key, value in zip(names, values, strict=True)}
    peaks = {
        key: peak
        for key, peak in _peaks(every, ends).items()
        if len(shapes[key]) >= 3 or (len(shapes[key]) == 2 and len(peak) > 1)
        if len(peak) == shapes[key][1]
    }
    found = {}
    for label, strength in STRENGTHS.items() if peaks else ():
        even, scales = equalized(model, shapes, peaks, strength)
        scaled: Ends = {
            key: (low / scales[key], high / scales[key]) if key in peaks and key in scales else (low, high)
            for key, (low, high) in ends.items()
        }
        found[label] = even, _whole(scaled)
    return found


def _peaks(every: Sequence[Ends], ends: Ends) -> dict[str, Array]:
    """Of each channel, what it is to be equalized by."""

    def largest(one: tuple[Array, Array]) -> Array:
        return np.asarray(np.maximum(one[1], -one[0] / np.float32(NEGATIVE)))

    peaks = {}
    for key, one in ends.items():
        peak = peaks[key] = largest(one)
        single = [largest(found[key]) for found in every if found[key][0].shape == peak.shape]
        if peak.size and single:
            peaks[key] = unscaled(peak, rare(peak, np.median(single, axis=0)))
    return peaks


def _floats(model: onnx.ModelProto) -> list[str]:
    """Inner floating-point values of the main graph, as far as their types are written."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    made = [name for node in model.graph.node for name in node.output]
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]


def choose_float(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    judge: Judge,
    plan: Plan,
    progress: Progress = silent,
) -> tuple[Decision, ...]:
    """The layers to keep in float32: those that, quantized alone, disturb the outputs most for their bytes.

    The noise of single layers, in an otherwise float model, adds up; that of a layer more or less in a model that is all
    int8 drowns in the others'. A larger budget keeps what a smaller one keeps, and more.
    """
    known = layers(model, plan.keep)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    kinds = {node.name: node.op_type for node in model.graph.node}
    limits = dict(ranges)
    left = int(plan.budget * size_of(quantize(model, limits, plan.keep, levels=plan.levels)))
    names = list(known)
    noise = np.zeros((len(names), len(judge.parts)))
    for i, name in enumerate(names):
        alone = quantize(model, limits, plan.keep | (known.keys() - {name}), levels=plan.levels)
        noise[i] = 10 ** (-judge.snr(alone, TRIAL_IMAGES) / 10)
        progress("noise of single layers", i + 1, len(names))
    share = (noise / np.maximum(noise.sum(axis=0), 1e-30)).mean(axis=1)
    cost = [3 * sizes[known[name].weight] for name in names]
    steps = []
    for i in sorted(range(len(names)), key=lambda i: -share[i] / (FEW_BYTES + cost[i])):
        if cost[i] > left:
            break
        if share[i] >= SMALL_SHARE:
            why = f"causes {share[i]:.0%} of the noise"
            steps.append(Decision(names[i], kinds[names[i]], "fp32", why, bytes=cost[i]))
            left -= cost[i]
    return tuple(steps)


def size_of(model: onnx.ModelProto) -> int:
    """Bytes of the file that it makes, without the types of inner values, which every runtime infers."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    return int(bare.ByteSize())
