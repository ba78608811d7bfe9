"""Error metrics, as sums that grow input by input, so that no input has to be kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.results import OutputAccuracy

Array = npt.NDArray[Any]

EDGES = tuple(float(edge) for edge in np.arange(-10.0, 4.01, 0.5))
"""log10 of the edges of the error histogram's bins."""

_CHUNK = 1 << 20
"""Numbers processed at a time: float64 temporaries stay below 50 MB."""


class Meter:
    """Sums in float64 over pairs of arrays of the same shape: the reference's numbers and the candidate's.

    Numbers that are equal count as no error, NaN against NaN and infinity against the same infinity included. Where only
    one of them is finite, the error is infinite.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.elements = 0
        self._signal = self._noise = self._error = self._magnitude = self._largest = self._cosines = 0.0
        self._nan = self._inf = self._inputs = 0
        self._histogram = np.zeros(len(EDGES) - 1, np.int64)

    def add(self, reference: Array, candidate: Array) -> float:
        """Take in one input's arrays.

        Returns:
            SNR of this input alone, in dB.
        """
        self.shape = reference.shape
        self._inputs += 1
        r_all, c_all = reference.reshape(-1), candidate.reshape(-1)
        signal = noise = across = c_power = 0.0
        with np.errstate(all="ignore"):
            for start in range(0, r_all.size, _CHUNK):
                r = np.asarray(r_all[start : start + _CHUNK], np.float64)
                c = np.asarray(c_all[start : start + _CHUNK], np.float64)
                error = np.abs(r - c)
                odd = ~np.isfinite(error)
                if odd.any():
                    same = (r == c) | (np.isnan(r) & np.isnan(c))
                    error[odd] = np.where(same[odd], 0.0, np.inf)
                    self._nan += int(np.isnan(c).sum())
                    self._inf += int(np.isinf(c).sum())
                    r, c = (np.where(np.isfinite(x), x, 0.0) for x in (r, c))
                signal += float(np.dot(r, r))
                noise += float(np.dot(error, error))
                across += float(np.dot(r, c))
                c_power += float(np.dot(c, c))
                self._error += float(error.sum())
                self._magnitude += float(np.abs(r).sum())
                self._largest = max(self._largest, float(error.max(initial=0.0)))
                self._histogram += _histogram(error)
        self.elements += r_all.size
        self._signal += signal
        self._noise += noise
        if noise == 0:
            self._cosines += 1.0
        elif signal > 0 and c_power > 0:
            self._cosines += max(-1.0, min(1.0, across / math.sqrt(signal) / math.sqrt(c_power)))
        return decibels(signal, noise)

    @property
    def snr_db(self) -> float:
        """Over all inputs together."""
        return decibels(self._signal, self._noise)

    def result(self, name: str, candidate: str) -> OutputAccuracy:
        """The measurements."""
        count = max(1, self.elements)
        relative = self._error / self._magnitude if self._magnitude > 0 else math.inf if self._error > 0 else 0.0
        return OutputAccuracy(
            name=name,
            candidate=candidate,
            shape=self.shape,
            elements=self.elements,
            snr_db=self.snr_db,
            cosine=self._cosines / max(1, self._inputs),
            max_abs=self._largest,
            mean_abs=self._error / count,
            relative=relative,
            nan_share=self._nan / count,
            inf_share=self._inf / count,
            histogram=tuple(self._histogram.tolist()),
            edges=EDGES,
        )


def decibels(signal: float, noise: float) -> float:
    """10·log10(signal / noise): infinite without noise, minus infinity without signal."""
    if noise == 0:
        return math.inf
    if not math.isfinite(noise) or signal == 0:
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(noise)) if math.isfinite(signal) else math.nan


def mean_db(values: Iterable[float]) -> float:
    """The mean of those that are not exact, so that one exact output does not hide the others; infinite if all are."""
    rest = [value for value in values if value != math.inf]
    return sum(rest) / len(rest) if rest else math.inf


class Ratio:
    """The SNR alone; a NaN on one side only makes it minus infinity."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0

    def add(self, reference: Array, candidate: Array) -> None:
        """Take in arrays of the same number of elements."""
        r_all, c_all = reference.reshape(-1), candidate.reshape(-1)
        with np.errstate(all="ignore"):
            for start in range(0, r_all.size, _CHUNK):
                r = r_all[start : start + _CHUNK].astype(np.float64)
                c = c_all[start : start + _CHUNK].astype(np.float64)
                finite = r if np.isfinite(r).all() else np.where(np.isfinite(r), r, 0.0)
                self._signal += float(np.dot(finite, finite))
                c -= r
                noise = float(np.dot(c, c))
                self._noise += noise if np.isfinite(noise) else _odd_noise(r, c_all[start : start + _CHUNK])

    @property
    def snr_db(self) -> float:
        """Over all that was added."""
        return decibels(self._signal, self._noise)


class ChannelScale:
    """The factors, one for each channel (axis 1), that bring a candidate nearest to the reference, by least squares."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, 0))

    def add(self, reference: Array, candidate: Array) -> None:
        """Take in arrays of the same shape (N, C, …)."""
        r = np.moveaxis(reference, 1, 0).reshape(reference.shape[1], -1).astype(np.float64)
        c = np.moveaxis(candidate, 1, 0).reshape(candidate.shape[1], -1).astype(np.float64)
        sums = np.stack([(r * r).sum(axis=1), (r * c).sum(axis=1), (c * c).sum(axis=1)])
        self._sums = sums if not self._sums.size else self._sums + sums

    @property
    def factors(self) -> npt.NDArray[np.float64]:
        """Candidate times factor is nearest to the reference; 1 for channels that say nothing, shape (C,)."""
        _, rc, cc = self._sums
        return np.where((rc > 0) & (cc > 0), rc / np.where(cc > 0, cc, 1.0), 1.0)

    @property
    def snr_db(self) -> float | None:
        """The remaining difference with these factors; None if it is NaN."""
        rr, rc, cc = self._sums
        factors = self.factors
        noise = float(np.maximum(rr - 2 * factors * rc + factors**2 * cc, 0.0).sum())
        return decibels(float(rr.sum()), noise) if np.isfinite(noise) else None


def _odd_noise(r: Array, c: Array) -> float:
    same = (r == c) | (np.isnan(r) & np.isnan(c))
    error = np.where(same, 0.0, r - c)
    return float(np.dot(error, error)) if np.isfinite(error).all() else np.inf


def _histogram(error: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    bins = len(EDGES) - 1
    step = EDGES[1] - EDGES[0]
    places = np.floor((np.log10(np.maximum(error, 10.0 ** EDGES[0])) - EDGES[0]) / step)
    return np.bincount(np.clip(places, 0, bins - 1).astype(np.int64), minlength=bins)
