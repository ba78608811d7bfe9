"""The plain methods as rivals of `auto`: one that comes closer to the float net on inputs that nothing was fitted to is
taken, so that `auto` is not worse than the methods that it is to replace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxlint.backends.closeness import Powers
from onnxlint.backends.ncnn.calibrate import (
    BlobStats,
    Progress,
    activation_stats,
    calibrated_blobs,
    plain_table,
    weight_scales,
)
from onnxlint.backends.ncnn.evaluate import Evaluator
from onnxlint.backends.ncnn.format import Network
from onnxlint.backends.ncnn.quantize import Quantized, quantize
from onnxlint.backends.ncnn.reconstruct import Rounded
from onnxlint.backends.ncnn.table import Table, quantizable
from onnxlint.backends.rounding import TINY

Floats = npt.NDArray[np.float32]


def nearest_table(net: Network, scales: Mapping[str, float]) -> Table:
    """The table of a net whose inputs have these scales: each weight channel by its largest weight."""
    layers = [layer for layer in net.layers if quantizable(layer) and layer.name in scales]
    return Table(
        {layer.name: weight_scales(layer) for layer in layers},
        {name: np.asarray([scale], np.float32) for name, scale in scales.items()},
    )


OUT_OF_REACH = 5.0
"""dB by which aciq and min-max are behind where kl is not tried: it is at most 4 dB ahead of the better one (measured on
eleven nets), and takes another pass over all images."""


@dataclass(frozen=True)
class Rivals:
    """The plain methods on a float net.

    Attributes:
        net: The float net.
        images: Calibration inputs (C, H, W).
        stats: Blob that layers read → its largest value in them.
        judge: Of the outputs, and of what a Softmax makes them of, on inputs that nothing is fitted to.
        judged: What these are.
        threads: How many images are computed at a time.
        progress: Called with the current action.
    """

    net: Network
    images: Iterable[Floats]
    stats: Mapping[str, BlobStats]
    judge: Evaluator
    judged: str
    threads: int
    progress: Progress

    @cached_property
    def _by_kl(self) -> Table:
        counted = activation_stats(
            self.net, self.images, histograms=True, known=self.stats, threads=self.threads, progress=self.progress
        )
        return plain_table(self.net, counted, "kl", self.threads)

    @cached_property
    def _without_clipping(self) -> Table:
        peaks = {name: self.stats[blob].peak for name, blob in calibrated_blobs(self.net).items()}
        return nearest_table(self.net, {name: 127 / peak if peak > TINY else 1.0 for name, peak in peaks.items()})

    def best(
        self, found: Powers, ours: tuple[Quantized, Rounded], keep: Collection[str]
    ) -> tuple[tuple[Quantized, Rounded], str, dict[str, float]]:
        """`ours`, or what a plain method makes where that is closer by more than chance.

        Args:
            found: What the judge says of ours.
            ours: What `auto` made.
            keep: Layers that stay float.

        Returns:
            It, its method or `auto`, and the mean SNR of all in dB. A method that cannot come closer any more is given up:
            then the SNR is that of the first inputs, for the method and for ours.
        """
        best, taken, most = ours, "auto", found
        scores = {taken: found.score}
        tables: dict[str, Callable[[], Table]] = {
            "min-max": lambda: self._without_clipping,
            "aciq": lambda: plain_table(self.net, self.stats, "aciq"),
            "kl": lambda: self._by_kl,
        }
        is_in_reach = False
        for method, make in tables.items():
            if method == "kl" and not is_in_reach:
                break
            table = make()
            made = quantize(self.net, table, keep=keep)
            one = self.judge.powers(made.net, most.score - (0.0 if method == "kl" else OUT_OF_REACH))
            if (count := len(one.noise)) < len(most.noise):
                for name, few in (("auto", found.first(count)), (method, one)):
                    scores[f"{name}, first {count} {self.judged}"] = few.score
                continue
            is_in_reach = True
            scores[method] = one.score
            if one.is_closer(most):
                best, taken, most = (made, Rounded(self.net, table, {})), method, one
        return best, taken, scores
