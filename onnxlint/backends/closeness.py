"""How close a converted model comes to the one that it was made from: both run on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from onnxlint.backends import Array, Session
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

WRONG_DB = 10.0
"""SNR below which an output of a float model is not inexact but wrong."""

EXACT_DB = 300.0
"""SNR of what is equal."""


def closeness(reference: Session, made: Session, inputs: Iterable[Mapping[str, Array]], name: str) -> dict[str, float]:
    """SNR of each floating-point output over all inputs, in dB; outputs are matched by order.

    Args:
        reference: The ONNX model in onnxruntime.
        made: The converted model; its inputs are in the same order.
        inputs: For the reference.
        name: Of the converted model, for errors.

    Raises:
        OnnxlintError: It does not run, or an output has another shape, or is no longer finite.
    """
    theirs = dict(zip((port.name for port in reference.inputs), (port.name for port in made.inputs), strict=True))
    sums: dict[str, tuple[float, float]] = {}
    for feeds in inputs:
        outputs = reference.run(feeds), made.run({theirs[key]: value for key, value in feeds.items()})
        for port, a, b in zip(reference.outputs, *outputs, strict=True):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
                continue
            if a.shape != b.shape:
                raise OnnxlintError(
                    f"{printable(name)}: its output {printable(port.name)!r} is {list(b.shape)}, and {list(a.shape)} in "
                    "onnxruntime"
                )
            if np.isfinite(a).all() and not np.isfinite(b).all():
                raise OnnxlintError(
                    f"{printable(name)}: its output {printable(port.name)!r} is not finite, and it is in onnxruntime"
                )
            finite = np.isfinite(a) & np.isfinite(b)
            x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
            signal, noise = sums.get(port.name, (0.0, 0.0))
            sums[port.name] = signal + float(x @ x), noise + float((x - y) @ (x - y))
    return {name: _db(signal, noise) for name, (signal, noise) in sums.items()}


def require_close(found: Mapping[str, float], name: str, runtime: str) -> None:
    """Raise if a float model computes something else than the model that it was made from.

    Args:
        found: SNR of its outputs.
        name: Of the converted model.
        runtime: That runs it.

    Raises:
        OnnxlintError: It does.
    """
    for output, ratio in found.items():
        if ratio < WRONG_DB:
            raise OnnxlintError(
                f"{printable(name)}: {runtime} computes something else: its output {printable(output)!r} has "
                f"{ratio:.1f} dB SNR against onnxruntime; not every operator of the model works there"
            )


def _db(signal: float, noise: float) -> float:
    if noise <= signal * 10 ** (-EXACT_DB / 10):
        return EXACT_DB
    return 10 * math.log10(signal / noise) if signal else -EXACT_DB


def worst(found: Mapping[str, float]) -> str:
    """The SNR of the worst output, in words: `122 dB SNR`, `bit-equal`."""
    least = min(found.values(), default=EXACT_DB)
    return "equal" if least >= EXACT_DB else f"{least:.0f} dB SNR" if least >= 60 else f"{least:.1f} dB SNR"
