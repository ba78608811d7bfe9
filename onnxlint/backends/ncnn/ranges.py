"""Ranges of single channels, chosen by what rounding them does to the outputs.

After equalization every channel fills its tensor, up to the largest value that it ever has. A channel that is mostly near
zero, such as a detector of sharp edges, then loses what counts: it is rounded as coarsely as its rarest value asks for.
Where the outputs show that, it gets a narrower range, and its rare values are clipped. Neither the error of the tensor nor
that of the next layer tells which channels these are (measured); the outputs do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnxlint.backends.channels import FIXED
from onnxlint.backends.ncnn.calibrate import Progress, silent
from onnxlint.backends.ncnn.equalize import channel_classes
from onnxlint.backends.ncnn.evaluate import heads, spread
from onnxlint.backends.ncnn.format import Network
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.rounding import TINY

Floats = npt.NDArray[np.float32]
Ranges = dict[str, Floats]

IMAGES = 4
"""How many images ranges are judged on."""

PARTS = (0.7, 0.5, 0.35, 0.25)
"""Parts of a channel's range that are tried, one after the other as long as each is better."""

SHARE = 0.03
"""Blobs with less of the noise of all keep their ranges."""

MOST_BLOBS = 5
"""How many blobs are looked into, those with most noise."""

MOST_CHANNELS = 4
"""How many channels of each, those with most noise."""

GAIN = 0.9
"""What a channel's noise has to fall to, of what it was: less is chance on a few images."""


class _Outputs:
    """The outputs of a float net, and how rounding channels of one blob disturbs them."""

    def __init__(self, net: Network, images: Sequence[Floats], threads: int) -> None:
        self._runner = Runner(net, threads=1, light=True)
        self._images = images
        self._threads = threads
        made = net.producers()
        self._heads = sorted(heads(net), key=lambda name: made[name])  # a light net forgets what was made before
        self._truth = [[np.array(y) for y in ys] for ys in self._runner.map(images, self._heads, threads)]
        self._power = np.maximum(_squares(self._truth), 1e-30)

    def blob(self, name: str) -> list[Floats]:
        """Its value for every image."""
        return [np.array(ys[0]) for ys in self._runner.map(self._images, [name], self._threads)]

    def noise(self, name: str, values: Sequence[Floats], ranges: Floats, channels: Collection[int]) -> float:
        """Noise in the outputs, as a part of their power, the mean of the heads, where `channels` of a blob are rounded
        within their `ranges`."""
        fed: Iterator[Mapping[str, Floats]] = (
            {self._runner.input: image, name: _rounded(x, ranges, channels)}
            for image, x in zip(self._images, values, strict=True)
        )
        noise = np.zeros(len(self._heads))
        for ys, truth in zip(self._runner.map(fed, self._heads, self._threads), self._truth, strict=True):
            noise += _squares([[y - t for y, t in zip(ys, truth, strict=True)]])
        return float((noise / self._power).mean())


def narrowed(
    net: Network,
    images: Sequence[Floats],
    channels: Mapping[str, int],
    peaks: Mapping[str, Floats],
    threads: int = 2,
    progress: Progress = silent,
) -> Ranges:
    """Ranges of the channels of all blobs: the peaks, or less where the outputs are closer with less.

    Args:
        net: A float net.
        images: Inputs (C, H, W); a few are used.
        channels: Blob → the number of its channels.
        peaks: Blob → max |x| of each channel, for the blobs that quantizable layers read.
        threads: How many images are computed at a time.
        progress: Called with the current action.
    """
    ranges = dict(peaks)
    outputs = _Outputs(net, spread(images, IMAGES), threads)
    noise = {}
    for done, name in enumerate(peaks, 1):
        noise[name] = outputs.noise(name, outputs.blob(name), peaks[name], range(len(peaks[name])))
        progress("noise of single blobs", done, len(peaks))
    total = sum(noise.values())
    if not np.isfinite(total):
        return ranges
    loud = sorted((name for name in noise if noise[name] > SHARE * total), key=lambda name: -noise[name])[:MOST_BLOBS]
    classes = channel_classes(net, channels)
    for done, name in enumerate(loud, 1):
        free = [i for i, one in enumerate(classes[name].tolist()) if one != FIXED]
        values = outputs.blob(name)
        if free and values[0].ndim == 3:
            ranges[name] = _of_blob(outputs, name, values, ranges[name], free, noise[name])
        progress("ranges of single channels", done, len(loud))
    return ranges


def _of_blob(
    outputs: _Outputs, name: str, values: Sequence[Floats], ranges: Floats, free: Sequence[int], noise: float
) -> Floats:
    """The ranges of a blob's channels, narrowed one after the other by the channel's own noise. As rounding errors of
    channels may cancel each other, the noise of all has to fall, too."""
    for channel, own in _loudest(outputs, name, values, ranges, free):
        best = ranges
        for part in PARTS:
            trial = ranges.copy()
            trial[channel] *= np.float32(part)
            found = outputs.noise(name, values, trial, [channel])
            if not found < GAIN * own:
                break
            best, own = trial, found
        if best is not ranges:
            found = outputs.noise(name, values, best, range(len(ranges)))
            if found < noise:
                ranges, noise = best, found
    return ranges


def _loudest(
    outputs: _Outputs, name: str, values: Sequence[Floats], ranges: Floats, free: Sequence[int]
) -> list[tuple[int, float]]:
    """The channels whose rounding disturbs the outputs most, and their noise, the loudest first: by halving groups."""
    groups = [(outputs.noise(name, values, ranges, free), list(free))]
    found: list[tuple[int, float]] = []
    while groups and len(found) < MOST_CHANNELS:
        groups.sort(key=lambda group: -group[0])
        own, group = groups.pop(0)
        if len(group) == 1:
            found.append((group[0], own))
            continue
        half = len(group) // 2
        groups += [(outputs.noise(name, values, ranges, part), part) for part in (group[:half], group[half:])]
    return found


def _rounded(x: Floats, ranges: Floats, channels: Collection[int]) -> Floats:
    out: Floats = x.copy()
    for i in channels:
        if ranges[i] > TINY:
            scale = np.float32(127 / ranges[i])
            out[i] = np.clip(np.rint(x[i] * scale), -127, 127) / scale
    return out


def _squares(outputs: Sequence[Sequence[Floats]]) -> npt.NDArray[np.float64]:
    """The sum of squares of each head."""
    sums: npt.NDArray[np.float64] = np.sum([[float(np.vdot(y, y)) for y in ys] for ys in outputs], axis=0)
    return sums
