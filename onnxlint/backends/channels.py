"""Cross-layer equalization: channels that must share one factor, and the factors that fill every tensor's range.

A channel that is divided by s where it is made and multiplied by s where it is read changes nothing in float, as long as
everything between is positively homogeneous: ReLU, leaky ReLU, sums, joins, pooling, interpolation. int8 has one scale
for a tensor, so channels with small ranges lose their precision; after equalization none is small.

Each backend says which channels belong together in its own format; the rest is here.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019; here along every path
of the graph instead of pairs of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from onnxlint.backends.rounding import TINY

Ids = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SMALLEST = 1e-3
"""The smallest factor: limits the amplification of nearly constant channels."""

RARE = 0.1
"""Part of a channel's largest value that it reaches on every other image: with less, the largest value is a rare one."""

APART = 64
"""Inputs whose ranges are held apart, to tell which channels are rarely large; of more, each so many-th together."""

TOGETHER = 8
"""Values of a channel that exceed a range together, on an image that has larger ones: neighbours, as a rule."""

ROOMS = np.linspace(1, 2, 11)
"""Factors of a range that are tried."""

ROOM_COST = 0.5
"""dB that room may cost on the images at hand."""

PARTS = (1.0, 0.5)
"""Exponents of the factors that are tried: the first one that costs no more is taken."""

FEWEST_SEEN = 3
"""Images from which on they tell how much more others may show."""

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


def beyond(largest: Floats, second: Floats) -> Doubles:
    """How far each channel would exceed its range on the image that shows most of it, were that image not among those that
    the range was made from.

    Args:
        largest: Largest magnitude of each channel, over all images.
        second: That of all images but the one.
    """
    exceeded = largest.astype(np.float64) / np.maximum(second, TINY)
    return np.asarray(largest * np.clip(exceeded, 1.0, ROOMS[-1]), np.float64)


def room(sides: Iterable[tuple[Doubles, float]], step: float, elements: int, images: int) -> float:
    """By what factor to widen the range of a tensor beyond what its calibration images show: for the least squared error to
    be expected of another image, of clipping and rounding together.

    Maps of few positions have shown little of what their channels can be, and a few large values that are clipped cost more
    than coarser steps; of large maps it is the other way round. (RetinaFace, calibrated on ten images: on other photos the
    deepest layers exceed their ranges three times, and scores of large faces were 1.3 too low, 0.1 with room.)

    Args:
        sides: How far the channels may reach in one direction (see `beyond`), and where the range ends.
        step: From one integer to the next.
        elements: Of the tensor, for one image.
        images: That it was calibrated on; of fewer than `FEWEST_SEEN` nothing is known, and the factor is 1.
    """
    if images < FEWEST_SEEN:
        return 1.0
    expected = elements * (ROOMS * step) ** 2 / 12
    for reach, end in sides:
        excess = np.maximum(reach[:, None] - ROOMS * end, 0)
        expected = expected + TOGETHER / (images + 1) * (excess**2).sum(axis=0)
    return float(ROOMS[int(np.argmin(expected))])


def affordable(
    found: Mapping[str, float], score: Callable[[Mapping[str, float]], float], without: float | None = None
) -> dict[str, float]:
    """As much of the room as costs no more than `ROOM_COST`.

    Args:
        found: Value → factor of its range.
        score: The SNR of the outputs with such factors, dB.
        without: That with none, where it is known.
    """
    if max(found.values(), default=1.0) <= 1.0:
        return dict.fromkeys(found, 1.0)
    none = dict.fromkeys(found, 1.0)
    least = (score(none) if without is None else without) - ROOM_COST
    tries = ({name: factor**part for name, factor in found.items()} for part in PARTS)
    return next((one for one in tries if score(one) >= least), none)


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
