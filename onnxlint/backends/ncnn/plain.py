"""The plain methods as rivals of `auto`: one that comes closer to the float net on inputs that nothing was fitted to is
taken, so that `auto` is not worse than the methods that it is to replace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rivals:
    """Tables of a float net by the plain methods, and a judge.

    Attributes:
        net: The float net.
        tables: Method → table.
        judge: Of the outputs, and of what a Softmax makes them of, on inputs that nothing is fitted to.
        judged: What these are.
    """

    net: Network
    tables: Mapping[str, Table]
    judge: Evaluator
    judged: str

    @classmethod
    def of(
        cls,
        net: Network,
        images: Iterable[Floats],
        stats: Mapping[str, BlobStats],
        judging: Sequence[Floats],
        judged: str,
        threads: int,
        progress: Progress,
    ) -> Rivals:
        """By kl, aciq and min-max.

        Args:
            net: The float net.
            images: Calibration inputs (C, H, W).
            stats: Blob that layers read → its largest value in them.
            judging: Inputs that nothing is fitted to.
            judged: What these are.
            threads: How many images are computed at a time.
            progress: Called with the current action.
        """
        counted = activation_stats(net, images, histograms=True, known=stats, threads=threads, progress=progress)
        reads = calibrated_blobs(net)
        peaks = {name: stats[blob].peak for name, blob in reads.items()}
        scales = {name: 127 / peak if peak > TINY else 1.0 for name, peak in peaks.items()}
        tables = {
            "kl": plain_table(net, counted, "kl", threads),
            "aciq": plain_table(net, counted, "aciq", threads),
            "min-max": nearest_table(net, scales),
        }
        return cls(net, tables, Evaluator(net, judging, threads, outputs=True), judged)

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
        for method, table in self.tables.items():
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
