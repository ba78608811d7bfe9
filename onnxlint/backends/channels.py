"""Cross-layer equalization: channels that must share one factor, and the factors that fill every tensor's range.

A channel that is divided by s where it is made and multiplied by s where it is read changes nothing in float, as long as
everything between is positively homogeneous: ReLU, leaky ReLU, sums, joins, pooling, interpolation. int8 has one scale
for a tensor, so channels with small ranges lose their precision; after equalization none is small.

Each backend says which channels belong together in its own format; the rest is here.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019; here along every path
of the graph instead of pairs of layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SMALLEST = 1e-3
"""The smallest factor: limits the amplification of nearly constant channels."""

RARE = 0.1
"""Part of a channel's largest value that it reaches on every other image: with less, the largest value is a rare one."""

APART = 64
"""Inputs whose ranges are held apart, to tell which channels are rarely large; of more, each so many-th together."""

FIXED = -1
"""The class of channels whose factor stays 1."""


class ChannelClasses:
    """Union-find of channels that must share one factor; classes that hold a pinned channel keep the factor 1."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pinned: set[int] = set()

    def new(self, count: int) -> Ids:
        """So many new channels, each in a class of its own."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def join(self, a: Ids, b: Ids) -> None:
        """Put each channel of `a` into one class with the channel of `b` at the same place."""
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            self._parent[self._find(i)] = self._find(j)

    def pin(self, ids: Ids) -> None:
        """The factor of these channels has to stay 1."""
        self._pinned.update(ids.tolist())

    def is_pinned(self, ids: Ids) -> bool:
        """Whether all these channels have been pinned themselves."""
        return self._pinned.issuperset(ids.tolist())

    def resolved(self, ids: Mapping[str, Ids]) -> dict[str, Ids]:
        """Value → the class of each of its channels, `FIXED` where the factor stays 1."""
        fixed = {self._find(i) for i in self._pinned}
        found = [self._find(i) for i in range(len(self._parent))]
        return {
            name: np.array([FIXED if found[i] in fixed else found[i] for i in one.tolist()], np.intp)
            for name, one in ids.items()
        }

    def _find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i


def rare(peak: Floats, usual: Floats) -> npt.NDArray[np.bool_]:
    """Whether channels are rarely large, or never.

    On the calibration images they have hardly spoken; on others they may say many times as much, and brought to the range of
    the others, they would be clipped there. (PP-OCR's text detector, calibrated on eight printed pages: 56 of 140 such
    channels exceed their largest value more than three times on a page of another kind, and 3 % of the others.)

    Args:
        peak: Largest magnitude of each channel.
        usual: The median over the images of each one's largest.
    """
    return np.asarray(usual <= RARE * peak, np.bool_)


def unscaled(peak: Floats, those: npt.NDArray[np.bool_]) -> Floats:
    """Ranges to equalize by: `those` channels have that of the largest, which leaves them as they are."""
    return np.asarray(np.where(those, peak.max(initial=0), peak), np.float32)


def log_factor(peak: Floats) -> Doubles:
    """The logarithm of the factor that brings each channel to the range of the largest one.

    Args:
        peak: Largest magnitude of each channel.
    """
    largest = max(float(peak.max()), 1e-30)
    return np.asarray(np.log(np.clip(peak.astype(np.float64) / largest, SMALLEST, None)), np.float64)


def factors(classes: Mapping[str, Ids], log_factors: Iterable[tuple[str, Doubles]]) -> dict[str, Doubles]:
    """Value → the factor s of each of its channels (new = old / s): the geometric mean of the factors that its class needs.

    Args:
        classes: As `ChannelClasses.resolved` gives them.
        log_factors: (value, logarithm of the factor wished for, for each channel); a value may come several times.
    """
    logs: dict[int, list[float]] = {}
    for name, wanted in log_factors:
        for i, one in zip(classes[name].tolist(), wanted.tolist(), strict=True):
            logs.setdefault(i, []).append(one)
    factor = {i: float(np.exp(np.mean(values))) for i, values in logs.items() if i != FIXED}
    return {name: np.array([factor.get(i, 1.0) for i in ids.tolist()], np.float64) for name, ids in classes.items()}
