"""`--method auto` and `--mixed` for static int8.

In this order: cross-layer equalization (equalize.py), the calibrator and the operators that bring the outputs closest,
weights refitted and rounded against each layer's output (reconstruct.py). With `mixed`, the layers that disturb the
outputs most for their bytes stay in float32.

Every choice is made by the outputs' SNR on calibration images, computed by onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxlint.backends import Array, Decision, Progress, silent
from onnxlint.backends.ort.calibrate import METHODS, Histogram, Ranges, clipped
from onnxlint.backends.ort.equalize import equalized
from onnxlint.backends.ort.reconstruct import reconstruct
from onnxlint.backends.ort.static import (
    NOTHING,
    Judge,
    activation_parameters,
    activations,
    computer,
    left_alone,
    quantize,
    quantized_weights,
    size_of,
    without_types,
)
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

IMAGES = 16
"""Calibration images that choices are made on and weights are rounded by: they are held in memory, evenly taken from all."""

TRIAL_IMAGES = 4
"""How many of them measure the noise of a single layer."""

CLEARLY = 0.2
"""dB by which fewer quantized operators have to be better: more of them run faster."""

SMALL_SHARE = 0.002
"""Layers with less of the noise than this are quantized, even if there are bytes left."""

FEW_BYTES = 64
"""Added to the bytes that a layer costs in float: one that costs next to nothing is no reason to take a useless one."""

NEARLY_EXACT = 60.0
"""dB that equalization has to keep: it only regroups float32 arithmetic."""

Histograms = Callable[[onnx.ModelProto, Sequence[str], Progress], dict[str, Histogram]]


@dataclass(frozen=True)
class Int8:
    """A quantized model, and how it came to be.

    Attributes:
        model: As onnxruntime's quantizer made it.
        keep: Layers that stay in float, with what that gained and cost.
        snr_db: Mean over the outputs, on the calibration images.
        details: For the manifest.
    """

    model: onnx.ModelProto
    keep: tuple[Decision, ...] = ()
    snr_db: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)


def auto(
    model: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Array]],
    histograms: Histograms,
    *,
    name: str,
    keep: Sequence[str] = (),
    mixed: bool = False,
    budget: float = 0.08,
    threads: int = 2,
    progress: Progress = silent,
) -> Int8:
    """The best int8 model that is known how to make.

    Args:
        model: As `static.prepare` makes it.
        inputs: Some, held in memory.
        histograms: Of named values of a model, over all calibration images.
        name: Of the model, for errors.
        keep: Nodes that stay in float.
        mixed: Whether layers may stay in float.
        budget: Bytes that these may add, as a fraction of the pure int8 file.
        threads: For onnxruntime.
        progress: Told what is being done.

    Raises:
        OnnxlintError: Nothing can be quantized, or onnxruntime fails.
    """
    judge = Judge.of(name, model, inputs, threads)
    bases = [model]
    even = even_model(model, inputs, name, threads)
    if even is not None and judge.score(even, TRIAL_IMAGES) > NEARLY_EXACT:
        bases.insert(0, even)
    always = {*keep, *left_alone(model)}
    bare = always | without_weights(model)
    best: tuple[float, onnx.ModelProto, Ranges, set[str], str] | None = None
    trials: dict[str, float] = {}
    for base in bases:
        seen = histograms(base, activations(base), progress)
        for method in METHODS if best is None else (best[4],):
            ranges = {key: clipped(method, one) for key, one in seen.items()}
            for spared, words in ((always, "all operators"), (bare, "layers with weights")):
                if words != "all operators" and (best is None or method != best[4] or best[1] is not base):
                    continue  # fewer operators only with the best calibrator so far
                score = judge.score(quantize(base, ranges, spared))
                label = f"{'equalized' if base is even else 'as it is'}, {method}, {words}"
                trials[label] = round(score, 2)
                progress("calibrators", len(trials), None)
                if best is None or score > best[0] + (CLEARLY if spared is bare else 0):
                    best = (score, base, ranges, spared, method)
    assert best is not None
    _, base, ranges, spared, _ = best
    plain = quantize(base, ranges, spared)
    if not quantized_weights(plain):
        raise OnnxlintError(NOTHING.format(printable(name)))
    steps: tuple[Decision, ...] = ()
    if mixed:
        steps = choose_float(base, plain, judge, budget=budget, progress=progress)
        spared = spared | {one for step in steps for one in unit(base, step.layer)}
    made = quantize(base, ranges, spared)
    found = reconstruct(
        base,
        activation_parameters(made),
        quantized_weights(made),
        inputs,
        name=name,
        threads=threads,
        progress=progress,
    )
    fitted = quantize(found.model, ranges, spared, found.weights)
    before, after = judge.score(made), judge.score(fitted)
    trials["before rounding weights"], trials["after"] = round(before, 2), round(after, 2)
    return Int8(
        fitted if after >= before else made,
        steps,
        max(before, after),
        {"trials_db": trials, "pure_int8_bytes": size_of(without_types(plain))},
    )


def even_model(
    model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], name: str, threads: int
) -> onnx.ModelProto | None:
    """The model after cross-layer equalization; None where no value has channels."""
    names = activations(model)
    compute = computer(model, names, name, threads)
    shapes: dict[str, tuple[int, ...]] = {}
    peaks: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for feeds in inputs:
        for key, value in zip(names, compute(feeds), strict=True):
            shapes[key] = value.shape
            if value.ndim >= 2 and value.size:
                peak = np.abs(value).max(axis=tuple(axis for axis in range(value.ndim) if axis != 1))
                if key in peaks and peaks[key].shape != peak.shape:
                    return None
                peaks[key] = np.maximum(peaks[key], peak) if key in peaks else peak
    images = {key: peak for key, peak in peaks.items() if len(shapes[key]) >= 3 or len(peak) > 1}
    return equalized(model, shapes, images) if images else None


def without_weights(model: onnx.ModelProto) -> set[str]:
    """Nodes without weights; what onnxruntime merges into the layer before it is none of them."""
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    layers = {out for node in model.graph.node if not constants.isdisjoint(node.input) for out in node.output}
    return {
        node.name
        for node in model.graph.node
        if constants.isdisjoint(node.input) and not (node.op_type in ("Relu", "Clip") and node.input[0] in layers)
    }


def unit(model: onnx.ModelProto, layer: str) -> list[str]:
    """A layer and the activation function that alone reads it: what stays in float together."""
    names = [layer]
    node = next(one for one in model.graph.node if one.name == layer)
    readers = [one for one in model.graph.node if node.output[0] in one.input]
    if len(readers) == 1 and readers[0].op_type in ("Relu", "LeakyRelu", "Clip", "PRelu", "Sigmoid", "Tanh"):
        names.append(readers[0].name)
    return names


def choose_float(
    model: onnx.ModelProto, plain: onnx.ModelProto, judge: Judge, *, budget: float, progress: Progress = silent
) -> tuple[Decision, ...]:
    """The layers to keep in float32: those that, quantized alone, disturb the outputs most for their bytes.

    The noise of single layers, in an otherwise float model, adds up; that of a layer more or less in a model that is all
    int8 drowns in the others'.
    """
    quantized = quantized_weights(plain)
    layers = [node for node in model.graph.node if len(node.input) > 1 and node.input[1] in quantized]
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    left = int(budget * size_of(without_types(onnx.ModelProto.FromString(plain.SerializeToString()))))
    everything = {name for layer in layers for name in unit(model, layer.name)}
    noise = np.zeros((len(layers), len(judge.parts)))
    for i, layer in enumerate(layers):
        alone = loosened(model, plain, everything - set(unit(model, layer.name)))
        noise[i] = 10 ** (-judge.snr(alone, TRIAL_IMAGES) / 10)
        progress("noise of single layers", i + 1, len(layers))
    # What the values between layers lose is there whichever layer is quantized.
    floor = 10 ** (-judge.snr(loosened(model, plain, everything), TRIAL_IMAGES) / 10)
    noise = np.maximum(noise - floor, 0)
    share = (noise / np.maximum(noise.sum(axis=0), 1e-30)).mean(axis=1)
    cost = [3 * sizes[layer.input[1]] for layer in layers]
    steps = []
    for i in sorted(range(len(layers)), key=lambda i: -share[i] / (FEW_BYTES + cost[i])):
        if cost[i] <= left and share[i] >= SMALL_SHARE:
            why = f"causes {share[i]:.0%} of the noise"
            steps.append(Decision(layers[i].name, layers[i].op_type, "fp32", why, bytes=cost[i]))
            left -= cost[i]
    return tuple(steps)


def loosened(model: onnx.ModelProto, plain: onnx.ModelProto, nodes: set[str]) -> onnx.ModelProto:
    """The quantized model with some nodes back in float: their weights, and what passes from one of them to the next."""
    new = onnx.ModelProto()
    new.CopyFrom(plain)
    pairs = {}  # rounded value → the value itself
    makers = {node.output[0]: node for node in new.graph.node}
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in new.graph.node:
        if node.op_type == "DequantizeLinear":
            before = makers.get(node.input[0])
            pairs[node.output[0]] = before.input[0] if before is not None and before.op_type == "QuantizeLinear" else ""
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.name)
    freed = {
        name
        for node in model.graph.node
        if node.name in nodes
        for name in node.output
        if readers.get(name, set()) <= nodes
    }
    floats = {node.name: node for node in model.graph.node if node.name in nodes}
    wanted: set[str] = set()
    for node in new.graph.node:
        old = floats.get(node.name)
        if old is None:
            continue
        for i, name in enumerate(node.input):
            if i < len(old.input) and old.input[i] in constants:
                node.input[i] = f"{old.input[i]}#float"
                wanted.add(old.input[i])
            elif pairs.get(name, "") in freed:
                node.input[i] = pairs[name]
    for tensor in model.graph.initializer:
        if tensor.name in wanted:
            copy = new.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = f"{tensor.name}#float"
    return new
