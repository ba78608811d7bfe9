"""Ranges of single channels and middles of blobs, chosen by what rounding does to the outputs.

After equalization every channel fills its tensor, up to the largest value that it ever has. A channel that is mostly near
zero, such as a detector of sharp edges, then loses what counts: it is rounded as coarsely as its rarest value asks for.
Where the outputs show that, it gets a narrower range, and its rare values are clipped. Neither the error of the tensor nor
that of the next layer tells which channels these are (measured); the outputs do.

ncnn's int8 has no zero point. Values that are mostly positive, such as those behind a leaky ReLU, a hard swish or a SiLU,
use little more than half of its numbers, unless they are stored around their middle (centre.py). Where that takes a layer
of its own, it costs no byte, but time: it is done where it gains most for its elements.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.backends.channels import APART, FIXED, Ids, beyond, rare, room
from onnxlint.backends.ncnn.calibrate import BlobStats, Progress, check_inputs, silent
from onnxlint.backends.ncnn.centre import LEVELS, absorbed, movable
from onnxlint.backends.ncnn.equalize import channel_classes
from onnxlint.backends.ncnn.evaluate import spread
from onnxlint.backends.ncnn.format import Network
from onnxlint.backends.ncnn.influence import Outputs, Place
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.run import Runner, in_order
from onnxlint.backends.ncnn.table import quantizable, source_blobs
from onnxlint.backends.outputs import count_for
from onnxlint.backends.rounding import TINY
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ranges = dict[str, Floats]
"""Blob → half of the range of each channel, which the largest integer stands for."""

Middles = dict[str, int]
"""Blob → the integer that 0 is stored as; 0 where values are stored as they are."""

IMAGES = (1, 16)
"""Fewest and most images that tell the noise of blobs. Of photos, more tell nothing else; of lines of text, few show too
little (PP-OCR's classifier on other lines: 18 dB with two, 21 with 16)."""

IMAGES_EACH = 24
"""Beyond two, one of them for so many calibration images: each is run a hundred times (of 64 small faces, 16 took 104 s of
CPU and two 28 s, and their nets were as close)."""

FEWEST_FOR_CHANNELS = 2
"""Images that ranges of single channels are judged on, at least: by one, values that others have are clipped (RFB-640 on
other photos: 1.5 dB less)."""

PIXELS = 2 * 320 * 320
"""Of all of them."""

PARTS = (0.7, 0.5, 0.35, 0.25)
"""Parts of a channel's range that are tried, one after the other as long as each is better."""

SHARE = 0.08
"""Blobs with less of the noise of all keep their ranges."""

MOST_BLOBS = 2
"""How many blobs are looked into, those with most noise."""

MOST_CHANNELS = 4
"""How many channels of each, those with most noise."""

GAIN = 0.9
"""What a channel's noise has to fall to, of what it was: less is chance on a few images."""

TRIED = (40, 64, 80, 96, 112, 120, LEVELS)
"""Integers for 0, of which the one is tried that makes ranges smallest."""

QUIET = 0.003
"""Blobs with less of the noise of all are not worth a layer that stores them around their middle."""

AT_ONCE = 1 << 17
"""Numbers that are rounded together: more would not stay in the cache."""

MULTIPLICATIONS = 200
"""Of the layers with weights, for each element that is stored around its middle by a layer of its own."""


@dataclass(frozen=True)
class Extents:
    """What calibration images show of a net.

    Attributes:
        net: The float net.
        shapes: Blob → its shape (C, …) for the first image.
        images: How many.
        lows, highs: Blob that quantizable layers read → −min and max of each channel, not below 0: padding is 0.
        reach: The same blobs → how far they may reach below and above 0 on other images (2, C); see `beyond`.
        rare: The same blobs → which channels are rarely large, or never.
    """

    net: Network
    shapes: Mapping[str, tuple[int, ...]]
    images: int
    lows: Mapping[str, Floats]
    highs: Mapping[str, Floats]
    reach: Mapping[str, Doubles]
    rare: Mapping[str, npt.NDArray[np.bool_]]

    @property
    def channels(self) -> dict[str, int]:
        """Blob → the number of its channels."""
        return {name: shape[0] for name, shape in self.shapes.items()}

    @property
    def peaks(self) -> Ranges:
        """Blob → max |x| of each channel."""
        return {name: np.maximum(low, self.highs[name]) for name, low in self.lows.items()}

    @property
    def stats(self) -> dict[str, BlobStats]:
        """Blob, seen through Split → its largest magnitude, and its size."""
        source = source_blobs(self.net)
        return {
            source[name]: BlobStats(float(peaks.max()), math.prod(self.shapes[name]))
            for name, peaks in self.peaks.items()
        }

    @classmethod
    def of(cls, net: Network, images: Iterable[Floats], threads: int = 2, progress: Progress = silent) -> Extents:
        """Measure them. Raises OnnxlintError if there are none, or a blob holds NaN or infinity.

        Args:
            net: A float net.
            images: Inputs (C, H, W), iterated once.
            threads: How many images are computed at a time.
            progress: Called with the current action.
        """
        runner = Runner(net, threads=1, light=True)
        every = [top for layer in net.layers for top in layer.tops]
        stream = iter(images)
        first = list(islice(stream, 1))
        check_inputs(first, varied=False)
        shapes = {name: y.shape for name, y in zip(every, runner.run(first[0], every), strict=True)}
        read = list(dict.fromkeys(layer.bottoms[0] for layer in net.layers if quantizable(layer)))
        single: dict[str, list[Floats]] = {name: [] for name in read}

        def ends(x: Floats) -> dict[str, Floats]:
            found: dict[str, Floats] = {}

            def look(name: str, blob: Packed) -> None:
                found[name] = _ends(blob)

            runner.visit(x, single.keys(), look)
            return found

        for done, found in enumerate(in_order(ends, chain(first, stream), threads), 1):
            for name, one in found.items():
                if not np.isfinite(one).all():
                    raise OnnxlintError(
                        printable(
                            f"{net.path}: blob '{name}' holds NaN or infinity for image {done}; check --mean and --norm"
                        )
                    )
                if done <= APART:
                    single[name].append(one)
                else:
                    np.maximum(single[name][done % APART], one, out=single[name][done % APART])
            progress("activation ranges", done, None)
        lows, highs, reach, rarely = {}, {}, {}, {}
        for name, each in single.items():
            first, second = (np.sort(each, axis=0)[-one] for one in (1, min(2, len(each))))
            lows[name], highs[name] = first
            reach[name] = beyond(first, second)
            peaks = np.max(each, axis=1)
            rarely[name] = rare(peaks.max(axis=0), np.median(peaks, axis=0))
        return cls(net, shapes, done, lows, highs, reach, rarely)


def _ends(blob: Packed) -> Floats:
    """How far each channel of a blob reaches below and above 0 (2, C)."""
    rows = blob.rows
    found = np.empty((2, rows.shape[0] * rows.shape[2]), np.float32)
    np.negative(_reduced(np.minimum, rows), out=found[0])
    found[1] = _reduced(np.maximum, rows)
    return np.asarray(np.maximum(found, 0, out=found))


def _reduced(call: np.ufunc, rows: Floats) -> Floats:
    """The smallest or largest numbers along the middle axis, in one row: first in long rows, which are compared several
    times as fast as short ones, then by halves."""
    count, places, pack = rows.shape
    side = math.isqrt(places)
    whole = places // side * side
    found = call.reduce(rows[:, :whole].reshape(count, -1, side * pack), axis=1).reshape(count, side, pack)
    if whole < places:
        found[:, : places - whole] = call(found[:, : places - whole], rows[:, whole:])
    while (left := found.shape[1]) > 1:
        half = left // 2
        folded = call(found[:, :half], found[:, half : 2 * half])
        if left % 2:
            call(folded[:, 0], found[:, -1], out=folded[:, 0])
        found = folded
    return np.asarray(found.reshape(-1))


def _noise(place: Place, ranges: Floats, middle: int, channels: Collection[int] | None = None) -> float:
    """What rounding `channels` of a blob, or all, within their `ranges` does to the outputs: noise as a part of their power,
    the mean of all outputs."""
    some = range(len(ranges)) if channels is None else channels
    return float(place.noise_with(lambda x: _rounded(x, ranges, middle, some)).mean())


def chosen(
    net: Network, images: Sequence[Floats], extents: Extents, threads: int = 2, progress: Progress = silent
) -> tuple[Ranges, Middles]:
    """The ranges of the channels of all blobs, which are their extents or less where the outputs are closer with less, and
    what 0 is stored as.

    Args:
        net: A float net.
        images: Inputs (C, H, W); a few are used.
        extents: Of all images.
        threads: How many images are computed at a time.
        progress: Called with the current action.
    """
    count = min(count_for(IMAGES, images[0].shape[1:], PIXELS), max(2, extents.images // IMAGES_EACH))
    outputs = Outputs(net, spread(images, count), threads)
    source, free = source_blobs(net), absorbed(net)
    classes = channel_classes(net, extents.channels)
    middles = {name: LEVELS if source[name] in free else 0 for name in extents.lows}
    ranges = {name: _halves(extents, name, middle, classes[name]) for name, middle in middles.items()}
    noise = {}
    for done, blob in enumerate(outputs.places(ranges), 1):
        noise[blob.name] = _noise(blob, ranges[blob.name], middles[blob.name])
        progress("noise of single blobs", done, len(ranges))
    total = sum(noise.values())
    if not np.isfinite(total):
        return ranges, middles
    for name, (middle, less) in _moved(net, outputs, extents, classes, noise, progress).items():
        middles[name], noise[name] = middle, less
        ranges[name] = _halves(extents, name, middle, classes[name])
    total = sum(noise.values())
    loud = sorted((name for name in noise if noise[name] > SHARE * total), key=lambda name: -noise[name])[:MOST_BLOBS]
    if loud and count < FEWEST_FOR_CHANNELS:
        outputs = Outputs(net, spread(images, FEWEST_FOR_CHANNELS), threads)
    for done, blob in enumerate(outputs.places(loud), 1):
        name = blob.name
        single = [i for i, one in enumerate(classes[name].tolist()) if one != FIXED]
        if single and len(blob.shape) == 3:
            ranges[name] = _of_blob(blob, ranges[name], middles[name], single)
        progress("ranges of single channels", done, len(loud))
    return ranges, middles


def rooms(extents: Extents, ranges: Ranges, middles: Middles, factors: Mapping[str, Floats]) -> dict[str, float]:
    """Blob → the factor to widen its ranges by; see `onnxlint.backends.channels.room`.

    Args:
        extents: Of the float net.
        ranges: Of its channels.
        middles: As `chosen` gives them.
        factors: Of equalization (new = old / factor).
    """
    found = {}
    source, given = source_blobs(extents.net), extents.net.inputs()
    for name, halves in ranges.items():
        if source[name] in given:  # pixels have their range
            found[name] = 1.0
            continue
        below, above = extents.reach[name]
        reach = _half(below, above, middles[name])
        largest = _half(extents.lows[name], extents.highs[name], middles[name])
        narrowed = np.minimum(halves / np.maximum(largest, TINY), 1)  # as the outputs are closer with it
        end = float((halves / factors[name]).max())
        found[name] = room(
            [(reach * narrowed / factors[name], end)],
            end / LEVELS,
            math.prod(extents.shapes[name]),
            min(extents.images, APART),
        )
    return found


def _half(below: npt.NDArray[Any], above: npt.NDArray[Any], middle: int) -> npt.NDArray[Any]:
    """Half of the range that holds values from −`below` to `above` and stores 0 as `middle`; at `LEVELS` there are none
    below."""
    halves: npt.NDArray[Any] = above / np.float32(1 + middle / LEVELS)
    return halves if middle == LEVELS else np.maximum(halves, below / np.float32(1 - middle / LEVELS))


def _halves(extents: Extents, name: str, middle: int, classes: Ids) -> Floats:
    """Half of the range of each channel of a blob that stores 0 as `middle`: equalization gives each channel its own,
    but those that it cannot scale have the largest of theirs."""
    halves = _half(extents.lows[name], extents.highs[name], middle)
    fixed = classes == FIXED
    return np.asarray(np.where(fixed, halves[fixed].max(initial=0), halves), np.float32)


def _moved(
    net: Network,
    outputs: Outputs,
    extents: Extents,
    classes: Mapping[str, Ids],
    noise: Mapping[str, float],
    progress: Progress,
) -> dict[str, tuple[int, float]]:
    """Blobs to store around their middle by a layer of its own → the integer for 0, and the noise that is left."""
    total = sum(noise.values())
    likely: dict[tuple[str, ...], int] = {}
    elements: dict[tuple[str, ...], int] = {}
    for names, copies in movable(net):
        middle, size = _middle(extents, names, classes)
        if middle and sum(noise[name] for name in names) * (1 - size) > QUIET * total:
            likely[names] = middle
            elements[names] = copies * math.prod(extents.shapes[names[0]])
    middle_of = {name: middle for names, middle in likely.items() for name in names}
    less = {}
    for done, blob in enumerate(outputs.places(middle_of), 1):
        middle = middle_of[blob.name]
        less[blob.name] = _noise(blob, _halves(extents, blob.name, middle, classes[blob.name]), middle)
        progress("values around their middle", done, len(middle_of))
    gains = {names: sum(noise[name] - less[name] for name in names) for names in likely}
    left = _multiplications(net, extents) // MULTIPLICATIONS
    taken: dict[str, tuple[int, float]] = {}
    for names in sorted(gains, key=lambda names: -gains[names] / elements[names]):
        if gains[names] > QUIET * total and elements[names] <= left:
            left -= elements[names]
            taken |= {name: (likely[names], less[name]) for name in names}
    return taken


def _middle(extents: Extents, names: Sequence[str], classes: Mapping[str, Ids]) -> tuple[int, float]:
    """The integer for 0 with which the ranges of the channels of some blobs are smallest (0: none is smaller), and what is
    left of their squares, on average."""
    least, found = float(len(names)), 0
    whole = {name: _halves(extents, name, 0, classes[name]) for name in names}
    for middle in TRIED:
        if middle == LEVELS and any(extents.lows[name].any() for name in names):
            break
        size = 0.0
        for name, before in whole.items():
            shrunk = _halves(extents, name, middle, classes[name]) / np.maximum(before, TINY)
            size += float((shrunk**2).mean())
        if size < least:
            least, found = size, middle
    return found, least / len(names)


def _multiplications(net: Network, extents: Extents) -> int:
    """What the layers with weights multiply for the first image."""
    count = 0
    for layer in net.layers:
        weight = layer.blob("weight")
        if quantizable(layer) and weight is not None:
            count += weight.data.size * math.prod(extents.shapes[layer.tops[0]][1:])
    return count


def _of_blob(blob: Place, ranges: Floats, middle: int, free: Sequence[int]) -> Floats:
    """The ranges of a blob's channels, narrowed one after the other by the channel's own noise. As rounding errors of
    channels may cancel each other, the noise of all has to fall, too."""
    noise = _noise(blob, ranges, middle)
    for channel, own in _loudest(blob, ranges, middle, free):
        best = ranges
        for shrink in PARTS:
            trial = ranges.copy()
            trial[channel] *= np.float32(shrink)
            found = _noise(blob, trial, middle, [channel])
            if not found < GAIN * own:
                break
            best, own = trial, found
        if best is not ranges:
            found = _noise(blob, best, middle)
            if found < noise:
                ranges, noise = best, found
    return ranges


def _loudest(blob: Place, ranges: Floats, middle: int, free: Sequence[int]) -> list[tuple[int, float]]:
    """The channels whose rounding disturbs the outputs most, and their noise, the loudest first: by halving groups. Noise
    of channels adds up, nearly: what one half does not make, the other one does."""
    groups = [(_noise(blob, ranges, middle, free), list(free), True)]
    found: list[tuple[int, float]] = []
    while groups and len(found) < MOST_CHANNELS:
        groups.sort(key=lambda group: -group[0])
        own, group, is_measured = groups.pop(0)
        if len(group) > 1:
            half = len(group) // 2
            first = _noise(blob, ranges, middle, group[:half])
            groups += [(first, group[:half], True), (max(own - first, 0.0), group[half:], False)]
        elif is_measured:
            found.append((group[0], own))
        else:
            groups.append((_noise(blob, ranges, middle, group), group, True))
    return found


def _rounded(x: Floats, ranges: Floats, middle: int, channels: Collection[int]) -> Floats:
    """`x` with some of its channels rounded as int8 stores them: to −127 … 127 around the middle."""
    out: Floats = x.copy()
    alive = np.array([i for i in channels if ranges[i] > TINY], np.intp)
    scales = (LEVELS / ranges[alive]).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
    wide = max(1, AT_ONCE // math.prod(x.shape[1:]))
    for first in range(0, len(alive), wide):
        some, scale = alive[first : first + wide], scales[first : first + wide]
        part = out[some]
        part *= scale
        np.rint(part, out=part)
        np.clip(part, middle - LEVELS, middle + LEVELS, out=part)
        part /= scale
        out[some] = part
    return out
