"""`--method auto` and `--mixed`: int8 nets that are closer to the float net than those of ncnn2int8.

In this order: ranges of the channels that disturb the outputs most, and what 0 is stored as (ranges.py), cross-layer
equalization along every path of the graph (equalize.py), values stored around their middle (centre.py), weights refitted
and rounded against each layer's output on quantized inputs (reconstruct.py), the last layers corrected (heads.py), and the
plain methods as rivals (plain.py). With `mixed`, the layers whose float version brings the final outputs closest, for their
bytes, stay in fp16; chosen greedily, the rest is rounded again.

Every choice is made on the calibration images; every comparison is computed by the wheel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from onnxlint.backends.channels import ROOM_COST, affordable
from onnxlint.backends.closeness import Powers
from onnxlint.backends.ncnn.calibrate import Progress, check_inputs, silent
from onnxlint.backends.ncnn.centre import centre, needed, own_layers
from onnxlint.backends.ncnn.equalize import equalize
from onnxlint.backends.ncnn.evaluate import Answers, Evaluator, Held, spread
from onnxlint.backends.ncnn.format import Blob, Layer, Network, blob_bytes, half_blob
from onnxlint.backends.ncnn.heads import corrected
from onnxlint.backends.ncnn.influence import Outputs
from onnxlint.backends.ncnn.plain import Rivals, nearest_table
from onnxlint.backends.ncnn.quantize import Quantized, quantize, quantize_weights
from onnxlint.backends.ncnn.ranges import Extents, Middles, Ranges, chosen, rooms
from onnxlint.backends.ncnn.reconstruct import Rounded, reconstruct
from onnxlint.backends.ncnn.table import Table, quantizable, source_blobs
from onnxlint.backends.outputs import (
    CORRECTION_COST,
    FEWEST,
    HEADROOM,
    JUDGES,
    count_for,
    evenly,
    mirrored,
    near_outputs,
)
from onnxlint.backends.rounding import TINY, one_blas_thread
from onnxlint.backends.task import Loss, TaskLoss, least_loss
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

Floats = npt.NDArray[np.float32]

FITTED = (24, 96)
"""Fewest and most images that layers are fitted to: they are held in memory, evenly taken from all. Ranges come from all."""

MIRRORED = 12
"""Mirrored calibration images, at most, that judge where there are no others."""

CORRECTING = (12, 96)
"""Fewest and most of them that the last layers are corrected on."""

TRIAL_IMAGES = 4
"""How many of them measure the noise of a single layer."""

STRENGTHS = (1.0, 0.5, 0.0)
"""How far channels are brought to the same range: wholly, by half, not at all."""

MARGIN = 1.5
"""dB by which less has to be closer."""

NOISE = (1e-30, 1e30)
"""Least and most noise of a layer, as a part of an output's power."""

SMALL_SHARE = 0.002
"""Layers with less of the noise than this stay int8, even if there are bytes left."""

FEW_BYTES = 64
"""Added to the bytes a layer costs in fp16: a layer that costs next to nothing is not a reason to take a useless one."""


@dataclass(frozen=True)
class Step:
    """One layer that mixed precision keeps in fp16: the bytes it costs, and its share (0…1) of all layers' noise."""

    layer: str
    bytes: int
    share: float


@dataclass(frozen=True)
class AutoResult:
    """The int8 net with its decisions; the rescaled float net, table and int8 weights it was made from; the layers
    kept in fp16, in the order chosen; what was taken, `auto` or the plain method that came closer; the SNR of all methods in
    dB on what `judged` says (as in `Rivals.best`); and what numbers of layers in fp16 lose for the task, where one is
    known."""

    quantized: Quantized
    rounded: Rounded
    steps: tuple[Step, ...]
    method: str
    methods: Mapping[str, float]
    judged: str
    tried: tuple[tuple[int, Loss], ...] = ()

    @property
    def table(self) -> Table:
        """The table of the rescaled net, or of the float one where a plain method was taken."""
        return self.rounded.table

    @property
    def centred(self) -> tuple[str, ...]:
        """Blobs that a layer of its own stores around their middle."""
        return own_layers(self.quantized.net)


def auto(
    net: Network,
    images: Iterable[Floats],
    *,
    mixed: bool = False,
    budget: float = 0.08,
    keep: Collection[str] = (),
    threads: int = 2,
    task: TaskLoss | None = None,
    progress: Progress = silent,
) -> AutoResult:
    """Quantize a float net. `images` are inputs (C, H, W), iterated twice; any object that streams them anew will do.

    `mixed` allows layers in fp16 as long as the `.bin` grows by no more than `budget` (a fraction) over pure int8; those
    in `keep` stay in fp16 whatever they cost. With a `task`, of several numbers of layers the one is taken that loses
    least of its answers on the calibration images and their mirror images.
    Raises OnnxlintError.
    """
    if not any(quantizable(layer) for layer in net.layers):
        raise OnnxlintError(printable(f"{net.path}: has no layer that can be quantized"))
    held = Held(images, lambda x: sum(count_for(one, x.shape[1:]) for one in (FITTED, JUDGES)))
    with one_blas_thread():
        extents = Extents.of(net, held, threads, progress)
        some = held.some
        check_inputs(some)
        if len(some) < FEWEST:
            judging, judged = [mirrored(x) for x in spread(some, MIRRORED)], "mirrored images"
        else:
            count = min(count_for(JUDGES, some[0].shape[1:]), len(some) // 3)
            at = set(evenly(range(len(some)), count))
            judging, judged = [some[i] for i in sorted(at)], "other calibration images"
            some = [x for i, x in enumerate(some) if i not in at]
        judge = Evaluator(net, judging, threads, outputs=True)
        rivals = Rivals(net, images, extents.stats, judge, judged, threads, progress)
        return _auto(net, some, rivals, extents, mixed, budget, frozenset(keep), threads, task, progress)


def _auto(
    net: Network,
    some: Sequence[Floats],
    rivals: Rivals,
    extents: Extents,
    mixed: bool,
    budget: float,
    keep: frozenset[str],
    threads: int,
    task: TaskLoss | None,
    progress: Progress,
) -> AutoResult:
    ranges, middles = chosen(net, some, extents, threads, progress)
    near = near_outputs([(la.bottoms, la.tops, quantizable(la)) for la in net.layers], net.outputs())
    evens = _evens(net, extents, ranges, middles, near, rivals.judge)
    steps: tuple[Step, ...] = ()
    if mixed:
        stored, halves, zeros = centre(*evens[0], middles)
        free = {name: scale for name, scale in input_scales(stored, halves).items() if name not in keep}
        steps = choose_float_layers(stored, free, some, budget=budget, zeros=zeros, threads=threads, progress=progress)

    fresh = [mirrored(x) for x in evenly(some, count_for(CORRECTING, some[0].shape[1:]))]
    by_count: dict[int, tuple[str, dict[str, float]]] = {}

    def made_with(count: int) -> tuple[Quantized, Rounded]:
        kept = keep | {step.layer for step in steps[:count]}
        found: list[tuple[Powers, tuple[Quantized, Rounded]]] = []
        for even in evens:
            stored, halves, _ = centre(*even, needed(net, middles, kept))
            scales = input_scales(stored, halves)
            rounded = reconstruct(stored, scales, some, keep=kept, threads=threads, progress=progress)
            made = quantize(rounded.net, rounded.table, keep=kept, weights=rounded.weights), rounded
            powers = rivals.judge.powers(made[0].net)
            last = corrected(net, rounded, fresh, kept, threads)
            if last is not rounded:
                better = quantize(last.net, last.table, keep=kept, weights=last.weights), last
                after = rivals.judge.powers(better[0].net)
                if not after.score < powers.score - CORRECTION_COST:
                    powers, made = after, better
            found.append((powers, made))
        best, method, scores = rivals.best(*max(found, key=lambda each: each[0].score), kept)
        by_count[count] = method, scores
        return best

    tried: list[tuple[int, Loss]] = []
    answers = Answers(net, [*some, *map(mirrored, some)], task, threads) if task is not None and steps else None
    if answers is None or not answers.are_known:
        quantized, rounded = made_with(len(steps))
    else:

        def measured(count: int) -> tuple[tuple[Quantized, Rounded], Loss]:
            one = made_with(count)
            return one, answers.loss(one[0].net)

        count, (quantized, rounded), tried = least_loss(len(steps), measured)
        steps = steps[:count]
    method, methods = by_count[len(steps)]
    return AutoResult(quantized, rounded, steps, method, methods, rivals.judged, tuple(tried))


@dataclass(frozen=True)
class _Even:
    """A net whose channels are equalized.

    Attributes:
        net: It.
        ranges: Of its channels, as far as the calibration images show.
        rooms: Blob → the factor by which other images may need wider ones.
        near: Blobs near the outputs, which have `HEADROOM` at least.
        middles: As `chosen` gives them.
    """

    net: Network
    ranges: Ranges
    rooms: Mapping[str, float]
    near: Collection[str]
    middles: Middles

    def wider(self, rooms: Mapping[str, float]) -> Ranges:
        """The ranges with some room."""
        found = {}
        for name, halves in self.ranges.items():
            factor = max(HEADROOM, rooms[name]) if name in self.near else rooms[name]
            found[name] = halves * np.float32(factor)
        return found

    def score(self, judge: Evaluator, rooms: Mapping[str, float], beats: float = -math.inf) -> float:
        """What a judge says with some room and weights that are rounded to the nearest, dB; NaN below `beats`."""
        stored, halves, _ = centre(self.net, self.wider(rooms), self.middles)
        return judge.score(quantize(stored, nearest_table(stored, input_scales(stored, halves))).net, beats)


def _evens(
    net: Network, extents: Extents, ranges: Ranges, middles: Middles, near: Collection[str], judge: Evaluator
) -> list[tuple[Network, Ranges]]:
    """The net with its channels equalized, and their ranges, with room for what other images show. Beside the one that
    wholly is, one that is less, where the outputs are much closer with weights that are rounded to the nearest: which is
    better in the end, rounding shows."""
    taken: list[tuple[float, _Even]] = []
    beats = -math.inf
    for strength in STRENGTHS:
        even, factors = equalize(net, extents.channels, ranges, left=extents.rare, strength=strength)
        scaled = {name: one / factors[name] for name, one in ranges.items()}
        one = _Even(even, scaled, rooms(extents, ranges, middles, factors), near, middles)
        score = one.score(judge, dict.fromkeys(ranges, 1.0), beats)
        if not taken:
            taken, beats = [(score, one)], score + MARGIN
        elif score > beats:
            taken, beats = [taken[0], (score, one)], score
    found = []
    for score, one in taken:
        room = affordable(one.rooms, partial(one.score, judge, beats=score - ROOM_COST), score)
        found.append((one.net, one.wider(room)))
    return found


def input_scales(net: Network, peaks: Mapping[str, Floats]) -> dict[str, float]:
    """Layer → scale of its input, 127 / max |x|: one for all layers that read the same blob."""
    source = source_blobs(net)
    top: dict[str, float] = {}
    for name, peak in peaks.items():
        top[source[name]] = max(top.get(source[name], 0.0), float(peak.max()))
    out = {}
    for layer in net.layers:
        if quantizable(layer):
            largest = top[source[layer.bottoms[0]]]
            out[layer.name] = float(np.float32(127 / largest)) if largest > TINY else 1.0
    return out


# ---------------------------------------------------------------- mixed precision


def fp16_bytes(layer: Layer) -> int:
    """How many bytes more a layer takes in fp16 than in int8, without a scale for a requantized output."""
    weight = layer.blob("weight")
    assert weight is not None
    size = weight.data.size
    scales = layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else layer.integer(0)
    int8 = Blob("weight", np.zeros(size, np.int8), 0)
    half = half_blob(Blob("weight", np.zeros(size, np.float32), 0))
    return len(blob_bytes(half)) - len(blob_bytes(int8)) - 4 * (scales + 1)


def choose_float_layers(
    even: Network,
    scales: Mapping[str, float],
    images: Sequence[Floats],
    *,
    budget: float,
    table: Table | None = None,
    zeros: Mapping[str, float] | None = None,
    threads: int = 2,
    progress: Progress = silent,
) -> tuple[Step, ...]:
    """The layers with a scale to keep in fp16: those that, quantized alone, disturb the outputs most for their bytes.
    They are quantized by `table`; if there is none, each weight channel by its largest weight. `zeros` says of layers what
    they read in place of 0.

    Rounding layers against their outputs lets each make up for those before, so that freeing one of them afterwards
    only spoils the others' work. Noise of single layers, in an otherwise float net, does add up.
    """
    outputs = Outputs(even, spread(images, TRIAL_IMAGES), threads)
    layers = [layer for layer in even.layers if layer.name in scales]
    table = table or nearest_table(even, scales)
    left = int(budget * _size(quantize(even, table).net))
    readers: dict[str, list[int]] = {}
    for i, layer in enumerate(layers):
        readers.setdefault(layer.bottoms[0], []).append(i)
    noise = np.zeros((len(layers), len(outputs.heads)))
    done = 0
    for place in outputs.places(readers):
        for i in readers[place.name]:
            layer = layers[i]
            others = frozenset(scales) - {layer.name}
            alone = even.with_layers({layer.name: _unmoved(layer, table, (zeros or {}).get(layer.name, 0.0))})
            noise[i] = place.noise_of(quantize(alone, table, keep=others, rest="fp32").net)
            progress("noise of single layers", done := done + 1, len(layers))
    noise = np.where(np.isfinite(noise), np.clip(noise, *NOISE), NOISE[1])
    share = (noise / noise.sum(axis=0)).mean(axis=1)
    cost = [fp16_bytes(layer) for layer in layers]
    steps = []
    for i in sorted(range(len(layers)), key=lambda i: -share[i] / (FEW_BYTES + max(0, cost[i]))):
        if cost[i] > left:
            break  # what a smaller budget keeps, a larger one keeps as well
        if share[i] >= SMALL_SHARE:
            steps.append(Step(layers[i].name, cost[i], float(share[i])))
            left -= cost[i]
    return tuple(steps)


def _unmoved(layer: Layer, table: Table, zero: float) -> Layer:
    """The layer, which reads `zero` in place of 0, with a bias that makes up for what rounding its weights adds there."""
    weight, bias = layer.blob("weight"), layer.blob("bias")
    if not zero or bias is None:
        return layer
    assert weight is not None
    scales = table.weights[layer.name]
    integers = quantize_weights(layer, scales).reshape(len(scales), -1)
    rounded = (integers / scales[:, None]).reshape(layer.integer(0), -1)
    moved = zero * (weight.values().reshape(rounded.shape) - rounded).sum(axis=1, dtype=np.float64)
    return layer.with_blobs(Blob("bias", (bias.values() + moved).astype(np.float32)))


def _size(net: Network) -> int:
    return sum(len(blob_bytes(b)) for layer in net.layers for b in layer.blobs)
