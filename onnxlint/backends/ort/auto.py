"""`--method auto` and `--mixed` for static int8.

In this order: cross-layer equalization (equalize.py), ranges that clip little, weights refitted and rounded against each
layer's output (reconstruct.py), the last layers corrected (heads.py). With `mixed`, the layers that disturb the outputs
most for their bytes stay in float32. The plain methods are rivals: one that comes closer to the float model is taken. With
`--method learned`, scales and weights are trained from there (learn.py).

Every choice is made by the outputs' SNR, computed by onnxruntime, on calibration images that nothing was fitted to, or
mirrored ones where there are too few.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxlint.backends import Array, Decision, Progress, silent
from onnxlint.backends.channels import affordable
from onnxlint.backends.ort.calibrate import Ends, Histogram, Range, Ranges, channel_extremes, clipped, whole, widest
from onnxlint.backends.ort.calibration import Calibration
from onnxlint.backends.ort.heads import corrected
from onnxlint.backends.ort.judge import Answers, Judge, computer
from onnxlint.backends.ort.learn import Made, improved
from onnxlint.backends.ort.plan import (
    HOPELESS,
    METHODS,
    Int8,
    Plan,
    mirrors,
    ranges_alone,
)
from onnxlint.backends.ort.qdq import activations, layers, nearly_rounded, quantize
from onnxlint.backends.ort.reconstruct import reconstruct
from onnxlint.backends.ort.rivals import Rivals
from onnxlint.backends.ort.room import rooms
from onnxlint.backends.ort.session import read_by
from onnxlint.backends.ort.strength import ROUNDING_LEFT, Evener, best_strength
from onnxlint.backends.outputs import CORRECTION_COST, HEADROOM, evenly, near_outputs
from onnxlint.backends.task import Loss, facts_of, least_loss

TRIAL_IMAGES = 4
"""Of those that judge: how many measure the noise of a single layer."""

MIRRORED = 8
"""Inputs, at most, whose mirror images judge where there are no others."""

SMALL_SHARE = 0.002
"""Layers with less of the noise than this are quantized, even if there are bytes left."""

FEW_BYTES = 64
"""Added to the bytes that a layer costs in float: one that costs next to nothing is not a reason to take a useless one."""

RUNS = 30
"""Runs of the model for one image that all take together, beside what follows: measured, for the estimate of the time."""

SECONDS = 0.18
"""For each layer."""

SPEED = 4.3e10
"""Multiplications a second that fit and round weights."""

LOOKED_AT = 4
"""Images that tell whether a model detects objects."""

MIXED_TIMES = 2.5
"""How much longer `mixed` takes."""

LEARNED_TIMES = 7.0
"""How much longer `learned` takes. (RetinaFace 79 s in place of 12, RFB-320 74 and 10, PP-OCR's cls 49 and 7.)"""

LAST_PART = 6
"""The last sixth of the layers, and at least two, have wider ranges: see `onnxlint.backends.outputs.HEADROOM`. (RetinaFace
on other photos: 13 of 594 faces were missed with two layers, 5 with six.)"""


def auto(model: onnx.ModelProto, calibration: Calibration, plan: Plan, progress: Progress = silent) -> Int8:
    """The best int8 model that we know how to make.

    Args:
        model: As `prepare` makes it.
        calibration: The inputs.
        plan: How.
        progress: Called with the current action.

    Raises:
        OnnxlintError: onnxruntime fails.
    """
    inputs = calibration.held
    trials: dict[str, float] = {}
    names = activations(model, plan.keep)
    started = time.perf_counter()
    every = calibration.ends(model, names, progress)
    reading = time.perf_counter() - started
    progress(f"int8: takes about {_estimate(model, plan, inputs[0], reading):.0f} s", 0, None)
    others = calibration.unfitted or mirrors(evenly(inputs, MIRRORED))
    judge = Judge.of(plan.name, model, others, plan.threads, outputs=True)
    seen = [*every, *_ends_and_truth(judge, model, names)] if calibration.unfitted else every
    judged = "other calibration images" if calibration.unfitted else "mirrored images"
    few = evenly(inputs, len(others))
    rivals = Rivals(model, few, whole(widest(seen)), judge, judged, plan)
    evener = Evener.of(model, inputs[0], plan, names)
    base, ends = evener.made(best_strength(evener, judge, calibration, trials, every), seen)
    wider = _room(base, ends, evener.named(seen), evener, judge, plan)
    candidates = _candidates(base, whole(ends), wider, calibration, plan, progress)
    first = {key: ranges[0] for key, ranges in candidates.items()}
    plain = quantize(base, first, plan.keep, levels=plan.levels)
    facts: dict[str, object] = {"pure_int8_bytes": size_of(plain)}
    steps = choose_float(base, first, judge, plan, progress) if plan.mixed else ()
    looked_at = evenly(inputs, LOOKED_AT)
    detects = plan.task is not None and Answers.of(plan.name, model, looked_at, plan.task, plan.threads).are_objects

    def made(count: int) -> Made:
        keep = plan.keep | {step.layer for step in steps[:count]}
        nearest = quantize(base, first, keep, levels=plan.levels) if count else plain
        fitted = _rounded(base, candidates, nearest, keep, inputs, detects, rivals, plan, trials, progress)
        result, notes = rivals.best(fitted, keep, trials)
        return Made(result, base if result is fitted[0] else model, notes)

    answers = None
    if plan.task is not None and (steps or plan.learned):
        answers = Answers.of(plan.name, model, [*inputs, *mirrors(inputs)], plan.task, plan.threads)
        answers = answers if answers.are_known else None
    if answers is None or not steps:
        result = made(len(steps))
    else:

        def measured(count: int) -> tuple[Made, Loss]:
            one = made(count)
            return one, answers.loss(one.model)

        count, result, tried = least_loss(len(steps), measured)
        steps = steps[:count]
        if measured_facts := facts_of(tried):
            facts["candidates"] = measured_facts
    if plan.learned:
        result, facts["learned"] = improved(result, calibration, rivals, answers, trials, progress)
    facts["trials_db"] = {label: round(value, 2) for label, value in trials.items()}
    return Int8(result.model, steps, result.notes, facts)


def _rounded(
    base: onnx.ModelProto,
    candidates: Mapping[str, Sequence[Range]],
    plain: onnx.ModelProto,
    keep: frozenset[str],
    inputs: Sequence[Mapping[str, Array]],
    detects: bool,
    rivals: Rivals,
    plan: Plan,
    trials: dict[str, float],
    progress: Progress,
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model with its weights rounded against the layers' outputs, or `plain` where that is closer, with a note."""
    judge, kept, levels, threads = rivals.judge, sorted(keep), plan.levels, plan.threads
    reconstructed = reconstruct(
        base,
        candidates,
        inputs,
        name=plan.name,
        keep=kept,
        levels=levels,
        salient=detects,
        threads=threads,
        progress=progress,
    )
    turned = mirrors(evenly(inputs, len(judge.inputs)))
    last = corrected(base, reconstructed, turned, name=plan.name, keep=kept, levels=levels, threads=threads)
    made, best = plain, -math.inf
    ways = [("rounded against each layer's output", reconstructed)]
    if last is not reconstructed:
        ways.append(("last layers corrected", last))
    for label, one in ways:
        trial = quantize(one.model, one.ranges, keep, one.weights, plan.levels)
        trials[label] = judge.score(trial)
        if trials[label] >= best - CORRECTION_COST:
            made, best = trial, trials[label]
    label = "rounded to the nearest, mixed" if keep != plan.keep else "rounded to the nearest"
    trials[label] = judge.score(plain, judge.first)
    if trials[label] < judge.score(made, judge.first) - HOPELESS:
        return made, ()
    trials[label] = judge.score(plain)
    if trials[label] <= best:
        return made, ()
    return plain, (
        "weights are rounded to the nearest: rounding them against each layer's output gave "
        f"{best:.1f} dB on {rivals.judged}, not {trials[label]:.1f}",
    )


def _ends_and_truth(judge: Judge, model: onnx.ModelProto, names: Sequence[str]) -> list[Ends]:
    """For each input of a judge, smallest and largest value of each channel of named values; the outputs that it compares
    with are computed with them."""
    compute = computer(model, [*names, *judge.names], judge.name, judge.threads)

    def first(feeds: Mapping[str, Array]) -> list[Array]:
        values = compute(feeds)
        judge.truth.append(values[len(names) :])
        return values[: len(names)]

    judge.truth.clear()
    return channel_extremes(judge.inputs, first, names)


def _candidates(
    model: onnx.ModelProto,
    limits: Ranges,
    rooms: Mapping[str, float],
    calibration: Calibration,
    plan: Plan,
    progress: Progress,
) -> dict[str, list[Range]]:
    """Ranges to choose from, for each value that is rounded, with room for what other images show. Of few images, nothing is
    cut off: large values may be rare there, and frequent on others."""
    methods: Sequence[str] = METHODS if calibration.unfitted else ["minmax"]
    seen = ranges_alone(model, plan, limits)
    if len(methods) > 1:
        seen = plan.on_target(model, calibration.histograms(model, list(limits), limits, progress))
    known = layers(model)
    near = near_outputs(
        [(list(read_by(node)), node.output, node.name in known) for node in model.graph.node],
        [value.name for value in model.graph.output],
        LAST_PART,
    )
    found: dict[str, list[Range]] = {}
    for key, one in seen.items():
        wider = rooms.get(key, 1.0)
        ranges = [(one.low, one.high)] if key in near else [_for_all(clipped(method, one), one) for method in methods]
        wider = max(wider, HEADROOM) if key in near else wider
        found[key] = [(low * wider, high * wider) for low, high in ranges]
    return found


def _room(
    model: onnx.ModelProto, ends: Ends, seen: Sequence[Ends], evener: Evener, judge: Judge, plan: Plan
) -> dict[str, float]:
    """Value → factor to widen its range by, for what other images show."""
    given = {value.name for value in model.graph.input}  # pixels have their range
    found = rooms(seen, {key: one for key, one in ends.items() if key not in given}, evener.shapes)
    limits, soft = whole(ends), nearly_rounded(model, ROUNDING_LEFT, plan.keep, plan.levels)

    def score(factors: Mapping[str, float]) -> float:
        wide = {key: (low * factors.get(key, 1.0), high * factors.get(key, 1.0)) for key, (low, high) in limits.items()}
        ranges = {key: (one.low, one.high) for key, one in ranges_alone(model, plan, wide).items()}
        return judge.score(quantize(soft, ranges, plan.keep, weights_too=False))

    return affordable(found, score)


def _for_all(limits: Range, seen: Histogram) -> Range:
    """A clipped range as all inputs would have it: of some, the ends are known and the values are not counted, and where
    these are larger, the same part of them is cut off."""
    there = np.flatnonzero(seen.counts)
    if not there.size:
        return seen.low, seen.high
    edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
    low, high = float(edges[there[0]]), float(edges[there[-1] + 1])
    return (
        max(seen.low, limits[0] * seen.low / low) if low < 0 else limits[0],
        min(seen.high, limits[1] * seen.high / high) if high > 0 else limits[1],
    )


def _estimate(model: onnx.ModelProto, plan: Plan, feeds: Mapping[str, Array], reading: float) -> float:
    """Seconds that `auto` will take, from those that one pass over all images took. (Said and taken: RetinaFace 13 and 11 s,
    RFB-320 16 and 12, PP-OCR's cls 11 and 9, NudeNet 26 and 25.)"""
    compute = computer(model, activations(model, plan.keep), plan.name, plan.threads)
    compute(feeds)
    started = time.perf_counter()
    compute(feeds)
    run = time.perf_counter() - started
    known = layers(model, plan.keep).values()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    work = 0.0
    for layer in known:
        dims = tensors[layer.weight].dims
        inside = float(np.prod(dims)) / dims[layer.axis]
        work += 10_000 * inside**2 + 4 * inside**3
    seconds = reading + RUNS * run + SECONDS * len(known) + work / SPEED
    return seconds * (MIXED_TIMES if plan.mixed else 1) * (LEARNED_TIMES if plan.learned else 1)


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
