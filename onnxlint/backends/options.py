"""How artifacts are made; conversion and deployment take it as one argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.backends.task import TaskLoss


@dataclass(frozen=True)
class ConvertOptions:
    """How models are converted and quantized.

    Attributes:
        method: Calibration of activations: `auto`, or a method of the target (ncnn: kl, aciq, eq; onnxruntime: learned,
            minmax, percentile, entropy, mse; OpenVINO: these and nncf).
        mixed: Whether layers that int8 hurts may stay in floating point.
        budget: Allowed growth of the weights by `mixed`, as a fraction of the pure int8 size.
        keep: Layers or nodes that stay in floating point.
        threads: How many to use. Does not change the result.
        tools: Folder with the real tools of ncnn, used in place of ours.
        weight_bits: Of int8 weights in ONNX models and IRs, 7 or 8: 7 keeps the 16-bit sums of x86 processors without VNNI
            from overflowing.
        task: What outputs are used for, which `mixed` and `max_drop` count by; None: nothing is known.
        max_drop: Conditions on the images that are held out (`found>=0.99`): the cheapest file is made that keeps them.
        holdout: Part of the images, from 0 to 1, that nothing is calibrated on; 0: none.
        engine: Where activations are measured: `local`, or `ray` as for `onnxlint check`. Does not change the result.
    """

    method: str = "auto"
    mixed: bool = False
    budget: float = 0.08
    keep: tuple[str, ...] = ()
    threads: int = 2
    tools: str | None = None
    weight_bits: int = 8
    task: TaskLoss | None = None
    max_drop: tuple[str, ...] = ()
    holdout: float = 0.0
    engine: str = "local"
