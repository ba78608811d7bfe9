"""What static int8 is made by, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxlint.backends import Array, Decision
from onnxlint.backends.ort.calibrate import BINS, Histogram, Ranges, histograms
from onnxlint.backends.ort.judge import computer
from onnxlint.backends.ort.qdq import LEVELS, activations
from onnxlint.backends.outputs import mirrored
from onnxlint.backends.task import TaskLoss

METHODS = ("percentile", "minmax", "mse")
"""Candidate ranges of each value; reconstruct.py takes the one that disturbs the layers after it least."""

HOPELESS = 4.0
"""Models that are so many dB behind on a judge's first inputs are not tried on the others."""

Adapted = Callable[[onnx.ModelProto, Mapping[str, Histogram]], dict[str, Histogram]]


@dataclass(frozen=True)
class Int8:
    """A quantized model, and how it came to be.

    Attributes:
        model: The QDQ model.
        keep: Layers that stay in float, with gain and cost.
        notes: What the user should know.
        details: For the manifest.
    """

    model: onnx.ModelProto
    keep: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How a model is to be quantized.

    Attributes:
        name: Of the model, for errors.
        keep: Nodes that stay in float.
        mixed: Whether more layers may.
        budget: Bytes that these may add, as a fraction of the pure int8 file.
        levels: Largest integer of a weight.
        threads: For onnxruntime.
        task: What outputs are used for: of several numbers of layers in float, the one is taken that loses least of its
            answers on the calibration images and their mirror images.
        adapted: What the target makes of the histograms of a model's values; None: nothing.
        learned: Whether scales and weights are trained at the end; see learn.py.
    """

    name: str
    keep: frozenset[str] = frozenset()
    mixed: bool = False
    budget: float = 0.08
    levels: int = LEVELS[8]
    threads: int = 2
    task: TaskLoss | None = None
    adapted: Adapted | None = None
    learned: bool = False

    def on_target(self, model: onnx.ModelProto, found: dict[str, Histogram]) -> dict[str, Histogram]:
        """Histograms as the target makes them."""
        return self.adapted(model, found) if self.adapted is not None else found


def histograms_of(
    model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], plan: Plan, ranges: Ranges
) -> dict[str, Histogram]:
    """Of the values that are rounded, between known ranges."""
    names = activations(model, plan.keep)
    return plan.on_target(model, histograms(inputs, computer(model, names, plan.name, plan.threads), names, ranges))


def ranges_alone(model: onnx.ModelProto, plan: Plan, ranges: Ranges) -> dict[str, Histogram]:
    """Histograms of which only the ranges are known."""
    return plan.on_target(model, {key: Histogram(*ends, np.zeros(BINS)) for key, ends in ranges.items()})


def mirrors(inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The inputs, turned left to right."""
    return [{key: mirrored(value) for key, value in feeds.items()} for feeds in inputs]
