"""How artifacts are made; conversion and deployment take it as one argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvertOptions:
    """How models are converted and quantized.

    Attributes:
        method: Calibration of activations: `auto`, or a method of the target (ncnn: kl, aciq, eq; onnxruntime: minmax,
            percentile, entropy).
        mixed: Whether layers that int8 hurts may stay in floating point.
        budget: Allowed growth of the weights by `mixed`, as a fraction of the pure int8 size.
        keep: Layers or nodes that stay in floating point.
        threads: How many to use. Does not change the result.
        tools: Folder with the real tools of ncnn, used in place of ours.
        weight_bits: Of int8 weights in ONNX models, 7 or 8: 7 keeps the 16-bit sums of x86 processors without VNNI from
            overflowing.
    """

    method: str = "auto"
    mixed: bool = False
    budget: float = 0.08
    keep: tuple[str, ...] = ()
    threads: int = 2
    tools: str | None = None
    weight_bits: int = 8
