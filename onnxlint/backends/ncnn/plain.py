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


KL_SLACK = 2.0
"""dB by which kl may be behind with the thresholds of the images that judge, which are few, to be tried with those of all,
which takes a pass over them: on ten nets these brought at most 0.9 dB more."""


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
        return self._with_histograms_of(self.images)

    @cached_property
    def _by_kl_of_judges(self) -> Table:
        return self._with_histograms_of(self.judge.images)

    def _with_histograms_of(self, images: Iterable[Floats]) -> Table:
        counted = activation_stats(
            self.net, images, histograms=True, known=self.stats, threads=self.threads, progress=self.progress
        )
        return plain_table(self.net, counted, "kl", self.threads)

    def _may_win(self, most: Powers, keep: Collection[str]) -> bool:
        """Whether kl may be closer."""
        least = most.score - KL_SLACK
        one = self.judge.powers(quantize(self.net, self._by_kl_of_judges, keep=keep).net, least)
        return len(one.noise) == len(most.noise) and one.score > least

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
        for method, make in tables.items():
            if method == "kl" and not self._may_win(most, keep):
                break
            table = make()
            made = quantize(self.net, table, keep=keep)
            one = self.judge.powers(made.net, most.score)
            if (count := len(one.noise)) < len(most.noise):
                for name, few in (("auto", found.first(count)), (method, one)):
                    scores[f"{name}, first {count} {self.judged}"] = few.score
                continue
            scores[method] = one.score
            if one.is_closer(most):
                best, taken, most = (made, Rounded(self.net, table, {})), method, one
        return best, taken, scores
